//! Queues of batch units: a record there may hold many messages.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use gantry_store::inspect::{Depth, look};
use gantry_store::repair::Repair;
use gantry_store::{
    AppendError, Boundary, Clock, NewMessage, PhysicalOffset, QueueOffset, ReadLimits, ReadStatus, Retention, record,
};

use crate::common::*;

const UNITS: &str = "batchconsumequeue/B/0/00000000000000000000";

/// A record of `count` messages, as a broker appends it.
fn batch(topic: &str, count: u16, body: &[u8]) -> NewMessage {
    let properties = format!("TAGS\u{1}TagA\u{2}INNER_NUM\u{1}{count}\u{2}KEYS\u{1}k\u{2}");
    let sys_flag = record::INNER_BATCH | record::NEED_UNWRAP;
    NewMessage { sys_flag, properties: properties.into(), ..message(topic, 0, body) }
}

/// A message that was sent alone to a topic of batch queues.
fn single(topic: &str, body: &[u8]) -> NewMessage {
    NewMessage { sys_flag: record::INNER_BATCH, ..message(topic, 0, body) }
}

fn put(opened: &mut Opened, message: NewMessage) -> u64 {
    opened.append(&[message.into()]).remove(0).unwrap().first_queue_offset.0
}

/// Number of the first message and messages of all records that a consumer gets.
fn records(opened: &Opened, topic: &str) -> Vec<(u64, u16)> {
    let range = opened.store.queue_range(topic, 0);
    let mut next = range.min;
    let mut found = Vec::new();
    while next < range.max {
        let read = opened.store.read_queue(topic, 0, next, ReadLimits::new(3, usize::MAX), |_| true).unwrap();
        assert!(read.next > next, "a read goes on: {read:?}");
        found.extend(read.messages.iter().map(|bytes| (decode(bytes).queue_offset.0, decode(bytes).count())));
        next = read.next;
    }
    found
}

fn unit(root: &Path, place: usize) -> Vec<u8> {
    std::fs::read(root.join(UNITS)).unwrap()[place * 46..][..46].to_vec()
}

/// Batches of 3, 1, 4, and one alone: numbers 0 to 8.
fn filled(root: &Path) -> Opened {
    let mut opened = open_in(root);
    assert_eq!(put(&mut opened, batch("B", 3, b"abc")), 0);
    assert_eq!(put(&mut opened, single("B", b"d")), 3);
    assert_eq!(put(&mut opened, batch("B", 4, b"efgh")), 4);
    assert_eq!(put(&mut opened, batch("B", 1, b"i")), 8);
    opened.dispatch_all();
    opened
}

const FILLED: [(u64, u16); 4] = [(0, 3), (3, 1), (4, 4), (8, 1)];

fn assert_is_filled(opened: &Opened) {
    let range = opened.store.queue_range("B", 0);
    assert_eq!((range.min.0, range.max.0, opened.appender.next_queue_offset("B", 0).0), (0, 9, 9));
    assert_eq!(records(opened, "B"), FILLED);
}

#[test]
fn a_batch_is_one_record_with_as_many_numbers_as_messages_and_one_unit_of_46_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let opened = filled(directory.path());
    assert_is_filled(&opened);
    let read = opened.read("B", 0, 0);
    let third = decode(&read.messages[2]);
    let properties = String::from_utf8_lossy(third.properties).replace(['\u{1}', '\u{2}'], " ");
    assert_eq!(properties, "TAGS TagA INNER_NUM 4 KEYS k INNER_BASE 4 ");
    let mut expected = third.physical.0.to_be_bytes().to_vec();
    expected.extend(third.size.to_be_bytes());
    expected.extend(2_598_919_i64.to_be_bytes());
    expected.extend(NOW_MS.to_be_bytes());
    expected.extend([0, 0, 0, 0, 0, 0, 0, 4, 0, 4, 255, 255, 255, 255, 0, 0, 0, 0]);
    assert_eq!(unit(directory.path(), 2), expected);
    assert!(!directory.path().join("consumequeue/B").exists());
    let told = opened.events.told().dispatched;
    assert_eq!(told.iter().map(|told| told.next_offset().0).collect::<Vec<_>>(), [3, 4, 8, 9]);
}

