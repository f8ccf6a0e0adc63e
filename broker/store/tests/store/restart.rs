//! How much a start reads, and what is left of an interrupted one.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::common::*;
use crate::hook_fs::{Call, eio, hooked};
use gantry_store::fs::Fs;
use gantry_store::{Config, Flush, OpenError, RecoveryPhase, RecoveryProgress};
use parking_lot::Mutex;

const SEGMENTS: u64 = 200;

/// No flush and no checkpoint by itself.
fn lazy(root: &Path) -> Config {
    let never = Duration::from_hours(1);
    Config { flush: Flush::Async { interval_ms: 3_600_000 }, checkpoint_interval: never, ..config(root) }
}

/// A checkpoint, or a note of how far recovery is, after each piece.
fn eager(root: &Path) -> Config {
    Config { checkpoint_interval: Duration::ZERO, ..lazy(root) }
}

/// Fills `segments` segments; answers how many messages that were.
fn fill(opened: &mut Opened, segments: u64) -> u64 {
    let mut count = 0;
    while opened.store.watermarks().written.0 < segments * SEGMENT_BYTES {
        opened.put("T", count as u32 % 2, &[count as u8; 3000]);
        count += 1;
    }
    count
}

fn assert_whole(mut opened: Opened, count: u64) {
    opened.confirm_all();
    let bodies = |queue: u64| {
        (0..count).filter(|number| number % 2 == queue).map(|number| vec![number as u8; 3000]).collect::<Vec<_>>()
    };
    for queue in 0..2 {
        let consumed: Vec<_> = opened.consume("T", queue as u32).into_iter().map(|(_, body)| body).collect();
        assert!(consumed == bodies(queue), "queue {queue}");
        let next = opened.put("T", queue as u32, b"next").first_queue_offset.0;
        assert_eq!(next, bodies(queue).len() as u64);
    }
    opened.close();
}

/// Counts what is read of the log; refuses it from a limit on.
fn reading(limit: u64) -> (Arc<dyn Fs>, Arc<AtomicU64>) {
    let read = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&read);
    let fs = hooked(move |call| match call {
        Call::Read { path, bytes } if path.parent().is_some_and(|parent| parent.ends_with("commitlog")) => {
            let before = count.fetch_add(bytes, Ordering::Relaxed);
            if before + bytes > limit { Err(eio()) } else { Ok(()) }
        }
        _ => Ok(()),
    });
    (fs, read)
}

#[test]
fn a_start_reads_what_no_checkpoint_covers_however_long_the_log_is() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = open_in(directory.path());
    let count = fill(&mut opened, SEGMENTS);
    opened.confirm_all();
    opened.close();

    for what in ["after a clean stop", "after a kill"] {
        let (fs, read) = reading(u64::MAX);
        let opened = try_open_on(fs, lazy(directory.path())).unwrap();
        // The last segment's end, and the record of each queue's last unit.
        let read = read.load(Ordering::Relaxed);
        assert!(read < 2 * SEGMENT_BYTES, "{what}: {read} bytes of {SEGMENTS} segments");
        opened.kill();
    }
    assert_whole(open_in(directory.path()), count);
}

#[test]
fn an_interrupted_reading_of_the_log_goes_on_where_it_was() {
    for lost_checkpoint in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let mut opened = try_open(lazy(directory.path())).unwrap();
        let count = fill(&mut opened, SEGMENTS);
        let written = opened.store.watermarks().written.0;
        opened.kill();
        if lost_checkpoint {
            std::fs::remove_file(directory.path().join("checkpoint")).unwrap();
        }
        // What is read is also written once more, so half of the reading may be that.
        let step = SEGMENTS / 4 * SEGMENT_BYTES;
        let mut total = 0;
        for interrupted in 1.. {
            let (fs, read) = reading(step);
            match try_open_on(fs, eager(directory.path())) {
                Ok(opened) => {
                    assert!(interrupted > 3, "it was never interrupted");
                    opened.kill();
                    break;
                }
                Err(error) => assert!(matches!(error, OpenError::Io { .. }), "{error}"),
            }
            total += read.load(Ordering::Relaxed);
            assert!(interrupted < 20, "recovery doesn't get on");
        }
        assert!(total < 2 * written + 20 * 2 * SEGMENT_BYTES, "{total} bytes were read of {written}");
        assert!(!directory.path().join("recovery.progress").exists());
        assert_whole(open_in(directory.path()), count);
    }
}

