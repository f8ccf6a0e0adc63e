//! What readers ask and get.

use std::sync::Arc;

use bytes::Bytes;

use crate::{PhysicalOffset, QueueOffset};

/// The messages of a queue that can be read: `min` is the first, `max` the one after the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueRange {
    /// The oldest message's number.
    pub min: QueueOffset,
    /// The next message's number.
    pub max: QueueOffset,
}

/// A queue and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueInfo {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its number in the topic.
    pub queue_id: u32,
    /// What can be read of it.
    pub range: QueueRange,
}

/// Where a read of a queue stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLimits {
    /// At most so many messages.
    pub max_count: usize,
    /// At most so many bytes, but one message in any case.
    pub max_bytes: usize,
    /// Tighter limits for what is probably not in memory any more.
    pub old: Option<OldLimits>,
}

/// Limits for messages that lie far behind the log's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OldLimits {
    /// So far, in bytes.
    pub behind_bytes: u64,
    /// At most so many messages, one of which is old.
    pub max_count: usize,
    /// At most so many bytes, but one message in any case.
    pub max_bytes: usize,
}

impl ReadLimits {
    /// At most so many messages, and bytes.
    pub const fn new(max_count: usize, max_bytes: usize) -> Self {
        Self { max_count, max_bytes, old: None }
    }

    /// Whether what has been taken leaves no room for a record of so many messages and bytes, `behind` bytes before the log's
    /// end.
    pub(crate) fn are_reached(
        &self,
        (count, bytes): (usize, usize),
        (more, size): (usize, usize),
        behind: u64,
    ) -> bool {
        let (mut max_count, mut max_bytes) = (self.max_count, self.max_bytes);
        if let Some(old) = self.old.filter(|old| behind > old.behind_bytes) {
            (max_count, max_bytes) = (max_count.min(old.max_count), max_bytes.min(old.max_bytes));
        }
        count > 0 && (bytes + size > max_bytes || count + more > max_count)
    }
}

/// RocketMQ's `GetMessageStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadStatus {
    /// There are messages.
    Found,
    /// All that was looked at was filtered out; go on at `next`.
    NoMatchedMessage,
    /// The log no longer has what the queue points to; go on at `next`.
    MessageWasRemoved,
    /// Below `min`, which is `next`.
    OffsetTooSmall,
    /// Exactly at `max`: nothing new yet.
    OffsetOverflowOne,
    /// Above `max`, which is `next`.
    OffsetOverflowBadly,
    /// The queue is there, and has never had a message.
    NoMessageInQueue,
    /// There is no such queue.
    NoMatchedQueue,
}

/// What a read of a queue gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadQueue {
    /// What was found; `messages` is empty unless `Found`.
    pub status: ReadStatus,
    /// Whole records as they lie in the log, not copied.
    pub messages: Vec<Bytes>,
    /// Where to go on.
    pub next: QueueOffset,
    /// The queue's oldest message.
    pub min: QueueOffset,
    /// The queue's end.
    pub max: QueueOffset,
}

/// Which messages [`Store::query`](crate::Store::query) looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query<'a> {
    /// Their topic.
    pub topic: &'a str,
    /// Their key.
    pub key: &'a str,
    /// At most so many: the newest.
    pub max_count: usize,
    /// Stored at this time or later, ms since 1970…
    pub begin_ms: i64,
    /// …and at this time or before.
    pub end_ms: i64,
}

/// What a query by key found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryResult {
    /// Whole records as they lie in the log, the newest first.
    pub records: Vec<Bytes>,
    /// When the last message of the index was stored, ms since 1970; 0 while it is empty.
    pub newest_ms: i64,
    /// Where it lies.
    pub newest_physical: PhysicalOffset,
}

/// Which message a timestamp stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundary {
    /// The first one stored at that time or later; `max` when there is none.
    Lower,
    /// The last one stored at that time or before; the first one when there is none.
    Upper,
}

/// A piece of the log for another replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadLog {
    /// Whole records as they lie in the file, within one segment.
    Bytes {
        /// Never empty.
        bytes: Bytes,
        /// Where they end: read on from here.
        next: PhysicalOffset,
    },
    /// The log no longer reaches back so far.
    Gone {
        /// The oldest byte there is.
        oldest: PhysicalOffset,
    },
    /// Nothing there yet.
    AtEnd,
}
