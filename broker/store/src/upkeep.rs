//! What a store does behind its appender. Its own threads do it; who opened it by hand does it step by step.

use std::sync::Arc;

use crate::shared::Shared;
use crate::{StoreFailure, checkpointer, dispatcher, flusher, retention};

/// The chores of a store that [`open_by_hand`](crate::open_by_hand) opened. The same steps make the same calls to the file
/// system in the same order, in every run: for simulations.
pub struct Upkeep {
    shared: Arc<Shared>,
}

impl Upkeep {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Makes the segment ready that the appender asked for, if it did. A failure is left to the appender.
    pub fn allocate_ahead(&self) {
        self.shared.allocator.allocate_ahead();
    }

    /// Syncs everything that is written by now.
    pub fn flush(&self) -> Result<(), Arc<StoreFailure>> {
        flusher::flush(&self.shared)
    }

    /// Makes everything visible that is confirmed; less, with a warning in the log, if the disk is full.
    pub fn dispatch(&self) -> Result<(), Arc<StoreFailure>> {
        dispatcher::catch_up(&self.shared)
    }

    /// Syncs the consume queues and writes a checkpoint.
    pub fn checkpoint(&self) -> Result<(), Arc<StoreFailure>> {
        checkpointer::now(&self.shared)
    }

    /// Deletes what retention lets go now.
    pub fn clean(&self) {
        retention::round(&self.shared);
    }
}
