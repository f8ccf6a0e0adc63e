//! Appending, confirming, reading.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::common::*;
use gantry_store::{
    Append, AppendError, Boundary, Clock, Config, NewMessage, OpenError, PhysicalOffset, QueueOffset, QueueRange,
    ReadLimits, ReadLog, ReadStatus, record, tags,
};

#[test]
fn messages_are_numbered_per_queue_and_lie_one_after_the_other() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = open_in(directory.path());
    let results = opened.append(&[
        message("A", 0, b"a0").into(),
        Append {
            messages: [message("A", 1, b"b0"), message("A", 0, b"a1"), message("B", 0, b"c0")].into_iter().collect(),
        },
        message("A", 0, b"a2").into(),
    ]);
    let [first, batch, last] = <[_; 3]>::try_from(results).unwrap().map(Result::unwrap);
    assert_eq!((first.physical, first.first_queue_offset.0, first.count), (PhysicalOffset(0), 0, 1));
    assert_eq!((batch.physical, batch.first_queue_offset.0, batch.count), (first.end, 0, 3));
    assert_eq!(batch.each.len(), 3);
    assert_eq!((last.physical, last.first_queue_offset.0), (batch.end, 2));
    assert_eq!(opened.store.watermarks().written, last.end);
    assert_eq!(opened.appender.next_queue_offset("A", 0), QueueOffset(3));

    opened.confirm_all();
    assert_eq!(opened.consume("A", 0), [(0, b"a0".to_vec()), (1, b"a1".to_vec()), (2, b"a2".to_vec())]);
    assert_eq!(opened.consume("A", 1), [(0, b"b0".to_vec())]);
    assert_eq!(opened.store.topics(), [Arc::from("A"), Arc::from("B")]);
    for (at, body) in batch.each.iter().zip([b"b0", b"a1", b"c0"]) {
        assert_eq!(decode(&opened.store.record_at(*at).unwrap()).body, body);
    }
    opened.close();
}

#[test]
fn consumers_see_nothing_above_the_confirm_offset() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = open_in(directory.path());
    let first = opened.put("T", 0, b"one");
    let second = opened.put("T", 0, b"two");
    assert_eq!(opened.store.queue_range("T", 0), QueueRange::default());
    assert_eq!(opened.read("T", 0, 0).status, ReadStatus::NoMatchedQueue);

    // In the middle of the second record: only the first one is confirmed.
    opened.store.confirm(PhysicalOffset(second.end.0 - 1));
    opened.events.wait("the first message", |told| !told.dispatched.is_empty());
    assert_eq!(opened.store.watermarks().dispatched, first.end);
    assert_eq!(opened.consume("T", 0), [(0, b"one".to_vec())]);
    assert_eq!(opened.store.record_at(second.physical), None);
    // But other replicas do.
    assert!(matches!(opened.store.read_log(second.physical, 1), Ok(ReadLog::Bytes { .. })));

    // Never above what is written.
    opened.store.confirm(PhysicalOffset(1 << 40));
    assert_eq!(opened.store.watermarks().confirmed, second.end);
    opened.events.wait("the second message", |told| told.dispatched.len() == 2);
    let told = opened.events.told().dispatched.remove(1);
    assert_eq!((told.queue_offset.0, told.physical, &*told.topic), (1, second.physical, "T"));
    assert_eq!(told.tags_code, tags::tags_code("TagA"));
    assert_eq!(u64::from(told.size), second.end.0 - second.physical.0);
    opened.close();
}

#[test]
fn a_segment_without_room_ends_with_a_blank_and_the_log_goes_on_in_the_next_one() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = open_in(directory.path());
    let sized = |record_bytes: u64| {
        let empty = record::encoded_len(&message("T", 0, b""), true);
        vec![7; (record_bytes - empty) as usize]
    };
    // Exactly the room for a blank is left: it fits.
    let exact = opened.put("T", 0, &sized(SEGMENT_BYTES - 8));
    assert_eq!(exact.end.0, SEGMENT_BYTES - 8);
    let next = opened.put("T", 0, &sized(SEGMENT_BYTES - 8 - 200));
    assert_eq!(next.physical.0, SEGMENT_BYTES);
    // 208 bytes are left. A record of 201 leaves no room for a blank.
    let after = opened.put("T", 0, &sized(201));
    assert_eq!(after.physical.0, 2 * SEGMENT_BYTES);
    // A batch is not split.
    let half = message("T", 0, &sized(SEGMENT_BYTES / 2));
    let batch = opened
        .append(&[Append { messages: [half, message("T", 0, &sized(SEGMENT_BYTES / 2 - 8))].into_iter().collect() }]);
    assert_eq!(batch[0].as_ref().unwrap().physical.0, 3 * SEGMENT_BYTES);
    opened.confirm_all();
    assert_eq!(opened.consume("T", 0).len(), 5);

    let log = log_bytes(&opened.store);
    let blank = |segment: u64, room: u32| {
        let at = ((segment + 1) * SEGMENT_BYTES) as usize - room as usize;
        let mut expected = vec![0; room as usize];
        expected[..4].copy_from_slice(&room.to_be_bytes());
        expected[4..8].copy_from_slice(&0xCBD4_3194_u32.to_be_bytes());
        assert_eq!(log[at..at + room as usize], expected, "segment {segment}");
    };
    blank(0, 8);
    blank(1, 208);
    blank(2, SEGMENT_BYTES as u32 - 201);
    let names: Vec<_> =
        std::fs::read_dir(directory.path().join("commitlog")).unwrap().map(|file| file.unwrap()).collect();
    assert!(names.iter().all(|file| file.metadata().unwrap().len() == SEGMENT_BYTES));
    assert!(directory.path().join("commitlog/00000000000000032768").exists());
    opened.close();
}

