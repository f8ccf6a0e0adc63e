//! Every call to the file system is struck once: the power goes out, or it fails, or does half of its work. What follows is
//! judged: nothing acknowledged is lost or changed, nothing that was cut or never appended appears, the consume queues say
//! what the log says, and the store opens again.
//!
//! The store is driven by hand, so call number k is the same call in each run. `GANTRY_CRASH_SEEDS` is how many torn images
//! each crash is tried with; a failure names call, fault and seed.

mod judge;
mod workload;

use std::collections::BTreeSet;

use crate::common::*;
use crate::crash_fs::{CrashFs, Fault};
use workload::{Life, Model};

/// The names of the calls that change or sync something. A crash at any other is a crash at the next one of these.
const CHANGES: [&str; 12] = [
    "open",
    "mkdir",
    "rename",
    "unlink",
    "rmdir",
    "fsync of a directory",
    "write",
    "fallocate",
    "fallocate of zeros",
    "ftruncate",
    "fdatasync",
    "fsync",
];
/// Those that may find the disk full.
const TAKE_ROOM: [&str; 8] = ["open", "mkdir", "rename", "write", "fallocate", "ftruncate", "fdatasync", "fsync"];

fn seeds() -> u64 {
    std::env::var("GANTRY_CRASH_SEEDS").map_or(1, |seeds| seeds.parse().expect("GANTRY_CRASH_SEEDS is a number"))
}

/// Lets a life be lived on a file system where call `k` is struck, and judges what is there afterwards.
fn strike(life: Life, k: usize, fault: Fault, power: bool, seed: u64) {
    let directory = memory_dir();
    let fs = CrashFs::new(seed.is_multiple_of(2));
    let mut random = Random::new(seed);
    let mut model = Model { what: format!("{life:?}, {fault:?} at call {k}, seed {seed}"), ..Model::default() };
    fs.strike_at(k, fault);
    let done = life.run(&fs, directory.path(), &mut model, &mut random);
    let struck = fs.struck().unwrap_or_else(|| panic!("{}: never came to it", model.what));
    model.what = format!("{} ({struck}), {done:?}", model.what);
    fs.heal();
    if power {
        fs.lose_power(&mut random);
        model.power_lost = true;
    }
    judge::after(&fs, directory.path(), &mut model, &mut random);
}

/// The calls of a life in which nothing is struck.
fn calls(life: Life, seed: u64) -> Vec<&'static str> {
    let directory = memory_dir();
    let fs = CrashFs::new(seed.is_multiple_of(2));
    let mut model = Model { what: format!("{life:?}, seed {seed}"), ..Model::default() };
    life.run(&fs, directory.path(), &mut model, &mut Random::new(seed)).unwrap();
    assert!(
        model.log.len() > 10 && model.oldest > 0,
        "{}: {} messages from {}",
        model.what,
        model.log.len(),
        model.oldest
    );
    fs.calls()
}

/// Strikes each call of these names, in both lives.
fn strike_each(names: &[&'static str], fault: Fault, power: bool) {
    let mut struck = BTreeSet::new();
    for seed in 0..seeds() {
        for life in [Life::Master, Life::Replica] {
            let is_meant = |call: &str| names.is_empty() || names.contains(&call);
            for (k, call) in calls(life, seed).into_iter().enumerate().filter(|(_, call)| is_meant(call)) {
                strike(life, k, fault, power, seed);
                struck.insert(call);
            }
        }
    }
    for name in names {
        assert!(struck.contains(name), "{name} was never called: {struck:?}");
    }
}

#[test]
fn the_same_steps_make_the_same_calls() {
    for life in [Life::Master, Life::Replica] {
        assert_eq!(calls(life, 0), calls(life, 0));
    }
}

#[test]
fn the_power_goes_out_at_every_call() {
    strike_each(&CHANGES, Fault::Crash, true);
}

#[test]
fn every_call_fails_and_the_process_starts_again() {
    strike_each(&[], Fault::Eio, false);
}

#[test]
fn every_call_fails_and_then_the_power_goes_out() {
    strike_each(&CHANGES, Fault::Eio, true);
}

#[test]
fn every_call_that_takes_room_finds_the_disk_full() {
    strike_each(&TAKE_ROOM, Fault::Enospc, false);
}

#[test]
fn every_write_ends_in_the_middle() {
    strike_each(&["write"], Fault::Short, false);
    strike_each(&["write"], Fault::Short, true);
}