#[test]
fn a_read_in_the_middle_of_a_batch_gives_all_of_it_and_limits_count_messages() {
    let directory = tempfile::tempdir().unwrap();
    let opened = filled(directory.path());
    for (from, first) in [(0, 0), (1, 0), (2, 0), (3, 3), (4, 4), (7, 4), (8, 8)] {
        let one = ReadLimits::new(1, usize::MAX);
        let read = opened.store.read_queue("B", 0, QueueOffset(from), one, |_| true).unwrap();
        let record = decode(&read.messages[0]);
        assert_eq!((read.messages.len(), record.queue_offset.0, read.next), (1, first, record.next_offset()));
        let cached = opened.store.read_queue_cached("B", 0, QueueOffset(from), one, |_| true).unwrap();
        assert!(cached.is_none_or(|cached| cached == read));
    }
    let of = |max| opened.store.read_queue("B", 0, QueueOffset(0), ReadLimits::new(max, usize::MAX), |_| true).unwrap();
    assert_eq!([3, 4, 7, 8, 9].map(|max| of(max).messages.len()), [1, 2, 2, 3, 4]);
    assert_eq!(opened.read("B", 0, 9).status, ReadStatus::OffsetOverflowOne);
    assert_eq!(opened.read("B", 0, 10).next.0, 9);
    // A filter knows the tag of what is alone; those of a batch's messages are in the batch.
    let read = |from| opened.store.read_queue("B", 0, QueueOffset(from), ALL, |_| false).unwrap();
    assert_eq!((read(1).messages.len(), read(1).next.0), (2, 9));
    assert_eq!((read(8).status, read(8).next.0), (ReadStatus::NoMatchedMessage, 9));
}

#[test]
fn a_time_stands_for_the_first_message_of_a_batch() {
    let directory = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicI64::new(1000));
    let clock = {
        let now = Arc::clone(&now);
        Clock::new(move || now.load(Ordering::Relaxed))
    };
    let mut opened = try_open(gantry_store::Config { clock, ..config(directory.path()) }).unwrap();
    for _ in 0..4 {
        put(&mut opened, batch("B", 5, b"12345"));
        now.fetch_add(1000, Ordering::Relaxed);
    }
    opened.dispatch_all();
    let at = |time, boundary| opened.store.offset_by_time("B", 0, time, boundary).unwrap().0;
    assert_eq!([0, 1000, 1500, 4000, 4001].map(|time| at(time, Boundary::Lower)), [0, 0, 5, 15, 20]);
    assert_eq!([0, 1000, 1500, 4000, 4001].map(|time| at(time, Boundary::Upper)), [0, 0, 0, 15, 15]);
    assert_eq!(
        [0, 4, 5, 19].map(|n| opened.store.store_time_of("B", 0, QueueOffset(n)).unwrap()),
        [1000, 1000, 2000, 4000].map(Some)
    );
}

#[test]
fn a_batch_says_how_many_messages_it_holds_or_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = open_in(directory.path());
    for count in ["0", "-1", "32768", "x"] {
        let properties = format!("INNER_NUM\u{1}{count}").into_bytes();
        let bad = NewMessage { properties: Bytes::from(properties), ..batch("B", 1, b"") };
        let result = opened.append(&[bad.into()]).remove(0);
        assert!(matches!(result, Err(AppendError::Invalid(_))), "{count}: {result:?}");
    }
    assert_eq!(put(&mut opened, batch("B", 32_767, b"many")), 0);
    assert_eq!(put(&mut opened, batch("B", 2, b"more")), 32_767);
    opened.dispatch_all();
    assert_eq!(records(&opened, "B"), [(0, 32_767), (32_767, 2)]);
}

