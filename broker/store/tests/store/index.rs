//! Finding messages by key: the files are RocketMQ's, and whatever happens to them nothing wrong is found.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use gantry_store::{Clock, Config, NewMessage, PhysicalOffset, Query};

use crate::common::*;

const SLOTS: u64 = 7;
const ENTRIES: u64 = 20;

fn keyed(topic: &str, unique: &str, keys: &str) -> NewMessage {
    let properties = format!("UNIQ_KEY\x01{unique}\x02KEYS\x01{keys}\x02");
    NewMessage { properties: properties.into_bytes().into(), ..message(topic, 0, b"body") }
}

impl Opened {
    fn put_keyed(&mut self, topic: &str, unique: &str, keys: &str) -> PhysicalOffset {
        self.append(&[keyed(topic, unique, keys).into()]).remove(0).unwrap().physical
    }
}

fn index_files(root: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(root.join("index")) else { return Vec::new() };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn an_index_file_is_rocketmqs_byte_for_byte() {
    let directory = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicI64::new(NOW_MS));
    let clock = Arc::clone(&now);
    let config = Config {
        index_slots: 3,
        index_entries: 6,
        clock: Clock::new(move || clock.load(Ordering::SeqCst)),
        ..config(directory.path())
    };
    let mut opened = try_open(config).unwrap();
    let first = opened.put_keyed("T", "U1", "k1 k2");
    now.fetch_add(2_999, Ordering::SeqCst);
    let second = opened.put_keyed("T", "U2", "  k1  ");
    opened.confirm_all();
    opened.close();

    // The entries by RocketMQ's rules, with Java's hashes of T#U1, T#k1, T#k2 and T#U2 (from jshell).
    let hashes = [2_538_763_u32, 2_539_445, 2_539_446, 2_538_764, 2_539_445];
    let mut slots = [0_u32; 3];
    let mut entries = vec![0; 20];
    for (number, hash) in (1..).zip(hashes) {
        let (physical, seconds) = if number <= 3 { (first.0, 0_u32) } else { (second.0, 2) };
        let slot = (hash % 3) as usize;
        entries.extend([hash.to_be_bytes().as_slice(), &physical.to_be_bytes(), &seconds.to_be_bytes()].concat());
        entries.extend(slots[slot].to_be_bytes());
        slots[slot] = number;
    }
    let mut expected = Vec::new();
    for number in [NOW_MS as u64, NOW_MS as u64 + 2_999, first.0, second.0] {
        expected.extend(number.to_be_bytes());
    }
    let used = slots.iter().filter(|slot| **slot != 0).count() as u32;
    expected.extend([used.to_be_bytes(), 6_u32.to_be_bytes()].concat());
    expected.extend(slots.iter().flat_map(|slot| slot.to_be_bytes()));
    expected.extend(entries);
    let files = index_files(directory.path());
    assert_eq!(files.len(), 1);
    assert_eq!(files[0].file_name().unwrap().len(), 17);
    assert_eq!(std::fs::read(&files[0]).unwrap(), expected);
}

#[test]
fn messages_are_found_by_each_of_their_keys_and_never_by_a_hash_alone() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = open_in(directory.path());
    // "Aa" and "BB" have one hash in Java.
    let a = opened.put_keyed("T", "id-1", "Aa order");
    let b = opened.put_keyed("T", "id-2", "BB order order");
    let other = opened.put_keyed("U", "id-3", "Aa");
    let plain = opened.put("T", 0, b"").physical;
    opened.confirm_all();
    for (topic, key, expected) in [
        ("T", "Aa", vec![a]),
        ("T", "BB", vec![b]),
        ("U", "Aa", vec![other]),
        ("T", "order", vec![b, a]),
        ("T", "id-2", vec![b]),
        ("T", "k", vec![plain]),
        ("T", "Aa order", vec![]),
        ("T", "", vec![]),
        ("V", "Aa", vec![]),
    ] {
        assert_eq!(opened.find(topic, key), expected, "{topic} {key}");
    }
    let query = Query { topic: "T", key: "order", max_count: 1, begin_ms: 0, end_ms: i64::MAX };
    let found = opened.store.query(&query).unwrap();
    assert_eq!(found.records.len(), 1);
    assert_eq!((found.newest_ms, found.newest_physical), (NOW_MS, plain));
    opened.close();
}

