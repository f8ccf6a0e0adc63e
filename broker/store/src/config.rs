//! What a store is opened with.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::{RecoveryProgress, Retention, commit_log};

/// How a store is opened. [`Config::new`] fills in RocketMQ's defaults.
#[derive(Clone, Debug)]
pub struct Config {
    /// `storePathRootDir`: made if missing.
    pub root: PathBuf,
    /// `storePathCommitLog`: where the segments are, made if missing; `None`: `commitlog` under the root.
    pub commit_log_directory: Option<PathBuf>,
    /// `mappedFileSizeCommitLog`: bytes of a segment; must agree with what is on disk and with the other replicas.
    pub segment_bytes: u64,
    /// Units of 20 bytes in a consume queue file (`mappedFileSizeConsumeQueue` / 20).
    pub queue_file_units: u32,
    /// Units of 46 bytes in a batch consume queue file (`mapperFileSizeBatchConsumeQueue` / 46).
    pub batch_queue_file_units: u32,
    /// `messageIndexEnable`: whether messages can be found by their keys.
    pub message_index: bool,
    /// `maxHashSlotNum`: slots of an index file.
    pub index_slots: u32,
    /// `maxIndexNum`: entries of an index file, at least 2; of 20 bytes each, and as many as a file of 2 GiB holds at most.
    pub index_entries: u32,
    /// When the log is synced to disk.
    pub flush: Flush,
    /// `maxMessageSize`: the largest body, in bytes.
    pub max_message_bytes: u32,
    /// The longest topic, in bytes, at most 32767; records of topics over 127 bytes are written in the v2 layout.
    pub max_topic_bytes: usize,
    /// `enabledAppendPropCRC`: records get a CRC over all of them, see [`crate::record::CRC_KEY`]. On here (RocketMQ: off).
    pub append_crc: bool,
    /// At most this long between two checkpoints while anything changes.
    pub checkpoint_interval: Duration,
    /// At most so many consume queue files are kept open.
    pub max_open_queue_files: usize,
    /// `messageDelayLevel` in ms, level 1 first: what the tags code of a `SCHEDULE_TOPIC_XXXX` unit is made of.
    pub delay_levels_ms: Vec<i64>,
    /// What is kept, and for how long.
    pub retention: Retention,
    /// Where store timestamps come from.
    pub clock: Clock,
    /// Shows how far opening is; keep a clone of it.
    pub recovery: RecoveryProgress,
}

/// When the log is synced to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// `ASYNC_FLUSH`: every `interval_ms`.
    Async {
        /// `flushIntervalCommitLog`.
        interval_ms: u64,
    },
    /// `SYNC_FLUSH`: as soon as anything is written; everything written meanwhile shares the next sync.
    Sync,
}

/// Milliseconds since 1970, from the system unless a test says otherwise.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> i64 + Send + Sync>);

const DELAY_LEVELS_S: [i64; 18] =
    [1, 5, 10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800, 3600, 7200];

impl Config {
    /// RocketMQ's defaults, in `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            commit_log_directory: None,
            segment_bytes: 1 << 30,
            queue_file_units: 300_000,
            batch_queue_file_units: 300_000,
            message_index: true,
            index_slots: 5_000_000,
            index_entries: 20_000_000,
            flush: Flush::Async { interval_ms: 500 },
            max_message_bytes: 4 << 20,
            max_topic_bytes: 255,
            append_crc: true,
            checkpoint_interval: Duration::from_secs(1),
            max_open_queue_files: 1024,
            delay_levels_ms: DELAY_LEVELS_S.iter().map(|seconds| seconds * 1000).collect(),
            retention: Retention::default(),
            clock: Clock::system(),
            recovery: RecoveryProgress::default(),
        }
    }

    /// Where the segments are.
    pub fn log_directory(&self) -> PathBuf {
        self.commit_log_directory.clone().unwrap_or_else(|| self.root.join(commit_log::DIRECTORY))
    }

    /// While the store opens: whether the last checkpoint, of `last_ms` by the store's clock, is old enough for another.
    pub(crate) fn is_checkpoint_due(&self, last_ms: i64) -> bool {
        self.clock.now_ms().saturating_sub(last_ms) >= self.checkpoint_interval.as_millis() as i64
    }

    /// Where a segment is made before it takes its place, on the same volume: so that the log's own directory holds whole
    /// segments only, where that can be.
    pub(crate) fn unfinished_directory(&self) -> PathBuf {
        self.commit_log_directory.clone().unwrap_or_else(|| self.root.clone())
    }
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self::new(|| {
            // Before 1970 there were no messages: a clock that says so is shown as 0 rather than guessed at.
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
        })
    }

    /// A clock of one's own, in ms since 1970.
    pub fn new(now_ms: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(now_ms))
    }

    /// Now, in ms since 1970.
    pub fn now_ms(&self) -> i64 {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}
