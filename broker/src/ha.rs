//! The socket shell around replication: the master's sending side and the slave's following side, over Gantry's own frames.
//!
//! A connection is one session of one epoch: hello (who the slave is and what its log looks like), welcome (the master's epochs
//! and where the slave must cut), then appends down and cumulative acknowledgements up, neither waiting for the other.

mod beginning;
pub(crate) mod classic;
mod cold;
mod follower;
mod frame;
mod link;
mod send;
mod serve;
mod session;
mod sessions;
mod status;
mod tls;

pub use beginning::Metadata;
pub use follower::Follower;
pub use link::{Counters, Link, LinkStatus};
pub use serve::HaServer;
pub(crate) use status::View;
pub use tls::{Tls, TlsFiles};

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How many bytes each second a slave that is catching up gets at most. Its copies are one: what is set counts for all of them at once.
#[derive(Clone, Debug)]
pub struct ColdRate(Arc<AtomicU64>);

impl ColdRate {
    /// None: as fast as it goes.
    pub fn new(bytes_per_s: Option<u64>) -> Self {
        Self(Arc::new(AtomicU64::new(bytes_per_s.unwrap_or(u64::MAX))))
    }

    /// As it is now.
    pub fn get(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|rate| *rate != u64::MAX)
    }

    /// From now on.
    pub fn set(&self, bytes_per_s: Option<u64>) {
        self.0.store(bytes_per_s.unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// What both sides must know.
#[derive(Clone, Debug)]
pub struct HaConfig {
    /// The group's name; another group's replica is refused.
    pub group: String,
    /// The group's secret.
    pub token: String,
    /// How often an idle side says something.
    pub heartbeat: Duration,
    /// A slave that is silent for this long is closed, and so is one that doesn't take what is written to it.
    pub housekeeping: Duration,
    /// A slave leaves a master that is silent for this long.
    pub master_silence: Duration,
    /// Bytes of the log in one frame.
    pub batch_bytes: usize,
    /// A slave further behind than this is catching up: it is sent what is read from the files, past the page cache…
    pub cold_lag_bytes: u64,
    /// …at this rate at most.
    pub cold_rate: ColdRate,
    /// `gantryClassicHa`: serve Apache's slaves over RocketMQ's own HA protocol, which has no authentication.
    pub classic: bool,
    /// No elector says which epoch it is: a slave takes its master's word for it.
    pub undirected: bool,
    /// Both ends show certificates; none: nothing is encrypted.
    pub tls: Option<Tls>,
}

impl HaConfig {
    /// The defaults for a group and its secret.
    pub fn new(group: impl Into<String>, token: impl Into<String>) -> Self {
        Self {
            group: group.into(),
            token: token.into(),
            heartbeat: Duration::from_millis(500),
            housekeeping: Duration::from_secs(20),
            master_silence: Duration::from_secs(20),
            batch_bytes: 256 << 10,
            cold_lag_bytes: 64 << 20,
            cold_rate: ColdRate::new(Some(100 << 20)),
            classic: false,
            undirected: false,
            tls: None,
        }
    }
}
