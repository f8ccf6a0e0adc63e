//! Faults under load, judged by the checker.

use std::time::Duration;

use gantry_e2e::checker::Circumstances;
use gantry_e2e::client::Library;
use gantry_e2e::failover::{self, Blow, Plan, Report};
use gantry_e2e::group::{Group, Options};
use gantry_e2e::process::Signal;
use gantry_e2e::scene::{self, CLIENT_WITHIN};
use gantry_e2e::{history, logs};

fn rounds(library: Library, blow: Blow, rounds: u64) -> anyhow::Result<Report> {
    let report = failover::run(&Plan::new(library, blow, scene::number("GANTRY_ROUNDS", rounds)? as u32))?;
    logs::say(&format!("{library}, {blow:?}:\n{}", report.table()));
    Ok(report)
}

#[test]
#[ignore = "end to end: run e2e/test"]
fn the_master_is_killed_under_a_java_load_and_nothing_acknowledged_is_lost() -> anyhow::Result<()> {
    rounds(Library::Java5, Blow::Kill, 2).map(|_| ())
}

#[test]
#[ignore = "end to end: run e2e/test"]
fn the_master_is_killed_under_a_go_load_and_nothing_acknowledged_is_lost() -> anyhow::Result<()> {
    rounds(Library::Go, Blow::Kill, 2).map(|_| ())
}

#[test]
#[ignore = "end to end: run e2e/test"]
fn the_master_freezes_under_load_and_nothing_acknowledged_is_lost() -> anyhow::Result<()> {
    rounds(Library::Java5, Blow::Freeze, 1).map(|_| ())
}

#[test]
#[ignore = "end to end: run e2e/test"]
fn a_planned_switchover_fails_no_send() -> anyhow::Result<()> {
    let report = rounds(Library::Java5, Blow::Switchover, 2)?;
    let errors: Vec<u64> = report.rounds.iter().map(|round| round.errors).collect();
    assert!(errors.iter().all(|errors| *errors == 0), "sends failed at the application, by round: {errors:?}");
    Ok(())
}

/// `flush: Sync`, and SIGKILL to every process at one time: what was acknowledged is there after the restart.
#[test]
#[ignore = "end to end: run e2e/test"]
fn everything_is_killed_at_once_and_every_acknowledged_message_is_there() -> anyhow::Result<()> {
    let mut group = Group::start(&Options::default().flushed())?;
    let mut load = scene::job(&group, Library::Java5, "load", "Survivors")?
        .with("messages", 10_000_000)
        .with("producers", 8)
        .with("give-up", 2)
        .start()?;
    load.wait_acked(3_000, CLIENT_WITHIN)?;
    let killed_us = group.kill_everything()?;
    let sent = load.finish(CLIENT_WITHIN)?;
    assert!(!sent.is_complete(), "the load ended by itself: {sent}");
    group.up()?;
    let received = scene::job(&group, Library::Java5, "consume", "Survivors")?
        .with("group", "after")
        .with_path("expect-acked", sent.history())
        .run(CLIENT_WITHIN)?;
    assert!(received.is_complete(), "{received}");
    let events = history::read(&[sent.history(), received.history()])?;
    let circumstances = Circumstances { faults_us: vec![killed_us], ..scene::drained() };
    let verdict = gantry_e2e::checker::check(&events, &circumstances);
    logs::say(&verdict.to_string());
    assert!(verdict.is_clean(), "{verdict}");
    assert!(verdict.counts.acked >= 3_000, "{verdict}");
    Ok(())
}

#[test]
#[ignore = "end to end: run e2e/test"]
fn a_killed_slave_comes_back_into_the_in_sync_set_and_nobody_notices() -> anyhow::Result<()> {
    let group = Group::start(&Options::default())?;
    let before = group.status()?;
    let slave = before.in_sync_slaves().next().expect("three replicas have an in-sync slave").clone();
    let mut pair = scene::job(&group, Library::Java5, "pair", "Slave")?
        .with("group", "slave")
        .with("messages", 10_000)
        .with("rate", 1_000)
        .start()?;
    pair.wait_acked(2_000, CLIENT_WITHIN)?;
    group.signal(&slave, Signal::KILL)?;
    let after = group.wait_for("the killed slave in sync, in another process", |status| {
        status.is_whole() && status.pid(&slave) != before.pid(&slave)
    })?;
    assert_eq!((after.epoch, &after.master), (before.epoch, &before.master), "a slave's death is no failover");
    let outcome = pair.finish(CLIENT_WITHIN)?;
    let verdict = scene::judge(&[&outcome], &scene::drained())?;
    assert_eq!(outcome.progress.errors, 0, "{outcome}");
    logs::say(&verdict.to_string());
    Ok(())
}

/// With one in-sync replica left of two asked for, sends are refused until a second one is back: never lost, never late.
#[test]
#[ignore = "end to end: run e2e/test"]
fn too_few_replicas_refuse_sends_until_they_are_back() -> anyhow::Result<()> {
    let group = Group::start(&Options::default())?;
    let before = group.status()?;
    let slaves: Vec<String> = before.in_sync_slaves().cloned().collect();
    let mut pair = scene::job(&group, Library::Java5, "pair", "Shortage")?
        .with("group", "shortage")
        .with("messages", 8_000)
        .with("rate", 1_000)
        .start()?;
    pair.wait_acked(1_000, CLIENT_WITHIN)?;
    for slave in &slaves {
        group.signal(slave, Signal::STOP)?;
    }
    let waited = group.wait_for("an in-sync set of the master alone", |status| status.in_sync.len() == 1);
    let acked_alone = waited.is_ok().then(|| pair.progress().acked);
    let refused = pair.wait_for("a refused send", Duration::from_secs(30), |progress| progress.errors > 0);
    for slave in &slaves {
        group.signal(slave, Signal::CONT)?;
    }
    waited?;
    refused?;
    let outcome = pair.finish(CLIENT_WITHIN)?;
    let verdict = scene::judge(&[&outcome], &scene::drained())?;
    assert_eq!(verdict.counts.acked, 8_000, "acknowledged before the slaves came back: {acked_alone:?}; {verdict}");
    Ok(())
}
