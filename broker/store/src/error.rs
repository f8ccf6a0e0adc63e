//! One enum an operation, each saying what happened to which file and what to do.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::fs::Space;
use crate::record::Reason;
use crate::{PhysicalOffset, QueueOffset};

/// A write or sync that failed: final for this process (`fsync` tells a failure once and then lies).
#[derive(Debug, thiserror::Error)]
#[error(
    "{operation} of {path} failed, which is final: nothing is acknowledged any more; restart the broker to recover from the log: {source}"
)]
pub struct StoreFailure {
    /// What was being done: `write`, `fdatasync`…
    pub operation: &'static str,
    /// To which file.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// A file that could not be allocated. Not final: the next attempt succeeds once there is room.
#[derive(Debug, thiserror::Error)]
#[error("no space for {path}: it needs {wanted_bytes} bytes, {}; free some or grow the disk: {source}", figures(*.space))]
pub struct NoSpace {
    /// The file that was to be allocated.
    pub path: PathBuf,
    /// Its bytes.
    pub wanted_bytes: u64,
    /// What the file system has; `None` if it can't say.
    pub space: Option<Space>,
    /// What the system said.
    pub source: io::Error,
}

fn figures(space: Option<Space>) -> String {
    space.map_or_else(
        || "and how much is free is unknown".to_owned(),
        |space| format!("{} of {} are free", space.available_bytes, space.total_bytes),
    )
}

/// Why an [`Append`](crate::Append) was not written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// Over a limit.
    #[error("{what} of {size} bytes is over the limit of {limit}")]
    TooLarge {
        /// `body`, `topic`, `properties` or `batch`.
        what: &'static str,
        /// Its bytes.
        size: u64,
        /// The most that is allowed.
        limit: u64,
    },
    /// Not something that can be a record.
    #[error("{0}")]
    Invalid(&'static str),
    /// The next segment couldn't be allocated; heals once there is room.
    #[error(transparent)]
    NoSpace(Arc<NoSpace>),
    /// The store has failed, now or before.
    #[error(transparent)]
    Failed(Arc<StoreFailure>),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// Why raw bytes from another replica were not written: none of them were.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RawError {
    /// They don't continue this log.
    #[error("bytes for offset {from} don't continue the log, which ends at {written}")]
    NotAtEnd {
        /// Where they were to go.
        from: PhysicalOffset,
        /// Where this log ends.
        written: PhysicalOffset,
    },
    /// They aren't whole, valid records.
    #[error("not a record of this log: {0}; it was damaged, or `mappedFileSizeCommitLog` differs from the master's")]
    Record(#[from] Damage),
    /// The next segment couldn't be allocated; heals once there is room.
    #[error(transparent)]
    NoSpace(Arc<NoSpace>),
    /// The store has failed, now or before.
    #[error(transparent)]
    Failed(Arc<StoreFailure>),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// Bytes that aren't the record they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at offset {at}: {reason}")]
pub struct Damage {
    /// Where the record should begin.
    pub at: PhysicalOffset,
    /// What is wrong with it.
    pub reason: Reason,
}

/// Why a store can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{path} is locked: another broker uses this store directory")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// A setting can't be.
    #[error("{0}")]
    Config(String),
    /// The system refused.
    #[error("{operation} of {path} failed: {source}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A write or sync failed while the consume queues were brought up to date.
    #[error(transparent)]
    Failed(Arc<StoreFailure>),
    /// A file that isn't a segment, or not one of this size.
    #[error("{path}: {reason}")]
    Layout {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// Bytes that were known to be on disk are not what was written: a torn tail can't explain it.
    #[error(
        "{path} is damaged {damage}. That is no torn tail: {proof}. Empty this store directory and let it be copied from \
         another replica, restore a backup, or give up what lies behind with `gantry store repair --cut-at-damage`"
    )]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where and how.
        damage: Damage,
        /// How it is known.
        proof: Proof,
    },
    /// A file that a later version of this program has written.
    #[error(
        "{path} has version {version}, which this version of the broker doesn't know: use the later one that wrote it"
    )]
    Later {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
}

/// How it is known that a log reached further than it can be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Proof {
    /// The checkpoint says so.
    #[error("everything below {0} was on disk")]
    Flushed(PhysicalOffset),
    /// There are records in a later segment.
    #[error("{0} has records")]
    SegmentBehind(PathBuf),
    /// An Apache broker's checkpoint says so.
    #[error(
        "the last message before it is of {last_ms} ms since 1970, and the checkpoint says that those up to {flushed_ms} were on disk"
    )]
    StoredLater {
        /// The last record's store timestamp.
        last_ms: i64,
        /// The checkpoint's.
        flushed_ms: i64,
    },
    /// A clean stop leaves no torn tail.
    #[error("the last stop was clean")]
    CleanStop,
}

/// Why the log wasn't cut.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TruncateError {
    /// The place isn't in the log.
    #[error("can't cut the log at {to}: it reaches from {oldest} to {written}")]
    OutOfRange {
        /// Where it was to be cut.
        to: PhysicalOffset,
        /// Where the log begins.
        oldest: PhysicalOffset,
        /// Where it ends.
        written: PhysicalOffset,
    },
    /// No record begins there.
    #[error("can't cut the log in the middle of a record: {0}")]
    NotABoundary(#[from] Damage),
    /// The tail couldn't be kept; the log is as it was.
    #[error("the tail couldn't be kept in {path}, the log is as it was: {source}")]
    Keep {
        /// The file it was to go to.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The store has failed, now or before. If now, the cut is finished at the next open.
    #[error(transparent)]
    Failed(Arc<StoreFailure>),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// Why the log's start can't be moved.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StartError {
    /// There is something in the log.
    #[error("the log can't start at {at}: it holds {oldest} to {written}; cut it to {oldest} first")]
    NotEmpty {
        /// Where it was to start.
        at: PhysicalOffset,
        /// Where it starts.
        oldest: PhysicalOffset,
        /// Where it ends.
        written: PhysicalOffset,
    },
    /// Not where a segment begins.
    #[error(
        "the log can't start at {at}, which is no multiple of mappedFileSizeCommitLog ({segment_bytes}): the master's differs"
    )]
    Unaligned {
        /// Where it was to start.
        at: PhysicalOffset,
        /// A segment's bytes.
        segment_bytes: u64,
    },
    /// The segment couldn't be allocated; heals once there is room.
    #[error(transparent)]
    NoSpace(Arc<NoSpace>),
    /// The store has failed, now or before.
    #[error(transparent)]
    Failed(Arc<StoreFailure>),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// Why something couldn't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system refused.
    #[error("reading {path} failed: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A consume queue points at something else than its message.
    #[error(
        "{topic} queue {queue_id} offset {queue_offset} points to no whole record of its own: {damage}; `gantry store inspect --verify` says what is wrong where. Stop the broker \
         and have the queues made again (`gantry store repair --rebuild-queues`); if the log itself is damaged, let this \
         replica be copied from another"
    )]
    Pointer {
        /// The topic.
        topic: String,
        /// The queue.
        queue_id: u32,
        /// The unit.
        queue_offset: QueueOffset,
        /// What lies there.
        damage: Damage,
    },
    /// No record begins there.
    #[error("no record to read {0}")]
    Record(#[from] Damage),
    /// Past the log's end.
    #[error("offset {from} is past the log's end at {written}")]
    PastEnd {
        /// Where the reading was to begin.
        from: PhysicalOffset,
        /// Where the log ends.
        written: PhysicalOffset,
    },
}
