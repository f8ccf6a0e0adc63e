//! Retention: which segments of the log go, and when. RocketMQ's rules and keys.
//!
//! A segment is *expired* when its newest message is older than [`Retention::reserved`]. Expired segments go, oldest first,
//! at the hours of [`Retention::delete_when`], at any hour once the disk is fuller than [`Retention::max_used_percent`], or
//! when an administrator asks. Above [`Retention::forcibly_percent`] the oldest go whatever their age. Above
//! [`Retention::warning_percent`] the disk counts as full, see [`Disk::full`]; and so it does for the cleaner as long as the next
//! segment can't be allocated.
//!
//! Never deleted: the segment that is written to, and what isn't yet flushed, dispatched *and* covered by a
//! checkpoint on disk (so that a crash finds the log from there on), nor what the owner has not
//! [released](crate::Store::release). What replicas still need goes only when the disk counts as full: then the
//! choice is between them, who can be copied anew, and every producer.
//!
//! Where this differs from RocketMQ: a segment's age is that of its messages, not its file's, so that all replicas agree; a
//! file that is being read is not torn from its readers after 120 s, but its space comes back only when they are done,
//! which is told; and the percentages may be set up to 100.

mod cleaner;
mod disk;
mod queues;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use parking_lot::{Mutex, RwLock};

pub(crate) use self::cleaner::{round, run};
pub(crate) use self::queues::clean_queues;
use crate::segment::Segment;

/// How long what is kept. [`Retention::default`] has RocketMQ's values.
#[derive(Clone, Debug)]
pub struct Retention {
    /// `fileReservedTime`: messages are kept at least this long while there is room.
    pub reserved: Duration,
    /// `deleteWhen`: the hours at which expired segments go.
    pub delete_when: DeleteWhen,
    /// `diskMaxUsedSpaceRatio`, 1 to 100: above it expired segments go at any hour.
    pub max_used_percent: u8,
    /// `diskSpaceCleanForciblyRatio`, 1 to 100: above it the oldest segments go, expired or not.
    pub forcibly_percent: u8,
    /// `diskSpaceWarningLevelRatio`, 1 to 100: above it the disk counts as full.
    pub warning_percent: u8,
    /// `cleanFileForciblyEnable`: whether segments that aren't expired may go at all.
    pub forcibly: bool,
    /// `gantryStoreQuotaBytes`: what this store may use of a shared disk; the percentages count against it, too.
    pub quota_bytes: Option<u64>,
    /// `cleanResourceInterval`: time between two looks.
    pub check_interval: Duration,
    /// `deleteCommitLogFilesInterval`: time between two deletions of one round.
    pub delete_interval: Duration,
    /// `deleteFileBatchMax`: segments deleted in one round.
    pub files_a_round: usize,
    /// `destroyMapedFileIntervalForcibly`: a deleted file that is read for longer than this is told of…
    pub hanging_after: Duration,
    /// …each `redeleteHangedFileInterval`.
    pub hanging_told_every: Duration,
    /// Whose hours `delete_when` means.
    pub zone: TimeZone,
}

impl Retention {
    /// Why it can't be kept so, if it can't.
    pub(crate) fn flaw(&self) -> Option<String> {
        let Self { max_used_percent, forcibly_percent, warning_percent, files_a_round, .. } = *self;
        if [max_used_percent, forcibly_percent, warning_percent].iter().any(|percent| !(1..=100).contains(percent)) {
            return Some(format!(
                "diskMaxUsedSpaceRatio={max_used_percent}, diskSpaceCleanForciblyRatio={forcibly_percent}, \
                 diskSpaceWarningLevelRatio={warning_percent}: each must be 1 to 100"
            ));
        }
        let none = files_a_round == 0 || self.quota_bytes == Some(0);
        none.then(|| "deleteFileBatchMax and gantryStoreQuotaBytes must be at least 1".to_owned())
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            reserved: Duration::from_hours(72),
            delete_when: DeleteWhen::at(4),
            max_used_percent: 75,
            forcibly_percent: 85,
            warning_percent: 90,
            forcibly: true,
            quota_bytes: None,
            check_interval: Duration::from_secs(10),
            delete_interval: Duration::from_millis(100),
            files_a_round: 10,
            hanging_after: Duration::from_mins(2),
            hanging_told_every: Duration::from_mins(2),
            zone: TimeZone::system(),
        }
    }
}

/// Hours of the day, 0 to 23.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeleteWhen(u32);

/// `deleteWhen` that isn't hours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a list of hours: expected 00 to 23, with `;` between them")]
pub struct NotHours(String);

impl DeleteWhen {
    /// One hour; those above 23 never come.
    pub fn at(hour: u8) -> Self {
        Self(1_u32.checked_shl(u32::from(hour)).unwrap_or(0))
    }

    /// Whether a time, in ms since 1970, is in one of the hours.
    fn includes(self, now_ms: i64, zone: &TimeZone) -> bool {
        let Ok(now) = Timestamp::from_millisecond(now_ms) else { return false };
        self.0 & Self::at(now.to_zoned(zone.clone()).hour().unsigned_abs()).0 != 0
    }
}

impl std::str::FromStr for DeleteWhen {
    type Err = NotHours;

