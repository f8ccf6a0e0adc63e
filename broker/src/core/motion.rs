//! Whether the broker's heart beats: for whoever starts a broker again that hangs.

use std::sync::atomic::{AtomicU64, Ordering};

use gantry_replication::Millis;

use super::Core;
use super::flow::Writing;

/// Nothing here takes as long, but for the disk.
const HANGS_MS: Millis = 10_000;

/// When what must move has moved.
#[derive(Debug)]
pub(super) struct Motion {
    ticked_at: AtomicU64,
    /// Since when the writer is at one round of jobs.
    pub(super) turn: Writing,
    /// Since when it is at one that isn't an append: those wait for the disk, too.
    pub(super) carrying_out: Writing,
}

impl Motion {
    pub(super) fn new(now: Millis) -> Self {
        Self { ticked_at: AtomicU64::new(now), turn: Writing::default(), carrying_out: Writing::default() }
    }

    pub(super) fn ticked(&self, now: Millis) {
        self.ticked_at.store(now, Ordering::Relaxed);
    }
}

impl Core {
    /// Why this broker has to be started again, if it has. A disk that takes its time is no reason: that wouldn't make it faster, and
    /// the elector is who judges disks. Takes no lock.
    pub fn hangs(&self) -> Option<String> {
        let now = self.clock.now_ms();
        if self.writing.lasts_ms(now) > 0 || self.motion.carrying_out.lasts_ms(now) > 0 {
            return None;
        }
        let turn_ms = self.motion.turn.lasts_ms(now);
        if turn_ms > HANGS_MS {
            return Some(format!(
                "the log's writer is at the same sends for {turn_ms} ms, and not because of the disk"
            ));
        }
        let silent_ms = now.saturating_sub(self.motion.ticked_at.load(Ordering::Relaxed));
        (silent_ms > HANGS_MS).then(|| format!("the core's clock stands since {silent_ms} ms"))
    }
}
