//! The one writer.

use std::path::Path;

use crate::{Append, AppendError, Appended, PhysicalOffset, RawError, StartError, TruncateError, Truncated};

/// The one that writes to the log. Whoever owns it decides what the log becomes.
pub struct Appender {}

impl Appender {
    /// Writes a batch with one call to the system per segment touched, and then publishes `written`. Pushes one result
    /// for each of `batch` to `out`, in order: one that failed leaves no trace, unless the failure is the store's.
    pub fn append(&mut self, _batch: &[Append], _out: &mut Vec<Result<Appended, AppendError>>) {
        todo!()
    }

    /// Writes records as they lie in another replica's log. `from` must be where this log ends; `bytes` must be whole
    /// records, up to one segment's end at most (what [`Store::read_log`](crate::Store::read_log) gives). Answers the
    /// log's new end.
    pub fn append_raw(&mut self, _from: PhysicalOffset, _bytes: &[u8]) -> Result<PhysicalOffset, RawError> {
        todo!()
    }

    /// Cuts the log at `to`, where a record must begin (or the log end); with `keep_in`, a directory, what is cut is
    /// kept there first. Durable: when it returns no crash brings the tail back, and a crash meanwhile leaves the
    /// log uncut or cut. Watermarks, consume queues and queue offsets follow.
    pub fn truncate(&mut self, _to: PhysicalOffset, _keep_in: Option<&Path>) -> Result<Truncated, TruncateError> {
        todo!()
    }

    /// Lets an empty log (new, or cut to its oldest byte) begin at `at`, a multiple of the segment size. All queues
    /// are forgotten.
    pub fn start_at(&mut self, _at: PhysicalOffset) -> Result<(), StartError> {
        todo!()
    }

    /// The number that the next message of a queue will get: counts everything written, not only what is visible.
    pub fn next_queue_offset(&self, _topic: &str, _queue_id: u32) -> crate::QueueOffset {
        todo!()
    }
}
