//! Retention: what goes when, what never goes, and what a crash in the middle of it leaves behind.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::common::*;
use crate::crash_fs::{CrashFs, Fault};
use gantry_store::{
    AppendError, Clock, Config, PhysicalOffset, QueueNumber, QueueOffset, ReadLog, ReadStatus, Retention,
};

const HOUR_MS: i64 = 3_600_000;
/// `NOW_MS` is 22:13 UTC: this is long before and after.
const NIGHT: &str = "04";

/// A store whose clock a test moves, on a disk that a test fills.
struct Kept {
    opened: Opened,
    fs: CrashFs,
    clock: Arc<AtomicI64>,
}

fn kept(root: &Path, retention: Retention) -> Kept {
    let fs = CrashFs::default();
    fs.set_disk(60 << 20, 100 << 20);
    let clock = Arc::new(AtomicI64::new(NOW_MS));
    let opened = try_open_on(Arc::new(fs.clone()), config_of(root, retention, &clock)).unwrap();
    Kept { opened, fs, clock }
}

fn config_of(root: &Path, retention: Retention, clock: &Arc<AtomicI64>) -> Config {
    let clock = Arc::clone(clock);
    Config { retention, clock: Clock::new(move || clock.load(Ordering::SeqCst)), ..config(root) }
}

/// A day is kept; eager otherwise.
fn a_day() -> Retention {
    Retention {
        reserved: Duration::from_hours(24),
        delete_when: NIGHT.parse().unwrap(),
        check_interval: Duration::from_millis(1),
        delete_interval: Duration::from_millis(1),
        zone: jiff::tz::TimeZone::UTC,
        ..Retention::default()
    }
}

/// Files in a directory from which some are being removed.
fn count(directory: &Path) -> usize {
    std::fs::read_dir(directory).unwrap().count()
}

impl Kept {
    /// Messages of about a fifth of a segment, one to each queue of `T`, all consumable.
    fn put(&mut self, count: u32) {
        for number in 0..count {
            self.opened.put("T", number % 2, &[number as u8; 3000]);
        }
        self.opened.confirm_all();
    }

    /// Whatever is dispatched may go, and the checkpoint covers it.
    fn release(&self) {
        self.opened.store.release(self.opened.store.watermarks().dispatched);
    }

    fn pass(&self, ms: i64) {
        self.clock.fetch_add(ms, Ordering::SeqCst);
    }

    fn oldest(&self) -> u64 {
        self.opened.store.min_offset().0
    }

    fn segments(&self) -> usize {
        count(&self.opened.store.root().join("commitlog"))
    }

    /// The beginning of the last segment: all before it may go.
    fn active(&self) -> u64 {
        self.opened.store.watermarks().written.0 / SEGMENT_BYTES * SEGMENT_BYTES
    }

    /// So many percent of the disk are free, and the cleaner has seen it.
    fn free(&self, percent: u64) {
        self.fs.set_disk(percent << 20, 100 << 20);
        let seen = Some(100 - percent as u16);
        wait_until("the cleaner's look", || self.opened.store.disk().log_percent == seen);
    }

    /// What must not happen has had its chances: the cleaner's look at the disk has followed two changes of it.
    fn after_some_rounds(&self) {
        for available in [61, 59, 61] {
            self.free(available);
        }
    }
}

