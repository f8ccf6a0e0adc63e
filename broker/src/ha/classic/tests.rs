//! Both halves over sockets. Gantry serves as an Apache master does, with a few answers in Apache's words beside it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use gantry_remoting::code::request as code;
use gantry_remoting::headers::offset::{GetMaxOffset, OffsetResponse};
use gantry_remoting::{Connection, Handler, Inbound, Limits as RemotingLimits, Response, Server};
use gantry_replication::master::{Config, Durability, Mode};
use gantry_replication::{Epoch, GroupRecord, Member, StoreId};
use gantry_store::{Dispatched, Events, NewMessage, PhysicalOffset, ReadLog, Store, StoreFailure};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::follower::{Settings, follow};
use super::wire::{HEADER_BYTES, Header};
use crate::clock::Clock;
use crate::core::{Core, DivergentLimits, FlowLimits, Job, Limits, Standing};
use crate::ha::{HaConfig, HaServer};
use crate::registration::NamedMaster;
use crate::replica::ReplicaState;
use crate::services::seam::{Done, Log, Submission, Wait};
use crate::services::{self, Services, ServicesConfig};

const SEGMENT: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Bridge(OnceLock<(Arc<Core>, Arc<Services>)>);

impl Events for Bridge {
    fn flushed(&self, offset: PhysicalOffset) {
        if let Some((core, _)) = self.0.get() {
            core.flushed(offset);
        }
    }
    fn dispatched(&self, batch: &[Dispatched]) {
        if let Some((_, services)) = self.0.get() {
            services.on_dispatched(batch);
        }
    }
    fn failed(&self, failure: &Arc<StoreFailure>) {
        panic!("{failure}");
    }
}

struct Node {
    core: Arc<Core>,
    services: Arc<Services>,
    store: Store,
    ha: HaServer,
    _dir: TempDir,
}

impl Node {
    /// A node whose log begins at `oldest`.
    async fn start(name: &str, oldest: u64, classic: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bridge = Arc::new(Bridge::default());
        let mut config = gantry_store::Config::new(dir.path());
        config.segment_bytes = SEGMENT;
        let (store, mut appender) = gantry_store::open(config, Arc::clone(&bridge) as _).unwrap();
        if oldest > 0 {
            appender.start_at(PhysicalOffset(oldest)).unwrap();
        }
        let replica = ReplicaState::open(dir.path(), name, false).unwrap();
        let limits = Limits {
            max_queued_sends: 10_000,
            max_parked_sends: 10_000,
            slave_timeout_ms: 60_000,
            sync_flush_timeout_ms: 60_000,
            pressure: None,
            flow: FlowLimits::default(),
            divergent: DivergentLimits::default(),
        };
        let master = Config::new(Mode::Sync, Durability::Written, 1);
        let logged = appender.next_queue_offset(services::names::METADATA_TOPIC, 0);
        let (core, _writer) = Core::start(store.clone(), appender, replica, master, limits, Clock::start()).unwrap();
        let services_config = ServicesConfig { config_dir: dir.path().join("config"), ..ServicesConfig::default() };
        let log = Arc::clone(&core) as Arc<dyn Log>;
        let services = Services::open(services_config, store.clone(), logged, log, Arc::clone(&core) as _).unwrap();
        bridge.0.get_or_init(|| (Arc::clone(&core), Arc::clone(&services)));
        let config = HaConfig { heartbeat: Duration::from_millis(50), classic, ..HaConfig::new("g", "token") };
        let (local, metadata) = (SocketAddr::from(([127, 0, 0, 1], 0)), Arc::clone(&services) as _);
        let ha = HaServer::bind(local, Arc::clone(&core), config, metadata).await.unwrap();
        Self { core, services, store, ha, _dir: dir }
    }

    /// Master, with `others` in the in-sync set, of whom nobody is there.
    async fn lead(&self, others: &[&str]) {
        let me = self.core.member();
        let others = others.iter().map(|name| Member::new(*name, StoreId(9)));
        let in_sync: BTreeSet<_> = others.chain([me.clone()]).collect();
        let record = GroupRecord { epoch: Epoch(1), revision: 1, master: me, in_sync };
        let (done, became) = oneshot::channel();
        self.core.submit_job(Job::BecomeMaster(record.clone(), done));
        became.await.unwrap().unwrap();
        self.core.submit_job(Job::Open(record.epoch));
    }

    /// Slave of an Apache master. Answers the epoch of following.
    async fn obey(&self) -> Epoch {
        let epoch = match *self.core.watch_standing().borrow() {
            Standing::Slave { epoch, .. } => epoch,
            _ => self.core.report().promised.next(),
        };
        let master = Member::new("apache", StoreId(0));
        let in_sync = BTreeSet::from([master.clone()]);
        let record = GroupRecord { epoch, revision: 0, master, in_sync };
        let (done, became) = oneshot::channel();
        self.core.submit_job(Job::BecomeSlave(record, None, done));
        became.await.unwrap().unwrap();
        epoch
    }

