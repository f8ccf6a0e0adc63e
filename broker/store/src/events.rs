//! What the store tells, from its own threads.

use std::sync::Arc;

use crate::{PhysicalOffset, QueueOffset, StoreFailure};

/// Told by the store's threads as things happen.
///
/// An implementation must be quick, and must not wait for the appender's thread: a truncation waits until a
/// callback that is under way has ended, so that no stale word arrives after it.
pub trait Events: Send + Sync {
    /// Everything below `offset` is on disk. From the flusher's thread, after each successful sync.
    fn flushed(&self, offset: PhysicalOffset);

    /// These messages became visible to [`Store::read_queue`](crate::Store::read_queue), in log order. From the
    /// dispatcher's thread. After a restart some may be told again.
    fn dispatched(&self, batch: &[Dispatched]);

    /// A write or a sync failed, which is final (told once): nothing can be appended or becomes `flushed` any more.
    /// Stop the process; at the next open the log is read again.
    fn failed(&self, failure: &Arc<StoreFailure>);
}

/// A message that has its consume queue unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dispatched {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its queue.
    pub queue_id: u32,
    /// Its number in the queue; of a batch the first message's.
    pub queue_offset: QueueOffset,
    /// How many messages it stands for.
    pub count: u16,
    /// What the unit says: the tag's Java hash code, or a delayed message's delivery time in ms.
    pub tags_code: i64,
    /// Where its record begins.
    pub physical: PhysicalOffset,
    /// The record's bytes.
    pub size: u32,
}

impl Dispatched {
    /// The number of the message after it.
    pub fn next_offset(&self) -> QueueOffset {
        QueueOffset(self.queue_offset.0.saturating_add(u64::from(self.count)))
    }
}
