//! What is there after a stop, clean or not.

use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::common::*;
use gantry_store::{Config, Flush, OpenError, PhysicalOffset, ReadStatus, record};

/// A checkpoint that comes only when the store is closed.
fn lazy(root: &Path) -> Config {
    Config { checkpoint_interval: std::time::Duration::from_hours(1), ..config(root) }
}

/// The same, and nothing is synced either.
fn lazy_async(root: &Path) -> Config {
    Config { flush: Flush::Async { interval_ms: 3_600_000 }, ..lazy(root) }
}

/// What a test does to a store's directory.
type Spoil = fn(&Path);

fn segment(root: &Path, base: u64) -> PathBuf {
    root.join("commitlog").join(format!("{base:020}"))
}

/// Whether the checkpoint says that everything below `end` is dispatched, and how many units that makes.
fn claims(root: &Path, end: u64) -> bool {
    let checkpoint = std::fs::read(root.join("checkpoint")).unwrap();
    checkpoint[80..88] == end.to_be_bytes() && checkpoint[116..124] != [0xFF; 8]
}

fn bodies(count: u8) -> Vec<(u64, Vec<u8>)> {
    (0..count).map(|number| (u64::from(number), vec![number; 300])).collect()
}

fn fill(opened: &mut Opened, count: u8) {
    for number in 0..count {
        opened.put("T", 0, &vec![number; 300]);
    }
}

#[test]
fn a_clean_stop_keeps_everything_and_a_kill_does_too() {
    for kill in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let mut opened = try_open(lazy_async(directory.path())).unwrap();
        fill(&mut opened, 200);
        opened.confirm_all();
        let (marks, log) = (opened.store.watermarks(), log_bytes(&opened.store));
        if kill {
            opened.kill();
        } else {
            opened.close();
        }
        assert_eq!(directory.path().join("abort").exists(), kill);

        let mut opened = open_in(directory.path());
        assert_eq!(opened.store.watermarks().written, marks.written);
        assert_eq!(opened.store.watermarks().flushed, marks.written, "what was read is synced before it counts");
        assert!(log_bytes(&opened.store) == log);
        opened.confirm_all();
        assert_eq!(opened.consume("T", 0), bodies(200));
        assert_eq!(opened.put("T", 0, b"next").first_queue_offset.0, 200);
        opened.close();
    }
}

#[test]
fn the_confirm_offset_begins_where_the_checkpoint_knew_it_and_queue_numbers_count_what_is_above() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = open_in(directory.path());
    fill(&mut opened, 10);
    opened.confirm_all();
    let confirmed = opened.store.watermarks().confirmed;
    fill(&mut opened, 5);
    opened.close();

    let mut opened = open_in(directory.path());
    assert_eq!(opened.store.watermarks().confirmed, confirmed);
    assert_eq!(opened.store.watermarks().dispatched, confirmed, "visible before anybody can ask");
    assert_eq!(opened.store.queue_range("T", 0).max.0, 10);
    assert_eq!(opened.put("T", 0, b"x").first_queue_offset.0, 15);
    opened.confirm_all();
    assert_eq!(opened.store.queue_range("T", 0).max.0, 16);
    opened.close();
}

#[test]
fn a_tail_torn_at_any_byte_of_the_last_record_is_cut_and_its_place_used_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = try_open(lazy_async(directory.path())).unwrap();
    let kept = opened.put("T", 0, b"kept");
    let last = opened.put("T", 0, b"a last message");
    opened.kill();
    let path = segment(directory.path(), 0);
    let whole = std::fs::read(&path).unwrap();
    for cut in last.physical.0..last.end.0 {
        let mut torn = whole.clone();
        torn[cut as usize..].fill(0);
        std::fs::write(&path, &torn).unwrap();
        let mut opened = try_open(lazy_async(directory.path())).unwrap();
        assert_eq!(opened.store.watermarks().written, kept.end, "cut at {cut}");
        assert!(std::fs::read(&path).unwrap()[kept.end.0 as usize..].iter().all(|byte| *byte == 0), "cut at {cut}");
        let again = opened.put("T", 0, b"another message");
        assert_eq!((again.physical, again.first_queue_offset.0), (last.physical, 1));
        opened.kill();
        // The next round begins where this one did.
        std::fs::remove_file(directory.path().join("checkpoint")).unwrap();
    }
}

