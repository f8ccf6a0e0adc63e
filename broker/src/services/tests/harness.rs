//! A broker's services on a socket of their own, over a store in a temporary directory.

use crate::services::seam::{Log, NotServing, Role, SendFailure, Submission};
use crate::services::send_batch;
use crate::services::{Services, ServicesConfig};
use bytes::Bytes;
use gantry_remoting::body::heartbeat::{ConsumerData, HeartbeatData, SubscriptionData};
use gantry_remoting::body::{parse, to_json};
use gantry_remoting::code::request;
use gantry_remoting::header::{Fields, Header};
use gantry_remoting::headers::pull::{PullMessage, PullMessageResponse, sys_flag};
use gantry_remoting::headers::send::{SendMessage, SendMessageResponse};
use gantry_remoting::{Command, Connection, Handler, Inbound, Limits, Server};
use gantry_store::{
    AppendError, Appender, Config, Dispatched, Events, OpenError, PhysicalOffset, ReadLog, Retention, Store,
    StoreFailure, record,
};
use parking_lot::Mutex;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::mpsc;

/// How long anything may take before a test gives up.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// A broker: everything that a test needs of one.
pub(super) struct Broker {
    pub(super) services: Arc<Services>,
    pub(super) log: Arc<TestLog>,
    pub(super) role: Arc<TestRole>,
    store: Store,
    server: Server,
}

/// Appends on the caller's thread, and confirms what it appended.
pub(super) struct TestLog {
    store: Store,
    appender: Mutex<Option<Appender>>,
    /// Submissions fail with this, if it is set
    pub(super) failure: Mutex<Option<SendFailure>>,
    /// Number of messages of each hand-over
    pub(super) hand_overs: Mutex<Vec<usize>>,
}

impl Log for TestLog {
    fn submit(&self, sends: Vec<Submission>) {
        self.hand_overs.lock().push(sends.len());
        for Submission { append, wait: _, done } in sends {
            if let Some(failure) = self.failure.lock().clone() {
                done.complete(Err(failure));
                continue;
            }
            let mut out = Vec::new();
            if let Some(appender) = self.appender.lock().as_mut() {
                appender.append(&[append], &mut out);
            }
            match out.pop() {
                Some(Ok(appended)) => {
                    self.store.confirm(appended.end);
                    done.complete(Ok(&appended));
                }
                Some(Err(AppendError::TooLarge { .. })) => {
                    done.complete(Err(SendFailure::TooLarge("too large".into())));
                }
                other => done.complete(Err(SendFailure::Store(format!("{other:?}")))),
            }
        }
    }
}

#[derive(Default)]
pub(super) struct TestRole {
    pub(super) serving: AtomicBool,
    /// A new master that doesn't know everything yet.
    pub(super) opening: AtomicBool,
    /// An old master, whose clients would not find the next one yet.
    pub(super) departing: AtomicBool,
}

impl Role for TestRole {
    fn serving(&self) -> Result<(), NotServing> {
        if self.opening.load(Ordering::SeqCst) {
            return Err(NotServing::Opening);
        }
        if self.departing.load(Ordering::SeqCst) {
            return Err(NotServing::SwitchingOver);
        }
        if self.serving.load(Ordering::SeqCst) { Ok(()) } else { Err(NotServing::Slave) }
    }
}

#[derive(Default)]
struct TestEvents {
    services: OnceLock<Weak<Services>>,
}

impl Events for TestEvents {
    fn flushed(&self, _: PhysicalOffset) {}

    fn dispatched(&self, batch: &[Dispatched]) {
        if let Some(services) = self.services.get().and_then(Weak::upgrade) {
            services.on_dispatched(batch);
        }
    }

    fn failed(&self, failure: &Arc<StoreFailure>) {
        panic!("the store failed: {failure}");
    }
}

impl Broker {
    /// A new broker in `dir`, master of epoch 1.
    pub(super) async fn start(dir: &TempDir) -> Self {
        Self::start_with(dir.path(), ServicesConfig::default()).await
    }

    /// A master with settings of its own.
    pub(super) async fn start_with(dir: &Path, config: ServicesConfig) -> Self {
        let broker = Self::start_slave(dir, config).await;
        broker.role.serving.store(true, Ordering::SeqCst);
        broker.services.became_master(1);
        broker
    }

