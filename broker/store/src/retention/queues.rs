//! What retention means for consume queues.

use std::path::PathBuf;
use std::sync::Arc;

use crate::queue_numbers;
use crate::queues::files::FileError;
use crate::queues::{Queue, recover};
use crate::shared::Shared;

/// No queue shows a message below `oldest` any more; one that has none left begins where it ends.
pub(super) fn raise_minima(shared: &Shared, oldest: u64) {
    for queue in shared.queues.all() {
        // A queue at a time: consumers see new messages meanwhile.
        let _dispatcher = shared.dispatching.lock();
        // It may have become another one meanwhile.
        let queue = shared.queues.get(&queue.topic, queue.id).unwrap_or(queue);
        match recover::find_min(&shared.queues, &queue, queue.places(), oldest) {
            Ok((place, number)) => queue.raise_min(place, number),
            Err((path, error)) => {
                // Reads pass over what the log no longer has; only the number shown is too low.
                tracing::warn!(%error, path = %path.display(), "can't see where a queue begins now");
            }
        }
    }
}

/// Removes files all of whose units lie below their queue's minimum, but never a queue's last one, which says what its
/// next number is.
pub(super) fn remove_files(shared: &Shared) {
    for queue in shared.queues.all() {
        if shared.is_stopping() {
            return;
        }
        if let Err((path, error)) = remove_files_of(shared, &queue) {
            tracing::warn!(%error, path = %path.display(), "can't remove a consume queue's file; tried again");
        }
    }
}

/// See [`Store::clean_queues`](crate::Store::clean_queues).
pub(crate) fn clean_queues(shared: &Shared, keep: impl Fn(&str) -> bool) -> Result<usize, FileError> {
    let _cleaner = shared.retention.deleting.lock();
    remove_files(shared);
    let gone = |queue: &Arc<Queue>| queue.is_drained() && queue.max() > 0 && !keep(&queue.topic);
    let gone: Vec<_> = shared.queues.all().into_iter().filter(gone).collect();
    if gone.is_empty() {
        return Ok(0);
    }
    let remembered = queue_numbers::remember(shared, shared.log.oldest());
    remembered.map_err(|error| (shared.root().join(queue_numbers::FILE), error))?;
    let mut count = 0;
    for queue in gone {
        // What is dispatched from now on makes the directory anew.
        let _dispatcher = shared.dispatching.lock();
        let queue = shared.queues.get(&queue.topic, queue.id).unwrap_or(queue);
        if queue.is_drained() {
            shared.queues.files.remove_queue(&queue)?;
            let fresh = shared.queues.detached(&queue, queue.layout);
            fresh.begin_at(queue.max());
            shared.queues.put(&fresh);
            count += 1;
        }
    }
    Ok(count)
}

fn remove_files_of(shared: &Shared, queue: &Arc<Queue>) -> Result<(), FileError> {
    let places = queue.places();
    let units = shared.queues.files.units_per_file(queue.layout);
    let keep_from = (places.start / units).min(places.end.saturating_sub(1) / units);
    for file_no in shared.queues.files.before(queue, keep_from)? {
        shared.queues.files.remove(queue, file_no)?;
        // Oldest first, and durably: a crash leaves a queue without gaps.
        let directory: PathBuf = queue.directory().to_owned();
        shared.fs.sync_dir(&directory).map_err(|error| (directory, error))?;
    }
    Ok(())
}
