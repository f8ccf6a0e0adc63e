//! The four watermarks, and who may move them.
//!
//! | mark | moved up by | relation |
//! |---|---|---|
//! | `written` | the appender | ≥ all others |
//! | `flushed` | the flusher | ≤ `written` |
//! | `confirmed` | the broker, through `Store::confirm` | ≤ `written` |
//! | `dispatched` | the dispatcher | ≤ `confirmed` (invariant *Visibility*: consumers see nothing above it) |
//!
//! Each is stored (release) after what it speaks of was done. They go back only in [`Marks::lower`] and
//! [`Marks::reset`], which the appender's thread calls while it holds the gates of flusher and dispatcher.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::{PhysicalOffset, Watermarks};

pub(crate) struct Marks {
    written: Arc<AtomicU64>,
    flushed: AtomicU64,
    confirmed: AtomicU64,
    dispatched: AtomicU64,
    /// Held while marks go back, and while `confirmed` moves: no confirmation slips in between.
    turning_back: Mutex<()>,
}

impl Marks {
    pub(crate) fn new(at: Watermarks) -> Self {
        let marks = Self {
            written: Arc::new(AtomicU64::new(at.written.0)),
            flushed: AtomicU64::new(at.flushed.0),
            confirmed: AtomicU64::new(at.confirmed.0),
            dispatched: AtomicU64::new(at.dispatched.0),
            turning_back: Mutex::new(()),
        };
        marks.snapshot().assert_ordered();
        marks
    }

    /// For the maps, which hand out nothing above it.
    pub(crate) fn shared_written(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.written)
    }

    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    pub(crate) fn flushed(&self) -> u64 {
        self.flushed.load(Ordering::Acquire)
    }

    pub(crate) fn confirmed(&self) -> u64 {
        self.confirmed.load(Ordering::Acquire)
    }

    pub(crate) fn dispatched(&self) -> u64 {
        self.dispatched.load(Ordering::Acquire)
    }

    /// All four at one moment: lower ones are read first, so that each is at most what the higher one is by then.
    pub(crate) fn snapshot(&self) -> Watermarks {
        let _still = self.turning_back.lock();
        let dispatched = PhysicalOffset(self.dispatched());
        let confirmed = PhysicalOffset(self.confirmed());
        let flushed = PhysicalOffset(self.flushed());
        Watermarks { written: PhysicalOffset(self.written()), flushed, confirmed, dispatched }
    }

    /// Appender only.
    pub(crate) fn publish_written(&self, to: u64) {
        assert!(to >= self.written(), "the log's end went back from {} to {to}", self.written());
        self.written.store(to, Ordering::Release);
    }

    /// Flusher only, behind its gate.
    pub(crate) fn publish_flushed(&self, to: u64) {
        assert!(to >= self.flushed() && to <= self.written(), "flushed to {to}, written to {}", self.written());
        self.flushed.store(to, Ordering::Release);
    }

    /// Dispatcher only, behind its gate.
    pub(crate) fn publish_dispatched(&self, to: u64) {
        let confirmed = self.confirmed();
        assert!(to >= self.dispatched() && to <= confirmed, "dispatched to {to}, confirmed to {confirmed}");
        self.dispatched.store(to, Ordering::Release);
    }

    /// Whether `confirmed` moved.
    pub(crate) fn confirm(&self, to: u64) -> bool {
        let _still = self.turning_back.lock();
        let to = to.min(self.written());
        let moved = to > self.confirmed();
        if moved {
            self.confirmed.store(to, Ordering::Release);
        }
        moved
    }

    /// The log is being cut at `to`: no mark stays above.
    pub(crate) fn lower(&self, to: u64) {
        let _turning = self.turning_back.lock();
        for mark in [&self.dispatched, &self.confirmed, &self.flushed, &*self.written] {
            mark.fetch_min(to, Ordering::AcqRel);
        }
    }

    /// The log is empty and begins at `at`.
    pub(crate) fn reset(&self, at: u64) {
        let _turning = self.turning_back.lock();
        for mark in [&self.dispatched, &self.confirmed, &self.flushed, &*self.written] {
            mark.store(at, Ordering::Release);
        }
    }
}

impl Watermarks {
    pub(crate) fn assert_ordered(&self) {
        let Self { written, flushed, confirmed, dispatched } = *self;
        assert!(
            flushed <= written && dispatched <= confirmed && confirmed <= written,
            "watermarks out of order: {self:?}"
        );
    }
}
