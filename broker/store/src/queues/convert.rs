//! A queue of single units becomes one of batch units, when its first record that holds a batch comes.
//!
//! Such a queue began with messages that say nothing of its kind: RocketMQ stores a message that was sent alone as it
//! would anywhere. The new units are durable before the old ones go; a crash in between leaves both, which recovery
//! ([`super::recover`]) takes as a reason to make the queues again from the log.

use std::io;
use std::sync::Arc;

use super::files::FileError;
use super::unit::Unit;
use super::{Layout, Queue};
use crate::record;
use crate::shared::Shared;

/// Units that are read and written at once.
const CHUNK_UNITS: u64 = 4096;

/// Answers the queue of batch units that is in `queue`'s place now. Behind the dispatcher's gate, with all of its units written.
pub(crate) fn to_batch(shared: &Shared, queue: &Arc<Queue>) -> Result<Arc<Queue>, FileError> {
    assert!(queue.layout == Layout::Single, "{queue:?} has batch units already");
    let fresh = shared.queues.detached(queue, Layout::Batch);
    if queue.is_drained() {
        fresh.begin_at(queue.max());
    } else {
        tracing::info!(?queue, "a queue got a batch: it becomes one of batch units");
        // What an attempt left that found the disk full may be more than what is copied now.
        shared.queues.files.remove_queue(&fresh)?;
        fresh.begin_at(queue.range().min.0);
        copy(shared, queue, &fresh)?;
        // A sync that fails is final, even for want of room: what it was to write is forgotten.
        shared.queues.files.sync().map_err(|(path, error)| (path, io::Error::other(error)))?;
    }
    shared.queues.put(&fresh);
    shared.queues.files.remove_queue(queue)?;
    Ok(fresh)
}

fn copy(shared: &Shared, queue: &Queue, fresh: &Queue) -> Result<(), FileError> {
    let places = queue.places();
    let (mut from, mut to) = (places.start, 0);
    let mut encoded = vec![0; CHUNK_UNITS as usize * queue.layout.unit_bytes()];
    while from < places.end {
        let wanted = CHUNK_UNITS.min(places.end - from) as usize * queue.layout.unit_bytes();
        let read = shared.queues.read(queue, from, &mut encoded[..wanted])?;
        if read == 0 {
            let file_no = from / shared.queues.files.units_per_file(queue.layout);
            return Err((shared.queues.files.path(queue, file_no), io::ErrorKind::UnexpectedEof.into()));
        }
        let mut units = Vec::new();
        let mut count = 0;
        for unit in queue.layout.decode_all(from, &encoded[..read * queue.layout.unit_bytes()]) {
            // A number without a message has no unit there; nor has a message that retention took.
            if let Some(unit) = with_time(shared, queue, unit)? {
                Layout::Batch.put(unit, &mut units);
                count += 1;
            }
        }
        shared.queues.write(fresh, to, &units)?;
        (from, to) = (from + read as u64, to + count);
    }
    fresh.publish(to, queue.max());
    Ok(())
}

/// The unit with what only its record says; `None` if there is none any more.
fn with_time(shared: &Shared, queue: &Queue, unit: Unit) -> Result<Option<Unit>, FileError> {
    if queue.layout.is_blank(unit) {
        return Ok(None);
    }
    let Some(bytes) = shared.log.bytes(unit.physical, unit.size as usize)? else { return Ok(None) };
    let record = record::decode(&bytes).map_err(|reason| {
        let file_no = unit.first / shared.queues.files.units_per_file(queue.layout);
        (shared.queues.files.path(queue, file_no), io::Error::other(reason))
    })?;
    Ok(Some(Unit { stored_ms: record.store_timestamp_ms, ..unit }))
}
