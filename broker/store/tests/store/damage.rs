//! Spoiled bytes: a consumer gets the message that was written, or an error that names the place; never anything else,
//! and never a gap in silence.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::*;
use gantry_store::{Boundary, Config, Flush, OpenError, QueueOffset, ReadError, ReadLimits};

const QUEUE_FILE: &str = "consumequeue/T/0/00000000000000000000";

/// Ten messages, number 4 and those of other queues among them.
fn filled(root: &Path) -> Opened {
    let mut opened = open_in(root);
    for number in 0..10_u8 {
        opened.put("T", 0, &[number; 300]);
        opened.put("U", 0, &[100 + number; 300]);
        opened.put("T", 1, &[200 + number; 300]);
    }
    opened.confirm_all();
    opened
}

fn write_at(root: &Path, name: &str, at: u64, bytes: &[u8]) {
    std::fs::OpenOptions::new().write(true).open(root.join(name)).unwrap().write_all_at(bytes, at).unwrap();
}

fn unit(root: &Path, queue: &str, number: u64) -> [u8; 20] {
    let mut bytes = [0; 20];
    let path = root.join(format!("consumequeue/{queue}/00000000000000000000"));
    std::fs::File::open(path).unwrap().read_exact_at(&mut bytes, number * 20).unwrap();
    bytes
}

#[test]
fn a_spoiled_unit_is_an_error_after_what_comes_before_it_and_never_another_message() {
    type Spoil = fn(&Path) -> [u8; 20];
    let cases: [(&str, Spoil, &str); 8] = [
        ("another topic's record", |root| unit(root, "U/0", 4), "another queue's"),
        ("another queue's record", |root| unit(root, "T/1", 4), "another queue's"),
        ("another number's record", |root| unit(root, "T/0", 7), "another number"),
        ("zeros", |_| [0; 20], "zeros"),
        ("past the end", |_| [0x11; 20], "past the log's end"),
        (
            "no record's beginning",
            |root| [&unit(root, "T/0", 4)[..7], &[0x55; 13]].concat().try_into().unwrap(),
            "at offset",
        ),
        (
            "another size",
            |root| {
                let mut unit = unit(root, "T/0", 4);
                unit[11] ^= 1;
                unit
            },
            "at offset",
        ),
        (
            "a smaller size",
            |root| {
                let mut unit = unit(root, "T/0", 4);
                unit[10] = 0;
                unit
            },
            "at offset",
        ),
    ];
    for (what, spoiled, expected) in cases {
        let directory = tempfile::tempdir().unwrap();
        let opened = filled(directory.path());
        write_at(directory.path(), QUEUE_FILE, 4 * 20, &spoiled(directory.path()));

        let before = opened.read("T", 0, 0);
        assert_eq!((before.messages.len(), before.next.0), (4, 4), "{what}");
        for from in [4, 4] {
            let error = opened.store.read_queue("T", 0, QueueOffset(from), ALL, |_| true).unwrap_err();
            assert!(matches!(error, ReadError::Pointer { .. }), "{what}: {error}");
            let text = error.to_string();
            assert!(text.contains("T queue 0 offset 4") && text.contains(expected), "{what}: {text}");
        }
        let behind = opened.read("T", 0, 5);
        assert_eq!(behind.messages.iter().map(|bytes| decode(bytes).body[0]).collect::<Vec<_>>(), [5, 6, 7, 8, 9]);
        opened.close();
    }
}

#[test]
fn a_body_that_the_disk_changed_is_an_error_and_not_a_message() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = open_in(directory.path());
    opened.put("T", 0, b"first");
    let second = opened.put("T", 0, b"second");
    opened.confirm_all();
    opened.wait_flushed();
    // Behind HEAD, BORNHOST, STOREHOST and the body's length.
    write_at(directory.path(), "commitlog/00000000000000000000", second.physical.0 + 88, b"S");
    assert_eq!(opened.read("T", 0, 0).messages.len(), 1);
    let error = opened.store.read_queue("T", 0, QueueOffset(1), ALL, |_| true).unwrap_err().to_string();
    assert!(error.contains("T queue 0 offset 1") && error.contains("CRC"), "{error}");
    opened.close();
}

