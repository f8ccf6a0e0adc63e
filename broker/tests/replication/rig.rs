//! Replicas in one process: real stores, real sockets, and the test in the elector's place.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use gantry_broker::clock::Clock;
use gantry_broker::core::{Core, DivergentLimits, FlowLimits, Job, Limits};
use gantry_broker::ha::{ColdRate, Follower, HaConfig, HaServer, Metadata, Tls};
use gantry_broker::replica::ReplicaState;
use gantry_broker::services::{Done, Log, SendFailure, Submission, Wait};
use gantry_replication::master::{Config, Durability, Mode};
use gantry_replication::{Epoch, GroupRecord};
use gantry_store::{Appended, Dispatched, Events, NewMessage, PhysicalOffset, ReadLog, Store, StoreFailure};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Long enough for any machine; what is waited for takes milliseconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Bridge(OnceLock<Arc<Core>>);

impl Events for Bridge {
    fn flushed(&self, offset: PhysicalOffset) {
        if let Some(core) = self.0.get() {
            core.flushed(offset);
        }
    }
    fn dispatched(&self, _batch: &[Dispatched]) {}
    fn failed(&self, failure: &Arc<StoreFailure>) {
        panic!("{failure}");
    }
}

/// Metadata that remembers what was installed last.
#[derive(Default)]
pub(crate) struct Text(pub(crate) parking_lot::Mutex<String>);

impl Metadata for Text {
    fn snapshot(&self) -> anyhow::Result<Bytes> {
        Ok(Bytes::from(self.0.lock().clone()))
    }
    fn install(&self, snapshot: &[u8]) -> anyhow::Result<()> {
        *self.0.lock() = String::from_utf8(snapshot.to_vec())?;
        Ok(())
    }
}

pub(crate) struct Node {
    pub(crate) dir: TempDir,
    pub(crate) core: Arc<Core>,
    pub(crate) store: Store,
    pub(crate) ha: HaServer,
    pub(crate) metadata: Arc<Text>,
    _follower: Follower,
    writer: JoinHandle<()>,
}

impl Node {
    pub(crate) async fn start(name: &str) -> Self {
        Self::open(tempfile::tempdir().unwrap(), name).await
    }

    pub(crate) async fn open(dir: TempDir, name: &str) -> Self {
        Self::open_with(dir, name, None).await
    }

    pub(crate) async fn open_with(dir: TempDir, name: &str, tls: Option<Tls>) -> Self {
        let bridge = Arc::new(Bridge::default());
        let mut config = gantry_store::Config::new(dir.path());
        config.segment_bytes = 1 << 20;
        let (store, appender) = gantry_store::open(config, Arc::clone(&bridge) as _).unwrap();
        let replica = ReplicaState::open(dir.path(), name, false).unwrap();
        let limits = Limits {
            max_queued_sends: 10_000,
            max_parked_sends: 10_000,
            flow: FlowLimits::default(),
            slave_timeout_ms: 60_000,
            sync_flush_timeout_ms: 60_000,
            pressure: None,
            divergent: DivergentLimits::default(),
        };
        let master = Config::new(Mode::Sync, Durability::Written, 2);
        let (core, writer) = Core::start(store.clone(), appender, replica, master, limits, Clock::start()).unwrap();
        bridge.0.get_or_init(|| Arc::clone(&core));
        let metadata = Arc::new(Text::default());
        let ha_config = HaConfig {
            heartbeat: Duration::from_millis(50),
            batch_bytes: 64 << 10,
            cold_lag_bytes: 512 << 10,
            cold_rate: ColdRate::new(Some(64 << 20)),
            tls,
            ..HaConfig::new("g", "token")
        };
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let ha = HaServer::bind(local, Arc::clone(&core), ha_config.clone(), Arc::clone(&metadata) as _).await.unwrap();
        let follower = Follower::start(Arc::clone(&core), ha_config, Arc::clone(&metadata) as _);
        Self { dir, core, store, ha, metadata, _follower: follower, writer }
    }

    /// Ends it as a crash would end it for its peers; its directory stays.
    pub(crate) async fn stop(self) -> TempDir {
        self.core.stop();
        tokio::task::spawn_blocking(move || self.writer.join().unwrap()).await.unwrap();
        self.dir
    }

    pub(crate) async fn lead(&self, epoch: u64, others: &[&Node]) -> GroupRecord {
        let me = self.core.member();
        let in_sync: BTreeSet<_> = others.iter().map(|node| node.core.member()).chain([me.clone()]).collect();
        let record = GroupRecord { epoch: Epoch(epoch), revision: epoch * 100, master: me, in_sync };
        let (done, became) = oneshot::channel();
        self.core.submit_job(Job::BecomeMaster(record.clone(), done));
        became.await.unwrap().unwrap();
        self.core.submit_job(Job::Open(record.epoch));
        record
    }

    pub(crate) async fn follow(&self, record: &GroupRecord, master: &Node) {
        self.follow_at(record, master.ha.local_addr().to_string()).await;
    }

    pub(crate) async fn follow_at(&self, record: &GroupRecord, address: String) {
        let (done, became) = oneshot::channel();
        self.core.submit_job(Job::BecomeSlave(record.clone(), Some(address), done));
        became.await.unwrap().unwrap();
    }

    pub(crate) fn send(&self, body: &str) -> oneshot::Receiver<Result<Appended, SendFailure>> {
        let host = SocketAddr::from(([127, 0, 0, 1], 1));
        let message = NewMessage {
            topic: Arc::from("t"),
            queue_id: 0,
            flag: 0,
            sys_flag: 0,
            born_timestamp_ms: 0,
            born_host: host,
            store_host: host,
            reconsume_times: 0,
            prepared_offset: 0,
            body: Bytes::copy_from_slice(body.as_bytes()),
            properties: Bytes::new(),
        };
        let (tell, told) = oneshot::channel();
        let done = Done::Call(Box::new(move |outcome| drop(tell.send(outcome))));
        self.core.submit(vec![Submission { append: message.into(), wait: Wait::Acked, done }]);
        told
    }

    pub(crate) async fn acked(&self, body: &str) -> Appended {
        timeout(PATIENCE, self.send(body)).await.expect("in time").unwrap().expect("acknowledged")
    }

    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Node) -> bool) {
        let mut written = self.core.watch_written();
        let waited = timeout(PATIENCE, async {
            while !holds(self) {
                tokio::select! {
                    changed = written.changed() => changed.unwrap(),
                    () = tokio::time::sleep(Duration::from_millis(5)) => {}
                }
            }
        });
        waited.await.unwrap_or_else(|_| panic!("waited for {what}; {:?}", self.store.watermarks()));
    }

    pub(crate) fn log(&self) -> Vec<u8> {
        let (mut log, mut from) = (Vec::new(), self.store.min_offset());
        while let ReadLog::Bytes { bytes, next } = self.store.read_log(from, 1 << 20).unwrap() {
            log.extend_from_slice(&bytes);
            from = next;
        }
        log
    }
}
