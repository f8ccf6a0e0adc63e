//! Reading a queue: RocketMQ's `getMessage` and its search by time.

use bytes::Bytes;

use super::read_log::slice;
use crate::queues::Queue;
use crate::queues::unit::{UNIT_BYTES, Unit};
use crate::record::{self, BORN_HOST_V6, Reason};
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
    let Some(queue) = shared.queues.get(topic, queue_id) else {
        return Ok(nothing(ReadStatus::NoMatchedQueue, QueueOffset(0), QueueRange::default()));
    };
    let range = queue.range();
    let QueueRange { min, max } = range;
    let (status, next) = match from {
        _ if max.0 == 0 => (ReadStatus::NoMessageInQueue, QueueOffset(0)),
        _ if from < min => (ReadStatus::OffsetTooSmall, min),
        _ if from == max => (ReadStatus::OffsetOverflowOne, from),
        _ if from > max => (ReadStatus::OffsetOverflowBadly, max),
        _ => {
            let chosen = choose(shared, &queue, from.0, max.0, limits, accept)?;
            let messages = messages(shared, &queue, &chosen)?;
            let status = if !messages.is_empty() {
                ReadStatus::Found
            } else if chosen.removed {
                ReadStatus::MessageWasRemoved
            } else {
                ReadStatus::NoMatchedMessage
            };
            return Ok(ReadQueue { status, messages, next: QueueOffset(chosen.next), min, max });
        }
    };
    Ok(nothing(status, next, range))
}

fn nothing(status: ReadStatus, next: QueueOffset, QueueRange { min, max }: QueueRange) -> ReadQueue {
    ReadQueue { status, messages: Vec::new(), next, min, max }
}

/// The units that a read gives.
struct Chosen {
    units: Vec<(u64, Unit)>,
    next: u64,
    /// There were units whose records the log no longer has.
    removed: bool,
}

fn choose(
    shared: &Shared,
    queue: &Queue,
    from: u64,
    max: u64,
    limits: ReadLimits,
    accept: impl Fn(i64) -> bool,
) -> Result<Chosen, ReadError> {
    let oldest = shared.log.oldest();
    let end = max.min(from.saturating_add(MAX_SCAN_UNITS));
    let mut chosen =
        Chosen { units: Vec::with_capacity(limits.max_count.min(CHUNK_UNITS)), next: from, removed: false };
    let mut bytes = 0;
    let mut chunk = [0; CHUNK_UNITS * UNIT_BYTES];
    while chosen.next < end {
        let wanted = ((end - chosen.next) as usize).min(CHUNK_UNITS).min(limits.max_count.max(1));
        let read = shared.queues.read(queue, chosen.next, &mut chunk[..wanted * UNIT_BYTES]).map_err(io)?;
        if read == 0 {
            break;
        }
        for unit in Unit::decode_all(&chunk[..read * UNIT_BYTES]) {
            if unit.is_empty() {
                // The queue is being cut behind us.
                return Ok(chosen);
            }
            let removed = !unit.is_blank() && unit.physical < oldest;
            chosen.removed |= removed;
            if !removed && !unit.is_blank() && accept(unit.tags_code) {
                let full = bytes + unit.size as usize > limits.max_bytes && !chosen.units.is_empty();
                if full || chosen.units.len() >= limits.max_count.max(1) {
                    return Ok(chosen);
                }
                bytes += unit.size as usize;
                chosen.units.push((chosen.next, unit));
            }
            chosen.next += 1;
        }
    }
    Ok(chosen)
}

/// The records that the units point to. One slice of the log a segment, of which the messages are parts: no copy, and
/// no allocation a message.
fn messages(shared: &Shared, queue: &Queue, chosen: &Chosen) -> Result<Vec<Bytes>, ReadError> {
    let mut messages = Vec::with_capacity(chosen.units.len());
    let mut rest = chosen.units.as_slice();
    while let Some((_, first)) = rest.first() {
        let Some(segment_end) = shared.log.segment_end(first.physical) else { return Ok(messages) };
        let count = rest.partition_point(|(_, unit)| unit.physical < segment_end);
        let (here, later) = rest.split_at(count.max(1));
        let span_end = here.last().map_or(first.end(), |(_, last)| last.end());
        let span = slice(shared, first.physical, span_end.saturating_sub(first.physical))?;
        // Cut or removed meanwhile: what was found before still counts.
        let Some(span) = span else { return Ok(messages) };
        for (at, unit) in here {
            let begin = unit.physical.checked_sub(first.physical).filter(|_| unit.end() <= span_end);
            let message = begin.map(|begin| span.slice(begin as usize..begin as usize + unit.size as usize));
            messages.push(checked(queue, *at, *unit, message)?);
        }
        rest = later;
    }
    Ok(messages)
}

