//! What the store's threads, its readers and the appender have in common.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::Instant;

use parking_lot::Mutex;

use crate::allocator::{self, Allocator};
use crate::commit_log::CommitLog;
use crate::fs::Fs;
use crate::index::Index;
use crate::marks::Marks;
use crate::queues::Queues;
use crate::{Config, Events, Flushes, NoSpace, StoreFailure, retention};

pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) fs: Arc<dyn Fs>,
    pub(crate) events: Arc<dyn Events>,
    pub(crate) marks: Marks,
    pub(crate) log: CommitLog,
    pub(crate) queues: Queues,
    pub(crate) index: Index,
    pub(crate) allocator: Allocator,
    /// Held while the log is written; `true` once the store is closed.
    pub(crate) closed: Mutex<bool>,
    /// Held by the flusher during a sync and its announcement. Lock order: `closed`, this, `dispatching`, `checkpointing`.
    pub(crate) flushing: Mutex<()>,
    /// Held by the dispatcher during a step and its announcement.
    pub(crate) dispatching: Mutex<()>,
    /// Held while a checkpoint is made.
    pub(crate) checkpointing: Mutex<Checkpointing>,
    /// Store timestamp of the last dispatched record, ms since 1970; 0 before the first.
    pub(crate) dispatched_timestamp_ms: AtomicI64,
    /// `dispatched` as the checkpoint on disk has it: a crash finds the log from there on.
    pub(crate) checkpointed: AtomicU64,
    pub(crate) retention: retention::State,
    pub(crate) flushes: Flushes,
    pub(crate) flusher: Wake,
    pub(crate) dispatcher: Wake,
    pub(crate) checkpointer: Wake,
    pub(crate) cleaner: Wake,
    pub(crate) stopping: AtomicBool,
    pub(crate) failure: OnceLock<Arc<StoreFailure>>,
}

/// What the checkpointer remembers from one checkpoint to the next.
pub(crate) struct Checkpointing {
    /// Consume queues are synced up to here.
    pub(crate) queues_synced: u64,
    /// `dispatched_timestamp_ms` as it was then.
    pub(crate) timestamp_ms: i64,
    /// What the queues showed then, if known.
    pub(crate) visible: Option<crate::checkpoint::Visible>,
    /// Not before this are they synced again.
    pub(crate) next_queue_sync: Instant,
    /// What the file says.
    pub(crate) written: crate::checkpoint::Checkpoint,
}

/// A thread to wake.
#[derive(Default)]
pub(crate) struct Wake(OnceLock<Thread>);

impl Wake {
    /// The thread that parks.
    pub(crate) fn set(&self, thread: Thread) {
        // Each thread is started once.
        let _first = self.0.set(thread);
    }

    /// Ends its parking, or keeps it from the next one.
    pub(crate) fn wake(&self) {
        if let Some(thread) = self.0.get() {
            thread.unpark();
        }
    }
}

impl Shared {
    pub(crate) fn root(&self) -> &Path {
        &self.config.root
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire) || self.failure.get().is_some()
    }

    /// Ends the threads.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.allocator.stop();
        for thread in self.threads() {
            thread.wake();
        }
    }

    fn threads(&self) -> [&Wake; 4] {
        [&self.flusher, &self.dispatcher, &self.checkpointer, &self.cleaner]
    }

    pub(crate) fn failure(&self) -> Option<&Arc<StoreFailure>> {
        self.failure.get()
    }

    /// Latches a failed write or sync, tells it once, and answers the first one there was.
    pub(crate) fn fail(&self, operation: &'static str, path: PathBuf, source: io::Error) -> Arc<StoreFailure> {
        let mut first = false;
        let failure = self.failure.get_or_init(|| {
            first = true;
            Arc::new(StoreFailure { operation, path, source })
        });
        if first {
            tracing::error!(%failure, "the store has failed");
            self.events.failed(failure);
            for thread in self.threads() {
                thread.wake();
            }
        }
        Arc::clone(failure)
    }

    /// What an allocation's error means for the store: either it heals, or it is final.
    pub(crate) fn allocation_failed(&self, error: allocator::Error) -> Result<Arc<NoSpace>, Arc<StoreFailure>> {
        match error {
            allocator::Error::NoSpace(no_space) => Ok(no_space),
            allocator::Error::Io(operation, path, error) => Err(self.fail(operation, path, error)),
        }
    }
}