#[test]
fn records_behind_a_hole_do_not_come_back_when_the_hole_is_filled() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = try_open(lazy_async(directory.path())).unwrap();
    let all: Vec<_> = (0..5_u8).map(|number| opened.put("T", 0, &[number; 100])).collect();
    opened.kill();
    // Power was lost: the third record's pages never reached the disk, those behind it did.
    let file = std::fs::OpenOptions::new().write(true).open(segment(directory.path(), 0)).unwrap();
    let hole = (all[2].end - all[2].physical) as usize;
    file.write_all_at(&vec![0; hole], all[2].physical.0).unwrap();
    std::fs::remove_file(directory.path().join("checkpoint")).unwrap();

    let mut opened = try_open(lazy_async(directory.path())).unwrap();
    assert_eq!(opened.store.watermarks().written, all[1].end);
    // Of exactly the same size: what lay behind would follow on.
    assert_eq!(opened.put("T", 0, &[9; 100]).end, all[2].end);
    opened.kill();
    let opened = open_in(directory.path());
    assert_eq!(opened.store.watermarks().written, all[2].end);
    opened.confirm_all();
    assert_eq!(opened.consume("T", 0), [(0, vec![0; 100]), (1, vec![1; 100]), (2, vec![9; 100])]);
    opened.close();
}

#[test]
fn segments_behind_a_torn_one_are_removed() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = try_open(lazy_async(directory.path())).unwrap();
    fill(&mut opened, 200);
    assert!(opened.store.watermarks().written.0 > 3 * SEGMENT_BYTES);
    opened.kill();
    let file = std::fs::OpenOptions::new().write(true).open(segment(directory.path(), SEGMENT_BYTES)).unwrap();
    file.write_all_at(&[0; 512], 4096).unwrap();
    let mut opened = try_open(lazy_async(directory.path())).unwrap();
    let written = opened.store.watermarks().written.0;
    assert!((SEGMENT_BYTES..SEGMENT_BYTES + 4096).contains(&written), "{written}");
    assert!(!segment(directory.path(), 2 * SEGMENT_BYTES).exists());
    assert!(!segment(directory.path(), 3 * SEGMENT_BYTES).exists());
    fill(&mut opened, 100);
    opened.confirm_all();
    let numbers: Vec<u64> = opened.consume("T", 0).into_iter().map(|(number, _)| number).collect();
    assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>());
    opened.close();
}

#[test]
fn damage_below_what_was_flushed_is_an_error_that_names_file_and_offset_and_cuts_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = try_open(lazy(directory.path())).unwrap();
    fill(&mut opened, 60);
    opened.close();
    // Nothing was confirmed, so the next open reads all of it.
    let path = segment(directory.path(), 0);
    let before = std::fs::read(&path).unwrap();
    let mut damaged = before.clone();
    damaged[5000] ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    for _ in 0..2 {
        let Err(error) = try_open(lazy(directory.path())) else { panic!("opened a damaged log") };
        assert!(matches!(error, OpenError::Damaged { .. }));
        let text = error.to_string();
        assert!(text.contains("commitlog/00000000000000000000") && text.contains("at offset 4"), "{text}");
        assert!(std::fs::read(&path).unwrap() == damaged, "nothing is cut");
    }
    std::fs::write(&path, &before).unwrap();
    let opened = open_in(directory.path());
    opened.confirm_all();
    assert_eq!(opened.consume("T", 0), bodies(60));
    opened.close();
}