#[test]
fn what_is_not_confirmed_or_rolled_back_is_not_found() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = open_in(directory.path());
    let rolled_back = NewMessage { sys_flag: 0xC, ..keyed("T", "u", "gone") };
    opened.append(&[rolled_back.into()]);
    let half = NewMessage { sys_flag: 0x4, ..keyed("T", "u", "half") };
    let half = opened.append(&[half.into()]).remove(0).unwrap();
    opened.confirm_all();
    opened.put_keyed("T", "u", "later");
    assert_eq!(opened.find("T", "gone"), []);
    assert_eq!(opened.find("T", "later"), []);
    assert_eq!(opened.find("T", "half"), [half.physical]);
    assert_eq!(opened.find("T", "u"), [half.physical]);
    opened.close();
}

/// Random messages, cuts, stops and kills; whatever was stored is found, with its time, over many files.
#[test]
fn an_index_agrees_with_a_plain_list_whatever_happens() {
    for seed in 1..=12 {
        let directory = tempfile::tempdir().unwrap();
        let now = Arc::new(AtomicI64::new(NOW_MS));
        let opening = || {
            let clock = Arc::clone(&now);
            let clock = Clock::new(move || clock.load(Ordering::SeqCst));
            try_open(Config { clock, ..config(directory.path()) }).unwrap()
        };
        let mut random = Random::new(seed);
        let mut opened = opening();
        // (place, time, key)
        let mut model: Vec<(PhysicalOffset, i64, String)> = Vec::new();
        for step in 0..120 {
            match random.below(20) {
                0 if !model.is_empty() => {
                    let to = model[random.below(model.len() as u64) as usize].0;
                    opened.appender.truncate(to, None).unwrap();
                    model.retain(|(at, ..)| *at < to);
                }
                1 => {
                    opened.close();
                    opened = opening();
                }
                2 => {
                    opened.wait_flushed();
                    opened.kill();
                    opened = opening();
                }
                _ => {
                    let keys: Vec<_> = (0..random.below(4)).map(|_| format!("key{}", random.below(9))).collect();
                    let at = opened.put_keyed("T", &format!("u{step}"), &keys.join(" "));
                    let time = now.load(Ordering::SeqCst);
                    model.extend(keys.into_iter().chain([format!("u{step}")]).map(|key| (at, time, key)));
                    now.fetch_add(random.below(1500) as i64, Ordering::SeqCst);
                }
            }
            opened.confirm_all();
            let key = format!("key{}", random.below(9));
            let begin_ms = NOW_MS + random.below(90_000) as i64 - 10_000;
            let end_ms = begin_ms + random.below(90_000) as i64;
            let max_count = random.below(10) as usize;
            let query = Query { topic: "T", key: &key, max_count, begin_ms, end_ms };
            let found: Vec<_> = opened.store.query(&query).unwrap().records;
            let found: Vec<_> = found.iter().map(|bytes| decode(bytes).physical).collect();
            let mut expected: Vec<_> =
                model.iter().filter(|(_, time, k)| *k == key && (begin_ms..=end_ms).contains(time)).collect();
            expected.reverse();
            let mut expected: Vec<_> = expected.into_iter().map(|(at, ..)| *at).collect();
            expected.dedup();
            expected.truncate(max_count);
            assert_eq!(found, expected, "seed {seed}, step {step}, {query:?}");
        }
        for (at, _, key) in &model {
            assert!(opened.find("T", key).contains(at), "seed {seed}: {key} at {at}");
        }
        opened.close();
    }
}

/// A store with several index files, closed, and where its messages are, the newest first.
fn filled(root: &Path) -> Vec<PhysicalOffset> {
    let mut opened = open_in(root);
    let mut all: Vec<_> = (0..60).map(|number| opened.put_keyed("T", &format!("u{number}"), "k")).collect();
    opened.confirm_all();
    assert_eq!(opened.find("T", "k").len(), 60);
    opened.close();
    assert!(index_files(root).len() >= 6);
    all.reverse();
    all
}

