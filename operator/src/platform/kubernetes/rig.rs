//! A whole operator over an API server that is none, and brokers that are none: real sockets between them, each in a runtime of its own, so
//! that an operator can end as a process does, between any two steps.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gantry_remoting::code::response;
use gantry_remoting::{Connection, Handler, Inbound, Limits, Ticket, connect};
use gantry_replication::wire::{DIRECTIVE, Directive, HELLO, Heard, Hello, PROBE, REPORT, Report, Role};
use gantry_replication::{Epoch, GroupRecord};
use k8s_openapi::ByteString;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use super::lease::Leadership;
use super::mock::Mock;
use super::run::{Options, lead};
use crate::elector::tests::{ask, hello};
use crate::observe::Metrics;

const PATIENCE: Duration = Duration::from_mins(1);
const ELECTOR_SLICE: &str = "/apis/discovery.k8s.io/v1/namespaces/ops/endpointslices/elector-gantry";

/// Asks until it holds. To be called outside of runtimes.
pub(super) fn until(what: &str, holds: impl Fn() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

pub(super) fn options() -> Options {
    let any = "127.0.0.1:0".parse().unwrap();
    Options {
        image: "gantry:1".to_owned(),
        name_servers: "ns:9876".to_owned(),
        elector_service: "elector".to_owned(),
        elector_listen: any,
        http_listen: any,
        metrics_max_groups: 10,
        namespaces: Vec::new(),
        pod_name: "operator-0".to_owned(),
        namespace: "ops".to_owned(),
        pod_ip: any.ip(),
    }
}

/// One that leads until it is dropped. Nothing of it is left then.
pub(super) struct Operator(Option<Runtime>);

impl Operator {
    pub(super) fn start(mock: &Mock) -> Self {
        let (runtime, mock) = (runtime(), mock.clone());
        let metrics = Arc::new(Metrics::new(10).unwrap());
        runtime.spawn(async move { lead(&mock.client(), &options(), Leadership::for_tests(), &metrics).await });
        Self(Some(runtime))
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_timeout(PATIENCE);
        }
    }
}

/// What a broker does about a request of the elector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Obey,
    /// It never came.
    Ignore,
    /// It is carried out, and no answer comes.
    ObeySilently,
}

type OnRequest = Box<dyn FnMut(&str, i32) -> Turn + Send>;

/// The brokers of one group.
#[derive(Clone)]
pub(super) struct Brokers {
    mock: Mock,
    namespace: String,
    group: String,
    all: Arc<Mutex<BTreeMap<String, Broker>>>,
    on_request: Arc<Mutex<Option<OnRequest>>>,
    /// Who was made master, by epoch.
    reigns: Arc<Mutex<BTreeMap<Epoch, String>>>,
    _runtime: Arc<OwnRuntime>,
}

struct OwnRuntime(Option<Runtime>);

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

struct Broker {
    hello: Hello,
    alive: bool,
    /// No elector reaches it.
    cut_off: bool,
    connection: Option<Arc<Connection>>,
}