#[test]
fn expired_segments_go_at_their_hour_and_queues_follow() {
    let directory = tempfile::tempdir().unwrap();
    let mut kept = kept(directory.path(), a_day());
    kept.put(20);
    kept.pass(23 * HOUR_MS);
    kept.put(20);
    kept.release();
    kept.pass(HOUR_MS + 1);
    kept.after_some_rounds();
    assert_eq!(kept.oldest(), 0, "expired, but not at its hour");

    kept.pass(6 * HOUR_MS); // 04:13
    wait_until("the first day's segments are gone", || kept.oldest() > 0);
    wait_until("and their files", || kept.segments() as u64 * SEGMENT_BYTES <= kept.active() + 2 * SEGMENT_BYTES);
    kept.after_some_rounds();
    let oldest = kept.oldest();
    assert!(oldest > 0 && oldest < kept.active(), "the second day's stay: {oldest}");

    let range = kept.opened.store.queue_range("T", 0);
    assert!(range.min.0 > 0 && range.max.0 == 20);
    let messages = kept.opened.consume("T", 0);
    assert_eq!(messages.len() as u64, 20 - range.min.0, "what is shown is there");
    assert_eq!(kept.opened.read("T", 0, 0).status, ReadStatus::OffsetTooSmall);
    let gone = kept.opened.store.read_log(PhysicalOffset(0), 1).unwrap();
    assert_eq!(gone, ReadLog::Gone { oldest: PhysicalOffset(oldest) });

    kept.opened.close();
    let again = open_in(directory.path());
    assert_eq!((again.store.min_offset().0, again.store.queue_range("T", 0)), (oldest, range));
}

#[test]
fn other_rules_hold_from_the_next_look_on_and_bad_ones_change_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut kept = kept(directory.path(), a_day());
    kept.put(20);
    kept.release();
    kept.pass(HOUR_MS + 1);
    let bad = Retention { warning_percent: 101, reserved: Duration::ZERO, ..a_day() };
    let said = kept.opened.store.set_retention(&bad).unwrap_err().to_string();
    assert!(said.contains("diskSpaceWarningLevelRatio=101"), "{said}");
    kept.after_some_rounds();
    assert_eq!(kept.oldest(), 0, "a day is kept");
    let hour = Retention { reserved: Duration::from_hours(1), max_used_percent: 10, ..a_day() };
    kept.opened.store.set_retention(&hour).unwrap();
    wait_until("what is older than an hour goes from a disk that counts as fuller", || kept.oldest() > 0);
}

#[test]
fn the_segment_that_is_written_to_stays_and_an_administrator_need_not_wait_for_the_hour() {
    let directory = tempfile::tempdir().unwrap();
    let mut kept = kept(directory.path(), a_day());
    kept.put(30);
    assert!(count(&directory.path().join("index")) > 1);
    kept.release();
    kept.pass(1_000 * HOUR_MS);
    kept.after_some_rounds();
    kept.opened.put("T", 0, b"its own time is not what counts");
    kept.opened.store.delete_expired();
    wait_until("all but the last segment are gone", || kept.oldest() == kept.active());
    wait_until("index files went, too, but the newest", || count(&directory.path().join("index")) == 1);
    kept.after_some_rounds();
    assert_eq!(kept.oldest(), kept.active());
    kept.opened.put("T", 0, b"life goes on");
}

#[test]
fn a_disk_that_fills_up_takes_the_oldest_one_by_one_until_it_is_enough() {
    let directory = tempfile::tempdir().unwrap();
    let mut kept = kept(directory.path(), a_day());
    kept.put(40);
    kept.release();
    // Expired messages go at any hour above 75 %; these aren't.
    kept.free(20);
    assert_eq!(kept.oldest(), 0);
    kept.free(14);
    wait_until("the oldest is gone", || kept.oldest() > 0);
    kept.free(16);
    let oldest = kept.oldest();
    kept.after_some_rounds();
    assert_eq!(kept.oldest(), oldest, "enough is free");
    assert!(!kept.opened.store.disk().full);
}

#[test]
fn a_full_disk_is_told_until_it_is_well_below_again() {
    let directory = tempfile::tempdir().unwrap();
    let retention = Retention { forcibly: false, ..a_day() };
    let mut kept = kept(directory.path(), retention);
    kept.put(20);
    kept.release();
    let full_at = |available: u64| {
        kept.free(available);
        kept.opened.store.disk().full
    };
    assert!(!full_at(10) && full_at(9) && full_at(14), "91 % is full, 86 % not yet enough");
    assert!(!full_at(15) && !full_at(14));
    assert_eq!(kept.oldest(), 0, "cleanFileForciblyEnable=false");
}

