//! The store as others see it: readers and watermarks.

mod cached;
mod open;
mod query;
mod read_cold;
mod read_log;
mod read_queue;

use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use parking_lot::Mutex;

pub(crate) use self::open::LOCK_FILE;
pub use self::open::{open, open_by_hand, open_on};
use crate::queues::Queue;
use crate::shared::Shared;
use crate::{
    Boundary, Disk, Flushes, OpenError, PhysicalOffset, Query, QueryResult, QueueInfo, QueueNumber, QueueOffset,
    QueueRange, ReadError, ReadLimits, ReadLog, ReadQueue, Retention, StoreFailure, queue_numbers, retention,
};

/// How far the log is, at one moment. `flushed ≤ written`, and `dispatched ≤ confirmed ≤ written`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    /// Below it everything is in the log's files, where a crash of the process can't reach it.
    pub written: PhysicalOffset,
    /// Below it everything survives a power loss.
    pub flushed: PhysicalOffset,
    /// Below it the broker has said that nothing will be taken back: consumers may see it.
    pub confirmed: PhysicalOffset,
    /// Below it everything is in the consume queues: consumers do see it.
    pub dispatched: PhysicalOffset,
}

/// The shared half of a store; cheap to clone. When the last clone and the [`Appender`](crate::Appender) are gone
/// without [`Store::close`], the threads end and files stay as after a crash.
#[derive(Clone)]
pub struct Store {
    handle: Arc<Handle>,
}

/// Ends the threads when the last user is gone.
pub(crate) struct Handle {
    pub(crate) shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// The lock file's; `None` once closed.
    lock: Mutex<Option<Box<dyn Send + Sync>>>,
}

impl Store {
    /// How far the log is.
    pub fn watermarks(&self) -> Watermarks {
        self.shared().marks.snapshot()
    }

    /// Says that nothing below `offset` will be taken back. It never goes back but by a truncation, and is cut to what
    /// is written. Must not be called with an older epoch's word after a truncation.
    pub fn confirm(&self, offset: PhysicalOffset) {
        if self.shared().marks.confirm(offset.0) {
            self.shared().dispatcher.wake();
        }
    }

    /// What syncs of the log were like since the store was opened.
    pub fn flushes(&self) -> &Flushes {
        &self.shared().flushes
    }

    /// The oldest byte of the log.
    pub fn min_offset(&self) -> PhysicalOffset {
        PhysicalOffset(self.shared().log.oldest())
    }

    /// How full the disk is, as of the last look.
    pub fn disk(&self) -> Disk {
        self.shared().retention.disk()
    }

    /// Keeps messages by other rules from now on; or says what is wrong with them. The hours stay of the time zone that they were of.
    pub fn set_retention(&self, rules: &Retention) -> Result<(), OpenError> {
        if let Some(why) = rules.flaw() {
            return Err(OpenError::Config(why));
        }
        let zone = self.shared().retention.rules().zone.clone();
        self.shared().retention.set_rules(Retention { zone, ..rules.clone() });
        self.shared().cleaner.wake();
        Ok(())
    }

    /// Retention may delete what lies below `offset`: what else it says (the owner's metadata) is safe elsewhere. Nothing is
    /// deleted that wasn't released. At most what is dispatched by now; a truncation takes back what lies above it.
    pub fn release(&self, offset: PhysicalOffset) {
        let shared = self.shared();
        shared.retention.release(offset.0.min(shared.marks.dispatched()));
    }

    /// Replicas still need the log from `from` on: retention leaves it to them as long as the disk doesn't count as full. `None`:
    /// nobody needs anything.
    pub fn hold_for_replicas(&self, from: Option<PhysicalOffset>) {
        self.shared().retention.hold_for_replicas(from.map(|from| from.0));
    }

    /// Deletes expired segments now, whatever the hour, and goes on so for some rounds.
    pub fn delete_expired(&self) {
        self.shared().retention.delete_expired();
        self.shared().cleaner.wake();
    }

    /// Removes consume queues' files that hold nothing any more; of the topics that aren't to be kept the whole of queues
    /// of which nothing is left. Their next numbers are remembered. Answers how many queues went.
    pub fn clean_queues(&self, keep: impl Fn(&str) -> bool) -> Result<usize, ReadError> {
        retention::clean_queues(self.shared(), keep).map_err(|(path, source)| ReadError::Io { path, source })
    }

    /// The numbers of queues of which this log has nothing left: for a replica that begins with this log's oldest byte, see
    /// [`Appender::take_queue_numbers`](crate::Appender::take_queue_numbers).
    pub fn queue_numbers(&self) -> Result<Vec<QueueNumber>, ReadError> {
        let shared = self.shared();
        let numbers = queue_numbers::drained(&shared.queues, shared.log.oldest());
        numbers.map_err(|(path, source)| ReadError::Io { path, source })
    }

    /// The write or sync that failed, if one has.
    pub fn failure(&self) -> Option<Arc<StoreFailure>> {
        self.shared().failure().cloned()
    }

    /// The store's directory.
    pub fn root(&self) -> &Path {
        self.shared().root()
    }

    /// What can be read of a queue; 0 to 0 for one that isn't there.
    pub fn queue_range(&self, topic: &str, queue_id: u32) -> QueueRange {
        self.shared().queues.get(topic, queue_id).map_or_else(QueueRange::default, |queue| queue.range())
    }

