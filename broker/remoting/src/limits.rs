//! What bounds a connection.

use std::time::Duration;

use crate::frame::MAX_FRAME_BYTES;

/// Bounds of a connection and of a server; the defaults are RocketMQ's where it has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Largest frame in bytes, both ways, without its own length field (16 MiB).
    pub max_frame_bytes: usize,
    /// Requests of a peer that are not answered yet; at this many, reading pauses until some are. Also the bound on
    /// requests sent that wait for their answers.
    pub max_in_flight: usize,
    /// Bytes that wait to be written (64 MiB); above it, reading pauses until the peer has read.
    pub max_outbox_bytes: usize,
    /// A peer that takes nothing of what waits for it for so long is cut off (60 s).
    pub write_stall_timeout: Duration,
    /// Connections of one server (65,536); more are closed as they come.
    pub max_connections: usize,
    /// A connection with nothing read nor written for so long is closed (120 s).
    pub idle_timeout: Duration,
    /// How long [`connect`](crate::connect) tries (3 s).
    pub connect_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_frame_bytes: MAX_FRAME_BYTES,
            max_in_flight: 16 * 1024,
            max_outbox_bytes: 64 << 20,
            write_stall_timeout: Duration::from_mins(1),
            max_connections: 64 * 1024,
            idle_timeout: Duration::from_mins(2),
            connect_timeout: Duration::from_secs(3),
        }
    }
}