    /// Messages of a kilobyte and more; waits until they are written.
    async fn send(&self, count: usize, byte: u8) {
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
            body: Bytes::from(vec![byte; 1_500]),
            properties: Bytes::new(),
        };
        let mut results = Vec::new();
        for _ in 0..count {
            let (told, written) = oneshot::channel();
            let done = Done::Call(Box::new(move |result| told.send(result.map(drop)).unwrap()));
            self.core.submit(vec![Submission { append: message.clone().into(), wait: Wait::Written, done }]);
            results.push(written);
        }
        for result in results {
            result.await.unwrap().unwrap();
        }
    }

    fn log(&self) -> Vec<u8> {
        let (mut log, mut at) = (Vec::new(), self.store.min_offset());
        while let ReadLog::Bytes { bytes, next } = self.store.read_bytes(at, 1 << 20).unwrap() {
            log.extend_from_slice(&bytes);
            at = next;
        }
        log
    }

    fn end(&self) -> u64 {
        self.store.watermarks().written.0
    }
}

/// What an Apache master answers at its clients' port.
struct ApachesWords {
    store: Store,
    segment_bytes: u64,
}

impl Handler for ApachesWords {
    fn handle(&self, _: &Arc<Connection>, batch: &mut Vec<Inbound>) {
        for Inbound { request, ticket } in batch.drain(..) {
            let text = match request.code {
                code::GET_BROKER_RUNTIME_INFO => format!(
                    r#"{{"table":{{"brokerVersionDesc":"V5_5_0","commitLogMinOffset":"{}","commitLogMaxOffset":"{}"}}}}"#,
                    self.store.min_offset(),
                    self.store.watermarks().written
                ),
                code::GET_BROKER_CONFIG => format!("mappedFileSizeCommitLog={}\n", self.segment_bytes),
                code::GET_ALL_TOPIC_CONFIG => {
                    let topic = |name: &str| {
                        format!(r#""{name}":{{"topicName":"{name}","readQueueNums":1,"writeQueueNums":1}}"#)
                    };
                    format!(r#"{{"topicConfigTable":{{{},{}}}}}"#, topic("t"), topic("gone"))
                }
                code::GET_ALL_SUBSCRIPTIONGROUP_CONFIG => {
                    r#"{"subscriptionGroupTable":{"g":{"groupName":"g"}}}"#.into()
                }
                code::GET_ALL_CONSUMER_OFFSET => r#"{"offsetTable":{"t@g":{0:3}}}"#.into(),
                code::GET_ALL_DELAY_OFFSET => r#"{"offsetTable":{2:5}}"#.into(),
                code::GET_MAX_OFFSET => {
                    let asked: GetMaxOffset<'_> = request.header().unwrap();
                    let offset = if asked.topic == "gone" { 7 } else { self.store.queue_range("t", 0).max.0 as i64 };
                    ticket.reply(Response::success().with_header(&OffsetResponse { offset }));
                    continue;
                }
                code::QUERY_CONSUME_QUEUE if request.ext.get("topic") == Some("gone") => {
                    r#"{"minQueueIndex":7}"#.into()
                }
                code::QUERY_CONSUME_QUEUE => r#"{"queueData":[{"physicOffset":1048576,"physicSize":9}]}"#.into(),
                other => panic!("asked for {other}"),
            };
            ticket.reply(Response::success().with_body(text.into_bytes()));
        }
    }
}

struct Apache {
    node: Node,
    server: Server,
}

impl Apache {
    async fn start(oldest: u64) -> Self {
        let node = Node::start("apache", oldest, true).await;
        node.lead(&[]).await;
        let words = ApachesWords { store: node.store.clone(), segment_bytes: SEGMENT };
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = Server::bind(address, RemotingLimits::default(), Arc::new(words)).await.unwrap();
        Self { node, server }
    }

    /// Has `slave` follow until it has everything; or until it can't.
    async fn followed_by(&self, slave: &Node) -> Result<(), String> {
        let master = NamedMaster {
            address: self.server.local_addr().to_string(),
            ha_address: self.node.ha.local_addr().to_string(),
        };
        let settings = Settings { heartbeat: Duration::from_millis(20), housekeeping: PATIENCE, ack_flushed: false };
        let epoch = slave.obey().await;
        let caught_up = async {
            while slave.end() != self.node.end() || slave.services.live().topics.get("gone").is_none() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            ended = follow(&slave.core, &slave.services, &settings, &master, epoch) => Err(format!("{:#}", ended.unwrap_err())),
            caught_up = timeout(PATIENCE, caught_up) => caught_up.map_err(|_elapsed| "it doesn't catch up".to_owned()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_slave_takes_all_segments_and_the_metadata_and_goes_on_after_a_break() {
    let apache = Apache::start(0).await;
    apache.node.send(1_500, 7).await;
    let slave = Node::start("slave", 0, false).await;
    apache.followed_by(&slave).await.unwrap();
    assert!(slave.end() > 2 * SEGMENT && slave.log() == apache.node.log());
    apache.node.send(10, 8).await;
    apache.followed_by(&slave).await.unwrap();
    assert_eq!(slave.log(), apache.node.log());
    let live = slave.services.live();
    assert!(live.groups.get("g").is_some());
    assert_eq!((live.offsets.get("t", "g", 0), live.delay.get(2)), (Some(3), 5));
    assert_eq!(slave.core.epochs().entries().len(), 1, "one epoch of following");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_no_longer_begins_at_0_is_taken_from_its_oldest_byte_with_the_numbers_it_has_no_records_of() {
    let apache = Apache::start(3 * SEGMENT).await;
    apache.node.send(800, 7).await;
    let slave = Node::start("slave", 0, false).await;
    apache.followed_by(&slave).await.unwrap();
    assert_eq!(slave.store.min_offset(), PhysicalOffset(3 * SEGMENT));
    assert_eq!(slave.log(), apache.node.log());
    assert_eq!(slave.store.queue_range("gone", 0).max.0, 7, "the queue goes on where it was");
    assert_eq!(slave.store.queue_range("t", 0).max.0, 800);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_another_history_follows_nobody_and_stays_as_it_is() {
    let apache = Apache::start(0).await;
    apache.node.send(20, 7).await;
    for (messages, why) in [(5, "differ at"), (30, "holds what the master lacks")] {
        let slave = Node::start("slave", 0, false).await;
        slave.lead(&[]).await;
        slave.send(messages, 9).await;
        let before = slave.log();
        let said = apache.followed_by(&slave).await.unwrap_err();
        assert!(said.contains(why), "{said}");
        assert_eq!(slave.log(), before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_with_other_files_is_named_before_anything_is_taken() {
    let node = Node::start("apache", 0, true).await;
    node.lead(&[]).await;
    let words = ApachesWords { store: node.store.clone(), segment_bytes: 2 * SEGMENT };
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = Server::bind(address, RemotingLimits::default(), Arc::new(words)).await.unwrap();
    let said = Apache { node, server }.followed_by(&Node::start("slave", 0, false).await).await.unwrap_err();
    assert!(said.contains("mappedFileSizeCommitLog is 2097152, this broker's 1048576"), "{said}");
}

/// An Apache slave that connects and reports `offset`.
async fn apache_slave(master: &Node, offset: u64) -> TcpStream {
    let mut stream = TcpStream::connect(master.ha.local_addr()).await.unwrap();
    stream.write_u64(offset).await.unwrap();
    stream
}

async fn piece(from: &mut TcpStream) -> (Header, Vec<u8>) {
    let read = async {
        let mut header = [0; HEADER_BYTES];
        from.read_exact(&mut header).await.unwrap();
        let header = Header::decode(header).unwrap();
        let mut bytes = vec![0; header.len as usize];
        from.read_exact(&mut bytes).await.unwrap();
        (header, bytes)
    };
    timeout(PATIENCE, read).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_apache_slave_gets_everything_in_small_pieces_then_heartbeats_and_is_shown() {
    let master = Node::start("gantry", 0, true).await;
    master.lead(&[]).await;
    master.send(1_000, 7).await;
    let mut slave = apache_slave(&master, 0).await;
    let mut log = Vec::new();
    let idle = loop {
        let (header, bytes) = piece(&mut slave).await;
        assert_eq!(header.offset, log.len() as u64);
        assert!(header.len <= 32 << 10);
        if header.len == 0 {
            break header;
        }
        log.extend(bytes);
    };
    assert_eq!((log, idle.offset), (master.log(), master.end()));
    slave.write_u64(master.end()).await.unwrap();
    let acked = async {
        while !master.ha.classic_links().iter().any(|link| link.written == master.end()) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, acked).await.unwrap();
    timeout(PATIENCE, master.ha.drain_classic(PATIENCE)).await.unwrap();
    assert!(master.core.slaves().is_empty(), "it is no member of the group");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_confirmed_is_not_sent() {
    let master = Node::start("gantry", 0, true).await;
    master.lead(&["absent"]).await;
    master.send(3, 7).await;
    let mut slave = apache_slave(&master, 0).await;
    assert_eq!(piece(&mut slave).await.0, Header { offset: 0, len: 0 }, "a heartbeat");
    assert!(master.end() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_slaves_that_cannot_be_are_refused() {
    // Counted a moment after the connection was closed.
    let refused = async |node: &Node, times: u64| {
        let counted = async {
            while node.ha.counters().refused.load(std::sync::atomic::Ordering::Relaxed) != times {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, counted).await.unwrap();
    };
    let closed = async |mut stream: TcpStream| {
        let mut rest = Vec::new();
        // A reset is an end, too.
        drop(timeout(PATIENCE, stream.read_to_end(&mut rest)).await.unwrap());
    };
    let off = Node::start("gantry", 0, false).await;
    off.lead(&[]).await;
    closed(apache_slave(&off, 0).await).await;
    refused(&off, 1).await;
    let on = Node::start("gantry", 0, true).await;
    on.lead(&[]).await;
    on.send(3, 7).await;
    closed(apache_slave(&on, on.end() + 1).await).await;
    let mut slave = apache_slave(&on, on.end()).await;
    slave.write_u64(u64::MAX).await.unwrap();
    closed(slave).await;
    refused(&on, 2).await;
}
