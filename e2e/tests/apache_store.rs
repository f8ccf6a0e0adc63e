//! One store, opened in turn by Apache's broker and by ours, killed and stopped: each finds all that the other one wrote.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use gantry_e2e::apache::{self, Settings, Version};
use gantry_e2e::broker::Broker;
use gantry_e2e::client::{Job, Library};
use gantry_e2e::handover::{Ledger, TOPIC};
use gantry_e2e::history::{self, Event};
use gantry_e2e::nameserver::Nameserver;
use gantry_e2e::ports;
use gantry_e2e::scene::CLIENT_WITHIN;
use gantry_e2e::wire::Wire;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Small files, so that all kinds have more than one.
const SETTINGS: [(&str, &str); 3] = [
    ("mappedFileSizeCommitLog", "1048576"),
    ("mappedFileSizeConsumeQueue", "2000"),
    ("flushConsumerOffsetInterval", "500"),
];

struct Store {
    folder: TempDir,
    nameserver: Nameserver,
    runtime: Runtime,
    ledger: Ledger,
}

impl Store {
    fn new() -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("gantry-apache-")?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(Self { folder, nameserver: Nameserver::start()?, runtime, ledger: Ledger::default() })
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    fn apache(&self, version: Version) -> anyhow::Result<apache::Broker> {
        let others = SETTINGS.into_iter().chain([("messageIndexEnable", "true"), ("autoCreateTopicEnable", "true")]);
        let port = ports::free(&[0, 1, 2])?;
        let settings = Settings {
            version,
            nameserver: self.nameserver.address().to_owned(),
            role: "ASYNC_MASTER",
            id: 0,
            port,
            ha_port: port - 1,
            others: others.map(|(key, value)| (key, value.to_owned())).collect(),
        };
        apache::Broker::start(&settings, self.folder.path())
    }

    fn gantry(&self) -> anyhow::Result<Broker> {
        let mut broker = Broker::new(self.folder.path(), &self.path(), &SETTINGS);
        broker.start()?;
        Ok(broker)
    }

    /// Without keys: after an unclean stop Apache's broker deletes the index file that isn't full, and makes it again only from
    /// where it recovers the log.
    fn check_messages(&self, who: &str, address: &str) -> anyhow::Result<()> {
        let checked = self.runtime.block_on(async { self.ledger.check(&Wire::new(address)).await });
        checked.with_context(|| format!("what {who} finds"))
    }

    fn check(&self, who: &str, address: &str) -> anyhow::Result<()> {
        self.check_messages(who, address)?;
        let checked = self.runtime.block_on(async { self.ledger.check_keys(&Wire::new(address)).await });
        checked.with_context(|| format!("what {who} finds by key"))
    }

    fn fill(&mut self, who: &str, address: &str) -> anyhow::Result<()> {
        let filled = self.runtime.block_on(async { self.ledger.fill(&Wire::new(address)).await });
        filled.and_then(|()| self.ledger.wait_snapshots(&self.path())).with_context(|| format!("what {who} is given"))
    }

    /// A stock client of the same version receives every message at the place that was acknowledged.
    fn consume(&self, version: Version) -> anyhow::Result<()> {
        let library = if version == Version::V4 { Library::Java4 } else { Library::Java5 };
        let received = Job::new(library, Vec::new(), "consume", self.nameserver.address(), TOPIC)?
            .with("group", "reader")
            .with("expect", self.ledger.count())
            .run(CLIENT_WITHIN)?;
        ensure!(received.is_complete(), "{received}");
        let mut places = self.ledger.places();
        for event in history::read(&[received.history()])? {
            let Event::Recv(delivery) = event else { continue };
            if let Some(id) = places.remove(&(delivery.queue, delivery.offset)) {
                ensure!(id == delivery.id, "{delivery:?} instead of {id}");
            }
        }
        ensure!(places.is_empty(), "not received: {places:?}");
        Ok(())
    }
}

/// Apache killed → ours killed → Apache stopped → ours stopped → Apache.
fn hand_over(version: Version) -> anyhow::Result<()> {
    let mut store = Store::new()?;
    let apache = store.apache(version)?;
    store.fill("Apache's broker", apache.address())?;
    // `kill -9`.
    drop(apache);

    let mut gantry = store.gantry()?;
    store.check("ours, after a kill of Apache's", gantry.address())?;
    store.fill("ours", gantry.address())?;
    gantry.kill()?;

    let apache = store.apache(version)?;
    store.check_messages("Apache's, after a kill of ours", apache.address())?;
    store.fill("Apache's", apache.address())?;
    store.consume(version)?;
    apache.stop()?;

    let mut gantry = store.gantry()?;
    store.check("ours, after a stop of Apache's", gantry.address())?;
    store.fill("ours", gantry.address())?;
    ensure!(gantry.stop()?.success(), "{}", gantry.said());
    ensure!(!is_marked_as_running(&store.path()), "a clean stop leaves no `abort`");

    let apache = store.apache(version)?;
    store.check("Apache's, after a stop of ours", apache.address())?;
    apache.stop()
}

fn is_marked_as_running(store: &Path) -> bool {
    store.join("abort").exists()
}

#[test]
#[ignore = "end to end: run e2e/test"]
fn a_store_goes_back_and_forth_between_apache_5_and_gantry() -> anyhow::Result<()> {
    hand_over(Version::V5)
}

#[test]
#[ignore = "end to end: run e2e/test"]
fn a_store_goes_back_and_forth_between_apache_4_and_gantry() -> anyhow::Result<()> {
    hand_over(Version::V4)
}
