//! The one writer.
//!
//! A batch is encoded into one buffer and written with one `pwrite` for each segment it touches; `written` is published
//! when all of it is in the files. Queue numbers and offsets are given away here and nowhere else.

mod raw;
mod truncate;

use std::path::Path;
use std::sync::Arc;

use parking_lot::MutexGuard;
use smallvec::SmallVec;

use crate::queue_numbers;
use crate::queue_offsets::QueueOffsets;
use crate::record::{self, BLANK_BYTES, Placement};
use crate::segment::Segment;
use crate::shared::Shared;
use crate::store::Handle;
use crate::{
    Append, AppendError, Appended, Flush, NewMessage, NoSpace, PhysicalOffset, QueueNumber, QueueOffset, RawError,
    StartError, StoreFailure, TruncateError, Truncated, properties,
};

/// The buffer is written when it holds so much, however large the batch…
const WRITE_BYTES: usize = 8 << 20;
/// …and given back to the system when one message made it grow larger than this.
const KEEP_BYTES: usize = 16 << 20;

/// What [`record::INNER_BASE`] takes at most: separators, its name and 20 digits. (And one before it, if that is missing.)
const BASE_PROPERTY_BYTES: usize = 3 + record::INNER_BASE.len() + 20;

/// The one that writes to the log. Whoever owns it decides what the log becomes.
pub struct Appender {
    handle: Arc<Handle>,
    queue_offsets: QueueOffsets,
    /// The segment that holds `end`; `None` when the log ends where a segment does (or is new).
    active: Option<Arc<Segment>>,
    /// Encoded and not yet written: the log's bytes up to `end`.
    buffer: Vec<u8>,
    /// Where the log ends, once the buffer is written.
    end: u64,
    /// The segment after the active one was asked for.
    next_prepared: bool,
}

/// Why the log can't be written.
enum Stop {
    NoSpace(Arc<NoSpace>),
    Failed(Arc<StoreFailure>),
    Closed,
}

impl Appender {
    /// Continues the log where it ends.
    pub(crate) fn new(handle: Arc<Handle>, queue_offsets: QueueOffsets) -> Self {
        let mut appender =
            Self { handle, queue_offsets, active: None, buffer: Vec::new(), end: 0, next_prepared: false };
        appender.find_end();
        appender
    }

    /// Writes a batch with one call to the system per segment touched, and then publishes `written`. Pushes one result
    /// for each of `batch` to `out`, in order: one that failed leaves no trace, unless the failure is the store's.
    pub fn append(&mut self, batch: &[Append], out: &mut Vec<Result<Appended, AppendError>>) {
        let handle = Arc::clone(&self.handle);
        let shared = &*handle.shared;
        let first = out.len();
        let written = writable(shared).map(|_open| {
            let now_ms = shared.config.clock.now_ms();
            let mut room_error = None;
            out.extend(batch.iter().map(|append| self.encode(shared, append, now_ms, &mut room_error)));
            self.write_buffer(shared)
        });
        match written {
            Ok(Ok(())) => self.publish(shared),
            Ok(Err(failure)) => {
                for result in out[first..].iter_mut().filter(|result| result.is_ok()) {
                    *result = Err(AppendError::Failed(Arc::clone(&failure)));
                }
            }
            Err(stop) => {
                let error = AppendError::from(stop);
                out.extend(batch.iter().map(|_| Err(error.clone())));
            }
        }
    }

    /// Writes records as they lie in another replica's log. `from` must be where this log ends; `bytes` must be whole
    /// records, up to one segment's end at most (what [`Store::read_log`](crate::Store::read_log) gives). Answers the
    /// log's new end.
    pub fn append_raw(&mut self, from: PhysicalOffset, bytes: &[u8]) -> Result<PhysicalOffset, RawError> {
        self.append_raw_records(from, bytes)
    }

    /// Cuts the log at `to`, where a record must begin (or the log end); with `keep_in`, a directory, what is cut is
    /// kept there first. Durable: when it returns no crash brings the tail back, and a crash meanwhile leaves the
    /// log uncut or cut. Watermarks, consume queues and queue offsets follow.
    pub fn truncate(&mut self, to: PhysicalOffset, keep_in: Option<&Path>) -> Result<Truncated, TruncateError> {
        self.truncate_log(to, keep_in)
    }

    /// Lets an empty log (new, or cut to its oldest byte) begin at `at`, a multiple of the segment size. All queues
    /// are forgotten.
    pub fn start_at(&mut self, at: PhysicalOffset) -> Result<(), StartError> {
        self.start_log_at(at)
    }

    /// Another replica's [`Store::queue_numbers`](crate::Store::queue_numbers), durably, after [`Self::start_at`]: queues that
    /// this log doesn't know go on where they are there. Numbers of queues that it knows are passed over.
    pub fn take_queue_numbers(&mut self, numbers: &[QueueNumber]) -> Result<(), StartError> {
        let handle = Arc::clone(&self.handle);
        let shared = &*handle.shared;
        let _open = writable(shared)?;
        let written = queue_numbers::replace(&*shared.fs, shared.root(), numbers);
        let failed = |error| shared.fail("replacement", shared.root().join(queue_numbers::FILE), error);
        written.map_err(|error| StartError::Failed(failed(error)))?;
        let _dispatcher = shared.dispatching.lock();
        queue_numbers::apply(numbers, &mut self.queue_offsets, &shared.queues);
        Ok(())
    }

