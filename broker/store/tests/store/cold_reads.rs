//! Reads that must not wait for the disk, and how much is given of what lies far behind.

use std::io;
use std::path::Path;
use std::sync::Arc;

use gantry_store::fs::{Fs, OpenMode, RealFs};
use gantry_store::{Config, OldLimits, QueueOffset, ReadLimits};
use parking_lot::Mutex;

use crate::common::*;
use crate::hook_fs::{Call, hooked};

const MESSAGES: u64 = 24;
const BODY_BYTES: usize = 1 << 20;

#[test]
fn a_read_that_would_wait_for_the_disk_says_so_and_reads_nothing() {
    let directory = tempfile::tempdir().unwrap();
    // Parts of paths whose content isn't in memory.
    let cold: Arc<Mutex<Vec<&'static str>>> = Arc::default();
    let asked = Arc::clone(&cold);
    let fs = hooked(move |call| match call {
        Call::ReadCached { path } if asked.lock().iter().any(|part| path.to_string_lossy().contains(part)) => {
            Err(io::ErrorKind::WouldBlock.into())
        }
        _ => Ok(()),
    });
    let mut opened = try_open_on(fs, Config { segment_bytes: 8 << 20, ..config(directory.path()) }).unwrap();
    for number in 0..MESSAGES {
        opened.put("T", 0, &vec![number as u8; BODY_BYTES]);
    }
    opened.dispatch_all();
    let cached = |from: u64| {
        let limits = ReadLimits::new(1, usize::MAX);
        opened.store.read_queue_cached("T", 0, QueueOffset(from), limits, |_| true).unwrap()
    };
    let whole = |from: u64| {
        let limits = ReadLimits::new(1, usize::MAX);
        Some(opened.store.read_queue("T", 0, QueueOffset(from), limits, |_| true).unwrap())
    };
    for from in [0, 7, MESSAGES - 1, MESSAGES, MESSAGES + 1] {
        assert_eq!(cached(from), whole(from), "all is in memory");
    }
    // (Segments are opened before they get their place.)
    cold.lock().push("commitlog");
    assert_eq!(cached(0), None);
    assert_eq!(cached(MESSAGES - 1), whole(MESSAGES - 1), "what was just written is in memory, nobody is asked");
    assert_eq!(cached(MESSAGES), whole(MESSAGES), "there is nothing to read");
    *cold.lock() = vec!["/consumequeue/"];
    assert_eq!(cached(MESSAGES - 1), None);
    assert_eq!(cached(MESSAGES), whole(MESSAGES));
    opened.close();
}

#[test]
fn the_systems_page_cache_gives_what_it_has() {
    let directory = tempfile::tempdir().unwrap();
    let file = RealFs.open(&directory.path().join(Path::new("f")), OpenMode::Create).unwrap();
    file.write_all_at(&[7; 10_000], 0).unwrap();
    let mut bytes = vec![0; 20_000];
    // Just written: it is there, and no more than there is.
    assert_eq!(file.read_cached_at(&mut bytes, 0).unwrap(), 10_000);
    assert_eq!(file.read_cached_at(&mut bytes[..10], 9_995).unwrap(), 5);
    assert!(bytes[..5].iter().chain(&bytes[100..10_000]).all(|byte| *byte == 7));
}

#[test]
fn less_is_given_of_what_lies_far_behind_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = open_in(directory.path());
    for number in 0..40_u8 {
        opened.put("T", 0, &[number; 400]);
    }
    opened.confirm_all();
    let size = opened.read("T", 0, 0).messages[0].len();
    let behind_bytes = opened.store.watermarks().written.0 - 20 * size as u64;
    let read = |from: u64, max_count: usize, max_bytes: usize| {
        let old = Some(OldLimits { behind_bytes, max_count, max_bytes });
        let limits = ReadLimits { old, ..ReadLimits::new(30, 25 * size) };
        opened.store.read_queue("T", 0, QueueOffset(from), limits, |_| true).unwrap().messages.len()
    };
    assert_eq!(read(0, 8, usize::MAX), 8);
    assert_eq!(read(0, 8, 3 * size), 3);
    assert_eq!(read(0, 0, 0), 1, "one message in any case");
    assert_eq!(read(39, 8, 3 * size), 1);
    assert_eq!(read(25, 2, size), 15, "near the end the other limits hold");
    // Only where it reaches what is near is more given.
    assert_eq!(read(17, 8, usize::MAX), 23);
    opened.close();
}
