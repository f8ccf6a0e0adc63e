//! Apache's brokers as peers: coming from them, and going back.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use gantry_e2e::apache::{self, NameServer, Settings, Version, mqadmin};
use gantry_e2e::broker::Broker;
use gantry_e2e::checker::Circumstances;
use gantry_e2e::client::{Job, Library, Running};
use gantry_e2e::scene::{self, CLIENT_WITHIN};
use gantry_e2e::{admin, ports, wait};
use tempfile::TempDir;

/// Small, so that a few thousand messages fill several.
const SEGMENT_BYTES: u64 = 4 << 20;
const WITHIN: Duration = Duration::from_mins(2);
const TOPIC: &str = "Migrated";
const GROUP: &str = "migrating";

#[test]
#[ignore = "end to end: run e2e/test"]
fn from_apache_4_to_gantry_and_back_nothing_is_lost() -> anyhow::Result<()> {
    migrate(Version::V4, 50, true)
}

/// A 5.5 slave asks for its master's metadata after a minute only: the way back is for long runs.
#[test]
#[ignore = "end to end: run e2e/test"]
fn from_apache_5_to_gantry_nothing_is_lost() -> anyhow::Result<()> {
    if scene::number("GANTRY_ROUNDS", 1)? > 1 {
        migrate(Version::V5, 240, true)
    } else {
        migrate(Version::V5, 45, false)
    }
}

/// Three files of messages, consumed already; then, under a running exchange of so many seconds with retries (which are delayed
/// messages), a Gantry slave is attached to the Apache master and takes its place, and an empty Apache slave takes it back.
fn migrate(version: Version, seconds: u64, back: bool) -> anyhow::Result<()> {
    let scene = Scene::set(version)?;
    let nameserver = scene.names.address();
    let master = scene.apache("first", "ASYNC_MASTER", 0)?;
    admin::create_topic(nameserver, master.address(), TOPIC, 4)?;
    let old = scene.job("load")?.with("name", "old").with("messages", 10_000).run(CLIENT_WITHIN)?;
    let consumed = scene
        .job("consume")?
        .with("name", "early")
        .with("group", GROUP)
        .with_path("expect-acked", old.history())
        .run(CLIENT_WITHIN)?;
    let mut exchange = scene
        .job("pair")?
        .with("name", "live")
        .with("group", GROUP)
        .with("rate", 200)
        .with("seconds", seconds)
        .with("listen", "concurrent")
        .with("fail-every", 20)
        .with("fail-times", 1)
        .start()?;
    exchange.wait_acked(200, WITHIN)?;

    let switched_us = scene.to_gantry(master, &mut exchange)?;
    let gantry = scene.gantry("ASYNC_MASTER", 0)?;
    let mut apache = None;
    if back {
        more(&mut exchange)?;
        scene.to_apache(gantry)?;
        apache = Some(scene.apache("second", "ASYNC_MASTER", 0)?);
    }
    more(&mut exchange).context("the exchange must outlast the switches")?;

    let live = exchange.finish(CLIENT_WITHIN)?;
    let circumstances = Circumstances { faults_us: vec![switched_us], ..scene::drained() };
    let verdict = scene::judge(&[&old, &consumed, &live], &circumstances)?;
    assert!(verdict.counts.acked > 10_000 + seconds * 100 && verdict.counts.retried > 0, "{verdict}");
    assert!(verdict.counts.redelivered < 2_000, "the group's offsets were kept: {verdict}");
    apache.map_or(Ok(()), apache::Broker::stop)
}

/// Waits for some messages more.
fn more(exchange: &mut Running) -> anyhow::Result<()> {
    let acked = exchange.progress().acked;
    exchange.wait_acked(acked + 400, WITHIN)
}

/// A name server, and the ports of whichever broker is master: clients keep them.
struct Scene {
    version: Version,
    folder: TempDir,
    names: NameServer,
    port: u16,
    ha_port: u16,
}

