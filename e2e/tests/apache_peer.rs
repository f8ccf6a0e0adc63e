//! Apache's brokers as peers: coming from them, and going back.

use std::time::Duration;

use anyhow::{Context, ensure};
use gantry_e2e::apache::{self, Settings, Version, mqadmin};
use gantry_e2e::broker::Broker;
use gantry_e2e::client::{Job, Library};
use gantry_e2e::scene::{self, CLIENT_WITHIN};
use gantry_e2e::{admin, ports};
use tempfile::TempDir;

/// Small, so that a few thousand messages fill several.
const SEGMENT_BYTES: u64 = 4 << 20;
const WITHIN: Duration = Duration::from_mins(2);
const TOPIC: &str = "Migrated";

#[test]
#[ignore = "end to end: run e2e/test"]
fn from_apache_4_to_gantry_nothing_is_lost() -> anyhow::Result<()> {
    migrate(Version::V4)
}

#[test]
#[ignore = "end to end: run e2e/test"]
fn from_apache_5_to_gantry_nothing_is_lost() -> anyhow::Result<()> {
    migrate(Version::V5)
}

/// Three files of messages, consumed by half; then, under a running exchange with retries (which are delayed messages), a
/// Gantry slave is attached, catches up, and takes the master's place.
fn migrate(version: Version) -> anyhow::Result<()> {
    let mut folder = TempDir::with_prefix("gantry-apache-").context("making the test's folder")?;
    folder.disable_cleanup(std::env::var_os("GANTRY_KEEP").is_some());
    let names = apache::NameServer::start(version, &folder.path().join("namesrv"))?;
    let (port, ha_port) = (ports::free(&[0, 2])?, ports::free(&[0])?);
    let settings = Settings {
        version,
        nameserver: names.address().to_owned(),
        role: "ASYNC_MASTER",
        id: 0,
        port,
        ha_port,
        others: vec![("mappedFileSizeCommitLog", SEGMENT_BYTES.to_string())],
    };
    let master = apache::Broker::start(&settings, &folder.path().join("apache"))?;

    admin::create_topic(names.address(), master.address(), TOPIC, 4)?;
    let old = job("load", names.address())?.with("name", "old").with("messages", 10_000).run(CLIENT_WITHIN)?;
    let consumed = job("consume", names.address())?
        .with("name", "early")
        .with("group", "migrating")
        .with_path("expect-acked", old.history())
        .run(CLIENT_WITHIN)?;

    let mut exchange = job("pair", names.address())?
        .with("name", "live")
        .with("group", "migrating")
        .with("rate", 200)
        .with("seconds", 30)
        .with("listen", "concurrent")
        .with("fail-every", 20)
        .with("fail-times", 1)
        .start()?;
    exchange.wait_acked(200, WITHIN)?;

    let gantry = folder.path().join("gantry");
    let (slave_port, slave_ha_port) = (ports::free(&[0])?, ports::free(&[0])?);
    let keys = |role: &str, id: u32, port: u16| {
        vec![
            ("brokerName", "broker-a".to_owned()),
            ("brokerRole", role.to_owned()),
            ("brokerId", id.to_string()),
            ("listenPort", port.to_string()),
            ("haListenPort", slave_ha_port.to_string()),
            ("namesrvAddr", names.address().to_owned()),
            ("mappedFileSizeCommitLog", SEGMENT_BYTES.to_string()),
        ]
    };
    let mut slave = Broker::start(&gantry, &keys("SLAVE", 1, slave_port))?;
    slave.wait_for_line("caught up")?;

    // From now on what is acknowledged is on the slave, too: the master can be stopped at any moment.
    for (key, value) in [("inSyncReplicas", "2"), ("brokerRole", "SYNC_MASTER")] {
        if version == Version::V5 || key == "brokerRole" {
            let update = ["updateBrokerConfig", "-b", master.address(), "-k", key, "-v", value];
            let said = mqadmin(version, folder.path(), names.address(), &update)?;
            ensure!(said.contains("success"), "mqadmin: {said}");
        }
    }
    let acked = exchange.progress().acked;
    exchange.wait_acked(acked + 500, WITHIN)?;
    master.stop()?;
    slave.stop()?;
    let promoted = Broker::start(&gantry, &keys("ASYNC_MASTER", 0, port))?;

    let live = exchange.finish(CLIENT_WITHIN)?;
    let verdict = scene::judge(&[&old, &consumed, &live], &scene::drained())?;
    assert!(verdict.counts.acked >= 11_000 && verdict.counts.retried > 0, "{verdict}");
    assert!(verdict.counts.redelivered < 1_000, "the group's offsets were kept: {verdict}");
    promoted.stop()?;
    Ok(())
}

fn job(subcommand: &str, nameserver: &str) -> anyhow::Result<Job> {
    Job::new(Library::Java5, subcommand, nameserver, TOPIC)
}
