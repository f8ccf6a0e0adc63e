//! The raw path to another replica, cutting, and starting elsewhere.

use std::path::Path;

use crate::common::*;
use gantry_store::{
    Append, Config, PhysicalOffset, RawError, ReadError, ReadLog, StartError, TruncateError, Truncated, record,
};

fn fill(opened: &mut Opened, from: u64, to: u64) -> Vec<gantry_store::Appended> {
    (from..to)
        .map(|number| opened.put("T", (number % 3) as u32, &vec![number as u8; 200 + (number * 37 % 400) as usize]))
        .collect()
}

fn segments(root: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> =
        std::fs::read_dir(root.join("commitlog")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let read = |path: &std::path::PathBuf| {
        (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(path).unwrap())
    };
    files.iter().map(read).filter(|(_, bytes)| bytes.iter().any(|byte| *byte != 0)).collect()
}

#[test]
fn a_replica_is_byte_for_byte_its_master_and_goes_on_exactly_where_it_ended() {
    for max_bytes in [1, 700, 5000, usize::MAX] {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (mut master, mut slave) = (open_in(one.path()), open_in(two.path()));
        fill(&mut master, 0, 150);
        let end = replicate(&master.store, &mut slave.appender, PhysicalOffset(0), max_bytes);
        assert_eq!(end, master.store.watermarks().written);
        assert_eq!(slave.store.watermarks().written, end);
        assert!(segments(one.path()) == segments(two.path()), "{max_bytes}");
        slave.confirm_all();
        master.confirm_all();
        for queue in 0..3 {
            assert_eq!(slave.consume("T", queue), master.consume("T", queue));
            // Promoted: the same numbers as the master would have given.
            assert_eq!(slave.appender.next_queue_offset("T", queue), master.appender.next_queue_offset("T", queue));
        }
        assert_eq!(slave.put("T", 1, b"as a master").first_queue_offset.0, 50);
        slave.close();
        master.close();
    }
}

#[test]
fn reading_the_log_keeps_to_records_and_segments_and_says_where_there_is_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = open_in(directory.path());
    let all = fill(&mut opened, 0, 100);
    let read = |from: u64, max: usize| match opened.store.read_log(PhysicalOffset(from), max).unwrap() {
        ReadLog::Bytes { bytes, next } => (bytes.len() as u64, next.0),
        other => panic!("{other:?}"),
    };
    assert_eq!(read(0, 0), (all[0].end.0, all[0].end.0));
    assert_eq!(read(0, all[2].end.0 as usize), (all[2].end.0, all[2].end.0));
    assert_eq!(read(0, all[2].end.0 as usize - 1), (all[1].end.0, all[1].end.0));
    assert_eq!(read(0, usize::MAX), (SEGMENT_BYTES, SEGMENT_BYTES), "the blank comes with all that it fills");
    let last_of_first = all.iter().rfind(|appended| appended.end.0 < SEGMENT_BYTES).unwrap();
    assert_eq!(read(last_of_first.end.0, 1), (SEGMENT_BYTES - last_of_first.end.0, SEGMENT_BYTES));

    let written = opened.store.watermarks().written;
    assert_eq!(opened.store.read_log(written, 100).unwrap(), ReadLog::AtEnd);
    assert!(matches!(opened.store.read_log(written + 1, 100), Err(ReadError::PastEnd { .. })));
    assert!(matches!(opened.store.read_log(PhysicalOffset(1), 100), Err(ReadError::Record(_))));
    opened.close();
}

#[test]
fn reading_past_the_maps_gives_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = open_in(directory.path());
    fill(&mut opened, 0, 150);
    for max_bytes in [0, 1, 9, 700, 5000, 1 << 20] {
        let mut at = PhysicalOffset(0);
        while let ReadLog::Bytes { bytes, next } = opened.store.read_log(at, max_bytes).unwrap() {
            assert_eq!(
                opened.store.read_cold(at, max_bytes).unwrap(),
                ReadLog::Bytes { bytes, next },
                "{at} {max_bytes}"
            );
            at = next;
        }
        assert_eq!(opened.store.read_cold(at, max_bytes).unwrap(), ReadLog::AtEnd);
    }
    opened.wait_flushed();
    let written = opened.store.watermarks().written;
    opened.store.forget_cached(PhysicalOffset(0), written);
    assert!(matches!(opened.store.read_cold(written + 1, 100), Err(ReadError::PastEnd { .. })));
    for amiss in 1..40 {
        assert!(matches!(opened.store.read_cold(PhysicalOffset(amiss), 100), Err(ReadError::Record(_))), "{amiss}");
    }
    opened.close();
}

