//! What an inspection says. Names of fields are stable: they are the keys of `gantry store inspect --json`.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Unreadable, unreadable};
use crate::atomic_file;
use crate::checkpoint::{Checkpoint, Found};

/// A store's directory, looked at from outside. Times are ms since 1970, offsets bytes of the log.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(clippy::struct_excessive_bools, reason = "four independent facts, each a key of the JSON")]
pub struct Report {
    /// The store's root.
    pub directory: PathBuf,
    /// A broker has the store open.
    pub running: bool,
    /// Everything was read, not only what a start would.
    pub verified: bool,
    /// The commit log as a whole.
    pub log: LogReport,
    /// Its files, oldest first.
    pub segments: Vec<SegmentReport>,
    /// The consume queues, by topic and number.
    pub queues: Vec<QueueReport>,
    /// The index files, oldest first.
    pub index_files: Vec<IndexReport>,
    /// The checkpoint.
    pub checkpoint: CheckpointReport,
    /// There is an `abort` file: the store is open, or its last stop was unclean.
    pub abort: bool,
    /// A recovery was interrupted; the next start goes on with it.
    pub interrupted_recovery: bool,
    /// Tails of the log that were cut and kept.
    pub divergent: Vec<TailReport>,
    /// What lies behind the log's last whole record and was never known to be on disk: the next start cuts it.
    pub torn_tail: Option<Finding>,
    /// What is wrong.
    pub damage: Vec<Finding>,
}

/// Something wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The file.
    pub file: PathBuf,
    /// In the log for a segment, in units for a consume queue.
    pub offset: Option<u64>,
    /// What is wrong.
    pub problem: String,
}

/// The commit log.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LogReport {
    /// The oldest byte.
    pub oldest: u64,
    /// The end of the last whole record, as far as it was looked for.
    pub end: u64,
    /// How many records there are; `None` unless everything was read.
    pub records: Option<u64>,
}

/// A segment.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SegmentReport {
    /// The file's name: its first byte's offset.
    pub name: String,
    /// Its first byte.
    pub from: u64,
    /// Where the next segment begins.
    pub to: u64,
    /// The file's length.
    pub bytes: u64,
    /// How many records it has; `None` unless everything was read.
    pub records: Option<u64>,
    /// The first record's store time.
    pub first_store_ms: Option<i64>,
    /// The last record's store time; `None` unless everything was read.
    pub last_store_ms: Option<i64>,
}

/// A consume queue.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueReport {
    /// Its topic.
    pub topic: String,
    /// Its number in the topic.
    pub queue: u32,
    /// The oldest message that the log has.
    pub min: u64,
    /// The next message's number.
    pub max: u64,
    /// Files.
    pub files: usize,
}

/// An index file, by its header.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IndexReport {
    /// The file's name: when it was made.
    pub name: String,
    /// The file's length.
    pub bytes: u64,
    /// The first message's store time.
    pub begin_ms: i64,
    /// The last one's.
    pub end_ms: i64,
    /// The first message's offset.
    pub begin_offset: i64,
    /// The last one's.
    pub end_offset: i64,
    /// Slots in use.
    pub slots: i32,
    /// Entries.
    pub entries: i32,
}

/// A tail that was cut.
#[derive(Clone, Debug, Serialize)]
pub struct TailReport {
    /// `<from>-<to>.<number>`.
    pub name: String,
    /// The file's length.
    pub bytes: u64,
}

/// Both halves of the checkpoint.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointReport {
    /// RocketMQ's half: `None` if there is no file.
    pub rocketmq: Option<RocketmqHalf>,
    /// Gantry's half: `None` if it doesn't hold.
    pub gantry: Option<GantryHalf>,
}

/// RocketMQ's `StoreCheckpoint`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RocketmqHalf {
    /// Messages up to this time are on disk.
    pub physic_ms: i64,
    /// In consume queues.
    pub logics_ms: i64,
    /// In the index.
    pub index_ms: i64,
    /// What a slave's master had flushed.
    pub master_flushed_offset: i64,
    /// The confirm offset.
    pub confirm_offset: i64,
}

/// What Gantry knows.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GantryHalf {
    /// Below it everything is in consume queues, on disk.
    pub dispatched: u64,
    /// Nothing below it will be taken back.
    pub confirmed: u64,
    /// Below it everything is on disk.
    pub flushed: u64,
    /// The log is being cut here.
    pub cut: Option<u64>,
    /// Consume queues.
    pub queues: u32,
    /// The store was closed cleanly.
    pub clean: bool,
}

impl Finding {
    pub(super) fn new(file: &Path, offset: Option<u64>, problem: impl Into<String>) -> Self {
        Self { file: file.to_owned(), offset, problem: problem.into() }
    }
}

impl IndexReport {
    pub(super) fn new(name: String, bytes: u64, header: &[u8; 40]) -> Self {
        let long = |at: usize| number(&header[at..at + 8]);
        let int = |at: usize| number(&header[at..at + 4]) as i32;
        Self {
            name,
            bytes,
            begin_ms: long(0),
            end_ms: long(8),
            begin_offset: long(16),
            end_offset: long(24),
            slots: int(32),
            // RocketMQ counts from 1.
            entries: int(36).saturating_sub(1).max(0),
        }
    }
}

impl CheckpointReport {
    pub(super) fn new(path: &Path, found: Found) -> Result<Self, Unreadable> {
        let bytes = atomic_file::read(path).map_err(unreadable(path))?.unwrap_or_default();
        let long = |at: usize| bytes.get(at..at + 8).map_or(0, number);
        let rocketmq = (bytes.len() >= 40).then(|| RocketmqHalf {
            physic_ms: long(0),
            logics_ms: long(8),
            index_ms: long(16),
            master_flushed_offset: long(24),
            confirm_offset: long(32),
        });
        let gantry = match found {
            Found::Ours(Checkpoint { dispatched, confirmed, flushed, cut, queues, clean, .. }) => {
                Some(GantryHalf { dispatched, confirmed, flushed, cut, queues, clean })
            }
            _ => None,
        };
        Ok(Self { rocketmq, gantry })
    }
}

fn number(bytes: &[u8]) -> i64 {
    bytes.iter().fold(0_u64, |number, &byte| number << 8 | u64::from(byte)) as i64
}