    fn from_str(text: &str) -> Result<Self, NotHours> {
        let hour = |part: &str| part.trim().parse::<u8>().ok().filter(|hour| *hour < 24);
        let hours = text.split(';').try_fold(0, |hours, part| Some(hours | Self::at(hour(part)?).0));
        hours.map(Self).ok_or_else(|| NotHours(text.to_owned()))
    }
}

/// How full the disk is, as of the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Used of the volume with the log, or of the quota if that is more, in percent, rounded up; `None`: the system
    /// doesn't say.
    pub log_percent: Option<u16>,
    /// The same of the volume with everything else.
    pub queues_percent: Option<u16>,
    /// It is above the warning level, or was and isn't yet below the level of forced deletions: no messages should be
    /// taken in.
    pub full: bool,
    /// Bytes of deleted segments that are being read, and come back later.
    pub hanging_bytes: u64,
    /// Segments deleted since the store was opened.
    pub deleted_segments: u64,
}

/// What the cleaner, its callers and the rest of the store share.
pub(crate) struct State {
    /// See [`crate::Store::set_retention`].
    rules: RwLock<Arc<Retention>>,
    /// See [`crate::Store::release`].
    released: AtomicU64,
    /// See [`crate::Store::hold_for_replicas`]; `u64::MAX`: nothing is held.
    replicas: AtomicU64,
    /// Percent, or `UNKNOWN`.
    log_percent: AtomicU16,
    queues_percent: AtomicU16,
    full: AtomicBool,
    /// A segment couldn't be allocated since the cleaner looked.
    no_space: AtomicBool,
    hanging_bytes: AtomicU64,
    deleted_segments: AtomicU64,
    /// Rounds in which expired segments go at any hour: an administrator asked.
    manual_rounds: AtomicU64,
    /// Held while segments are deleted: names of segments mean what they meant before. Lock order: this, `closed`.
    pub(crate) deleting: Mutex<Doomed>,
}

/// Segments that are out of the log's table.
#[derive(Default)]
pub(crate) struct Doomed {
    /// To be unlinked, oldest first.
    named: std::collections::VecDeque<Arc<Segment>>,
    /// Unlinked, and still read by somebody.
    hanging: Vec<cleaner::Hanging>,
}

const UNKNOWN: u16 = u16::MAX;
/// RocketMQ's `MAX_MANUAL_DELETE_FILE_TIMES`.
const MANUAL_ROUNDS: u64 = 20;

impl State {
    /// Nothing is released below `oldest`.
    pub(crate) fn new(oldest: u64, rules: Retention) -> Self {
        Self {
            rules: RwLock::new(Arc::new(rules)),
            released: AtomicU64::new(oldest),
            replicas: AtomicU64::new(u64::MAX),
            log_percent: AtomicU16::new(UNKNOWN),
            queues_percent: AtomicU16::new(UNKNOWN),
            full: AtomicBool::new(false),
            no_space: AtomicBool::new(false),
            hanging_bytes: AtomicU64::new(0),
            deleted_segments: AtomicU64::new(0),
            manual_rounds: AtomicU64::new(0),
            deleting: Mutex::default(),
        }
    }

    /// What is kept, as it is now.
    pub(crate) fn rules(&self) -> Arc<Retention> {
        Arc::clone(&self.rules.read())
    }

    pub(crate) fn set_rules(&self, rules: Retention) {
        *self.rules.write() = Arc::new(rules);
    }

    pub(crate) fn disk(&self) -> Disk {
        let percent = |at: &AtomicU16| Some(at.load(Ordering::Relaxed)).filter(|percent| *percent != UNKNOWN);
        Disk {
            log_percent: percent(&self.log_percent),
            queues_percent: percent(&self.queues_percent),
            full: self.full.load(Ordering::Relaxed),
            hanging_bytes: self.hanging_bytes.load(Ordering::Relaxed),
            deleted_segments: self.deleted_segments.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn release(&self, offset: u64) {
        self.released.fetch_max(offset, Ordering::AcqRel);
    }

    /// The log is cut, or begins elsewhere: what was released above is gone, and what comes there is not released.
    pub(crate) fn turn_back(&self, to: u64) {
        self.released.fetch_min(to, Ordering::AcqRel);
    }

    pub(crate) fn hold_for_replicas(&self, from: Option<u64>) {
        self.replicas.store(from.unwrap_or(u64::MAX), Ordering::Release);
    }

    pub(crate) fn no_space(&self) {
        self.no_space.store(true, Ordering::Release);
    }

    pub(crate) fn delete_expired(&self) {
        self.manual_rounds.store(MANUAL_ROUNDS, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_are_read_as_rocketmq_reads_them() {
        let hour = |text: &str, hour: i64| {
            let when: DeleteWhen = text.parse().unwrap();
            when.includes(hour * 3_600_000 + 1_800_000, &TimeZone::UTC)
        };
        assert!(hour("04", 4) && !hour("04", 3) && !hour("04", 5));
        assert!(hour("04;16", 4) && hour("04;16", 16) && !hour("04;16", 15));
        assert!(hour(" 0 ; 23", 24) && hour("0;23", 23));
        for bad in ["", "24", "4;", "four", "-1"] {
            assert_eq!(bad.parse::<DeleteWhen>(), Err(NotHours(bad.to_owned())));
        }
    }

    #[test]
    fn hours_are_the_machines_own() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        assert!(DeleteWhen::at(4).includes(2 * 3_600_000, &zone));
        assert!(!DeleteWhen::at(4).includes(4 * 3_600_000, &zone));
    }
}