#[test]
fn consume_queue_files_are_rocketmqs() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = open_in(directory.path());
    let appended: Vec<_> = (0..20).map(|_| opened.put("T", 5, b"x")).collect();
    opened.confirm_all();
    opened.close();
    let file = |name: &str| std::fs::read(directory.path().join("consumequeue/T/5").join(name)).unwrap();
    let bytes = [file("00000000000000000000"), file("00000000000000000320")].concat();
    assert_eq!(bytes.len(), 640);
    for (unit, appended) in bytes.chunks(20).zip(&appended) {
        assert_eq!(unit[..8], appended.physical.0.to_be_bytes());
        assert_eq!(unit[8..12], ((appended.end - appended.physical) as u32).to_be_bytes());
        assert_eq!(unit[12..], tags::tags_code("TagA").to_be_bytes());
    }
    assert_eq!(bytes[400..], [0; 240]);
}

#[test]
fn what_is_over_a_limit_is_refused_and_its_neighbours_are_written() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config { max_message_bytes: 1000, ..config(directory.path()) };
    let mut opened = try_open(config).unwrap();
    let big = message("T", 0, &[0; 1001]);
    let long_topic = message(&"t".repeat(256), 0, b"");
    let long_properties = NewMessage { properties: vec![b'p'; 32_768].into(), ..message("T", 0, b"") };
    let whole_segment = Append { messages: vec![message("T", 0, &[0; 900]); 20].into() };
    let results = opened.append(&[
        message("T", 0, b"first").into(),
        big.into(),
        long_topic.into(),
        long_properties.into(),
        whole_segment,
        Append::default(),
        message("../T", 0, b"").into(),
        message("T", 0, b"last").into(),
    ]);
    let kinds: Vec<_> = results
        .iter()
        .map(|result| match result {
            Ok(appended) => format!("{}", appended.first_queue_offset),
            Err(AppendError::TooLarge { what, .. }) => (*what).to_owned(),
            Err(AppendError::Invalid(_)) => "invalid".to_owned(),
            Err(other) => panic!("{other}"),
        })
        .collect();
    assert_eq!(kinds, ["0", "body", "topic", "properties", "batch", "invalid", "invalid", "1"]);
    opened.confirm_all();
    assert_eq!(opened.consume("T", 0), [(0, b"first".to_vec()), (1, b"last".to_vec())]);
    opened.close();
}

#[test]
fn a_read_answers_as_rocketmq_does() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = open_in(directory.path());
    for number in 0..40_u8 {
        opened.put("T", 0, &[number; 100]);
    }
    opened.confirm_all();
    let answer = |from: u64| {
        let read = opened.read("T", 0, from);
        (read.status, read.messages.len(), read.next.0)
    };
    assert_eq!(answer(0), (ReadStatus::Found, 40, 40));
    assert_eq!(answer(39), (ReadStatus::Found, 1, 40));
    assert_eq!(answer(40), (ReadStatus::OffsetOverflowOne, 0, 40));
    assert_eq!(answer(41), (ReadStatus::OffsetOverflowBadly, 0, 40));
    assert_eq!(opened.read("T", 1, 0).status, ReadStatus::NoMatchedQueue);

    let limited = |max_count: usize, max_bytes: usize| {
        let limits = ReadLimits::new(max_count, max_bytes);
        let read = opened.store.read_queue("T", 0, QueueOffset(3), limits, |_| true).unwrap();
        (read.messages.len(), read.next.0)
    };
    let size = opened.read("T", 0, 0).messages[0].len();
    assert_eq!(limited(5, usize::MAX), (5, 8));
    assert_eq!(limited(100, 3 * size), (3, 6));
    assert_eq!(limited(100, 3 * size - 1), (2, 5));
    assert_eq!(limited(100, 1), (1, 4), "one message in any case");

    let filtered = opened.store.read_queue("T", 0, QueueOffset(0), ALL, |_| false).unwrap();
    assert_eq!((filtered.status, filtered.next.0), (ReadStatus::NoMatchedMessage, 40));
    opened.close();
}