    /// Makes the disk answer for the log's last segment, where nothing can be appended because the disk is full.
    pub fn prove_disk(&self) -> Result<(), Arc<StoreFailure>> {
        let shared = &self.handle.shared;
        let Some(last) = shared.log.last() else { return Ok(()) };
        last.file.sync_data().map_err(|error| shared.fail("fdatasync", last.path.clone(), error))
    }

    /// The number that the next message of a queue will get: counts everything written, not only what is visible.
    pub fn next_queue_offset(&self, topic: &str, queue_id: u32) -> QueueOffset {
        QueueOffset(self.queue_offsets.next(topic, queue_id))
    }

    /// Encodes one append into the buffer. `room_error` keeps the batch from asking a full disk again and again.
    fn encode(
        &mut self,
        shared: &Shared,
        append: &Append,
        now_ms: i64,
        room_error: &mut Option<Arc<NoSpace>>,
    ) -> Result<Appended, AppendError> {
        let size = checked_len(shared, append)?;
        if let Err(stop) = self.make_room(shared, size, room_error) {
            return Err(AppendError::from(stop));
        }
        let physical = PhysicalOffset(self.end);
        let mut each = SmallVec::with_capacity(append.messages.len());
        let mut first_queue_offset = None;
        let mut count = 0;
        for message in &append.messages {
            let batch = inner_batch(message);
            let messages = batch.unwrap_or(1);
            count += u32::from(messages);
            let queue_offset = QueueOffset(if record::has_queue_offset(message.sys_flag) {
                self.queue_offsets.assign(&message.topic, message.queue_id, messages)
            } else {
                0
            });
            let placement = Placement { queue_offset, physical: PhysicalOffset(self.end), store_timestamp_ms: now_ms };
            let before = self.buffer.len();
            let crc = shared.config.append_crc;
            match batch {
                Some(_) => record::encode(&with_base(message, queue_offset), placement, crc, &mut self.buffer),
                None => record::encode(message, placement, crc, &mut self.buffer),
            }
            each.push(placement.physical);
            self.end += (self.buffer.len() - before) as u64;
            first_queue_offset.get_or_insert(queue_offset);
        }
        Ok(Appended {
            first_queue_offset: first_queue_offset.unwrap_or_default(),
            physical,
            each,
            end: PhysicalOffset(self.end),
            store_timestamp_ms: now_ms,
            count,
        })
    }

    /// Sees to it that `size` bytes and a blank fit into the active segment; ends it with a blank if they don't.
    fn make_room(&mut self, shared: &Shared, size: u64, room_error: &mut Option<Arc<NoSpace>>) -> Result<(), Stop> {
        let room = self.active.as_ref().map_or(0, |active| active.end() - self.end);
        if size + BLANK_BYTES <= room {
            if self.buffer.len() >= WRITE_BYTES {
                self.write_buffer(shared).map_err(Stop::Failed)?;
            }
            return Ok(());
        }
        if let Some(no_space) = room_error {
            return Err(Stop::NoSpace(Arc::clone(no_space)));
        }
        // First the segment, then the blank: with no room on the disk, smaller messages still go to this one.
        let next = next_segment(shared, self.end + room);
        if let Err(Stop::NoSpace(no_space)) = &next {
            *room_error = Some(Arc::clone(no_space));
        }
        let next = next?;
        if room > 0 {
            record::put_blank(room as u32, &mut self.buffer);
            self.end += BLANK_BYTES;
            self.write_buffer(shared).map_err(Stop::Failed)?;
            self.end += room - BLANK_BYTES;
        }
        self.enter(shared, next);
        Ok(())
    }

    /// The next bytes go to `segment`.
    fn enter(&mut self, shared: &Shared, segment: Arc<Segment>) {
        assert!(segment.base == self.end && self.buffer.is_empty(), "a segment begins where the log ends");
        shared.log.push(Arc::clone(&segment));
        self.active = Some(segment);
        self.next_prepared = false;
    }

    /// Writes what is encoded.
    fn write_buffer(&mut self, shared: &Shared) -> Result<(), Arc<StoreFailure>> {
        if let Some(failure) = shared.failure() {
            return Err(Arc::clone(failure));
        }
        if let (Some(active), false) = (&self.active, self.buffer.is_empty()) {
            let at = self.end - self.buffer.len() as u64 - active.base;
            let written = active.file.write_all_at(&self.buffer, at);
            written.map_err(|error| shared.fail("write", active.path.clone(), error))?;
        }
        self.buffer.clear();
        if self.buffer.capacity() > KEEP_BYTES {
            self.buffer = Vec::new();
        }
        Ok(())
    }

    /// Everything up to `end` is in the files.
    fn publish(&mut self, shared: &Shared) {
        assert!(self.buffer.is_empty(), "nothing is published before it is written");
        shared.marks.publish_written(self.end);
        if shared.config.flush == Flush::Sync {
            shared.flusher.wake();
        }
        self.prepare_next(shared);
        if self.active.as_ref().is_some_and(|active| active.end() == self.end) {
            self.active = None;
        }
    }

