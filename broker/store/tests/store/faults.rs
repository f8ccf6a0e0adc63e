//! A failed sync, a full disk, and lives with kills and power losses at any time: the answers are honest, and the next open
//! finds what it must. `every_call` goes through all calls one by one.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::common::*;
use crate::crash_fs::CrashFs;
use gantry_store::{AppendError, Config, Flush, PhysicalOffset, StartError};

fn config_of(root: &Path, flush: Flush) -> Config {
    Config { flush, checkpoint_interval: Duration::from_millis(2), ..config(root) }
}

#[test]
fn a_failed_sync_is_final_and_told_once() {
    let directory = tempfile::tempdir().unwrap();
    let fs = CrashFs::default();
    let config = Config { checkpoint_interval: Duration::from_hours(1), ..config(directory.path()) };
    let mut opened = try_open_on(Arc::new(fs.clone()), config).unwrap();
    let first = opened.put("T", 0, b"first");
    opened.wait_flushed();
    fs.fail_next("fdatasync");
    opened.put("T", 0, b"second");
    opened.events.wait("the failure", |told| !told.failed.is_empty());
    assert_eq!(opened.store.watermarks().flushed, first.end);
    // A second sync would succeed, and lie.
    let refused = opened.append(&[message("T", 0, b"third").into()]).remove(0).unwrap_err();
    assert!(matches!(refused, AppendError::Failed(_)));
    let text = refused.to_string();
    assert!(text.contains("fdatasync") && text.contains("commitlog/00000000000000000000"), "{text}");
    assert!(opened.store.close().is_err());
    let told = opened.events.told();
    assert_eq!((told.failed.len(), told.flushed.last()), (1, Some(&first.end)));
    assert_eq!(opened.store.watermarks().flushed, first.end);
    assert!(directory.path().join("abort").exists(), "no clean stop");
}

#[test]
fn what_a_failed_sync_left_in_memory_is_written_again_before_it_counts_as_flushed() {
    for seed in 0..10 {
        let directory = tempfile::tempdir().unwrap();
        let fs = CrashFs::default();
        let lazy = Config { checkpoint_interval: Duration::from_hours(1), ..config(directory.path()) };
        let mut opened = try_open_on(Arc::new(fs.clone()), lazy.clone()).unwrap();
        opened.put("T", 0, b"first");
        opened.wait_flushed();
        fs.fail_next("fdatasync");
        let second = opened.put("T", 0, &[2; 3000]);
        opened.events.wait("the failure", |told| !told.failed.is_empty());
        opened.kill();
        // The kernel still shows it, marked as clean. The next open finds it, says that it is flushed, and must not lie.
        let opened = try_open_on(Arc::new(fs.clone()), lazy.clone()).unwrap();
        assert_eq!(opened.store.watermarks().flushed, second.end);
        opened.kill();
        fs.lose_power(&mut Random::new(seed));
        let opened = try_open_on(Arc::new(fs), lazy).unwrap();
        assert_eq!(opened.store.watermarks().written, second.end, "seed {seed}");
        opened.close();
    }
}

#[test]
fn a_checkpoint_claims_no_units_of_messages_that_are_not_flushed() {
    for seed in 0..10 {
        let directory = tempfile::tempdir().unwrap();
        let fs = CrashFs::default();
        let never = Flush::Async { interval_ms: 3_600_000 };
        let mut opened = try_open_on(Arc::new(fs.clone()), config_of(directory.path(), never)).unwrap();
        for number in 0..30 {
            opened.put("T", 0, &[number; 500]);
        }
        opened.confirm_all();
        let confirmed = opened.store.watermarks().confirmed.0.to_be_bytes();
        let checkpoint = directory.path().join("checkpoint");
        wait_until("a checkpoint", || std::fs::read(&checkpoint).is_ok_and(|bytes| bytes[32..40] == confirmed));
        assert!(opened.store.failure().is_none());
        opened.kill();
        fs.lose_power(&mut Random::new(seed));
        let mut opened = try_open_on(Arc::new(fs), config_of(directory.path(), never)).unwrap();
        opened.confirm_all();
        let left = opened.consume("T", 0).len() as u64;
        assert_eq!(opened.store.queue_range("T", 0).max.0, left, "seed {seed}");
        assert_eq!(opened.put("T", 0, b"next").first_queue_offset.0, left, "seed {seed}");
        opened.close();
    }
}

#[test]
fn a_full_disk_refuses_messages_with_figures_and_heals() {
    let directory = tempfile::tempdir().unwrap();
    let fs = CrashFs::default();
    let mut opened = try_open_on(Arc::new(fs.clone()), config(directory.path())).unwrap();
    let first = opened.put("T", 0, &[0; 4000]);
    fs.set_available(1000);
    let batch: Vec<_> = [6000, 7000, 6500, 100].map(|len| message("T", 0, &vec![1; len]).into()).into();
    let results = opened.append(&batch);
    assert!(results[0].is_ok());
    let no_space = results[1].as_ref().unwrap_err();
    assert!(matches!(no_space, AppendError::NoSpace(_)) && results[2].is_err());
    let text = no_space.to_string();
    assert!(text.contains("commitlog/00000000000000016384") && text.contains("1000 of"), "{text}");
    assert_eq!(results[3].as_ref().unwrap().first_queue_offset.0, 2, "a small one still fits");
    assert!(opened.store.failure().is_none());
    fs.heal();
    assert_eq!(opened.put("T", 0, &[2; 6000]).physical.0, SEGMENT_BYTES);
    opened.confirm_all();
    assert_eq!(opened.consume("T", 0).len(), 4);
    assert!(first.end.0 < SEGMENT_BYTES);
    opened.close();
}