#[test]
fn a_time_stands_for_a_message() {
    let directory = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicI64::new(0));
    let clock = now.clone();
    let config = Config { clock: Clock::new(move || clock.load(Ordering::SeqCst)), ..config(directory.path()) };
    let mut opened = try_open(config).unwrap();
    for time in [100, 200, 200, 200, 300] {
        now.store(time, Ordering::SeqCst);
        opened.put("T", 0, b"x");
    }
    opened.confirm_all();
    let at = |time: i64, boundary| opened.store.offset_by_time("T", 0, time, boundary).unwrap().0;
    let lower: Vec<_> = [50, 100, 150, 200, 250, 300, 350].map(|time| at(time, Boundary::Lower)).into();
    assert_eq!(lower, [0, 0, 1, 1, 4, 4, 5]);
    let upper: Vec<_> = [50, 100, 150, 200, 250, 300, 350].map(|time| at(time, Boundary::Upper)).into();
    assert_eq!(upper, [0, 0, 0, 3, 3, 4, 4]);
    assert_eq!(opened.store.store_time_of("T", 0, QueueOffset(4)).unwrap(), Some(300));
    assert_eq!(opened.store.store_time_of("T", 0, QueueOffset(5)).unwrap(), None);
    assert_eq!(opened.store.earliest_store_time("T", 0).unwrap(), Some(100));
    assert_eq!(opened.store.earliest_store_time("U", 0).unwrap(), None);
    opened.close();
}

#[test]
fn half_messages_have_no_place_in_a_queue_and_delayed_ones_their_time() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = open_in(directory.path());
    let prepared = NewMessage { sys_flag: record::TRANSACTION_PREPARED, ..message("T", 0, b"half") };
    let delayed = NewMessage {
        properties: bytes::Bytes::from_static(b"DELAY\x012\x02TAGS\x01A\x02"),
        ..message("SCHEDULE_TOPIC_XXXX", 1, b"later")
    };
    let results = opened.append(&[prepared.into(), message("T", 0, b"whole").into(), delayed.into()]);
    assert_eq!(results[0].as_ref().unwrap().first_queue_offset.0, 0);
    assert_eq!(results[1].as_ref().unwrap().first_queue_offset.0, 0);
    opened.confirm_all();
    assert_eq!(opened.consume("T", 0), [(0, b"whole".to_vec())]);
    let told = opened.events.told().dispatched;
    assert_eq!(told.len(), 2);
    assert_eq!(told[1].tags_code, 1_700_000_000_000 + 5000, "level 2 is 5 s");
    opened.close();
}

#[test]
fn a_store_is_opened_once_and_with_sizes_that_can_be() {
    let directory = tempfile::tempdir().unwrap();
    let opened = open_in(directory.path());
    assert!(matches!(try_open(config(directory.path())), Err(OpenError::Locked { .. })));
    opened.kill();
    open_in(directory.path()).close();
    let odd = Config { segment_bytes: 5000, ..config(directory.path()) };
    assert!(matches!(try_open(odd), Err(OpenError::Config(_))));
    let mut opened = open_in(directory.path());
    opened.put("T", 0, b"x");
    opened.close();
    let other = Config { segment_bytes: 2 * SEGMENT_BYTES, ..config(directory.path()) };
    let error = try_open(other).err().unwrap().to_string();
    assert!(error.contains("commitlog/00000000000000000000") && error.contains("mappedFileSizeCommitLog"), "{error}");
    open_in(directory.path()).close();
}

#[test]
fn a_closed_store_takes_nothing_more() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = open_in(directory.path());
    opened.put("T", 0, b"x");
    opened.store.close().unwrap();
    opened.store.close().unwrap();
    assert!(matches!(opened.append(&[message("T", 0, b"y").into()])[0], Err(AppendError::Closed)));
    assert!(!directory.path().join("abort").exists());
    let mut again = open_in(directory.path());
    assert_eq!(again.put("T", 0, b"y").first_queue_offset.0, 1);
    again.close();
}

#[test]
fn the_log_can_lie_on_another_path_than_the_rest() {
    let (root, log) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let elsewhere = || Config { commit_log_directory: Some(log.path().join("log")), ..config(root.path()) };
    let mut opened = try_open(elsewhere()).unwrap();
    for number in 0..100_u8 {
        opened.put("T", 0, &vec![number; 600]);
    }
    let to = opened.put("T", 0, b"last").physical;
    opened.put("T", 0, b"cut");
    opened.appender.truncate(to, None).unwrap();
    opened.kill();
    assert!(!root.path().join("commitlog").exists());
    assert!(log.path().join("log/00000000000000016384").exists());
    // A segment that was being made when the process ended.
    std::fs::write(log.path().join("log/commitlog.next"), b"unfinished").unwrap();

    let opened = try_open(elsewhere()).unwrap();
    assert_eq!(opened.store.watermarks().written, to);
    opened.confirm_all();
    assert_eq!(opened.consume("T", 0).len(), 100);
    opened.close();
}