    /// A replica that nobody has made a master yet.
    pub(super) async fn start_slave(dir: &Path, config: ServicesConfig) -> Self {
        let events = Arc::new(TestEvents::default());
        let store_config = Config {
            segment_bytes: 16 << 20,
            queue_file_units: 1000,
            retention: eager_retention(),
            ..Config::new(dir)
        };
        let (store, appender) = open(store_config, events.clone()).await;
        let logged = appender.next_queue_offset(crate::services::names::METADATA_TOPIC, 0);
        store.confirm(store.watermarks().written);
        let log = Arc::new(TestLog {
            store: store.clone(),
            appender: Mutex::new(Some(appender)),
            failure: Mutex::default(),
            hand_overs: Mutex::default(),
        });
        let role = Arc::new(TestRole::default());
        let config = ServicesConfig { config_dir: dir.join("config"), offset_flush_ms: 20, ..config };
        until("the log is dispatched", || store.watermarks().dispatched == store.watermarks().written).await;
        let services = Services::open(config, store.clone(), logged, log.clone(), role.clone()).unwrap();
        events.services.set(Arc::downgrade(&services)).unwrap();
        let server = Server::bind(([127, 0, 0, 1], 0).into(), Limits::default(), services.clone()).await.unwrap();
        Self { services, log, role, store, server }
    }

    /// A client's connection, and what the broker tells it unasked.
    pub(super) async fn client(&self) -> Client {
        let (told, notices) = mpsc::unbounded_channel();
        let handler = Arc::new(Notices { told });
        let addr = self.server.local_addr().to_string();
        let connection = gantry_remoting::connect(&addr, Limits::default(), Some(handler)).await.unwrap();
        Client { connection, notices }
    }

    /// All that is written can be consumed.
    pub(super) async fn dispatched(&self) {
        let store = &self.store;
        until("the log is dispatched", || store.watermarks().dispatched == store.watermarks().written).await;
    }

    /// Whether nothing of a queue is left that once was.
    pub(super) fn is_drained(&self, topic: &str, queue: u32) -> bool {
        let range = self.store.queue_range(topic, queue);
        range.max.0 > 0 && range.min == range.max
    }

    /// Where the log begins.
    pub(super) fn oldest(&self) -> PhysicalOffset {
        self.store.min_offset()
    }

    /// Where it ends.
    pub(super) fn end(&self) -> PhysicalOffset {
        self.store.watermarks().written
    }

    pub(super) fn write_log<T>(&self, write: impl FnOnce(&mut Appender) -> T) -> T {
        write(self.log.appender.lock().as_mut().unwrap())
    }

    /// All that the log holds, piece by piece: where each begins, and its bytes.
    pub(super) fn log_pieces(&self) -> Vec<(PhysicalOffset, Bytes)> {
        let (mut pieces, mut from) = (Vec::new(), self.oldest());
        while let ReadLog::Bytes { bytes, next } = self.store.read_log(from, 1 << 20).unwrap() {
            pieces.push((from, bytes));
            from = next;
        }
        pieces
    }

    /// All that is written is confirmed.
    pub(super) fn confirm(&self) {
        self.store.confirm(self.end());
    }

    /// How many messages a queue has.
    pub(super) fn queue_max(&self, topic: &str, queue: u32) -> u64 {
        self.store.queue_range(topic, queue).max.0
    }

    /// Stops in good order.
    pub(super) async fn stop(self) {
        self.server.shutdown(PATIENCE).await;
        self.services.shutdown().await;
        *self.log.appender.lock() = None;
        self.store.close().unwrap();
    }

    /// Stops as `kill -9` would, as far as files are concerned: no last snapshot, no clean end of the store.
    pub(super) async fn kill(self) {
        let Self { services, log, store, server, role: _ } = self;
        drop(server);
        *log.appender.lock() = None;
        let gone = Arc::downgrade(&services);
        drop((services, log, store));
        until("the services are gone", || gone.upgrade().is_none()).await;
    }
}

/// Deletes whatever may be deleted, at once.
fn eager_retention() -> Retention {
    Retention {
        reserved: Duration::ZERO,
        delete_when: "0;1;2;3;4;5;6;7;8;9;10;11;12;13;14;15;16;17;18;19;20;21;22;23".parse().unwrap(),
        check_interval: Duration::from_millis(20),
        ..Retention::default()
    }
}

struct Notices {
    told: mpsc::UnboundedSender<Command>,
}

impl Handler for Notices {
    fn handle(&self, _: &Arc<Connection>, batch: &mut Vec<Inbound>) {
        for inbound in batch.drain(..) {
            // A test that has ended listens no more.
            let _unheard = self.told.send(inbound.request);
            inbound.ticket.reply_success();
        }
    }
}

pub(super) struct Client {
    pub(super) connection: Arc<Connection>,
    pub(super) notices: mpsc::UnboundedReceiver<Command>,
}

/// A record as a consumer sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Received {
    pub(super) topic: String,
    pub(super) body: Bytes,
    pub(super) offset: u64,
    pub(super) physical: u64,
    pub(super) reconsume_times: i32,
    pub(super) properties: Vec<(String, String)>,
}