#[test]
fn a_quota_counts_like_a_disk_of_that_size() {
    let directory = tempfile::tempdir().unwrap();
    let retention = Retention { quota_bytes: Some(10 * SEGMENT_BYTES), ..a_day() };
    let mut kept = kept(directory.path(), retention);
    for _ in 0..20 {
        kept.put(10);
        kept.release();
    }
    wait_until("the store keeps to its quota", || kept.segments() <= 9);
    assert!(kept.oldest() > 0);
}

#[test]
fn what_the_owner_or_a_replica_needs_stays_but_for_a_replica_not_on_a_full_disk() {
    let directory = tempfile::tempdir().unwrap();
    let mut kept = kept(directory.path(), a_day());
    kept.put(40);
    kept.pass(30 * HOUR_MS); // 04:13, the day after
    kept.after_some_rounds();
    assert_eq!(kept.oldest(), 0, "not released");

    let needed = PhysicalOffset(SEGMENT_BYTES + 1);
    kept.opened.store.hold_for_replicas(Some(needed));
    kept.release();
    wait_until("the first segment is gone", || kept.oldest() == SEGMENT_BYTES);
    kept.free(11);
    assert_eq!(kept.oldest(), SEGMENT_BYTES, "a replica needs it");
    kept.free(9);
    wait_until("a full disk comes before a replica", || kept.oldest() > SEGMENT_BYTES);
}

#[test]
fn a_cut_takes_a_release_back() {
    let directory = tempfile::tempdir().unwrap();
    let mut kept = kept(directory.path(), a_day());
    kept.put(40);
    kept.release();
    let to = kept.opened.put("T", 0, b"x").physical;
    let cut = PhysicalOffset(kept.opened.store.min_offset().0);
    kept.opened.appender.truncate(cut, None).unwrap();
    assert!(to > cut);
    kept.put(40);
    kept.pass(30 * HOUR_MS);
    kept.after_some_rounds();
    assert_eq!(kept.oldest(), 0, "these messages were not released");
}

#[test]
fn a_reader_keeps_its_bytes_and_their_space_is_counted_until_it_is_done() {
    let directory = tempfile::tempdir().unwrap();
    let mut kept = kept(directory.path(), a_day());
    kept.put(40);
    kept.release();
    let read = kept.opened.read("T", 0, 0);
    let bodies: Vec<_> = read.messages.iter().map(|bytes| decode(bytes).body.to_vec()).collect();
    kept.pass(30 * HOUR_MS);
    wait_until("the expired ones are gone", || kept.oldest() == kept.active());
    wait_until("unlinked", || kept.segments() <= 2);
    assert!(kept.opened.store.disk().hanging_bytes >= SEGMENT_BYTES);
    for (bytes, body) in read.messages.iter().zip(bodies) {
        assert_eq!(decode(bytes).body, body);
    }
    drop(read);
    wait_until("the space is free", || kept.opened.store.disk().hanging_bytes == 0);
}

/// As people do on a full disk.
#[test]
fn a_segment_that_somebody_removed_by_hand_holds_up_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut kept = kept(directory.path(), a_day());
    kept.put(40);
    kept.release();
    std::fs::remove_file(directory.path().join("commitlog").join(format!("{:020}", 0))).unwrap();
    kept.pass(30 * HOUR_MS);
    wait_until("the expired ones are gone", || kept.oldest() == kept.active());
    wait_until("unlinked", || kept.segments() <= 2);
}

/// The store in `directory`, with all it has consumable.
fn confirmed(directory: &Path) -> Opened {
    let opened = open_in(directory);
    opened.confirm_all();
    opened
}

/// Deletes everything of queue `idle`/0, which has 3 messages.
fn drain(kept: &mut Kept) {
    for _ in 0..3 {
        kept.opened.put("idle", 0, b"old");
    }
    kept.put(20);
    kept.release();
    kept.pass(30 * HOUR_MS);
    wait_until("the idle queue is empty", || {
        let range = kept.opened.store.queue_range("idle", 0);
        range.min == range.max && range.max.0 == 3
    });
    wait_until("unlinked", || kept.segments() <= 2);
}

