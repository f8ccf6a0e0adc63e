//! How far the delayed messages of each level were delivered.

use super::tables::Change;
use parking_lot::Mutex;
use std::collections::BTreeMap;

/// Delay level → offset, in the schedule topic's queue of that level, of the first message not yet delivered.
#[derive(Default)]
pub struct DelayProgress {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    levels: BTreeMap<u32, u64>,
    dirty: bool,
}

impl DelayProgress {
    /// Where delivery of a level goes on.
    pub fn get(&self, level: u32) -> u64 {
        self.inner.lock().levels.get(&level).copied().unwrap_or(0)
    }

    /// Everything before `offset` has been delivered.
    pub fn advance(&self, level: u32, offset: u64) {
        let mut inner = self.inner.lock();
        inner.levels.insert(level, offset);
        inner.dirty = true;
    }

    /// All levels, if any moved since the last call.
    pub fn take_change(&self) -> Option<Change> {
        let mut inner = self.inner.lock();
        std::mem::take(&mut inner.dirty).then(|| Change::Delay(inner.levels.clone()))
    }

    /// The metadata log didn't take the change: take it up again.
    pub fn mark(&self) {
        self.inner.lock().dirty = true;
    }

    /// Sets what the metadata log says.
    pub fn apply(&self, progress: &BTreeMap<u32, u64>) {
        self.inner.lock().levels.extend(progress);
    }

    /// Replaces everything.
    pub fn reset(&self, progress: &BTreeMap<u32, u64>) {
        *self.inner.lock() = Inner { levels: progress.clone(), dirty: false };
    }
}
