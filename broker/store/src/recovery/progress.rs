//! How far a recovery is, for whoever waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Between two lines in the log.
const LINE_PAUSE: Duration = Duration::from_secs(1);

/// What [`open`](crate::open) is doing, to be read from another thread meanwhile: give a clone to
/// [`Config::recovery`](crate::Config::recovery) and keep one. All clones show the same.
#[derive(Clone, Debug, Default)]
pub struct RecoveryProgress(Arc<State>);

#[derive(Debug, Default)]
struct State {
    phase: AtomicU8,
    done_bytes: AtomicU64,
    total_bytes: AtomicU64,
    last_line: Mutex<Option<Instant>>,
}

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoveryPhase {
    /// Not begun.
    Waiting,
    /// The log is read from the last checkpoint to its end.
    ReadingLog,
    /// Consume queues are made from the log.
    BuildingQueues,
    /// The store is open.
    Done,
}

/// A [`RecoveryProgress`] at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoverySnapshot {
    /// What is being done.
    pub phase: RecoveryPhase,
    /// Bytes of the log that this phase has behind it.
    pub done_bytes: u64,
    /// Bytes that it has to do: at most, because how much of the last segment is used is only found out.
    pub total_bytes: u64,
}

impl RecoveryProgress {
    /// How far it is now.
    pub fn snapshot(&self) -> RecoverySnapshot {
        let phase = match self.0.phase.load(Ordering::Acquire) {
            0 => RecoveryPhase::Waiting,
            1 => RecoveryPhase::ReadingLog,
            2 => RecoveryPhase::BuildingQueues,
            _ => RecoveryPhase::Done,
        };
        let total_bytes = self.0.total_bytes.load(Ordering::Acquire);
        let done_bytes = self.0.done_bytes.load(Ordering::Acquire).min(total_bytes);
        RecoverySnapshot { phase, done_bytes, total_bytes }
    }

    pub(crate) fn begin(&self, phase: RecoveryPhase, total_bytes: u64) {
        self.0.done_bytes.store(0, Ordering::Release);
        self.0.total_bytes.store(total_bytes, Ordering::Release);
        self.0.phase.store(phase as u8, Ordering::Release);
        *self.0.last_line.lock() = Some(Instant::now());
    }

    /// So much of the phase is done; says so in the log once a second.
    pub(crate) fn reach(&self, done_bytes: u64) {
        self.0.done_bytes.store(done_bytes, Ordering::Release);
        let mut last_line = self.0.last_line.lock();
        if last_line.is_some_and(|last| last.elapsed() >= LINE_PAUSE) {
            let RecoverySnapshot { phase, done_bytes, total_bytes } = self.snapshot();
            let percent = done_bytes.saturating_mul(100).checked_div(total_bytes).unwrap_or(100);
            tracing::info!(?phase, done_bytes, total_bytes, percent, "recovering");
            *last_line = Some(Instant::now());
        }
    }

    pub(crate) fn finish(&self) {
        self.begin(RecoveryPhase::Done, 0);
    }
}