#[test]
fn a_queue_that_lost_all_its_messages_never_gives_a_number_twice() {
    let directory = tempfile::tempdir().unwrap();
    let mut kept = kept(directory.path(), a_day());
    drain(&mut kept);
    assert_eq!(kept.opened.put("idle", 0, b"new").first_queue_offset.0, 3);
    kept.opened.confirm_all();
    assert_eq!(kept.opened.consume("idle", 0), [(3, b"new".to_vec())]);
}

#[test]
fn nor_when_its_files_are_lost_too() {
    let directory = tempfile::tempdir().unwrap();
    let mut kept = kept(directory.path(), a_day());
    drain(&mut kept);
    let others = kept.opened.consume("T", 1);
    kept.opened.kill();
    std::fs::remove_dir_all(directory.path().join("consumequeue")).unwrap();
    let mut opened = open_in(directory.path());
    opened.confirm_all();
    assert_eq!(opened.consume("T", 1), others);
    assert_eq!(opened.store.queue_range("idle", 0).max.0, 3);
    for number in 3..40 {
        assert_eq!(opened.put("idle", 0, b"new").first_queue_offset.0, number);
    }
    opened.confirm_all();
    let consumed: Vec<_> = opened.consume("idle", 0).into_iter().map(|(number, _)| number).collect();
    assert_eq!(consumed, (3..40).collect::<Vec<_>>());
    opened.kill();
    assert_eq!(confirmed(directory.path()).consume("idle", 0).len(), 37, "found again after a crash");
}

#[test]
fn an_empty_queue_of_a_topic_that_is_gone_leaves_the_disk_and_its_number_stays() {
    let directory = tempfile::tempdir().unwrap();
    let mut kept = kept(directory.path(), a_day());
    drain(&mut kept);
    assert_eq!(kept.opened.store.clean_queues(|_| true).unwrap(), 0);
    assert_eq!(kept.opened.store.clean_queues(|topic| topic == "T").unwrap(), 1);
    assert!(!directory.path().join("consumequeue/idle").exists());
    assert!(directory.path().join("consumequeue/T/0").exists(), "it has messages");
    kept.opened.close();
    let mut opened = open_in(directory.path());
    assert_eq!(opened.put("idle", 0, b"another life").first_queue_offset.0, 3);
    opened.confirm_all();
    assert_eq!(opened.consume("idle", 0), [(3, b"another life".to_vec())]);
    opened.kill();
    assert_eq!(confirmed(directory.path()).consume("idle", 0).len(), 1);
}

#[test]
fn consume_queue_files_that_hold_nothing_any_more_are_removed() {
    let directory = tempfile::tempdir().unwrap();
    let mut kept = kept(directory.path(), a_day());
    kept.put(200);
    kept.release();
    let files = || count(&directory.path().join("consumequeue/T/0"));
    assert_eq!(files(), 7, "16 units each");
    kept.pass(30 * HOUR_MS);
    wait_until("only the files with messages are left", || files() <= 2);
    let range = kept.opened.store.queue_range("T", 0);
    assert_eq!(kept.opened.consume("T", 0).len() as u64, range.max.0 - range.min.0);
}

