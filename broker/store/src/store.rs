//! The store as others see it: readers and watermarks.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::fs::Fs;
use crate::{
    Appender, Boundary, Config, Events, OpenError, PhysicalOffset, QueueInfo, QueueOffset, QueueRange, ReadError,
    ReadLimits, ReadLog, ReadQueue, StoreFailure,
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

/// The shared half of a store; cheap to clone. When the last clone and the [`Appender`] are gone without
/// [`Store::close`], the threads end and files stay as after a crash.
#[derive(Clone)]
pub struct Store {}

/// Opens the store in `config.root`, which is made if missing: takes the lock, recovers, and starts the threads.
pub fn open(config: Config, events: Arc<dyn Events>) -> Result<(Store, Appender), OpenError> {
    open_on(Arc::new(crate::fs::RealFs), config, events)
}

/// [`open`] on any file system.
pub fn open_on(_fs: Arc<dyn Fs>, _config: Config, _events: Arc<dyn Events>) -> Result<(Store, Appender), OpenError> {
    todo!()
}

impl Store {
    /// How far the log is.
    pub fn watermarks(&self) -> Watermarks {
        todo!()
    }

    /// Says that nothing below `offset` will be taken back. It never goes back but by a truncation, and is cut to what
    /// is written. Must not be called with an older epoch's word after a truncation.
    pub fn confirm(&self, _offset: PhysicalOffset) {
        todo!()
    }

    /// The oldest byte of the log.
    pub fn min_offset(&self) -> PhysicalOffset {
        todo!()
    }

    /// The write or sync that failed, if one has.
    pub fn failure(&self) -> Option<Arc<StoreFailure>> {
        todo!()
    }

    /// The store's directory.
    pub fn root(&self) -> &Path {
        todo!()
    }

    /// What can be read of a queue; 0 to 0 for one that isn't there.
    pub fn queue_range(&self, _topic: &str, _queue_id: u32) -> QueueRange {
        todo!()
    }

    /// Every queue that has or had a message, sorted by topic and number.
    pub fn queues(&self) -> Vec<QueueInfo> {
        todo!()
    }

    /// Every topic that has or had a message, sorted.
    pub fn topics(&self) -> Vec<Arc<str>> {
        todo!()
    }

    /// Messages of a queue from `from` on whose tags code `accept` takes: RocketMQ's `getMessage`.
    pub fn read_queue(
        &self,
        _topic: &str,
        _queue_id: u32,
        _from: QueueOffset,
        _limits: ReadLimits,
        _accept: impl Fn(i64) -> bool,
    ) -> Result<ReadQueue, ReadError> {
        todo!()
    }

    /// The message of a queue that a time stands for, see [`Boundary`]. Store timestamps are taken to grow.
    pub fn offset_by_time(
        &self,
        _topic: &str,
        _queue_id: u32,
        _timestamp_ms: i64,
        _boundary: Boundary,
    ) -> Result<QueueOffset, ReadError> {
        todo!()
    }

    /// When a message was stored, ms since 1970; `None` if the queue doesn't have it.
    pub fn store_time_of(&self, _topic: &str, _queue_id: u32, _offset: QueueOffset) -> Result<Option<i64>, ReadError> {
        todo!()
    }

    /// When the queue's oldest message was stored, ms since 1970; `None` if it has none.
    pub fn earliest_store_time(&self, _topic: &str, _queue_id: u32) -> Result<Option<i64>, ReadError> {
        todo!()
    }

    /// The whole record that begins at `physical`, if there is one and it is dispatched (visible).
    pub fn record_at(&self, _physical: PhysicalOffset) -> Option<Bytes> {
        todo!()
    }

    /// Whole records as they lie in the file, from `from` (a record's beginning) on: as many as `max_bytes` hold, at
    /// least one, at most to the segment's end. A blank comes with all that it fills. Not only what is confirmed: for
    /// replication.
    pub fn read_log(&self, _from: PhysicalOffset, _max_bytes: usize) -> Result<ReadLog, ReadError> {
        todo!()
    }

    /// Ends the store: nothing is appended any more, everything is flushed and the checkpoint written. The next open
    /// finds a clean stop. Its threads have ended and the lock is given back when it returns; reading goes on working.
    /// Calling it again does nothing. Must not be called from an [`Events`] callback.
    pub fn close(&self) -> Result<(), Arc<StoreFailure>> {
        todo!()
    }
}