#[test]
fn a_lost_index_is_made_again_from_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let all = filled(directory.path());
    let files = index_files(directory.path());
    // The newest one, the directory, a newest file that lost its entries, one with another size.
    let damages: [&dyn Fn(); 4] = [
        &|| std::fs::remove_file(files.last().unwrap()).unwrap(),
        &|| std::fs::remove_dir_all(directory.path().join("index")).unwrap(),
        &|| {
            let newest = index_files(directory.path()).pop().unwrap();
            let mut bytes = std::fs::read(&newest).unwrap();
            let entries = 40 + SLOTS as usize * 4;
            bytes[entries + 40..entries + 60].fill(0);
            std::fs::write(&newest, bytes).unwrap();
            // After an unclean stop nothing is taken on trust.
            std::fs::write(directory.path().join("abort"), "1").unwrap();
        },
        &|| {
            let file = std::fs::OpenOptions::new().write(true).open(index_files(directory.path()).pop().unwrap());
            file.unwrap().set_len(100).unwrap();
        },
    ];
    for damage in damages {
        damage();
        let opened = open_in(directory.path());
        opened.confirm_all();
        assert_eq!(opened.find("T", "k"), all);
        opened.close();
        let opened = open_in(directory.path());
        assert_eq!(opened.find("T", "k"), all);
        opened.close();
    }
}

#[test]
fn a_damaged_old_file_hides_messages_and_never_shows_wrong_ones() {
    let directory = tempfile::tempdir().unwrap();
    let all = filled(directory.path());
    let files = index_files(directory.path());
    let mut random = Random::new(5);
    let good = std::fs::read(&files[1]).unwrap();
    for round in 0..60 {
        let mut bytes = good.clone();
        for _ in 0..=random.below(20) {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] = random.below(256) as u8;
        }
        std::fs::write(&files[1], bytes).unwrap();
        let opened = open_in(directory.path());
        let found = opened.find("T", "k");
        assert!(found.len() >= 60 - 2 * ENTRIES as usize, "round {round}: the others are found, {}", found.len());
        assert!(found.iter().all(|at| all.contains(at)), "round {round}");
        opened.close();
        if !files[1].exists() {
            std::fs::write(&files[1], &good).unwrap();
        }
    }
}

#[test]
fn index_files_go_with_the_log_they_point_to() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = open_in(directory.path());
    for number in 0..200 {
        opened.put_keyed("T", &format!("u{number}"), "k");
    }
    opened.confirm_all();
    let before = index_files(directory.path()).len();
    assert!(before > 10);
    let cut = opened.find("T", "u40")[0];
    opened.appender.truncate(cut, None).unwrap();
    assert!(index_files(directory.path()).len() <= 5);
    assert_eq!(opened.find("T", "k").len(), 40);
    opened.appender.truncate(PhysicalOffset(0), None).unwrap();
    assert_eq!(index_files(directory.path()), Vec::<PathBuf>::new());
    opened.appender.start_at(PhysicalOffset(SEGMENT_BYTES)).unwrap();
    let at = opened.put_keyed("T", "again", "k");
    opened.confirm_all();
    assert_eq!(opened.find("T", "k"), [at]);
    opened.close();
}

#[test]
fn an_index_file_that_somebody_removed_doesnt_keep_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = open_in(directory.path());
    for number in 0..200 {
        opened.put_keyed("T", &format!("u{number}"), "k");
    }
    opened.confirm_all();
    let files = index_files(directory.path());
    std::fs::remove_file(&files[files.len() - 2]).unwrap();
    opened.appender.truncate(PhysicalOffset(0), None).unwrap();
    assert_eq!(index_files(directory.path()), Vec::<PathBuf>::new());
    opened.close();
}

#[test]
fn without_an_index_nothing_is_found_and_what_was_indexed_before_is_found_again_later() {
    let directory = tempfile::tempdir().unwrap();
    let off = || Config { message_index: false, ..config(directory.path()) };
    let all = filled(directory.path());
    let files = index_files(directory.path());
    let mut opened = try_open(off()).unwrap();
    opened.put_keyed("T", "unseen", "other");
    opened.dispatch_all();
    assert_eq!(opened.find("T", "k"), []);
    opened.close();
    assert_eq!(index_files(directory.path()), files);
    let opened = open_in(directory.path());
    assert_eq!(opened.find("T", "k"), all);
    assert_eq!(opened.find("T", "unseen"), []);
    opened.close();
}