#[test]
fn lost_consume_queues_are_made_again_from_the_log() {
    let losses: [(&str, Spoil); 12] = [
        ("all of them", |root| std::fs::remove_dir_all(root.join("consumequeue")).unwrap()),
        ("one queue", |root| std::fs::remove_dir_all(root.join("consumequeue/U/1")).unwrap()),
        ("a file in the middle", |root| {
            std::fs::remove_file(root.join("consumequeue/T/0/00000000000000000320")).unwrap();
        }),
        ("half a file", |root| {
            let path = root.join("consumequeue/T/0/00000000000000000320");
            std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(100).unwrap();
        }),
        ("a queue's last file", |root| {
            std::fs::remove_file(root.join("consumequeue/T/0/00000000000000001920")).unwrap();
        }),
        ("a queue's last unit", |root| {
            let path = root.join("consumequeue/T/0/00000000000000001920");
            let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
            file.write_all_at(&[0; 20], 3 * 20).unwrap();
        }),
        ("the last unit, which became another queue's", |root| {
            let mut unit = [0; 20];
            let path = root.join("consumequeue/U/1/00000000000000000000");
            std::fs::File::open(path).unwrap().read_exact_at(&mut unit, 0).unwrap();
            let path = root.join("consumequeue/T/0/00000000000000001920");
            let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
            file.write_all_at(&unit, 3 * 20).unwrap();
        }),
        ("an over-long file", |root| {
            let path = root.join("consumequeue/T/0/00000000000000000320");
            std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(340).unwrap();
        }),
        ("a file of another name", |root| std::fs::write(root.join("consumequeue/T/0/notes"), "x").unwrap()),
        ("the checkpoint's bytes", |root| {
            let file = std::fs::OpenOptions::new().write(true).open(root.join("checkpoint")).unwrap();
            file.write_all_at(&[0xFF], 90).unwrap();
        }),
        ("the checkpoint", |root| std::fs::remove_file(root.join("checkpoint")).unwrap()),
        ("our part of the checkpoint, by an Apache broker", |root| {
            let file = std::fs::OpenOptions::new().write(true).open(root.join("checkpoint")).unwrap();
            file.write_all_at(&[1], 7).unwrap();
        }),
    ];
    for (what, lose) in losses {
        for kill in [true, false] {
            let directory = tempfile::tempdir().unwrap();
            let mut opened = open_in(directory.path());
            fill(&mut opened, 100);
            opened.put("U", 1, b"u");
            opened.confirm_all();
            opened.wait_flushed();
            let written = opened.store.watermarks().written;
            wait_until("a checkpoint of all", || claims(directory.path(), written.0));
            if kill {
                opened.kill();
            } else {
                opened.close();
            }
            lose(directory.path());

            let mut opened = open_in(directory.path());
            assert_eq!(opened.store.watermarks().written, written, "{what}");
            opened.confirm_all();
            assert_eq!(opened.consume("T", 0), bodies(100), "{what}");
            assert_eq!(opened.consume("U", 1), [(0, b"u".to_vec())], "{what}");
            assert_eq!(opened.put("T", 0, b"x").first_queue_offset.0, 100, "{what}");
            opened.close();
        }
    }
}

#[test]
fn units_that_no_checkpoint_claims_are_not_trusted() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = try_open(lazy_async(directory.path())).unwrap();
    fill(&mut opened, 40);
    opened.confirm_all();
    opened.kill();
    // Units of a future that the disk has, and the log doesn't.
    let path = directory.path().join("consumequeue/T/0/00000000000000000640");
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    for unit in 8..16 {
        file.write_all_at(&(1_000_u64 * unit).to_be_bytes(), unit * 20).unwrap();
        file.write_all_at(&99_u32.to_be_bytes(), unit * 20 + 8).unwrap();
    }
    let mut opened = open_in(directory.path());
    opened.confirm_all();
    assert_eq!(opened.consume("T", 0), bodies(40));
    assert_eq!(opened.put("T", 0, b"x").first_queue_offset.0, 40);
    opened.close();
}