#[test]
fn bytes_that_are_not_the_next_records_are_refused_as_a_whole() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut master, mut slave) = (open_in(one.path()), open_in(two.path()));
    let all = fill(&mut master, 0, 60);
    let log = log_bytes(&master.store);
    let to = |offset: PhysicalOffset| offset.0 as usize;
    let mut raw = |from: u64, bytes: &[u8]| slave.appender.append_raw(PhysicalOffset(from), bytes);

    assert!(matches!(raw(1, &log[1..100]), Err(RawError::NotAtEnd { .. })));
    assert!(matches!(raw(0, &log[..to(all[1].end) - 1]), Err(RawError::Record(_))), "half a record");
    assert!(matches!(raw(0, &log[to(all[0].end)..to(all[1].end)]), Err(RawError::Record(_))), "another place's record");
    assert!(matches!(raw(0, &log[..to(all[0].end) + 4]), Err(RawError::Record(_))));
    let beyond = all.iter().find(|appended| appended.physical.0 >= SEGMENT_BYTES).unwrap();
    assert!(matches!(raw(0, &log[..to(beyond.end)]), Err(RawError::Record(_))), "two segments at once");
    let mut flipped = log[..to(all[3].end)].to_vec();
    flipped[to(all[2].physical) + 4] ^= 1;
    assert!(matches!(raw(0, &flipped), Err(RawError::Record(_))));
    assert_eq!(raw(0, &[]).unwrap(), PhysicalOffset(0));
    assert_eq!(raw(0, &log[..to(all[3].end)]).unwrap(), all[3].end);
    // Half of the blank at the segment's end.
    let last = all.iter().rfind(|appended| appended.end.0 < SEGMENT_BYTES).unwrap();
    raw(all[3].end.0, &log[to(all[3].end)..to(last.end)]).unwrap();
    assert!(matches!(raw(last.end.0, &log[to(last.end)..to(last.end) + 8]), Err(RawError::Record(_))));
    assert_eq!(slave.store.watermarks().written, last.end, "none of it was written");
    slave.close();
    master.close();
}

#[test]
fn a_slave_with_another_segment_size_says_so() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut master = open_in(one.path());
    let mut slave = try_open(Config { segment_bytes: SEGMENT_BYTES / 2, ..config(two.path()) }).unwrap();
    fill(&mut master, 0, 100);
    let ReadLog::Bytes { bytes, .. } = master.store.read_log(PhysicalOffset(0), usize::MAX).unwrap() else { panic!() };
    let error = slave.appender.append_raw(PhysicalOffset(0), &bytes).unwrap_err().to_string();
    assert!(error.contains("mappedFileSizeCommitLog"), "{error}");
    slave.close();
    master.close();
}

#[test]
fn a_cut_log_goes_on_with_other_messages_and_nothing_comes_back() {
    // Held slices force the replacement of the segment; without them it is cut in place.
    for hold in [false, true] {
        for clean in [false, true] {
            let (directory, divergent) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let mut opened = open_in(directory.path());
            let all = fill(&mut opened, 0, 120);
            opened.confirm_all();
            let log = log_bytes(&opened.store);
            let held = hold.then(|| opened.read("T", 0, 0).messages);
            let held_bytes: Option<Vec<_>> =
                held.as_ref().map(|held| held.iter().map(|bytes| bytes.to_vec()).collect());

            let to = all[50].physical;
            let keep = divergent.path().join("divergent");
            let Truncated { bytes, kept } = opened.appender.truncate(to, Some(&keep)).unwrap();
            assert_eq!(bytes, log.len() as u64 - to.0);
            assert!(std::fs::read(kept.unwrap()).unwrap() == log[to.0 as usize..]);
            let marks = opened.store.watermarks();
            assert_eq!((marks.written, marks.confirmed, marks.dispatched), (to, to, to));
            assert!(log_bytes(&opened.store) == log[..to.0 as usize]);
            for queue in 0..3 {
                let expected = (0..50).filter(|number| number % 3 == queue).count();
                assert_eq!(opened.consume("T", queue as u32).len(), expected);
                assert_eq!(opened.appender.next_queue_offset("T", queue as u32).0, expected as u64);
            }
            // The same sizes: stale records would follow on seamlessly.
            for number in 50..70_u64 {
                let body = vec![!(number as u8); 200 + (number * 37 % 400) as usize];
                let again = opened.put("T", (number % 3) as u32, &body);
                assert_eq!(again.physical, all[number as usize].physical);
            }
            let log = log_bytes(&opened.store);
            if clean {
                opened.close();
            } else {
                opened.kill();
            }
            assert_eq!(held.map(|held| held.iter().map(|bytes| bytes.to_vec()).collect::<Vec<_>>()), held_bytes);

            let opened = open_in(directory.path());
            assert!(log_bytes(&opened.store) == log, "hold {hold}, clean {clean}");
            opened.confirm_all();
            let consumed = opened.consume("T", 0);
            assert_eq!(consumed.len(), 24);
            assert!(consumed[17..].iter().all(|(number, body)| body[0] == !((number * 3) as u8)));
            opened.close();
        }
    }
}

