//! The checkpointer: syncs consume queues and index, and writes the checkpoint, so that the next open has little to read.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crate::StoreFailure;
use crate::allocator::is_no_space;
use crate::checkpoint::{self, Checkpoint, Visible};
use crate::queues::files::FileError;
use crate::shared::{Checkpointing, Shared};

/// Syncing thousands of queues takes long: it may take this part of the time at most.
const QUEUE_SYNC_SHARE: u32 = 20;
/// But they are synced at least so often.
const LONGEST_QUEUE_SYNC_PAUSE: Duration = Duration::from_mins(1);
/// How long a moment between two steps of the dispatcher is waited for.
const BETWEEN_STEPS: Duration = Duration::from_millis(20);

/// The thread: until stopped or failed.
pub(crate) fn run(shared: &Shared) {
    while !shared.is_stopping() {
        thread::park_timeout(shared.config.checkpoint_interval);
        if shared.is_stopping() || periodic(shared).is_err() {
            return;
        }
    }
}

pub(crate) fn periodic(shared: &Shared) -> Result<(), Arc<StoreFailure>> {
    let mut state = shared.checkpointing.lock();
    still_whole(shared)?;
    if Instant::now() >= state.next_queue_sync {
        let begun = Instant::now();
        let sync = || shared.queues.files.sync_unless(&|| shared.is_stopping());
        if !sync_queues(shared, &mut state, sync)? {
            // Whoever stops the store syncs the rest himself, and at once.
            return Ok(());
        }
        let pause = (begun.elapsed() * QUEUE_SYNC_SHARE).min(LONGEST_QUEUE_SYNC_PAUSE);
        state.next_queue_sync = begun + pause;
    }
    replace(shared, &mut state)
}

/// Syncs the consume queues and writes a checkpoint, whenever the last ones were.
pub(crate) fn now(shared: &Shared) -> Result<(), Arc<StoreFailure>> {
    let mut state = shared.checkpointing.lock();
    still_whole(shared)?;
    sync_queues(shared, &mut state, || shared.queues.files.sync().map(|()| true))?;
    replace(shared, &mut state)
}

/// Writes what may be claimed now, if that is anything new.
fn replace(shared: &Shared, state: &mut Checkpointing) -> Result<(), Arc<StoreFailure>> {
    let checkpoint = current(shared, state);
    if checkpoint == state.written {
        return Ok(());
    }
    match checkpoint::write(&*shared.fs, shared.root(), &checkpoint) {
        Ok(()) => state.written(shared, checkpoint),
        // The old one stays in force: more to read at the next open, nothing wrong.
        Err(error) if is_no_space(&error) => tracing::warn!(%error, "no space for the checkpoint"),
        Err(error) => return Err(shared.fail("replacement", shared.root().join(checkpoint::FILE), error)),
    }
    Ok(())
}

impl Checkpointing {
    /// The file says so now.
    fn written(&mut self, shared: &Shared, checkpoint: Checkpoint) {
        self.written = checkpoint;
        shared.checkpointed.store(checkpoint.dispatched, Ordering::Release);
    }
}

/// Invariant: once the store has failed its checkpoint stays as it is. A cut that failed half way is in there, and must be
/// finished by the next open.
fn still_whole(shared: &Shared) -> Result<(), Arc<StoreFailure>> {
    shared.failure().map_or(Ok(()), |failure| Err(Arc::clone(failure)))
}

/// Makes consume queues and index durable up to what is dispatched by now, the queues by `sync`; whether all of them are.
pub(crate) fn sync_queues(
    shared: &Shared,
    state: &mut Checkpointing,
    sync: impl FnOnce() -> Result<bool, FileError>,
) -> Result<bool, Arc<StoreFailure>> {
    // First the mark, then the files: whatever is below the mark was written to one of them before.
    let (dispatched, timestamp_ms, visible) = position(shared);
    if !sync().map_err(|(path, error)| shared.fail("fsync", path, error))? {
        return Ok(false);
    }
    shared.index.sync().map_err(|(path, error)| shared.fail("fsync", path, error))?;
    state.queues_synced = dispatched;
    state.timestamp_ms = timestamp_ms;
    state.visible = visible;
    Ok(true)
}

/// What is dispatched, the last record's store timestamp, and what the queues show just then: `None` where no moment was
/// found between two steps of the dispatcher, and of the cleaner. (They are not waited for: a truncation that holds them
/// waits for us.)
fn position(shared: &Shared) -> (u64, i64, Option<Visible>) {
    let cleaner = shared.retention.deleting.try_lock();
    let between_steps = shared.dispatching.try_lock_for(BETWEEN_STEPS);
    let dispatched = shared.marks.dispatched();
    let timestamp_ms = shared.dispatched_timestamp_ms.load(Ordering::Acquire);
    let visible = cleaner
        .zip(between_steps)
        .map(|_held| Visible { messages: shared.queues.visible(), oldest: shared.log.oldest() });
    (dispatched, timestamp_ms, visible)
}

/// What may be claimed now.
pub(crate) fn current(shared: &Shared, state: &Checkpointing) -> Checkpoint {
    let flushed = shared.marks.flushed();
    let all_flushed = state.queues_synced <= flushed;
    Checkpoint {
        // Messages up to this time are on disk: an Apache broker reads it so.
        timestamp_ms: if all_flushed { state.timestamp_ms } else { state.written.timestamp_ms },
        // Not more than is flushed: after a power loss units could point behind the log's end.
        dispatched: state.queues_synced.min(flushed),
        confirmed: shared.marks.confirmed(),
        flushed,
        cut: None,
        queues: shared.queues.count() as u32,
        visible: state.visible.filter(|_| all_flushed),
        index: shared.index.claim(),
        clean: false,
    }
}

/// Writes a checkpoint where that must not fail.
pub(crate) fn write(
    shared: &Shared,
    state: &mut Checkpointing,
    checkpoint: Checkpoint,
) -> Result<(), Arc<StoreFailure>> {
    still_whole(shared)?;
    let written = checkpoint::write(&*shared.fs, shared.root(), &checkpoint);
    written.map_err(|error| shared.fail("replacement", shared.root().join(checkpoint::FILE), error))?;
    state.written(shared, checkpoint);
    Ok(())
}
