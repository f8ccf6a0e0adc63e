//! Spoiled bytes: a consumer gets the message that was written, or an error that names the place; never anything else,
//! and never a gap in silence.

use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::common::*;
use gantry_store::{Boundary, QueueOffset, ReadError};

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