#[test]
fn a_cut_may_be_at_a_segments_beginning_or_take_everything() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = open_in(directory.path());
    fill(&mut opened, 0, 150);
    opened.confirm_all();
    let log = log_bytes(&opened.store);
    for to in [3 * SEGMENT_BYTES, SEGMENT_BYTES, 0] {
        opened.appender.truncate(PhysicalOffset(to), None).unwrap();
        assert!(log_bytes(&opened.store) == log[..to as usize]);
        opened.kill();
        opened = open_in(directory.path());
        assert!(log_bytes(&opened.store) == log[..to as usize]);
    }
    assert_eq!(opened.put("T", 0, b"first").first_queue_offset.0, 0);
    opened.confirm_all();
    assert_eq!(opened.consume("T", 0), [(0, b"first".to_vec())]);
    assert_eq!(opened.consume("T", 1), []);
    opened.close();
}

#[test]
fn a_cut_elsewhere_than_at_a_record_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = open_in(directory.path());
    let all = fill(&mut opened, 0, 10);
    let end = all[9].end;
    let cut = |opened: &mut Opened, to: u64| opened.appender.truncate(PhysicalOffset(to), None);
    assert!(matches!(cut(&mut opened, all[4].physical.0 + 1), Err(TruncateError::NotABoundary(_))));
    assert!(matches!(cut(&mut opened, end.0 + 1), Err(TruncateError::OutOfRange { .. })));
    assert_eq!(cut(&mut opened, end.0).unwrap(), Truncated { bytes: 0, kept: None });
    assert_eq!(opened.store.watermarks().written, end);
    opened.close();
}

#[test]
fn the_same_range_cut_twice_is_kept_twice() {
    let directory = tempfile::tempdir().unwrap();
    let keep = directory.path().join("divergent");
    let mut opened = open_in(directory.path());
    let first = opened.put("T", 0, b"same");
    for body in [b"old", b"new"] {
        let tail = opened.put("T", 0, body);
        let kept = opened.appender.truncate(first.end, Some(&keep)).unwrap().kept.unwrap();
        let bytes = std::fs::read(kept).unwrap();
        assert_eq!(bytes.len() as u64, tail.end - tail.physical);
        assert_eq!(decode(&bytes).body, body);
    }
    assert_eq!(std::fs::read_dir(keep).unwrap().count(), 2);
    opened.close();
}

#[test]
fn an_empty_log_can_begin_where_its_masters_does() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut master, mut slave) = (open_in(one.path()), open_in(two.path()));
    fill(&mut master, 0, 100);
    let start = PhysicalOffset(2 * SEGMENT_BYTES);
    assert!(matches!(slave.appender.start_at(start + 1), Err(StartError::Unaligned { .. })));
    slave.appender.start_at(PhysicalOffset(5 * SEGMENT_BYTES)).unwrap();
    slave.appender.start_at(start).unwrap();
    slave.kill();
    let mut slave = open_in(two.path());
    assert_eq!((slave.store.min_offset(), slave.store.watermarks().written), (start, start));
    replicate(&master.store, &mut slave.appender, start, 3000);
    assert!(segments(one.path())[2..] == segments(two.path()));
    assert!(matches!(slave.appender.start_at(PhysicalOffset(0)), Err(StartError::NotEmpty { .. })));
    assert_eq!(slave.store.read_log(PhysicalOffset(0), 1).unwrap(), ReadLog::Gone { oldest: start });
    slave.confirm_all();
    master.confirm_all();
    let (all, some) = (master.consume("T", 1), slave.consume("T", 1));
    assert_eq!(some[..], all[all.len() - some.len()..]);
    assert_eq!(slave.appender.next_queue_offset("T", 1), master.appender.next_queue_offset("T", 1));
    slave.kill();
    let mut slave = open_in(two.path());
    slave.confirm_all();
    assert_eq!(slave.consume("T", 1), some);

    // From scratch again: cut to nothing, then elsewhere.
    slave.appender.truncate(start, None).unwrap();
    slave.appender.start_at(PhysicalOffset(0)).unwrap();
    replicate(&master.store, &mut slave.appender, PhysicalOffset(0), usize::MAX);
    slave.confirm_all();
    assert_eq!(slave.consume("T", 1), all);
    assert!(segments(one.path()) == segments(two.path()));
    slave.close();
    master.close();
}

#[test]
fn a_batch_is_replicated_like_any_records() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut master, mut slave) = (open_in(one.path()), open_in(two.path()));
    let batch = Append { messages: (0..10_u8).map(|number| message("T", 0, &[number; 100])).collect() };
    for _ in 0..30 {
        assert_eq!(master.append(std::slice::from_ref(&batch))[0].as_ref().unwrap().count, 10);
    }
    replicate(&master.store, &mut slave.appender, PhysicalOffset(0), 2000);
    slave.confirm_all();
    assert_eq!(slave.consume("T", 0).len(), 300);
    assert_eq!(record::decode(&slave.read("T", 0, 299).messages[0]).unwrap().body, [9; 100]);
    slave.close();
    master.close();
}