#[test]
fn a_queue_survives_a_stop_a_kill_and_the_loss_of_its_files() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    filled(root).close();
    let opened = open_in(root);
    assert_is_filled(&opened);
    opened.kill();
    assert_is_filled(&open_in(root));
    let before = unit(root, 3);
    std::fs::remove_dir_all(root.join("batchconsumequeue/B")).unwrap();
    let opened = open_in(root);
    assert_is_filled(&opened);
    assert_eq!(unit(root, 3), before);
    opened.close();
    for spoiled in [vec![0; 46], vec![0x11; 46], [before[..20].to_vec(), vec![0; 26]].concat()] {
        let file = std::fs::OpenOptions::new().write(true).open(root.join(UNITS)).unwrap();
        file.write_all_at(&spoiled, 3 * 46).unwrap();
        let opened = open_in(root);
        assert_is_filled(&opened);
        assert_eq!(unit(root, 3), before, "{spoiled:?}");
        opened.close();
    }
    let config = config(root);
    Repair::lock(&config).unwrap().remove_queues().unwrap();
    assert!(!root.join("batchconsumequeue").exists());
    assert_is_filled(&open_in(root));
}

#[test]
fn an_inspection_counts_messages_and_finds_a_unit_that_is_not_its_batches() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    filled(root).close();
    let looked = || look(&config(root), Depth::Everything, &mut |_, _| {}).unwrap();
    let report = looked();
    assert!(report.damage.is_empty(), "{:?}", report.damage);
    let queues: Vec<_> = report.queues.iter().map(|queue| (&*queue.topic, queue.min, queue.max)).collect();
    assert_eq!(queues, [("B", 0, 9)]);
    {
        let file = std::fs::OpenOptions::new().write(true).open(root.join(UNITS)).unwrap();
        file.write_all_at(&[9], 2 * 46 + 37).unwrap();
    }
    let found: Vec<_> = looked().damage.iter().map(|finding| finding.offset).collect();
    // Its number of messages isn't the record's, and so the next one begins too soon.
    assert_eq!(found, [Some(4), Some(8)]);
    let error = open_in(root).store.read_queue("B", 0, QueueOffset(4), ALL, |_| true).unwrap_err().to_string();
    assert!(error.contains("another number"), "{error}");
}

#[test]
fn a_queue_that_began_with_plain_messages_becomes_one_of_batch_units_with_its_first_batch() {
    for together in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let mut opened = open_in(directory.path());
        for number in 0..20_u8 {
            opened.put("B", 0, &[number]);
        }
        if !together {
            opened.dispatch_all();
            assert!(directory.path().join("consumequeue/B/0").exists());
        }
        assert_eq!(put(&mut opened, batch("B", 3, b"uvw")), 20);
        // RocketMQ stores what is sent alone without the flag.
        opened.put("B", 0, b"x");
        opened.dispatch_all();
        let expected: Vec<_> = (0..20).map(|number| (number, 1)).chain([(20, 3), (23, 1)]).collect();
        assert_eq!(records(&opened, "B"), expected);
        assert!(!directory.path().join("consumequeue/B").exists());
        let stored_ms = i64::from_be_bytes(unit(directory.path(), 7)[20..28].try_into().unwrap());
        assert_eq!(stored_ms, NOW_MS);
        opened.close();
        let report = look(&config(directory.path()), Depth::Everything, &mut |_, _| {}).unwrap();
        assert!(report.damage.is_empty(), "{:?}", report.damage);
        assert_eq!(records(&open_in(directory.path()), "B"), expected);
    }
}

#[test]
fn a_queue_found_in_both_layouts_is_made_again_from_the_log() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path()).close();
    let stray = directory.path().join("consumequeue/B/0");
    std::fs::create_dir_all(&stray).unwrap();
    std::fs::write(stray.join("00000000000000000000"), vec![0; 320]).unwrap();
    assert_is_filled(&open_in(directory.path()));
    assert!(!stray.exists());
}

