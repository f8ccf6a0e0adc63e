//! Replication and election under every fault that one can think of, on a virtual clock: the product's own state machines,
//! in a small model of the shell around them. A seed is a run; the same seed gives the same run, byte for byte.
//!
//! - `GANTRY_SEED=7 cargo test -p gantry-replication --test sim -- one_seed --nocapture` replays a seed and prints what happened.
//! - `GANTRY_SEEDS=100000` runs more of them than usual, `GANTRY_FROM=50000` others, `GANTRY_KEEP_GOING=20` stops at the 20th failure.
//!
//! Deliberately absent: real time, threads, hash maps' order, and anything else that could differ between two runs.

mod checker;
mod disk;
mod elector;
mod env;
mod faults;
mod net;
mod planted;
mod register;
mod replica;
mod setup;
mod trace;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use planted::Planted;
use trace::Trace;
use world::{Verdict, World};

/// Seeds that a plain `cargo test` runs.
const SEEDS: u64 = 10_000;
/// A planted bug must be found within as many: some fifty times what the rarest takes.
const PLANTED_SEEDS: u64 = 20_000;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Runs a seed. A failed assertion of the product is a violation, too.
fn run(seed: u64, planted: Planted, tell: bool) -> Result<Verdict, String> {
    let trace = Trace::new(tell);
    catch_unwind(AssertUnwindSafe(|| World::new(seed, planted, trace).run())).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    })
}

fn violation(outcome: &Result<Verdict, String>) -> Option<String> {
    match outcome {
        Ok(verdict) => verdict.violation.clone(),
        Err(panic) => Some(format!("assertion: {panic}")),
    }
}

fn replay(seed: u64) -> String {
    format!("GANTRY_SEED={seed} cargo test --profile ci -p gantry-replication --test sim -- one_seed --nocapture")
}

#[test]
fn no_seed_breaks_an_invariant_and_every_group_comes_together_again() {
    let (from, seeds) = (setting("GANTRY_FROM").unwrap_or(0), setting("GANTRY_SEEDS").unwrap_or(SEEDS));
    let (mut acked, mut epochs, mut cuts, mut switchovers, mut excused, mut faults) = (0, 0, 0, 0, 0, 0);
    let (mut slowest, mut failed) = (0, 0);
    let most = setting("GANTRY_KEEP_GOING").unwrap_or(1);
    for seed in from..from + seeds {
        let outcome = run(seed, Planted::Nothing, false);
        if let Some(what) = violation(&outcome) {
            println!("seed {seed}: {what}\n  {}", replay(seed));
            failed += 1;
            assert!(failed < most, "{failed} seeds failed");
        }
        if let Ok(Verdict { counts, healed_ms, setup, .. }) = outcome {
            acked += counts.acked;
            epochs += counts.epochs;
            cuts += counts.cuts;
            switchovers += counts.switchovers;
            excused += counts.excused;
            faults += counts.faults;
            slowest = slowest.max(healed_ms * setup.haste);
        }
    }
    assert_eq!(failed, 0, "seeds failed");
    println!(
        "{seeds} seeds: {faults} faults, {epochs} epochs, {acked} acknowledged, {cuts} tails cut, {switchovers} switchovers, \
         {excused} losses of whole sets; slowest to heal {slowest} ms"
    );
    let much = acked > 50 * seeds && epochs > seeds && cuts > seeds / 20;
    assert!(much || seeds < 100, "the runs are about nothing");
}

#[test]
fn the_same_seed_twice_is_the_same_run() {
    for seed in 0..30 {
        let hashes = [(); 2].map(|()| run(seed, Planted::Nothing, false).map(|verdict| verdict.hash));
        assert_eq!(hashes[0], hashes[1], "seed {seed}");
    }
}

#[test]
fn each_planted_bug_is_found() {
    for bug in planted::ALL {
        let found = (0..PLANTED_SEEDS).find_map(|seed| {
            let what = violation(&run(seed, bug, false))?;
            Some((seed, what))
        });
        let Some((seed, what)) = found else { panic!("{bug:?} is not found in {PLANTED_SEEDS} seeds") };
        println!("{bug:?}: found by seed {seed}: {what}");
    }
}

#[test]
fn one_seed() {
    let seed = setting("GANTRY_SEED").unwrap_or(1);
    match run(seed, Planted::Nothing, true) {
        Ok(verdict) => {
            verdict.lines.iter().for_each(|line| println!("{line}"));
            println!("{:?}, healed in {} ms, hash {:016x}", verdict.counts, verdict.healed_ms, verdict.hash);
            assert_eq!(verdict.violation, None, "seed {seed}");
        }
        Err(panic) => panic!("seed {seed}: {panic}"),
    }
}