/// Invariant: units are in log order, and each points to the record of its own number.
fn checked(queue: &Queue, at: u64, unit: Unit, message: Option<Bytes>) -> Result<Bytes, ReadError> {
    let place = PhysicalOffset(unit.physical);
    let reason = match message.as_ref().map(|message| record::decode(message)) {
        None => Reason::Structure("unit (out of order)"),
        Some(Ok(record)) if record.physical != place => Reason::Elsewhere(record.physical.0),
        Some(Ok(record)) if record.size != unit.size => Reason::Structure("size"),
        Some(Ok(record)) if record.queue_offset.0 != at || record.queue_id != queue.id => {
            Reason::Structure("queue offset")
        }
        Some(Ok(_)) => return Ok(message.unwrap_or_default()),
        Some(Err(reason)) => reason,
    };
    Err(ReadError::Pointer {
        topic: queue.topic.to_string(),
        queue_id: queue.id,
        queue_offset: QueueOffset(at),
        damage: Damage { at: place, reason },
    })
}

pub(super) fn offset_by_time(
    shared: &Shared,
    topic: &str,
    queue_id: u32,
    timestamp_ms: i64,
    boundary: Boundary,
) -> Result<QueueOffset, ReadError> {
    let Some(queue) = shared.queues.get(topic, queue_id) else { return Ok(QueueOffset(0)) };
    let QueueRange { min, max } = queue.range();
    let before = |at: u64| -> Result<bool, ReadError> {
        // What has no time (blank, removed, cut) is taken for old.
        let time = time_of(shared, &queue, at)?;
        Ok(time.is_none_or(|time| if boundary == Boundary::Lower { time < timestamp_ms } else { time <= timestamp_ms }))
    };
    let (mut low, mut high) = (min.0, max.0);
    while low < high {
        let middle = low.midpoint(high);
        if before(middle)? { low = middle + 1 } else { high = middle }
    }
    Ok(match boundary {
        Boundary::Lower => QueueOffset(low),
        Boundary::Upper => QueueOffset(low.saturating_sub(1).max(min.0)),
    })
}

pub(super) fn store_time_of(
    shared: &Shared,
    topic: &str,
    queue_id: u32,
    offset: QueueOffset,
) -> Result<Option<i64>, ReadError> {
    let Some(queue) = shared.queues.get(topic, queue_id) else { return Ok(None) };
    let QueueRange { min, max } = queue.range();
    if offset < min || offset >= max { Ok(None) } else { time_of(shared, &queue, offset.0) }
}

/// A visible message's store timestamp, read from the record's head only.
fn time_of(shared: &Shared, queue: &Queue, at: u64) -> Result<Option<i64>, ReadError> {
    const SYS_FLAG: usize = 36;
    let unit = shared.queues.read_one(queue, at).map_err(io)?;
    let Some(unit) = unit.filter(|unit| !unit.is_blank() && !unit.is_empty()) else { return Ok(None) };
    let Some(bytes) = slice(shared, unit.physical, u64::from(unit.size))? else { return Ok(None) };
    let number =
        |at: usize, len: usize| Some(bytes.get(at..at + len)?.iter().fold(0_u64, |n, &b| n << 8 | u64::from(b)));
    let born_v6 = number(SYS_FLAG, 4).is_some_and(|sys_flag| sys_flag as i32 & BORN_HOST_V6 != 0);
    Ok(number(if born_v6 { 68 } else { 56 }, 8).map(|time| time as i64))
}

fn io((path, source): (std::path::PathBuf, std::io::Error)) -> ReadError {
    ReadError::Io { path, source }
}