#[test]
fn a_slave_on_a_full_disk_waits_and_goes_on() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let fs = CrashFs::default();
    let mut master = open_in(one.path());
    let mut slave = try_open_on(Arc::new(fs.clone()), config(two.path())).unwrap();
    for _ in 0..40 {
        master.put("T", 0, &[0; 1000]);
    }
    fs.set_available(0);
    let at = PhysicalOffset(4 * SEGMENT_BYTES);
    assert!(matches!(slave.appender.start_at(at), Err(StartError::NoSpace(_))));
    assert!(slave.store.failure().is_none());
    fs.heal();
    slave.appender.start_at(at).unwrap();
    slave.appender.start_at(PhysicalOffset(0)).unwrap();
    replicate(&master.store, &mut slave.appender, PhysicalOffset(0), 9000);
    assert!(log_bytes(&slave.store) == log_bytes(&master.store));
    slave.close();
    master.close();
}

/// Random appends, flushes, confirmations, cuts, kills and power losses against a list of what must be there.
fn random_life(seed: u64, power: bool) {
    let mut random = Random::new(seed);
    let directory = memory_dir();
    let fs = CrashFs::new(seed.is_multiple_of(2));
    let open = |random: &mut Random| {
        let flush = if random.below(2) == 0 { Flush::Sync } else { Flush::Async { interval_ms: 1 + random.below(3) } };
        try_open_on(Arc::new(fs.clone()), config_of(directory.path(), flush))
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"))
    };
    let mut opened = open(&mut random);
    // (end, queue, body) of all messages in the log.
    let mut model: Vec<(u64, u32, Vec<u8>)> = Vec::new();
    let mut held = Vec::new();
    for step in 0..60 {
        match random.below(10) {
            0..5 => {
                let batch: Vec<_> = (0..random.below(12)).map(|_| random_message(&mut random)).collect();
                let appends: Vec<_> = batch.iter().map(|(queue, body)| message("T", *queue, body).into()).collect();
                for ((queue, body), result) in batch.into_iter().zip(opened.append(&appends)) {
                    model.push((result.unwrap().end.0, queue, body));
                }
            }
            5 => opened.wait_flushed(),
            6 => {
                let at = random.below(model.len() as u64 + 1) as usize;
                opened.store.confirm(PhysicalOffset(at.checked_sub(1).map_or(0, |last| model[last].0)));
                let queue = random.below(4) as u32;
                held.push(opened.read("T", queue, 0).messages);
                if random.below(2) == 0 {
                    held.clear();
                }
            }
            7 if !model.is_empty() => {
                let keep = model.len() - random.below(10.min(model.len() as u64)) as usize;
                let to = keep.checked_sub(1).map_or(0, |last| model[last].0);
                opened.appender.truncate(PhysicalOffset(to), None).unwrap();
                model.truncate(keep);
            }
            8 => {
                opened.close();
                opened = open(&mut random);
            }
            9 => {
                let flushed = opened.store.watermarks().flushed;
                let floor = if power { flushed } else { opened.store.watermarks().written };
                opened.kill();
                if power {
                    // A power loss ends every process, and those that hold slices.
                    held.clear();
                    fs.lose_power(&mut random);
                }
                opened = open(&mut random);
                let written = opened.store.watermarks().written;
                assert!(written >= floor, "seed {seed}, step {step}: {written} of {floor}");
                model.retain(|(end, ..)| *end <= written.0);
            }
            _ => {}
        }
        check(&opened, &model, seed, step);
    }
    opened.close();
}

fn random_message(random: &mut Random) -> (u32, Vec<u8>) {
    // Few sizes: after a cut the same ones come again, and stale records would fit on.
    let len = [100, 100, 700, 3000][random.below(4) as usize];
    (random.below(4) as u32, vec![random.below(256) as u8; len])
}

fn check(opened: &Opened, model: &[(u64, u32, Vec<u8>)], seed: u64, step: usize) {
    let marks = opened.store.watermarks();
    let end = model.last().map_or(0, |(end, ..)| *end);
    // A blank may lie behind the last message.
    assert!(
        marks.written.0 >= end && (model.is_empty() || marks.written.0 < end + SEGMENT_BYTES),
        "seed {seed}, step {step}"
    );
    let visible = |queue: u32, confirmed: u64| {
        let of_queue = model.iter().filter(move |(end, of, _)| *of == queue && *end <= confirmed);
        of_queue.enumerate().map(|(number, (.., body))| (number as u64, body.clone())).collect::<Vec<_>>()
    };
    wait_until("dispatch", || {
        let marks = opened.store.watermarks();
        marks.dispatched == marks.confirmed
    });
    for queue in 0..4 {
        let all = model.iter().filter(|(_, of, _)| *of == queue).count() as u64;
        assert_eq!(opened.appender.next_queue_offset("T", queue).0, all, "seed {seed}, step {step}, queue {queue}");
        let confirmed = opened.store.watermarks().confirmed.0;
        let (found, expected) = (opened.consume("T", queue), visible(queue, confirmed));
        let counts = (found.len(), expected.len());
        assert!(found == expected, "seed {seed}, step {step}, queue {queue}, {counts:?} messages");
    }
}

#[test]
fn random_lives_with_kills_lose_nothing_that_was_written() {
    for seed in 0..25 {
        random_life(seed, false);
    }
}

#[test]
fn random_lives_with_power_losses_lose_nothing_that_was_flushed() {
    for seed in 100..140 {
        random_life(seed, true);
    }
}
