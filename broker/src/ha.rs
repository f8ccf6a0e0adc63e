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

use std::time::Duration;

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
    /// …at this many bytes each second at most; none: as fast as it goes.
    pub cold_bytes_per_s: Option<u64>,
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
            cold_bytes_per_s: Some(100 << 20),
            classic: false,
            undirected: false,
            tls: None,
        }
    }
}