#[test]
fn what_an_interrupted_recovery_noted_counts_for_nothing_once_another_broker_was_there() {
    for spoil in [
        |root: &Path| std::fs::write(root.join("abort"), "1").unwrap(),
        |root: &Path| {
            std::fs::write(root.join("recovery.progress"), "damaged").unwrap();
        },
    ] {
        let directory = tempfile::tempdir().unwrap();
        let mut opened = try_open(lazy(directory.path())).unwrap();
        let count = fill(&mut opened, 20);
        let written = opened.store.watermarks().written.0;
        opened.kill();
        let (fs, _) = reading(20 * SEGMENT_BYTES);
        assert!(try_open_on(fs, eager(directory.path())).is_err());
        assert!(directory.path().join("recovery.progress").exists());
        spoil(directory.path());
        let (fs, read) = reading(u64::MAX);
        let opened = try_open_on(fs, lazy(directory.path())).unwrap();
        assert!(read.load(Ordering::Relaxed) >= written, "all of it is read again");
        assert_whole(opened, count);
    }
}

#[test]
fn an_interrupted_rebuilding_of_consume_queues_goes_on_where_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = open_in(directory.path());
    // More than one step of the dispatcher takes: it ends with each segment.
    let count = fill(&mut opened, SEGMENTS);
    opened.confirm_all();
    opened.close();
    std::fs::remove_dir_all(directory.path().join("consumequeue")).unwrap();

    let mut dispatched = Vec::new();
    for interrupted in 0.. {
        let writes = AtomicU64::new(0);
        let fs = hooked(move |call| match call {
            Call::Write { path }
                if path.to_string_lossy().contains("consumequeue") && writes.fetch_add(1, Ordering::Relaxed) >= 100 =>
            {
                Err(eio())
            }
            _ => Ok(()),
        });
        match try_open_on(fs, eager(directory.path())) {
            Ok(opened) => {
                opened.kill();
                break;
            }
            Err(error) => assert!(matches!(error, OpenError::Failed(_)), "{error}"),
        }
        let checkpoint = std::fs::read(directory.path().join("checkpoint")).unwrap();
        dispatched.push(u64::from_be_bytes(checkpoint[80..88].try_into().unwrap()));
        assert!(interrupted < 20, "recovery doesn't get on: {dispatched:?}");
    }
    assert!(dispatched.len() > 2 && dispatched.is_sorted_by(|a, b| a < b), "{dispatched:?}");
    assert_whole(open_in(directory.path()), count);
}

#[test]
fn its_progress_can_be_watched() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = open_in(directory.path());
    fill(&mut opened, 20);
    opened.confirm_all();
    opened.close();
    std::fs::remove_dir_all(directory.path().join("consumequeue")).unwrap();

    let progress = RecoveryProgress::default();
    assert_eq!(progress.snapshot().phase, RecoveryPhase::Waiting);
    let (watched, seen) = (progress.clone(), Arc::new(Mutex::new(Vec::new())));
    let sink = Arc::clone(&seen);
    let fs = hooked(move |_| {
        sink.lock().push(watched.snapshot());
        Ok(())
    });
    let opened = try_open_on(fs, Config { recovery: progress.clone(), ..lazy(directory.path()) }).unwrap();
    let seen = std::mem::take(&mut *seen.lock());
    for phase in [RecoveryPhase::ReadingLog, RecoveryPhase::BuildingQueues] {
        let done: Vec<_> = seen.iter().filter(|seen| seen.phase == phase).collect();
        assert!(done.iter().all(|seen| seen.done_bytes <= seen.total_bytes && seen.total_bytes > 18 * SEGMENT_BYTES));
        assert!(done.is_sorted_by_key(|seen| seen.done_bytes), "{phase:?}");
        assert!(done.last().unwrap().done_bytes > 10 * SEGMENT_BYTES, "{phase:?}");
    }
    assert_eq!(progress.snapshot().phase, RecoveryPhase::Done);
    opened.close();
}