#[test]
fn a_search_by_time_does_not_follow_a_spoiled_unit() {
    let directory = tempfile::tempdir().unwrap();
    let opened = filled(directory.path());
    write_at(directory.path(), QUEUE_FILE, 5 * 20, &unit(directory.path(), "U/0", 4));
    let found = opened.store.offset_by_time("T", 0, 1, Boundary::Lower);
    assert!(matches!(found, Err(ReadError::Pointer { .. })), "{found:?}");
    opened.close();
}

const SEGMENT_1: &str = "commitlog/00000000000000016384";

/// A log of three segments and a few messages in a fourth; stopped in that way.
fn stopped(root: &Path, clean: bool) -> Vec<(u64, Vec<u8>)> {
    let mut opened = try_open(Config { checkpoint_interval: Duration::from_hours(1), ..config(root) }).unwrap();
    let mut all = Vec::new();
    while opened.store.watermarks().written.0 < 3 * SEGMENT_BYTES + 2000 {
        let body = vec![all.len() as u8; 900];
        all.push((opened.put("T", 0, &body).first_queue_offset.0, body));
    }
    opened.confirm_all();
    opened.wait_flushed();
    if clean {
        opened.close();
    } else {
        opened.kill();
    }
    all
}

fn log_files(root: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(root.join("commitlog"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

fn remove_checkpoint(root: &Path) {
    std::fs::remove_file(root.join("checkpoint")).unwrap();
}

#[test]
fn without_a_checkpoint_what_lies_behind_damage_is_not_cut_where_any_sign_says_that_it_was_on_disk() {
    type Prepare = fn(&Path);
    let cases: [(&str, bool, Prepare, &str); 5] = [
        ("segments behind have records", false, |root| write_at(root, SEGMENT_1, 5000, &[0xFF]), "has records"),
        ("the same, zeros", false, |root| write_at(root, SEGMENT_1, 4096, &[0; 8192]), "has records"),
        ("a clean stop", true, |root| write_at(root, "commitlog/00000000000000049152", 100, &[0xFF]), "stop was clean"),
        (
            "a clean stop, zeros",
            true,
            |root| {
                write_at(root, "commitlog/00000000000000049152", 0, &[0; 512]);
            },
            "stop was clean",
        ),
        (
            "an Apache broker's checkpoint",
            false,
            |root| {
                write_at(root, "commitlog/00000000000000049152", 1100, &[0xFF]);
                std::fs::write(root.join("checkpoint"), 1_700_000_000_001_u64.to_be_bytes().repeat(3)).unwrap();
            },
            "up to 1700000000001 were on disk",
        ),
    ];
    for (what, clean, spoil, expected) in cases {
        let directory = tempfile::tempdir().unwrap();
        let all = stopped(directory.path(), clean);
        let whole = log_files(directory.path());
        remove_checkpoint(directory.path());
        spoil(directory.path());
        let before = log_files(directory.path());
        for _ in 0..2 {
            let Err(error) = try_open(config(directory.path())) else { panic!("{what}: opened") };
            let text = error.to_string();
            assert!(matches!(error, OpenError::Damaged { .. }) && text.contains(expected), "{what}: {text}");
            assert!(text.contains("commitlog/0000") && text.contains("at offset"), "{what}: {text}");
            assert!(log_files(directory.path()) == before, "{what}: nothing is cut");
            if clean {
                // What tried to open it was no unclean stop of the store.
                std::fs::remove_file(directory.path().join("abort")).unwrap();
            }
        }
        for (name, bytes) in whole {
            std::fs::write(directory.path().join("commitlog").join(name), bytes).unwrap();
        }
        let opened = open_in(directory.path());
        opened.confirm_all();
        assert_eq!(opened.consume("T", 0), all, "{what}");
        opened.close();
    }
}

#[test]
fn without_a_checkpoint_a_torn_tail_is_cut() {
    let directory = tempfile::tempdir().unwrap();
    let all = stopped(directory.path(), false);
    remove_checkpoint(directory.path());
    write_at(directory.path(), "commitlog/00000000000000049152", 1100, &[0xFF]);
    let opened = open_in(directory.path());
    opened.confirm_all();
    let left = opened.consume("T", 0);
    assert!(left.len() < all.len() && left[..] == all[..left.len()] && left.len() > 40, "{} left", left.len());
    opened.close();
}

#[test]
fn damage_above_what_was_flushed_is_a_torn_tail() {
    let directory = tempfile::tempdir().unwrap();
    let never = Config {
        flush: Flush::Async { interval_ms: 3_600_000 },
        checkpoint_interval: Duration::from_hours(1),
        ..config(directory.path())
    };
    let mut opened = try_open(never).unwrap();
    let all: Vec<_> = (0..60_u8).map(|number| opened.put("T", 0, &[number; 900])).collect();
    opened.kill();
    write_at(directory.path(), SEGMENT_1, 5000, &[0xFF]);
    let opened = open_in(directory.path());
    let written = opened.store.watermarks().written;
    assert!(all.iter().any(|appended| appended.end == written) && written.0 < SEGMENT_BYTES + 5000, "{written}");
    opened.close();
}

#[test]
fn a_checkpoint_of_a_later_version_is_refused_by_name_and_everything_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let all = stopped(directory.path(), true);
    write_at(directory.path(), "checkpoint", 75, &[4]);
    let Err(error) = try_open(config(directory.path())) else { panic!("opened") };
    assert!(matches!(error, OpenError::Later { version: 4, .. }), "{error}");
    assert!(error.to_string().contains("/checkpoint has version 4"), "{error}");
    assert!(!directory.path().join("abort").exists(), "nothing was begun");
    write_at(directory.path(), "checkpoint", 75, &[3]);
    let opened = open_in(directory.path());
    assert_eq!(opened.consume("T", 0), all);
    opened.close();
}

#[test]
fn queue_numbers_of_a_later_version_are_refused_and_damaged_ones_are_done_without() {
    let directory = tempfile::tempdir().unwrap();
    let all = stopped(directory.path(), true);
    let path = directory.path().join("queuenumbers");
    let mut later = [b"GANTRYQN".as_slice(), &2_u32.to_be_bytes(), b"what only that version knows"].concat();
    let crc = crc32fast::hash(&later).to_be_bytes();
    later.extend(crc);
    std::fs::write(&path, &later).unwrap();
    let Err(error) = try_open(config(directory.path())) else { panic!("opened") };
    assert!(error.to_string().contains("/queuenumbers has version 2"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), later);
    *later.last_mut().unwrap() ^= 1;
    std::fs::write(&path, &later).unwrap();
    let opened = open_in(directory.path());
    assert_eq!(opened.consume("T", 0), all);
    opened.close();
}

#[test]
fn a_lost_log_is_refused_and_given_up_as_the_error_says() {
    let directory = tempfile::tempdir().unwrap();
    stopped(directory.path(), true);
    std::fs::remove_dir_all(directory.path().join("commitlog")).unwrap();
    let Err(error) = try_open(config(directory.path())) else { panic!("opened") };
    let checkpoint = directory.path().join("checkpoint");
    assert!(error.to_string().contains(&format!("remove {}", checkpoint.display())), "{error}");
    std::fs::remove_file(checkpoint).unwrap();
    let mut opened = open_in(directory.path());
    opened.put("T", 0, b"anew");
    opened.confirm_all();
    assert_eq!(opened.consume("T", 0).last().unwrap().1, b"anew");
    opened.close();
}

#[test]
fn a_checkpoint_that_is_older_than_the_files_finds_everything() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = open_in(directory.path());
    opened.put("T", 0, b"first");
    opened.confirm_all();
    opened.close();
    let old = std::fs::read(directory.path().join("checkpoint")).unwrap();
    let mut opened = open_in(directory.path());
    for number in 1..100_u8 {
        opened.put("T", 0, &[number; 900]);
    }
    opened.confirm_all();
    opened.close();
    std::fs::write(directory.path().join("checkpoint"), old).unwrap();
    let opened = open_in(directory.path());
    opened.confirm_all();
    assert_eq!(opened.consume("T", 0).len(), 100);
    opened.close();
}

/// Everything under `root`, relative.
fn files(root: &Path) -> Vec<PathBuf> {
    let (mut files, mut directories) = (Vec::new(), vec![root.to_owned()]);
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { directories.push(path) } else { files.push(path.strip_prefix(root).unwrap().to_owned()) }
        }
    }
    files.sort();
    files
}

