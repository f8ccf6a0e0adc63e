//! The socket shell around replication: the master's sending side and the slave's following side, over Gantry's own frames.
//!
//! A connection is one session of one epoch: hello (who the slave is and what its log looks like), welcome (the master's epochs
//! and where the slave must cut), then appends down and cumulative acknowledgements up, neither waiting for the other.

mod follower;
mod frame;
mod serve;
mod session;

pub use follower::Follower;
pub use serve::HaServer;

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
    /// A peer silent for this long is closed, and so is one that doesn't take what is written to it.
    pub housekeeping: Duration,
    /// Bytes of the log in one frame.
    pub batch_bytes: usize,
}
