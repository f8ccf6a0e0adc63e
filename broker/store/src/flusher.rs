//! The flusher: makes durable what is written, and says so.
//!
//! `SYNC_FLUSH`: as soon as something is written. Whatever is written during one sync shares the next: no delay is added.
//! `ASYNC_FLUSH`: every interval. A sync that fails is final: `flushed` never moves again.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::shared::Shared;
use crate::{Flush, PhysicalOffset, StoreFailure};

/// The thread: until stopped or failed.
pub(crate) fn run(shared: &Shared) {
    while !shared.is_stopping() {
        match shared.config.flush {
            Flush::Async { interval_ms } => thread::park_timeout(Duration::from_millis(interval_ms.max(1))),
            Flush::Sync if shared.marks.flushed() == shared.marks.written() => thread::park(),
            Flush::Sync => {}
        }
        if shared.is_stopping() || flush(shared).is_err() {
            return;
        }
    }
}

/// Syncs everything that is written by now. Each segment's directory entry is durable since before its first byte.
pub(crate) fn flush(shared: &Shared) -> Result<(), Arc<StoreFailure>> {
    let _gate = shared.flushing.lock();
    if let Some(failure) = shared.failure() {
        return Err(Arc::clone(failure));
    }
    let (flushed, written) = (shared.marks.flushed(), shared.marks.written());
    if flushed == written {
        return Ok(());
    }
    let began = Instant::now();
    for segment in shared.log.overlapping(flushed, written) {
        segment.file.sync_data().map_err(|error| shared.fail("fdatasync", segment.path.clone(), error))?;
    }
    shared.flushes.micros.observe(began.elapsed().as_micros() as u64);
    shared.flushes.bytes.observe(written - flushed);
    shared.marks.publish_flushed(written);
    shared.events.flushed(PhysicalOffset(written));
    Ok(())
}
