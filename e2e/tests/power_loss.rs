//! What is left after the power went. As root: a disk of one's own is mounted.

use std::time::Duration;

use gantry_e2e::power_loss::{self, Plan, Promise};
use gantry_e2e::{logs, loop_disk, process, scene};

fn seed() -> anyhow::Result<u64> {
    scene::number("GANTRY_SEED", fastrand::u64(..))
}

#[test]
#[ignore = "end to end: run e2e/test"]
fn power_is_lost_under_load_and_nothing_that_was_flushed_is() -> anyhow::Result<()> {
    if let Some(why) = loop_disk::unavailable() {
        logs::say(&format!("skipped: {why}"));
        return Ok(());
    }
    let rounds = scene::number("GANTRY_POWER_ROUNDS", 3)? as u32;
    let report = power_loss::run(&Plan { rounds, promise: Promise::Everything, seed: seed()? })?;
    logs::say(&report.to_string());
    Ok(())
}

/// Flushed each 500 ms: the rest of the window is for a busy disk.
#[test]
#[ignore = "end to end: run e2e/test"]
fn without_sync_flush_only_the_last_moments_are_lost() -> anyhow::Result<()> {
    if let Some(why) = loop_disk::unavailable() {
        logs::say(&format!("skipped: {why}"));
        return Ok(());
    }
    let window = Duration::from_secs(5);
    let rounds = scene::number("GANTRY_POWER_ROUNDS", 10)?.div_ceil(10) as u32;
    let report = power_loss::run(&Plan { rounds, promise: Promise::OlderThan(window), seed: seed()? })?;
    logs::say(&report.to_string());
    Ok(())
}

#[test]
#[ignore = "end to end: run e2e/test"]
fn a_sync_that_fails_acknowledges_nothing_and_stops_the_broker() -> anyhow::Result<()> {
    if let Some(why) = loop_disk::unavailable().or_else(|| process::cant_use_as_root(&["strace"])) {
        logs::say(&format!("skipped: {why}"));
        return Ok(());
    }
    let round = power_loss::failing_sync(seed()?)?;
    logs::say(&format!("{} acknowledged before the failure", round.acked));
    Ok(())
}
