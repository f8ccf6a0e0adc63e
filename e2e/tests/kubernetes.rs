//! On a real Kubernetes: the chart, a group, and what becomes of clients when its masters go. As root.

use anyhow::Context as _;
use gantry_e2e::checker::Circumstances;
use gantry_e2e::kube::client;
use gantry_e2e::kube::cluster::{self, Cluster};
use gantry_e2e::kube::follow::{Follower, Status};
use gantry_e2e::kube::installation::Installation;
use gantry_e2e::logs;
use gantry_e2e::scene::{self, CLIENT_WITHIN};

/// What is done to a master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    Kill,
    DeletePod,
}

struct Struck {
    blow: Blow,
    at_us: i64,
    masters: String,
    reason: String,
}

/// One story, since a cluster, a chart and a group cost more to set up than what happens to them.
#[test]
#[ignore = "end to end: run e2e/test"]
fn a_group_on_kubernetes_loses_its_masters_and_its_clients_lose_nothing() -> anyhow::Result<()> {
    if let Some(why) = cluster::unavailable() {
        logs::say(&format!("skipped: {why}"));
        return Ok(());
    }
    let cluster = Cluster::start()?;
    let installation = Installation::install(&cluster)?;
    let mut group = installation.apply_example()?;
    let whole = installation.wait_for(&mut group, "a group that is ready", Status::is_whole)?;
    leads_to_its_master(&installation, &whole)?;
    logs::say(installation.helm_test()?.trim());
    under_load(&installation, &mut group)
}

fn under_load(installation: &Installation<'_>, group: &mut Follower) -> anyhow::Result<()> {
    let (kills, deletions) = (scene::number("GANTRY_ROUNDS", 10)?, scene::number("GANTRY_DELETIONS", 2)?);
    installation.client_ready()?;
    let mut pair = client::job(installation, "pair", "Kubernetes")?.with("rate", 500).until_told().start()?;
    pair.wait_acked(500, CLIENT_WITHIN)?;
    let blows = (0..kills).map(|_| Blow::Kill).chain((0..deletions).map(|_| Blow::DeletePod));
    let mut struck = Vec::new();
    for blow in blows {
        struck.push(strike(blow, installation, group)?);
        let acked = pair.progress().acked;
        installation.or_tell(pair.wait_acked(acked + 100, CLIENT_WITHIN))?;
    }
    pair.tell_end();
    let outcome = installation.or_tell(pair.finish(CLIENT_WITHIN))?;
    client::fetch_history(installation, &outcome)?;
    let faults_us = struck.iter().map(|struck| struck.at_us).collect();
    let circumstances = Circumstances { faults_us, ..scene::drained() };
    let verdict = scene::judge(&[&outcome], &circumstances)?;
    for (struck, gap) in struck.iter().zip(&verdict.gaps) {
        let Struck { blow, masters, reason, .. } = struck;
        let gap = gap.to_next_ack_us.map_or("never".to_owned(), |gap_us| format!("{} ms", gap_us / 1000));
        logs::say(&format!("{blow:?}: {masters} ({reason}), next acknowledged send after {gap}"));
    }
    logs::say(&format!("{} sends failed at the application; {verdict}", outcome.progress.errors));
    assert!(verdict.gaps.iter().all(|gap| gap.to_next_ack_us.is_some()), "a blow came after the last send");
    Ok(())
}

/// The master of a whole group goes, and another one comes, with the whole group behind it.
fn strike(blow: Blow, installation: &Installation<'_>, group: &mut Follower) -> anyhow::Result<Struck> {
    let before = installation.wait_for(group, "a whole group", Status::is_whole)?;
    let old = before.master.clone().context("a whole group has no master")?;
    let at_us = match blow {
        Blow::Kill => installation.kill(&old)?,
        Blow::DeletePod => installation.delete_pod(&old)?,
    };
    let after = installation.wait_for(group, "another master", |status| {
        status.epoch > before.epoch && status.master.as_ref().is_some_and(|master| *master != old)
    })?;
    leads_to_its_master(installation, &after)?;
    let new = after.master.as_deref().unwrap_or("?");
    let masters = format!("{old} epoch {} -> {new} epoch {}", before.epoch, after.epoch);
    logs::say(&masters);
    Ok(Struck { blow, at_us, masters, reason: after.failover_cause.unwrap_or_else(|| "unknown".to_owned()) })
}

fn leads_to_its_master(installation: &Installation<'_>, status: &Status) -> anyhow::Result<()> {
    let master = status.master.as_deref().context("there is no master")?;
    assert_eq!(installation.master_address()?, installation.pod_address(master)?, "the master's Service");
    Ok(())
}