#[test]
fn a_unit_that_lost_its_first_half_is_not_taken_for_an_older_message() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = open_in(directory.path());
    fill(&mut opened, 8);
    opened.confirm_all();
    opened.close();
    let mut opened = try_open(lazy_async(directory.path())).unwrap();
    // Whatever the checkpointer says later never reaches the disk.
    let checkpoint = std::fs::read(directory.path().join("checkpoint")).unwrap();
    for number in 8..10 {
        opened.put("T", 0, &vec![number; 300]);
    }
    opened.confirm_all();
    opened.kill();
    std::fs::write(directory.path().join("checkpoint"), checkpoint).unwrap();
    // Of the first unit that no checkpoint claims the last bytes of the position reached the disk, and all that follows.
    let path = directory.path().join("consumequeue/T/0/00000000000000000000");
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[0; 7], 8 * 20).unwrap();
    file.write_all_at(&[0; 20], 9 * 20).unwrap();
    let opened = open_in(directory.path());
    opened.confirm_all();
    assert_eq!(opened.consume("T", 0), bodies(10));
    opened.close();
}

#[test]
fn a_queue_that_lacks_numbers_is_filled_with_blanks_that_readers_pass_over() {
    let directory = tempfile::tempdir().unwrap();
    // A log as a master with older messages would send it: the first number isn't 0, and some are missing.
    let mut raw = Vec::new();
    for number in [37_u64, 38, 45, 90] {
        let placement = record::Placement {
            queue_offset: gantry_store::QueueOffset(number),
            physical: PhysicalOffset(raw.len() as u64),
            store_timestamp_ms: 1,
        };
        record::encode(&message("T", 0, &[number as u8]), placement, true, &mut raw);
    }
    let expected = [(37, vec![37]), (38, vec![38]), (45, vec![45]), (90, vec![90])];
    let mut opened = open_in(directory.path());
    opened.appender.append_raw(PhysicalOffset(0), &raw).unwrap();
    opened.confirm_all();
    let range = opened.store.queue_range("T", 0);
    assert_eq!((range.min.0, range.max.0), (37, 91));
    assert_eq!(opened.consume("T", 0), expected);
    assert_eq!(opened.read("T", 0, 0).status, ReadStatus::OffsetTooSmall);
    assert_eq!(opened.put("T", 0, &[91]).first_queue_offset.0, 91);
    opened.kill();
    let blank = [0, 0, 0, 0, 0, 0, 0, 0, 0x7F, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0, 0, 0, 0, 0];
    let file = std::fs::read(directory.path().join("consumequeue/T/0/00000000000000000640")).unwrap();
    assert_eq!(file[4 * 20..5 * 20], blank, "number 36");

    for clean in [false, true] {
        let opened = open_in(directory.path());
        opened.confirm_all();
        assert_eq!(opened.store.queue_range("T", 0).min.0, 37);
        assert_eq!(opened.consume("T", 0)[..4], expected);
        if clean { opened.close() } else { opened.kill() }
    }
}