/// Does something to a file; says what.
fn spoil(path: &Path, random: &mut Random) -> String {
    let mut bytes = std::fs::read(path).unwrap();
    let at = random.below(bytes.len() as u64) as usize;
    let what = random.below(7);
    match what {
        0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
        1 => bytes.truncate(at),
        2 => bytes.extend(vec![random.below(2) as u8; 1 + at]),
        3 => {
            let end = (at + 1 + random.below(1000) as usize).min(bytes.len());
            bytes[at.min(end)..end].fill(random.below(2) as u8 * 0xFF);
        }
        4 => {
            // A piece of it lies in another place, too.
            let from = random.below(bytes.len() as u64) as usize;
            let len = (1 + random.below(600) as usize).min(bytes.len() - at).min(bytes.len() - from);
            bytes.copy_within(from..from + len, at);
        }
        5 => bytes.clear(),
        _ => {
            std::fs::remove_file(path).unwrap();
            return "removed".to_owned();
        }
    }
    std::fs::write(path, bytes).unwrap();
    format!("kind {what} at {at}")
}

#[test]
fn whatever_happens_to_a_file_a_start_finds_everything_or_names_the_place_and_consumers_get_no_garbage() {
    let original = tempfile::tempdir().unwrap();
    let mut opened = open_in(original.path());
    let mut all = Vec::new();
    for number in 0..120_u32 {
        let (topic, queue, body) =
            (["T", "U"][number as usize % 2], number % 3, vec![number as u8; 300 + number as usize]);
        let appended = opened.put(topic, queue, &body);
        all.push((topic, queue, appended.first_queue_offset, body, appended.physical));
    }
    opened.confirm_all();
    let end = opened.store.watermarks().written;
    opened.close();
    let files = files(original.path());
    let (mut refused, mut unreadable) = (0, 0);
    for seed in 0..400 {
        let mut random = Random::new(seed);
        let copy = tempfile::tempdir().unwrap();
        for file in &files {
            std::fs::create_dir_all(copy.path().join(file).parent().unwrap()).unwrap();
            std::fs::copy(original.path().join(file), copy.path().join(file)).unwrap();
        }
        if seed % 2 == 1 {
            std::fs::write(copy.path().join("abort"), "as after a kill").unwrap();
        }
        let file = &files[random.below(files.len() as u64) as usize];
        let what = format!("seed {seed}, {}: {}", file.display(), spoil(&copy.path().join(file), &mut random));
        let opened = match try_open(Config { checkpoint_interval: Duration::from_hours(1), ..config(copy.path()) }) {
            Ok(opened) => opened,
            Err(error) => {
                let text = error.to_string();
                assert!(file.starts_with("commitlog") || file.ends_with("checkpoint"), "{what}: {text}");
                assert!(text.contains("/commitlog/") || text.contains("/checkpoint"), "{what}: {text}");
                refused += 1;
                continue;
            }
        };
        assert_eq!(opened.store.watermarks().written, end, "{what}: all of it was flushed");
        opened.dispatch_all();
        let by_key = opened.find("T", "k");
        let known = by_key.iter().all(|at| all.iter().any(|(topic, .., place)| *topic == "T" && place == at));
        assert!(known, "{what}: found by key at {by_key:?}");
        // The oldest segment's loss can't be told from its having been deleted as too old: what it had is below the minimum.
        let lost_head = file.ends_with("00000000000000000000") && file.starts_with("commitlog");
        let one = ReadLimits::new(1, usize::MAX);
        for (topic, queue, number, body, _) in &all {
            if lost_head && *number < opened.store.queue_range(topic, *queue).min {
                continue;
            }
            match opened.store.read_queue(topic, *queue, *number, one, |_| true) {
                Ok(read) => {
                    assert_eq!(read.messages.len(), 1, "{what}: {topic} queue {queue} offset {number}: {read:?}");
                    let record = decode(&read.messages[0]);
                    let found = (record.topic, record.queue_id, record.queue_offset, record.body);
                    assert_eq!(found, (*topic, *queue, *number, &body[..]), "{what}");
                }
                Err(ReadError::Pointer { topic: named, queue_id, queue_offset, .. }) => {
                    assert_eq!((&*named, queue_id, queue_offset), (*topic, *queue, *number), "{what}");
                    unreadable += 1;
                }
                Err(error) => panic!("{what}: {error}"),
            }
        }
        opened.kill();
    }
    assert!(refused > 20 && unreadable > 20, "the damage was felt: {refused} refused, {unreadable} unreadable");
}
