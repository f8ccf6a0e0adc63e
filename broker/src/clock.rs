//! A monotonic clock in milliseconds, as the state machines want it.

use std::time::Instant;

use gantry_replication::Millis;

/// Milliseconds since it was made.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// Starts at 0.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Now.
    pub fn now_ms(self) -> Millis {
        self.0.elapsed().as_millis() as Millis
    }
}
