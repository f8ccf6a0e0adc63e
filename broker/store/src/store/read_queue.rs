//! Reading a queue: RocketMQ's `getMessage` and its search by time.

use bytes::Bytes;

use super::cached::Source;
use super::read_log::slice;
use crate::queues::unit::{MAX_UNIT_BYTES, Unit};
use crate::queues::{Queue, place};
use crate::record::{self, Checked, Reason};
use crate::shared::Shared;
use crate::{Boundary, Damage, PhysicalOffset, QueueOffset, QueueRange, ReadError, ReadLimits, ReadQueue, ReadStatus};

/// One read looks at so many units at most, however many are filtered out.
const MAX_SCAN_UNITS: u64 = 16_000;
/// Units that are read from the file at once.
const CHUNK_UNITS: usize = 256;

pub(super) fn read_queue(
    shared: &Shared,
    topic: &str,
    queue_id: u32,
    from: QueueOffset,
    limits: ReadLimits,
    accept: impl Fn(i64) -> bool,
) -> Result<ReadQueue, ReadError> {
    read(shared, (topic, queue_id, from), limits, accept, &mut Source::Disk)
        .map(|read| read.unwrap_or_else(|| unreachable!("a read that may wait for the disk ends")))
}

/// The same, if nothing of it has to come from the disk.
pub(super) fn read_queue_cached(
    shared: &Shared,
    topic: &str,
    queue_id: u32,
    from: QueueOffset,
    limits: ReadLimits,
    accept: impl Fn(i64) -> bool,
) -> Result<Option<ReadQueue>, ReadError> {
    read(shared, (topic, queue_id, from), limits, accept, &mut Source::Memory { scratch: Vec::new() })
}

fn read(
    shared: &Shared,
    (topic, queue_id, from): (&str, u32, QueueOffset),
    limits: ReadLimits,
    accept: impl Fn(i64) -> bool,
    source: &mut Source,
) -> Result<Option<ReadQueue>, ReadError> {
    let Some(queue) = shared.queues.get(topic, queue_id) else {
        return Ok(Some(nothing(ReadStatus::NoMatchedQueue, QueueOffset(0), QueueRange::default())));
    };
    let range = queue.range();
    let QueueRange { min, max } = range;
    let (status, next) = match from {
        _ if max.0 == 0 => (ReadStatus::NoMessageInQueue, QueueOffset(0)),
        _ if from < min => (ReadStatus::OffsetTooSmall, min),
        _ if from == max => (ReadStatus::OffsetOverflowOne, from),
        _ if from > max => (ReadStatus::OffsetOverflowBadly, max),
        _ => {
            let Some(chosen) = choose(shared, &queue, from.0, limits, accept, source)? else {
                return Ok(None);
            };
            if !source.has_records(shared, &chosen)? {
                return Ok(None);
            }
            let (messages, next) = messages(shared, &queue, &chosen)?;
            let status = if !messages.is_empty() {
                ReadStatus::Found
            } else if chosen.removed {
                ReadStatus::MessageWasRemoved
            } else {
                ReadStatus::NoMatchedMessage
            };
            return Ok(Some(ReadQueue { status, messages, next: QueueOffset(next), min, max }));
        }
    };
    Ok(Some(nothing(status, next, range)))
}

fn nothing(status: ReadStatus, next: QueueOffset, QueueRange { min, max }: QueueRange) -> ReadQueue {
    ReadQueue { status, messages: Vec::new(), next, min, max }
}

/// The units that a read gives.
pub(super) struct Chosen {
    pub(super) units: Vec<Unit>,
    /// The number after what was looked at.
    next: u64,
    /// There were units whose records the log no longer has.
    removed: bool,
}