impl Received {
    pub(super) fn property(&self, key: &str) -> Option<&str> {
        self.properties.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

impl Client {
    /// Asks, and expects an answer of any code.
    pub(super) async fn ask(&self, command: Command) -> Command {
        self.connection.invoke(command, PATIENCE).await.unwrap()
    }

    pub(super) async fn request(&self, code: i32, header: &impl Fields) -> Command {
        self.ask(Command::request(code).with_header(header)).await
    }

    /// Sends one message with these properties; any answer.
    pub(super) async fn send_raw(&self, topic: &str, queue: i32, properties: &str, body: &str) -> Command {
        let header = SendMessage { properties: Some(properties), ..send_header(topic, queue) };
        let command = Command::request(request::SEND_MESSAGE_V2).with_header(&header);
        self.ask(command.with_body(Bytes::copy_from_slice(body.as_bytes()))).await
    }

    /// Sends one message; its queue and offset.
    pub(super) async fn send(&self, topic: &str, queue: i32, properties: &str, body: &str) -> (i32, i64) {
        let answer = self.send_raw(topic, queue, properties, body).await;
        assert_eq!(answer.code, 0, "{:?}", answer.remark);
        let header: SendMessageResponse<'_> = answer.header().unwrap();
        (header.queue_id, header.queue_offset)
    }

    pub(super) async fn send_batch(&self, topic: &str, messages: &[(i32, &[u8], &str)]) -> Command {
        let header = SendMessage { batch: Some(true), ..send_header(topic, 0) };
        let command = Command::request(request::SEND_BATCH_MESSAGE).with_header(&header);
        self.ask(command.with_body(send_batch::encode(messages))).await
    }

    /// One pull; any answer.
    pub(super) async fn pull(&self, pull: PullMessage<'_>) -> (Command, Vec<Received>) {
        let answer = self.request(request::PULL_MESSAGE, &pull).await;
        let records = records(&answer.body.to_bytes());
        (answer, records)
    }

    /// Heartbeat of a consumer that subscribes to one topic.
    pub(super) async fn subscribe(
        &self,
        id: &str,
        group: &str,
        topic: &str,
        expression: &str,
        version: i64,
    ) -> Command {
        let subscription = SubscriptionData {
            topic: topic.into(),
            sub_string: expression.into(),
            sub_version: version,
            expression_type: "TAG".into(),
            ..SubscriptionData::default()
        };
        let consumer = format!(r#"{{"groupName":"{group}"}}"#);
        let consumer: ConsumerData = parse(consumer.as_bytes()).unwrap();
        let data = HeartbeatData {
            client_id: id.into(),
            consumer_data_set: vec![ConsumerData { subscription_data_set: vec![subscription], ..consumer }],
            ..HeartbeatData::default()
        };
        let answer = self.ask(Command::request(request::HEART_BEAT).with_body(to_json(&data).unwrap())).await;
        assert_eq!(answer.code, 0, "{:?}", answer.remark);
        answer
    }
}

/// A send with everything as usual.
pub(super) fn send_header(topic: &str, queue: i32) -> SendMessage<'_> {
    SendMessage { born_timestamp: 1_700_000_000_000, ..SendMessage::new("pg", topic, queue) }
}

/// A pull that waits.
pub(super) fn waiting_pull<'a>(group: &'a str, topic: &'a str, queue: i32, from: i64) -> PullMessage<'a> {
    let sys_flag = sys_flag::SUBSCRIPTION | sys_flag::SUSPEND;
    PullMessage { sys_flag, suspend_timeout_ms: 15_000, ..PullMessage::new(group, topic, queue, from) }
}

pub(super) fn pull_answer(answer: &Command) -> PullMessageResponse {
    PullMessageResponse::decode(&answer.ext).unwrap()
}

pub(super) fn bodies(records: &[Received]) -> Vec<&str> {
    records.iter().map(|record| std::str::from_utf8(&record.body).unwrap()).collect()
}

/// Takes a pull's body apart.
pub(super) fn records(mut body: &[u8]) -> Vec<Received> {
    let mut records = Vec::new();
    while !body.is_empty() {
        let view = record::decode(body).unwrap();
        let pairs = gantry_store::properties::iter(view.properties).map(|(k, v)| (k.to_owned(), v.to_owned()));
        records.push(Received {
            topic: view.topic.to_owned(),
            body: Bytes::copy_from_slice(view.body),
            offset: view.queue_offset.0,
            physical: view.physical.0,
            reconsume_times: view.reconsume_times,
            properties: pairs.collect(),
        });
        body = &body[view.size as usize..];
    }
    records
}

/// Waits for a condition; says which one never came.
pub(super) async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "waited in vain until {what}");
}

/// Opens the store; a broker that was killed in this process gives its lock back a little later.
async fn open(config: Config, events: Arc<TestEvents>) -> (Store, Appender) {
    let opened = Mutex::new(None);
    let attempt = || match gantry_store::open(config.clone(), events.clone()) {
        Err(OpenError::Locked { .. }) => false,
        result => opened.lock().replace(result.unwrap()).is_none(),
    };
    until("the store is unlocked", attempt).await;
    opened.into_inner().unwrap()
}