impl Scene {
    fn set(version: Version) -> anyhow::Result<Self> {
        let mut folder = TempDir::with_prefix("gantry-apache-").context("making the test's folder")?;
        folder.disable_cleanup(std::env::var_os("GANTRY_KEEP").is_some());
        let names = NameServer::start(version, &folder.path().join("namesrv"))?;
        Ok(Self { version, folder, names, port: ports::free(&[0, 2])?, ha_port: ports::free(&[0])? })
    }

    fn job(&self, subcommand: &str) -> anyhow::Result<Job> {
        Job::new(Library::Java5, Vec::new(), subcommand, self.names.address(), TOPIC)
    }

    /// Apache's broker over the store of that name; the master at the master's ports.
    fn apache(&self, name: &str, role: &'static str, id: u32) -> anyhow::Result<apache::Broker> {
        let (port, ha_port) = self.ports(id)?;
        let settings = Settings {
            version: self.version,
            nameserver: self.names.address().to_owned(),
            role,
            id,
            port,
            ha_port,
            others: vec![("mappedFileSizeCommitLog", SEGMENT_BYTES.to_string())],
        };
        apache::Broker::start(&settings, &self.folder.path().join(name))
    }

    fn gantry(&self, role: &str, id: u32) -> anyhow::Result<Broker> {
        let folder = self.folder.path().join("gantry");
        std::fs::create_dir_all(&folder)?;
        let (port, ha_port) = self.ports(id)?;
        let (id, port, ha_port) = (id.to_string(), port.to_string(), ha_port.to_string());
        let segment_bytes = SEGMENT_BYTES.to_string();
        let settings = [
            ("brokerRole", role),
            ("brokerId", &id),
            ("listenPort", &port),
            ("haListenPort", &ha_port),
            ("namesrvAddr", self.names.address()),
            ("mappedFileSizeCommitLog", &segment_bytes),
            ("gantryClassicHa", "true"),
        ];
        let mut broker = Broker::new(&folder, &folder.join("store"), &settings);
        broker.start()?;
        Ok(broker)
    }

    fn ports(&self, id: u32) -> anyhow::Result<(u16, u16)> {
        if id == 0 { Ok((self.port, self.ha_port)) } else { Ok((ports::free(&[0, 2])?, ports::free(&[0])?)) }
    }

    /// Has a Gantry slave of the Apache master take over all it has; then both are stopped. Answers when the master was.
    fn to_gantry(&self, master: apache::Broker, exchange: &mut Running) -> anyhow::Result<i64> {
        let mut slave = self.gantry("SLAVE", 1)?;
        wait::until("the slave to catch up", WITHIN, || Ok(slave.said().contains("caught up").then_some(())))?;
        // From now on what is acknowledged is on the slave, too: the master can be stopped at any moment.
        for (key, value) in [("inSyncReplicas", "2"), ("brokerRole", "SYNC_MASTER")] {
            if self.version == Version::V5 || key == "brokerRole" {
                let update = ["updateBrokerConfig", "-b", master.address(), "-k", key, "-v", value];
                let said = mqadmin(self.version, self.folder.path(), self.names.address(), &update)?;
                ensure!(said.contains("success"), "mqadmin: {said}");
            }
        }
        more(exchange)?;
        let switched_us = wait::now_us();
        master.stop()?;
        slave.stop()?;
        Ok(switched_us)
    }

    /// Has an empty Apache slave take over all that Gantry's master has; then both are stopped.
    fn to_apache(&self, mut master: Broker) -> anyhow::Result<()> {
        let slave = self.apache("second", "SLAVE", 1)?;
        let end = admin::log_end(&self.master_address())?;
        let offsets = self.folder.path().join("second/store/config/consumerOffset.json");
        wait::until("the Apache slave to have the log and the offsets", WITHIN, || {
            Ok((admin::log_end(slave.address())? >= end && mentions(&offsets, GROUP)).then_some(()))
        })?;
        // It sends its slave the rest before it ends.
        master.stop()?;
        slave.stop()
    }

    fn master_address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

fn mentions(file: &Path, text: &str) -> bool {
    std::fs::read_to_string(file).is_ok_and(|content| content.contains(text))
}