#[test]
fn a_replica_makes_the_same_units_and_goes_on_with_the_same_numbers() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let master = filled(one.path());
    let mut slave = open_in(two.path());
    replicate(&master.store, &mut slave.appender, PhysicalOffset(0), 300);
    slave.dispatch_all();
    assert_is_filled(&slave);
    assert_eq!(std::fs::read(one.path().join(UNITS)).unwrap(), std::fs::read(two.path().join(UNITS)).unwrap());
    assert_eq!(put(&mut slave, batch("B", 2, b"jk")), 9);
}

#[test]
fn a_cut_takes_whole_batches_back_and_their_numbers_are_given_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = filled(directory.path());
    let third = decode(&opened.read("B", 0, 5).messages[0]).physical;
    opened.appender.truncate(third, None).unwrap();
    assert_eq!(records(&opened, "B"), FILLED[..2]);
    assert_eq!(opened.store.queue_range("B", 0).max.0, 4);
    assert_eq!(unit(directory.path(), 2), [0; 46]);
    assert_eq!(put(&mut opened, batch("B", 7, b"EFGHIJK")), 4);
    opened.dispatch_all();
    let expected = [(0, 3), (3, 1), (4, 7)];
    assert_eq!(records(&opened, "B"), expected);
    opened.kill();
    let opened = open_in(directory.path());
    opened.dispatch_all();
    assert_eq!(records(&opened, "B"), expected);
}

#[test]
fn a_queue_begins_where_the_log_does_and_an_empty_one_goes_on_where_it_was() {
    let directory = tempfile::tempdir().unwrap();
    // Whatever was stored is expired when the clock is looked at again.
    let now = Arc::new(AtomicI64::new(NOW_MS));
    let config = || gantry_store::Config {
        batch_queue_file_units: 8,
        retention: Retention {
            reserved: Duration::ZERO,
            check_interval: Duration::from_millis(1),
            delete_interval: Duration::from_millis(1),
            ..Retention::default()
        },
        clock: {
            let now = Arc::clone(&now);
            Clock::new(move || now.fetch_add(1, Ordering::Relaxed))
        },
        ..config(directory.path())
    };
    let mut opened = try_open(config()).unwrap();
    for _ in 0..60 {
        put(&mut opened, batch("B", 5, &[7; 1000]));
    }
    opened.dispatch_all();
    let shrink = |opened: &Opened| {
        opened.wait_flushed();
        opened.store.release(opened.store.watermarks().written);
        let before = opened.store.min_offset();
        wait_until("retention", || {
            opened.store.delete_expired();
            opened.store.min_offset() > before
        });
    };
    shrink(&opened);
    wait_until("the queue's beginning", || opened.store.queue_range("B", 0).min.0 > 0);
    let oldest = opened.store.min_offset();
    let read = opened.read("B", 0, opened.store.queue_range("B", 0).min.0);
    assert!(decode(&read.messages[0]).physical >= oldest);
    assert_eq!(opened.read("B", 0, 0).status, ReadStatus::OffsetTooSmall);
    opened.store.clean_queues(|_| true).unwrap();
    let before = records(&opened, "B");
    assert_eq!(before.last(), Some(&(295, 5)));
    opened.close();
    let mut opened = try_open(config()).unwrap();
    assert_eq!(records(&opened, "B"), before);
    // Another queue's messages push all of it out of the log.
    while opened.store.queue_range("B", 0).min.0 < 300 {
        for _ in 0..40 {
            opened.put("other", 0, &[1; 1000]);
        }
        opened.dispatch_all();
        shrink(&opened);
    }
    assert_eq!(opened.store.clean_queues(|topic| topic != "B").unwrap(), 1);
    assert!(!directory.path().join("batchconsumequeue/B").exists());
    opened.close();
    let mut opened = try_open(config()).unwrap();
    assert_eq!(put(&mut opened, batch("B", 5, b"again")), 300);
    opened.dispatch_all();
    assert_eq!(records(&opened, "B"), [(300, 5)]);
    opened.kill();
    let opened = try_open(config()).unwrap();
    opened.dispatch_all();
    assert_eq!(records(&opened, "B"), [(300, 5)]);
}