    /// Every queue that has or had a message, sorted by topic and number.
    pub fn queues(&self) -> Vec<QueueInfo> {
        let info =
            |queue: Arc<Queue>| QueueInfo { topic: Arc::clone(&queue.topic), queue_id: queue.id, range: queue.range() };
        self.shared().queues.all().into_iter().map(info).collect()
    }

    /// Every topic that has or had a message, sorted.
    pub fn topics(&self) -> Vec<Arc<str>> {
        let mut topics: Vec<_> = self.shared().queues.all().into_iter().map(|queue| Arc::clone(&queue.topic)).collect();
        topics.dedup();
        topics
    }

    /// Messages of a queue from `from` on whose tags code `accept` takes: RocketMQ's `getMessage`.
    pub fn read_queue(
        &self,
        topic: &str,
        queue_id: u32,
        from: QueueOffset,
        limits: ReadLimits,
        accept: impl Fn(i64) -> bool,
    ) -> Result<ReadQueue, ReadError> {
        read_queue::read_queue(self.shared(), topic, queue_id, from, limits, accept)
    }

    /// [`Store::read_queue`], if nothing that it needs has to come from the disk; else `None`, and nobody has waited. For
    /// threads that must not wait.
    pub fn read_queue_cached(
        &self,
        topic: &str,
        queue_id: u32,
        from: QueueOffset,
        limits: ReadLimits,
        accept: impl Fn(i64) -> bool,
    ) -> Result<Option<ReadQueue>, ReadError> {
        read_queue::read_queue_cached(self.shared(), topic, queue_id, from, limits, accept)
    }

    /// The message of a queue that a time stands for, see [`Boundary`]. Store timestamps are taken to grow.
    pub fn offset_by_time(
        &self,
        topic: &str,
        queue_id: u32,
        timestamp_ms: i64,
        boundary: Boundary,
    ) -> Result<QueueOffset, ReadError> {
        read_queue::offset_by_time(self.shared(), topic, queue_id, timestamp_ms, boundary)
    }

    /// When a message was stored, ms since 1970; `None` if the queue doesn't have it.
    pub fn store_time_of(&self, topic: &str, queue_id: u32, offset: QueueOffset) -> Result<Option<i64>, ReadError> {
        read_queue::store_time_of(self.shared(), topic, queue_id, offset)
    }

    /// When the queue's oldest message was stored, ms since 1970; `None` if it has none.
    pub fn earliest_store_time(&self, topic: &str, queue_id: u32) -> Result<Option<i64>, ReadError> {
        self.store_time_of(topic, queue_id, self.queue_range(topic, queue_id).min)
    }

    /// Messages that have a key: their unique one, or a word of their KEYS. RocketMQ's `queryMessage`. Reads the log wherever they
    /// lie, so it may take as long as the disk does.
    pub fn query(&self, query: &Query<'_>) -> Result<QueryResult, ReadError> {
        query::query(self.shared(), query)
    }

    /// The whole record that begins at `physical`, if there is one and it is dispatched (visible).
    pub fn record_at(&self, physical: PhysicalOffset) -> Option<Bytes> {
        read_log::record_at(self.shared(), physical)
    }

    /// Whole records as they lie in the file, from `from` (a record's beginning) on: as many as `max_bytes` hold, at
    /// least one, at most to the segment's end. A blank comes with all that it fills. Not only what is confirmed: for
    /// replication.
    pub fn read_log(&self, from: PhysicalOffset, max_bytes: usize) -> Result<ReadLog, ReadError> {
        read_log::read_log(self.shared(), from, max_bytes)
    }

    /// As [`Self::read_log`], but read from the file and not through a map: for much that nobody else will read soon. May wait for
    /// the disk.
    pub fn read_cold(&self, from: PhysicalOffset, max_bytes: usize) -> Result<ReadLog, ReadError> {
        read_cold::read_cold(self.shared(), from, max_bytes)
    }

    /// Tells the page cache that `[from, to)` of the log won't be read soon. Only a hint; what isn't on disk yet stays.
    pub fn forget_cached(&self, from: PhysicalOffset, to: PhysicalOffset) {
        read_cold::forget_cached(self.shared(), from, to);
    }

    /// The log's bytes from `from` on, wherever a record may begin: at most `max_bytes`, at most to the segment's end. For
    /// peers who count in bytes. Not only what is confirmed.
    pub fn read_bytes(&self, from: PhysicalOffset, max_bytes: usize) -> Result<ReadLog, ReadError> {
        read_log::read_bytes(self.shared(), from, max_bytes)
    }

    /// Bytes of a segment (`mappedFileSizeCommitLog`): where the log may begin, and what replicas must agree in.
    pub fn segment_bytes(&self) -> u64 {
        self.shared().config.segment_bytes
    }

    /// Ends the store: nothing is appended any more, everything is flushed and the checkpoint written. The next open
    /// finds a clean stop. Its threads have ended and the lock is given back when it returns; reading goes on working.
    /// Calling it again does nothing. Must not be called from an [`Events`] callback.
    pub fn close(&self) -> Result<(), Arc<StoreFailure>> {
        self.handle.close()
    }

    fn shared(&self) -> &Shared {
        &self.handle.shared
    }
}

impl Handle {
    fn stop_threads(&self) {
        self.shared.stop();
        for handle in self.threads.lock().drain(..) {
            // A callback that held the last clone of the store ends here, on one of its own threads.
            if handle.thread().id() != thread::current().id() && handle.join().is_err() {
                tracing::error!("a thread of the store panicked");
            }
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop_threads();
        // After the threads: whoever opens the store next finds nobody at work.
        self.lock.lock().take();
    }
}