#[test]
fn a_directory_with_something_else_in_it_is_refused_by_name() {
    let cases: [(&str, Spoil); 8] = [
        // The last ones are gone, the checkpoint knows of them.
        ("commitlog/00000000000000032768", |root| {
            for entry in std::fs::read_dir(root.join("commitlog")).unwrap() {
                let path = entry.unwrap().path();
                if path >= segment(root, 2 * SEGMENT_BYTES) {
                    std::fs::remove_file(path).unwrap();
                }
            }
        }),
        ("commitlog/00000000000000032768", |root| {
            std::fs::remove_dir_all(root.join("commitlog")).unwrap();
        }),
        ("commitlog/00000000000000016384", |root| {
            let file = std::fs::OpenOptions::new().write(true).open(segment(root, SEGMENT_BYTES)).unwrap();
            file.set_len(SEGMENT_BYTES + 4096).unwrap();
        }),
        ("commitlog/00000000000000032768", |root| {
            let file = std::fs::OpenOptions::new().write(true).open(segment(root, 2 * SEGMENT_BYTES)).unwrap();
            file.set_len(4096).unwrap();
        }),
        ("commitlog/00000000000000016384", |root| std::fs::write(segment(root, SEGMENT_BYTES), "").unwrap()),
        ("commitlog/readme.txt", |root| std::fs::write(root.join("commitlog/readme.txt"), "x").unwrap()),
        ("commitlog/00000000000000032768", |root| std::fs::remove_file(segment(root, SEGMENT_BYTES)).unwrap()),
        ("commitlog/00000000000000016384", |root| {
            let file = std::fs::OpenOptions::new().write(true).open(segment(root, SEGMENT_BYTES)).unwrap();
            file.set_len(9000).unwrap();
        }),
    ];
    for (name, spoil) in cases {
        let directory = tempfile::tempdir().unwrap();
        let mut opened = open_in(directory.path());
        fill(&mut opened, 100);
        opened.close();
        spoil(directory.path());
        let Err(OpenError::Layout { path, .. }) = try_open(config(directory.path())) else { panic!("{name}") };
        assert_eq!(path, directory.path().join(name));
    }
}

#[test]
fn an_unused_file_that_an_apache_broker_did_not_finish_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = open_in(directory.path());
    fill(&mut opened, 5);
    opened.close();
    std::fs::write(segment(directory.path(), SEGMENT_BYTES), []).unwrap();
    std::fs::write(directory.path().join("commitlog.next"), b"left over").unwrap();
    let opened = open_in(directory.path());
    assert!(!segment(directory.path(), SEGMENT_BYTES).exists());
    assert!(!directory.path().join("commitlog.next").exists());
    opened.confirm_all();
    assert_eq!(opened.consume("T", 0), bodies(5));
    opened.close();
}

#[test]
fn an_empty_store_opens_again_and_again() {
    let directory = tempfile::tempdir().unwrap();
    for kill in [true, false, true, true] {
        let opened = open_in(directory.path());
        assert_eq!(opened.store.watermarks().written, PhysicalOffset(0));
        assert!(opened.store.topics().is_empty());
        if kill { opened.kill() } else { opened.close() }
    }
}

#[test]
fn more_queues_than_files_may_be_open_work_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = open_in(directory.path());
    for round in 0..3_u8 {
        for queue in 0..50 {
            opened.put("T", queue, &[round]);
        }
        opened.confirm_all();
    }
    opened.kill();
    let opened = open_in(directory.path());
    opened.confirm_all();
    for queue in 0..50 {
        assert_eq!(opened.consume("T", queue), [(0, vec![0]), (1, vec![1]), (2, vec![2])]);
    }
    assert_eq!(opened.store.queues().len(), 50);
    opened.close();
}

#[test]
fn recovery_and_cuts_do_not_fill_sparse_queue_files() {
    let directory = tempfile::tempdir().unwrap();
    let config = |root: &Path| Config { queue_file_units: 300_000, ..lazy_async(root) };
    let mut opened = try_open(config(directory.path())).unwrap();
    fill(&mut opened, 100);
    opened.confirm_all();
    opened.kill();
    let mut opened = try_open(config(directory.path())).unwrap();
    opened.confirm_all();
    opened.appender.truncate(PhysicalOffset(0), None).unwrap();
    fill(&mut opened, 3);
    opened.confirm_all();
    opened.close();
    let path = directory.path().join("consumequeue/T/0/00000000000000000000");
    let metadata = std::fs::metadata(path).unwrap();
    assert_eq!(metadata.len(), 6_000_000);
    assert!(metadata.blocks() * 512 < 1_000_000, "{} blocks", metadata.blocks());
}