/// From the unit on that stands for message `from`: a batch in the middle of which it lies is given whole, as by RocketMQ.
fn choose(
    shared: &Shared,
    queue: &Queue,
    from: u64,
    limits: ReadLimits,
    accept: impl Fn(i64) -> bool,
    source: &Source,
) -> Result<Option<Chosen>, ReadError> {
    let (oldest, written) = (shared.log.oldest(), shared.marks.written());
    let (layout, places) = (queue.layout, queue.places());
    let mut at = match place::of(layout, places.clone(), from, |at| source.unit(shared, queue, at)) {
        Ok(at) => at,
        Err(None) => return Ok(None),
        Err(Some(error)) => return Err(error),
    };
    let end = places.end.min(at.saturating_add(MAX_SCAN_UNITS));
    let mut chosen =
        Chosen { units: Vec::with_capacity(limits.max_count.min(CHUNK_UNITS)), next: from, removed: false };
    let (mut count, mut bytes) = (0, 0);
    let mut chunk = [0; CHUNK_UNITS * MAX_UNIT_BYTES];
    while at < end {
        let wanted = ((end - at) as usize).min(CHUNK_UNITS).min(limits.max_count.max(1));
        let into = &mut chunk[..wanted * layout.unit_bytes()];
        let Some(read) = source.units(shared, queue, at, into)? else { return Ok(None) };
        if read == 0 {
            break;
        }
        for unit in layout.decode_all(at, &chunk[..read * layout.unit_bytes()]) {
            if layout.is_empty(unit) {
                let spoiled = chosen.units.is_empty() && at < queue.places().end;
                // Else the queue is being cut behind us, or there is something to give before the spoiled unit.
                let unit = Unit { first: chosen.next, ..unit };
                return if spoiled { Err(pointer(queue, unit, Reason::Zeros)) } else { Ok(Some(chosen)) };
            }
            let removed = !layout.is_blank(unit) && unit.physical < oldest;
            if removed && !can_be_removed(shared, queue, at, oldest)? {
                let spoiled = pointer(
                    queue,
                    unit,
                    Reason::Unit("the unit points below the log's oldest record, those before it don't"),
                );
                return if chosen.units.is_empty() { Err(spoiled) } else { Ok(Some(chosen)) };
            }
            chosen.removed |= removed;
            // What is in a batch only its consumer can tell.
            let wanted = unit.count > 1 || accept(unit.tags_code);
            if !removed && !layout.is_blank(unit) && wanted {
                let behind = written.saturating_sub(unit.physical);
                if limits.are_reached((count, bytes), (unit.count.into(), unit.size as usize), behind) {
                    return Ok(Some(chosen));
                }
                count += usize::from(unit.count);
                bytes += unit.size as usize;
                chosen.units.push(unit);
            }
            // Whatever spoiled units say: a reader never goes back.
            chosen.next = chosen.next.max(unit.next());
            at += 1;
        }
    }
    Ok(Some(chosen))
}

/// Whether the record of a unit that points below `oldest` was removed: then so were all before it.
fn can_be_removed(shared: &Shared, queue: &Queue, at: u64, oldest: u64) -> Result<bool, ReadError> {
    let first = shared.queues.read_one(queue, queue.places().start.min(at)).map_err(io)?;
    Ok(first.is_none_or(|first| queue.layout.is_blank(first) || first.physical < oldest))
}

/// The records that the units point to, and where to go on. One slice of the log a segment, of which the messages are
/// parts: no copy, and no allocation a message. What comes before a spoiled unit is given; a read that begins with one is an
/// error.
fn messages(shared: &Shared, queue: &Queue, chosen: &Chosen) -> Result<(Vec<Bytes>, u64), ReadError> {
    let mut messages = Vec::with_capacity(chosen.units.len());
    let mut span = Span::default();
    for unit in &chosen.units {
        let mut message = span.part(*unit);
        if message.is_none() {
            span = Span::from(shared, unit.physical)?;
            message = span.part(*unit);
        }
        if message.is_none() && unit.first >= queue.max() {
            // Cut meanwhile: a cut takes units away before records.
            return Ok((messages, unit.first));
        }
        if message.is_none() && unit.physical < shared.log.oldest() {
            // Removed meanwhile.
            continue;
        }
        match checked(queue, *unit, message.as_ref(), true) {
            Ok(_) => messages.extend(message),
            Err(error) if messages.is_empty() => return Err(error),
            Err(_told_by_the_next_read) => return Ok((messages, unit.first)),
        }
    }
    Ok((messages, chosen.next))
}

/// What can be read of a segment.
#[derive(Default)]
struct Span {
    from: u64,
    bytes: Bytes,
}

impl Span {
    /// All that is written from `from` to its segment's end; empty if that is not in the log.
    fn from(shared: &Shared, from: u64) -> Result<Self, ReadError> {
        let end = shared.log.segment_end(from).unwrap_or(from).min(shared.marks.written());
        Ok(Self { from, bytes: slice(shared, from, end.saturating_sub(from))?.unwrap_or_default() })
    }

