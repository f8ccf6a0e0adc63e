//! A slave's connection to its master, for those who ask.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::meter::Meter;

/// See the module. Of one connection at a time.
#[derive(Debug, Default)]
pub struct Upstream {
    state: Mutex<UpstreamStatus>,
    meter: Meter,
    received: AtomicU64,
}

/// It, at a moment. Times are ms since 1970; 0: never.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamStatus {
    /// The master's HA address; empty before the first connection.
    pub address: String,
    /// Does the connection stand?
    pub connected: bool,
    /// When the master was last heard.
    pub read_at_ms: i64,
    /// When it was last told something.
    pub wrote_at_ms: i64,
    /// Bytes of the log received in the last second.
    pub bytes_per_second: u64,
}

impl Upstream {
    /// A session with the master at `address` begins.
    pub(crate) fn opened(&self, address: &str) {
        *self.state.lock() =
            UpstreamStatus { address: address.to_owned(), connected: true, ..UpstreamStatus::default() };
    }

    /// The master said something, with so many bytes of its log.
    pub(crate) fn read(&self, bytes: u64) {
        self.state.lock().read_at_ms = now_ms();
        self.meter.add(bytes);
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// It was told something.
    pub(crate) fn wrote(&self) {
        self.state.lock().wrote_at_ms = now_ms();
    }

    pub(crate) fn closed(&self) {
        self.state.lock().connected = false;
    }

    /// Bytes of masters' logs received since the start.
    pub fn received_bytes(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// How it is.
    pub fn status(&self) -> UpstreamStatus {
        UpstreamStatus { bytes_per_second: self.meter.per_second(), ..self.state.lock().clone() }
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