impl Brokers {
    /// Three of them, which look for the elector from now on. The group is made, too.
    pub(super) fn start(mock: &Mock, namespace: &str, group: &str) -> Self {
        let runtime = runtime();
        let handle = runtime.handle().clone();
        let brokers = Self {
            mock: mock.clone(),
            namespace: namespace.to_owned(),
            group: group.to_owned(),
            all: Arc::default(),
            on_request: Arc::default(),
            reigns: Arc::default(),
            _runtime: Arc::new(OwnRuntime(Some(runtime))),
        };
        let uid = format!("{namespace}-{group}");
        mock.put(
            &brokers.path(),
            json!({
                "apiVersion": "gantry.rs/v1alpha1", "kind": "BrokerGroup",
                "metadata": {"name": group, "namespace": namespace, "uid": uid, "generation": 1}, "spec": {},
            }),
        );
        for ordinal in 0..3 {
            let mut hello = Hello { group: group.to_owned(), ..hello(ordinal) };
            hello.member.name = format!("{group}-{ordinal}");
            hello.client_address = format!("{}:10911", address(ordinal));
            let name = hello.member.name.clone();
            brokers.all.lock().insert(name.clone(), Broker { hello, alive: true, cut_off: false, connection: None });
            let (weak, mock, group_path) = (Arc::downgrade(&brokers.all), mock.clone(), brokers.secret());
            let handler = Arc::new(Ears { name, brokers: brokers.parts(), unanswered: Mutex::default() });
            handle.spawn(async move {
                while weak.upgrade().is_some() {
                    // Without an elector, or refused by it: it tries again.
                    session(&mock, &group_path, &handler).await.ok();
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            });
        }
        brokers
    }

    fn parts(&self) -> Parts {
        Parts {
            all: Arc::downgrade(&self.all),
            on_request: Arc::clone(&self.on_request),
            reigns: Arc::clone(&self.reigns),
        }
    }

    /// The `BrokerGroup`'s path.
    pub(super) fn path(&self) -> String {
        format!("/apis/gantry.rs/v1alpha1/namespaces/{}/brokergroups/{}", self.namespace, self.group)
    }

    fn secret(&self) -> String {
        format!("/api/v1/namespaces/{}/secrets/{}-token", self.namespace, self.group)
    }

    fn pod(&self, name: &str) -> String {
        format!("/api/v1/namespaces/{}/pods/{name}", self.namespace)
    }

    pub(super) fn on_request(&self, on: impl FnMut(&str, i32) -> Turn + Send + 'static) {
        *self.on_request.lock() = Some(Box::new(on));
    }

    pub(super) fn obey_all(&self) {
        *self.on_request.lock() = None;
    }

    pub(super) fn report(&self, name: &str) -> Report {
        self.all.lock()[name].hello.report.clone()
    }

    pub(super) fn change_report(&self, name: &str, change: impl FnOnce(&mut Report)) {
        change(&mut self.all.lock().get_mut(name).unwrap().hello.report);
    }

    /// Its process ends, and its kubelet says so where it is `told`.
    pub(super) fn kill(&self, name: &str, told: bool) {
        self.end(name, false);
        if told {
            self.tell(name, &json!({"terminated": {"containerID": "c1", "exitCode": 137}}), &json!({}));
        }
    }

    /// Its process ends, and another is there at once.
    pub(super) fn restart(&self, name: &str) {
        self.end(name, true);
        self.tell(name, &json!({"running": {}}), &json!({"terminated": {"containerID": "c1", "exitCode": 137}}));
    }

    pub(super) fn begin(&self, name: &str) {
        self.all.lock().get_mut(name).unwrap().alive = true;
    }

    /// It lives, and its slaves hear it; the elector doesn't.
    pub(super) fn cut_off(&self, name: &str) {
        let mut all = self.all.lock();
        let broker = all.get_mut(name).unwrap();
        broker.cut_off = true;
        if let Some(connection) = broker.connection.take() {
            connection.close("the network is lost");
        }
    }

    fn end(&self, name: &str, again: bool) {
        let mut all = self.all.lock();
        let broker = all.get_mut(name).unwrap();
        broker.alive = again;
        broker.hello.pid += 1;
        (broker.hello.report.role, broker.hello.report.revision) = (Role::Fenced, 0);
        if let Some(connection) = broker.connection.take() {
            connection.close("its process has ended");
        }
    }

    fn tell(&self, name: &str, state: &Value, last: &Value) {
        if self.mock.get(&self.pod(name)).is_none() {
            return;
        }
        let status = json!({
            "name": "broker", "image": "i", "imageID": "i", "ready": false, "restartCount": 1,
            "state": state, "lastState": last,
        });
        self.mock.change(&self.pod(name), |pod| pod["status"] = json!({"containerStatuses": [status]}));
    }

    /// The record as it stands.
    pub(super) fn record(&self) -> Option<GroupRecord> {
        serde_json::from_value(self.mock.get(&self.path())?["status"]["record"].clone()).ok()
    }

    /// The reason and the words of a condition, and whether it is true.
    pub(super) fn condition(&self, type_: &str) -> String {
        let group = self.mock.get(&self.path()).unwrap_or_default();
        let all = group["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = all.into_iter().find(|it| it["type"] == type_).unwrap_or_default();
        let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
        format!("{} {}: {}", text("status"), text("reason"), text("message"))
    }

    /// The one that serves by the record, with everybody alive behind it and its Service leading to it.
    pub(super) fn master(&self) -> Option<String> {
        let record = self.record()?;
        let all = self.all.lock();
        let settled = all.values().filter(|broker| broker.alive).all(|broker| {
            let role = if broker.hello.member == record.master { Role::Master } else { Role::Slave };
            (broker.hello.report.role, broker.hello.report.promised) == (role, record.epoch)
        });
        let master = all.get(&record.master.name).filter(|broker| broker.alive && settled)?;
        let slice =
            format!("/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices/{}-master", self.namespace, self.group);
        let leads_to = self.mock.get(&slice)?["endpoints"][0]["addresses"][0].as_str()?.to_owned();
        (master.hello.client_address == format!("{leads_to}:10911")).then(|| record.master.name.clone())
    }

    /// The record's whole history: each change one revision, each epoch above the last and of one master, and nobody else was ever made
    /// master.
    pub(super) fn check_history(&self) {
        let mut last: Option<GroupRecord> = None;
        let mut masters = BTreeMap::new();
        for object in self.mock.history(&self.path()) {
            let Ok(record) = serde_json::from_value::<GroupRecord>(object["status"]["record"].clone()) else {
                continue;
            };
            masters.insert(record.epoch, record.master.name.clone());
            if let Some(last) = last.filter(|last| *last != record) {
                assert_eq!(record.revision, last.revision + 1, "{last:?} became {record:?}");
                assert!(record.epoch > last.epoch || record.master == last.master, "{last:?} became {record:?}");
                assert!(last.in_sync.contains(&record.master), "{last:?} became {record:?}");
            }
            last = Some(record);
        }
        for (epoch, master) in self.reigns.lock().iter() {
            assert_eq!(masters.get(epoch), Some(master), "master of epoch {epoch}");
        }
    }
}

fn address(ordinal: u64) -> String {
    format!("127.0.1.{}", ordinal + 1)
}

/// What a broker's tasks share with the test, which decides when it ends.
struct Parts {
    all: std::sync::Weak<Mutex<BTreeMap<String, Broker>>>,
    on_request: Arc<Mutex<Option<OnRequest>>>,
    reigns: Arc<Mutex<BTreeMap<Epoch, String>>>,
}

/// A broker as its elector meets it.
struct Ears {
    name: String,
    brokers: Parts,
    unanswered: Mutex<Vec<Ticket>>,
}

impl Handler for Ears {
    fn handle(&self, _: &Arc<Connection>, batch: &mut Vec<Inbound>) {
        for Inbound { request, ticket } in batch.drain(..) {
            assert!([DIRECTIVE, PROBE].contains(&request.code));
            let turn = self.brokers.on_request.lock().as_mut().map_or(Turn::Obey, |on| on(&self.name, request.code));
            let obeyed = turn == Turn::Ignore || request.code == PROBE || {
                let directive: Directive = serde_json::from_slice(&request.body.to_bytes()).unwrap();
                self.obey(&directive)
            };
            if turn != Turn::Obey {
                // Dropped, it would answer.
                self.unanswered.lock().push(ticket);
            } else if let (true, Some(report)) = (obeyed, self.report()) {
                ticket.reply(gantry_remoting::Response::success().with_body(serde_json::to_vec(&report).unwrap()));
            } else {
                ticket.reply_failure(response::SYSTEM_ERROR, "a newer epoch is promised");
            }
        }
    }
}

impl Ears {
    fn with<T>(&self, look: impl FnOnce(&mut Broker) -> T) -> Option<T> {
        self.brokers.all.upgrade()?.lock().get_mut(&self.name).map(look)
    }

    /// How it is; a slave hears its master while that lives.
    fn report(&self) -> Option<Report> {
        let all = self.brokers.all.upgrade()?;
        let all = all.lock();
        let mut report = all[&self.name].hello.report.clone();
        let master = all.values().find(|it| {
            let its = &it.hello.report;
            it.alive && its.role == Role::Master && its.promised == report.promised
        });
        report.master_heard_ms_ago = master.filter(|_| report.role == Role::Slave).map(|_| 0);
        Some(report)
    }

    fn obey(&self, directive: &Directive) -> bool {
        self.with(|broker| {
            let report = &mut broker.hello.report;
            let record = match directive {
                Directive::Master { record } | Directive::Slave { record, .. } => record,
                Directive::Park { .. } | Directive::Unpark { .. } => return true,
            };
            if record.epoch < report.promised {
                return false;
            }
            (report.promised, report.revision) = (record.epoch, record.revision);
            if matches!(directive, Directive::Master { .. }) {
                (report.role, report.last_epoch) = (Role::Master, record.epoch);
                let before = self.brokers.reigns.lock().insert(record.epoch, self.name.clone());
                assert!(before.is_none_or(|before| before == self.name), "epoch {} has two masters", record.epoch);
            } else {
                report.role = Role::Slave;
            }
            true
        })
        .unwrap_or(false)
    }

    fn heard(&self, heard: &Heard) {
        let Some(record) = &heard.record else { return };
        self.with(|broker| {
            let report = &mut broker.hello.report;
            if report.promised == record.epoch {
                report.revision = report.revision.max(record.revision);
            }
        });
    }
}

/// One session with whoever the elector's Service leads to.
async fn session(mock: &Mock, secret: &str, ears: &Arc<Ears>) -> Result<(), String> {
    let slice = mock.get(ELECTOR_SLICE).ok_or("no elector yet")?;
    let port = slice["ports"][0]["port"].as_u64().ok_or("no port")?;
    let token: ByteString = serde_json::from_value(mock.get(secret).ok_or("no secret yet")?["data"]["token"].clone())
        .map_err(|error| error.to_string())?;
    let mut hello = ears
        .with(|broker| (broker.alive && !broker.cut_off).then(|| broker.hello.clone()))
        .flatten()
        .ok_or("it is down")?;
    hello.token = String::from_utf8(token.0).map_err(|error| error.to_string())?;
    hello.report = ears.report().ok_or("over")?;
    let handler = Arc::clone(ears) as Arc<dyn Handler>;
    let elector = format!("127.0.0.1:{port}");
    let connection = connect(&elector, Limits::default(), Some(handler)).await.map_err(|error| error.to_string())?;
    ears.with(|broker| broker.connection = Some(Arc::clone(&connection)));
    ears.heard(&ask(&connection, HELLO, &hello).await?);
    let pid = hello.pid;
    while !connection.is_closed()
        && ears.with(|broker| broker.alive && !broker.cut_off && broker.hello.pid == pid) == Some(true)
    {
        let report = ears.report().ok_or("over")?;
        ears.heard(&ask(&connection, REPORT, &report).await?);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    connection.close("it is over");
    Ok(())
}