    fn part(&self, unit: Unit) -> Option<Bytes> {
        let begin = usize::try_from(unit.physical.checked_sub(self.from)?).ok()?;
        let end = begin.checked_add(unit.size as usize)?;
        (end <= self.bytes.len()).then(|| self.bytes.slice(begin..end))
    }
}

/// Invariant *Own*: units are in log order, and what a consumer gets is the whole record of that topic, queue and number,
/// its body as it was written. Anything else is an error that names the place, never a message. (`body`: whether the body
/// is needed, and so its CRC looked at.)
fn checked(queue: &Queue, unit: Unit, message: Option<&Bytes>, body: bool) -> Result<i64, ReadError> {
    let place = PhysicalOffset(unit.physical);
    let reason = match message.map(|message| record::check(message, place, u64::MAX, body)) {
        None => Reason::Unit("the unit points past the log's end"),
        Some(Ok(Checked::Blank(_))) => Reason::Unit("the unit points to a segment's blank end"),
        Some(Ok(Checked::Record(record))) if record.size != unit.size => {
            Reason::Unit("the unit has another size than the record")
        }
        Some(Ok(Checked::Record(record))) if record.queue_id != queue.id || record.topic != &*queue.topic => {
            Reason::Unit("the record is another queue's")
        }
        Some(Ok(Checked::Record(record))) if !unit.is_of(queue.layout, &record) => {
            Reason::Unit("the record has another number in the queue")
        }
        Some(Ok(Checked::Record(record))) => return Ok(record.store_timestamp_ms),
        Some(Err(reason)) => reason,
    };
    Err(pointer(queue, unit, reason))
}

fn pointer(queue: &Queue, unit: Unit, reason: Reason) -> ReadError {
    ReadError::Pointer {
        topic: queue.topic.to_string(),
        queue_id: queue.id,
        queue_offset: QueueOffset(unit.first),
        damage: Damage { at: PhysicalOffset(unit.physical), reason },
    }
}

pub(super) fn offset_by_time(
    shared: &Shared,
    topic: &str,
    queue_id: u32,
    timestamp_ms: i64,
    boundary: Boundary,
) -> Result<QueueOffset, ReadError> {
    let Some(queue) = shared.queues.get(topic, queue_id) else { return Ok(QueueOffset(0)) };
    let (places, max) = (queue.places(), queue.max());
    let before = |place: u64| -> Result<bool, ReadError> {
        // What has no time (blank, removed, cut) is taken for old.
        let time = time_of(shared, &queue, place)?;
        Ok(time.is_none_or(|time| if boundary == Boundary::Lower { time < timestamp_ms } else { time <= timestamp_ms }))
    };
    let (mut low, mut high) = (places.start, places.end);
    while low < high {
        let middle = low.midpoint(high);
        if before(middle)? { low = middle + 1 } else { high = middle }
    }
    let place = match boundary {
        Boundary::Lower => low,
        Boundary::Upper => low.saturating_sub(1).max(places.start),
    };
    // A batch's messages have one time: the first stands for it.
    let unit = if place < places.end { shared.queues.read_one(&queue, place).map_err(io)? } else { None };
    Ok(QueueOffset(unit.map_or(max, |unit| unit.first)))
}

pub(super) fn store_time_of(
    shared: &Shared,
    topic: &str,
    queue_id: u32,
    offset: QueueOffset,
) -> Result<Option<i64>, ReadError> {
    let Some(queue) = shared.queues.get(topic, queue_id) else { return Ok(None) };
    let QueueRange { min, max } = queue.range();
    if offset < min || offset >= max {
        return Ok(None);
    }
    let read = |place| shared.queues.read_one(&queue, place).map_err(io);
    let place = place::of(queue.layout, queue.places(), offset.0, read)?;
    time_of(shared, &queue, place)
}

/// A visible unit's store timestamp; `None` for what has none: blank, removed or cut meanwhile.
fn time_of(shared: &Shared, queue: &Queue, place: u64) -> Result<Option<i64>, ReadError> {
    let unit = shared.queues.read_one(queue, place).map_err(io)?;
    let unit = unit.filter(|unit| !queue.layout.is_blank(*unit) && !queue.layout.is_empty(*unit));
    let Some(unit) = unit else { return Ok(None) };
    let Some(bytes) = slice(shared, unit.physical, u64::from(unit.size))? else { return Ok(None) };
    checked(queue, unit, Some(&bytes), false).map(Some)
}

fn io((path, source): (std::path::PathBuf, std::io::Error)) -> ReadError {
    ReadError::Io { path, source }
}