    /// Once half of the segment is used, the next one is made ready.
    fn prepare_next(&mut self, shared: &Shared) {
        let Some(active) = self.active.as_ref().filter(|_| !self.next_prepared) else { return };
        if self.end - active.base >= active.len / 2 {
            shared.allocator.prepare(active.end());
            self.next_prepared = true;
        }
    }

    /// Takes up the log where the watermark says that it ends.
    fn find_end(&mut self) {
        let shared = &self.handle.shared;
        self.end = shared.marks.written();
        self.active = shared.log.segment(self.end);
        self.buffer.clear();
        self.next_prepared = false;
    }
}

/// Holds the store open, or says why nothing can be written.
fn writable(shared: &Shared) -> Result<MutexGuard<'_, bool>, Stop> {
    let closed = shared.closed.lock();
    match shared.failure() {
        _ if *closed => Err(Stop::Closed),
        Some(failure) => Err(Stop::Failed(Arc::clone(failure))),
        None => Ok(closed),
    }
}

fn next_segment(shared: &Shared, base: u64) -> Result<Arc<Segment>, Stop> {
    shared.allocator.take(base).map_err(|error| match shared.allocation_failed(error) {
        Ok(no_space) => {
            // What can be deleted is.
            shared.retention.no_space();
            shared.cleaner.wake();
            Stop::NoSpace(no_space)
        }
        Err(failure) => Stop::Failed(failure),
    })
}

/// An append's bytes in the log, if it can be there at all.
fn checked_len(shared: &Shared, append: &Append) -> Result<u64, AppendError> {
    if append.messages.is_empty() {
        return Err(AppendError::Invalid("an append without messages"));
    }
    let mut size = 0;
    for message in &append.messages {
        check_message(shared, message)?;
        size += record::encoded_len(message, shared.config.append_crc) + base_property_bytes(message);
    }
    at_most("batch", size, shared.config.segment_bytes - BLANK_BYTES)?;
    Ok(size)
}

fn check_message(shared: &Shared, message: &NewMessage) -> Result<(), AppendError> {
    at_most("body", message.body.len() as u64, u64::from(shared.config.max_message_bytes))?;
    at_most("topic", message.topic.len() as u64, shared.config.max_topic_bytes as u64)?;
    let properties_bytes = message.properties.len() as u64 + base_property_bytes(message);
    at_most("properties", properties_bytes, properties::MAX_BYTES as u64)?;
    let size = told_batch_size(message);
    if size.is_some_and(|size| record::batch_size(size).is_none() || !record::has_queue_offset(message.sys_flag)) {
        return Err(AppendError::Invalid(
            "a batch's INNER_NUM must be 1 to 32767, and it can't be part of a transaction",
        ));
    }
    if !record::is_topic(&message.topic) {
        return Err(AppendError::Invalid("a topic must not be empty, `.` or `..`, or hold `/` or a zero byte"));
    }
    if message.properties.last() == Some(&0) {
        return Err(AppendError::Invalid("properties must not end in a zero byte"));
    }
    if i32::try_from(message.queue_id).is_err() {
        return Err(AppendError::Invalid("a queue id must be below 2^31"));
    }
    Ok(())
}

/// The messages of its batch, if it is one that says so.
fn inner_batch(message: &NewMessage) -> Option<u16> {
    told_batch_size(message).and_then(record::batch_size)
}

/// What a batch says of how many messages it holds. Properties are looked through for batches only: few messages are one.
fn told_batch_size(message: &NewMessage) -> Option<&str> {
    is_batch(message).then(|| properties::get(&message.properties, record::INNER_NUM)).flatten()
}

fn is_batch(message: &NewMessage) -> bool {
    message.sys_flag & record::INNER_BATCH != 0
}

/// Bytes that the writer adds to the properties, at most.
fn base_property_bytes(message: &NewMessage) -> u64 {
    if is_batch(message) { BASE_PROPERTY_BYTES as u64 } else { 0 }
}

/// The batch with the number of its first message in its properties, which only the writer knows.
fn with_base(message: &NewMessage, first: QueueOffset) -> NewMessage {
    let mut properties = properties::Builder::from_encoded(&message.properties);
    properties.set(record::INNER_BASE, &first.0.to_string());
    NewMessage { properties: properties.build(), ..message.clone() }
}

fn at_most(what: &'static str, size: u64, limit: u64) -> Result<(), AppendError> {
    if size <= limit { Ok(()) } else { Err(AppendError::TooLarge { what, size, limit }) }
}

macro_rules! from_stop {
    ($($error:ident),*) => {$(
        impl From<Stop> for $error {
            fn from(stop: Stop) -> Self {
                match stop {
                    Stop::NoSpace(no_space) => Self::NoSpace(no_space),
                    Stop::Failed(failure) => Self::Failed(failure),
                    Stop::Closed => Self::Closed,
                }
            }
        }
    )*};
}

from_stop!(AppendError, RawError, StartError);