#[test]
fn a_replica_that_begins_with_the_oldest_byte_goes_on_with_the_same_numbers() {
    let (directory, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut master = kept(directory.path(), a_day());
    drain(&mut master);
    let numbers = master.opened.store.queue_numbers().unwrap();
    assert_eq!(numbers, [QueueNumber { topic: "idle".into(), queue_id: 0, next: QueueOffset(3) }]);
    let mut slave = open_in(other.path());
    slave.appender.start_at(master.opened.store.min_offset()).unwrap();
    slave.appender.take_queue_numbers(&numbers).unwrap();
    replicate(&master.opened.store, &mut slave.appender, master.opened.store.min_offset(), 4096);
    slave.confirm_all();
    assert_eq!(slave.consume("T", 0), master.opened.consume("T", 0));
    slave.kill();
    let mut slave = open_in(other.path());
    assert_eq!(slave.put("idle", 0, b"x").first_queue_offset.0, 3);
}

/// A workload that deletes, with one failing call; then power is lost. What is left is an unbroken end of what was written.
fn deleting_survives(fault: Fault, k: u64) -> Option<&'static str> {
    let directory = tempfile::tempdir().unwrap();
    let fs = CrashFs::default();
    let clock = Arc::new(AtomicI64::new(NOW_MS));
    let mut written = Vec::new();
    let flushed = {
        let config = config_of(directory.path(), a_day(), &clock);
        let mut opened = try_open_on(Arc::new(fs.clone()), config).unwrap();
        let mut put = |opened: &mut Opened, from: u8, count: u8| {
            for number in from..from + count {
                let body = vec![number; 3000];
                match opened.append(&[message("T", 0, &body).into()]).remove(0) {
                    Ok(appended) => written.push((appended.end, body)),
                    Err(AppendError::Failed(_) | AppendError::NoSpace(_)) => {}
                    Err(other) => panic!("{other}"),
                }
            }
            opened.store.confirm(opened.store.watermarks().written);
        };
        put(&mut opened, 0, 40);
        opened.confirm_all();
        opened.store.release(opened.store.watermarks().dispatched);
        let covered = opened.store.watermarks().dispatched.0.to_be_bytes();
        let checkpoint = directory.path().join("checkpoint");
        wait_until("a checkpoint", || std::fs::read(&checkpoint).is_ok_and(|bytes| bytes[80..88] == covered));
        fs.strike_at(k as usize, fault);
        clock.fetch_add(30 * HOUR_MS, Ordering::SeqCst);
        wait_until("the deletion is over, or has failed", || {
            let done = opened.store.disk().deleted_segments >= 40 * 3000 / SEGMENT_BYTES;
            done || opened.store.failure().is_some() || fs.struck().is_some()
        });
        put(&mut opened, 40, 20);
        let mark = opened.store.watermarks().flushed;
        opened.kill();
        written.iter().filter(|(end, _)| *end <= mark).count()
    };
    let failed = fs.struck();
    fs.heal();
    fs.lose_power(&mut Random::new(k));
    let what = format!("{fault:?} at call {k} ({failed:?})");
    let mut opened =
        try_open_on(Arc::new(fs), config(directory.path())).unwrap_or_else(|error| panic!("{what}: {error}"));
    opened.confirm_all();
    let messages = opened.consume("T", 0);
    let first = messages.first().map_or(0, |(number, _)| *number as usize);
    assert!(first < 40, "{what}: the second day's messages are there");
    for (index, (number, body)) in messages.iter().enumerate() {
        assert_eq!(*number as usize, first + index, "{what}: no gaps");
        assert_eq!(body, &written[first + index].1, "{what}: the same messages");
    }
    assert!(first + messages.len() >= flushed, "{what}: flushed messages are missing");
    opened.put("T", 0, b"life goes on");
    opened.close();
    failed
}

#[test]
fn whatever_fails_and_wherever_power_is_lost_deleting_leaves_an_unbroken_log() {
    for fault in [Fault::Eio, Fault::Enospc] {
        let failed: std::collections::BTreeSet<_> = (0..50).filter_map(|k| deleting_survives(fault, k)).collect();
        for expected in ["unlink", "fsync of a directory"] {
            assert!(failed.contains(expected), "{expected} never failed: {failed:?}");
        }
    }
}

#[test]
fn a_cut_on_a_full_disk_waits_for_those_who_read_what_is_cut() {
    let directory = tempfile::tempdir().unwrap();
    let mut kept = kept(directory.path(), Retention { forcibly: false, ..a_day() });
    kept.put(2);
    let keeps = kept.opened.store.watermarks().written;
    kept.put(2);
    let reader = kept.opened.read("T", 0, 0);
    kept.fs.set_disk(0, 100 << 20);
    let answered = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        drop(reader);
    });
    kept.opened.appender.truncate(keeps, None).unwrap();
    answered.join().unwrap();
    assert!(kept.opened.store.failure().is_none());
    kept.opened.put("T", 0, b"there is room in the segment");
    kept.opened.confirm_all();
    assert_eq!(kept.opened.consume("T", 0).len(), 2);
}
