//! RocketMQ's admin tool against a Gantry group.

use anyhow::{Context, Result};
use gantry_e2e::apache::{Version, mqadmin};
use gantry_e2e::client::Library;
use gantry_e2e::group::{Group, Options};
use gantry_e2e::scene::{self, CLIENT_WITHIN};
use tempfile::TempDir;

/// The value behind `#name` in what mqadmin printed.
fn value<'a>(printed: &'a str, name: &str) -> Result<&'a str> {
    let line = printed.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('\t'));
    line.map(str::trim).with_context(|| format!("no {name} in:\n{printed}"))
}

#[test]
#[ignore = "end to end: run e2e/test"]
fn replication_is_shown_as_rocketmqs_own() -> Result<()> {
    let group = Group::start(&Options::default())?;
    scene::job(&group, Library::Java5, "load", "Shown")?.with("messages", 500).run(CLIENT_WITHIN)?;
    let status = group.wait_whole()?;
    let folder = TempDir::with_prefix("gantry-mqadmin-")?;
    let admin = |arguments: &[&str]| mqadmin(Version::V5, folder.path(), group.nameserver(), arguments);
    let master = status.master.clone().context("a master")?;
    let slave = status.replicas.iter().find(|replica| replica.name != master).context("a slave")?;
    let slave_address = slave.address.as_deref().context("its address")?;

    let ha = admin(&["haStatus", "-b", group.address()])?;
    let end: u64 = value(&ha, "#MasterCommitLogMaxOffset")?.parse()?;
    let others = status.replicas.len() - 1;
    assert_eq!(value(&ha, "#SlaveNum")?, others.to_string(), "{ha}");
    assert_eq!(value(&ha, "#InSyncSlaveNum")?, others.to_string(), "{ha}");
    let rows: Vec<Vec<&str>> = ha
        .lines()
        .skip_while(|line| !line.starts_with("#SlaveAddr"))
        .skip(1)
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows.len(), others, "{ha}");
    for row in rows {
        assert!(row[1].parse::<u64>()? > 500 * 1024 && row[4] == "OK", "{ha}");
    }
    let ha = admin(&["haStatus", "-b", slave_address])?;
    assert!(value(&ha, "#CommitLogMaxOffset")?.parse::<u64>()? >= end, "{ha}");
    assert!(value(&ha, "#MasterAddr")?.starts_with("127.0.0.1:"), "{ha}");

    let epochs = admin(&["getBrokerEpoch", "-b", "broker-a"])?;
    let brokers = epochs.lines().filter(|line| line.starts_with("#brokerId")).count();
    assert_eq!(brokers, status.replicas.len(), "{epochs}");
    let epoch = format!("#Epoch: EpochEntry{{epoch={}, startOffset=0, endOffset=", status.epoch.context("an epoch")?);
    assert_eq!(epochs.matches(&epoch).count(), brokers, "{epochs}");

    let controller = status.controller.as_deref().context("the controller's address")?;
    let sync = admin(&["getSyncStateSet", "-a", controller, "-b", "broker-a"])?;
    let address = status.replicas.iter().find(|replica| replica.name == master).and_then(|it| it.address.as_deref());
    assert_eq!(Some(value(&sync, "#MasterAddr")?), address, "{sync}");
    assert_eq!(value(&sync, "#MasterEpoch")?, status.epoch.context("an epoch")?.to_string(), "{sync}");
    assert_eq!(value(&sync, "#SyncStateSetNums")?, status.replicas.len().to_string(), "{sync}");
    assert_eq!(sync.matches("InSyncReplica:\tReplicaIdentity{").count(), status.replicas.len(), "{sync}");
    assert_eq!(sync.matches("alive=true").count(), status.replicas.len(), "{sync}");

    let clusters = admin(&["clusterList"])?;
    let rows = clusters.lines().filter(|line| line.contains("broker-a")).count();
    assert_eq!(rows, status.replicas.len(), "{clusters}");
    let broker = admin(&["brokerStatus", "-b", group.address()])?;
    assert!(broker.contains("commitLogMaxOffset"), "{broker}");
    Ok(())
}
