//! Reading far behind the log's end, for a slave that catches up.
//!
//! Such bytes are on the disk and not in memory. They are read on a thread that may wait for it, not by the network's threads through a
//! map; one piece ahead of what is being sent; and the page cache is told to forget them afterwards, so that they don't push out the
//! log's end, which consumers and the other slaves read.

use anyhow::{Context, Result};
use gantry_store::{PhysicalOffset, ReadLog, Store};
use tokio::task::JoinHandle;

/// Bytes read at once.
const READ_BYTES: usize = 1 << 20;
/// Bytes after which the page cache is told.
const FORGET_BYTES: u64 = 8 << 20;

pub(super) struct Cold {
    store: Store,
    /// What is read already, or being read, and from where.
    ahead: Option<(u64, JoinHandle<Result<ReadLog>>)>,
    /// Sent and not forgotten yet.
    sent: Option<(u64, u64)>,
}

impl Cold {
    pub(super) fn new(store: Store) -> Self {
        Self { store, ahead: None, sent: None }
    }

    /// The piece from `from` on; begins to read the one behind it, if that is below `until`.
    pub(super) async fn read(&mut self, from: u64, until: u64) -> Result<ReadLog> {
        let reading = match self.ahead.take() {
            Some((at, reading)) if at == from => reading,
            _ => self.begin(from),
        };
        let read = reading.await.context("reading the log broke off")??;
        if let ReadLog::Bytes { next, .. } = &read
            && next.0 < until
        {
            self.ahead = Some((next.0, self.begin(next.0)));
        }
        Ok(read)
    }

    /// `[from, to)` was sent.
    pub(super) fn sent(&mut self, from: u64, to: u64) {
        let (begin, end) = self.sent.take().filter(|(_, end)| *end == from).unwrap_or((from, from));
        debug_assert_eq!(end, from, "pieces follow one another");
        if to - begin < FORGET_BYTES {
            self.sent = Some((begin, to));
            return;
        }
        self.forget(begin, to);
    }

    fn begin(&self, from: u64) -> JoinHandle<Result<ReadLog>> {
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || Ok(store.read_cold(PhysicalOffset(from), READ_BYTES)?))
    }

    fn forget(&self, from: u64, to: u64) {
        let store = self.store.clone();
        // Nobody waits for it: it is a hint.
        drop(tokio::task::spawn_blocking(move || store.forget_cached(PhysicalOffset(from), PhysicalOffset(to))));
    }
}
