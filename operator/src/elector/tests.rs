//! Brokers that are none, over real sockets: they join, report and obey as brokers do.

use std::collections::BTreeSet;

use gantry_remoting::body::ha::BrokerReplicasInfo;
use gantry_remoting::code::{request, response};
use gantry_remoting::headers::controller::ControllerMetadata;
use gantry_remoting::{Command, Connection, Handler, Inbound, connect};
use gantry_replication::elector::Config;
use gantry_replication::master::Mode;
use gantry_replication::record::Recorded;
use gantry_replication::wire::{
    ALTER_IN_SYNC, AlterInSync, Altered, DIRECTIVE, Directive, HELLO, Heard, PROBE, REPORT, Role,
};
use gantry_replication::{Epoch, Member, StoreId, Version};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::*;
use crate::platform::RecordError;
use crate::platform::local::RecordFile;

const PATIENCE: Duration = Duration::from_secs(20);

/// A broker's state, changed by directives.
pub(crate) struct FakeBroker {
    state: Mutex<Report>,
    directives: Mutex<Vec<Directive>>,
}

impl Handler for FakeBroker {
    fn handle(&self, _: &Arc<Connection>, batch: &mut Vec<Inbound>) {
        for Inbound { request, ticket } in batch.drain(..) {
            if request.code == DIRECTIVE {
                let directive: Directive = serde_json::from_slice(&request.body.to_bytes()).unwrap();
                self.obey(&directive);
                self.directives.lock().push(directive);
            } else {
                assert_eq!(request.code, PROBE);
            }
            let body = serde_json::to_vec(&*self.state.lock()).unwrap();
            ticket.reply(gantry_remoting::Response::success().with_body(body));
        }
    }
}

impl FakeBroker {
    fn obey(&self, directive: &Directive) {
        let mut report = self.state.lock();
        match directive {
            Directive::Master { record } => {
                (report.role, report.promised, report.last_epoch) = (Role::Master, record.epoch, record.epoch);
            }
            Directive::Slave { record, .. } => (report.role, report.promised) = (Role::Slave, record.epoch),
            Directive::Park { .. } => report.drained = true,
            Directive::Unpark { .. } => report.drained = false,
        }
    }
}

pub(crate) struct Joined {
    broker: Arc<FakeBroker>,
    pub(crate) connection: Arc<Connection>,
}

impl Joined {
    async fn ask<A: DeserializeOwned>(&self, code: i32, body: &impl Serialize) -> Result<A, String> {
        ask(&self.connection, code, body).await
    }

    fn role(&self) -> Role {
        self.broker.state.lock().role
    }

    /// Reports for ever, as brokers do; ends with the connection.
    fn keep_reporting(&self) {
        let (broker, connection) = (Arc::clone(&self.broker), Arc::clone(&self.connection));
        tokio::spawn(async move {
            while !connection.is_closed() {
                let report = broker.state.lock().clone();
                ask::<Heard>(&connection, REPORT, &report).await.ok();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }
}

pub(crate) async fn ask<A: DeserializeOwned>(
    connection: &Connection,
    code: i32,
    body: &impl Serialize,
) -> Result<A, String> {
    let request = Command::request(code).with_body(serde_json::to_vec(body).unwrap());
    let answer = connection.invoke(request, PATIENCE).await.map_err(|error| error.to_string())?;
    if answer.code != response::SUCCESS {
        return Err(format!("{}: {}", answer.code, answer.remark.unwrap_or_default()));
    }
    Ok(serde_json::from_slice(&answer.body.to_bytes()).unwrap())
}

pub(crate) fn hello(ordinal: u64) -> Hello {
    Hello {
        group: "g".to_owned(),
        token: "secret".to_owned(),
        member: Member::new(format!("g-{ordinal}"), StoreId(ordinal)),
        client_address: format!("127.0.0.1:{}", 10_000 + ordinal),
        ha_address: format!("127.0.0.1:{}", 20_000 + ordinal),
        pid: 1,
        priority: 0,
        zone: None,
        report: Report {
            role: Role::Fenced,
            promised: Epoch(0),
            revision: 0,
            last_epoch: Epoch(0),
            min_offset: 0,
            max_offset: 0,
            flushed_offset: 0,
            confirm_offset: 0,
            master_heard_ms_ago: None,
            drained: false,
            data_plane_alive: true,
            intact: true,
            degraded: false,
            last_cut: None,
            settings: None,
        },
    }
}

/// What the platform was told.
#[derive(Default)]
struct Told {
    served: Mutex<Vec<(u64, String)>>,
    notices: Mutex<Vec<String>>,
    troubles: Mutex<Vec<String>>,
}

impl Listener for Told {
    fn serving(&self, group: &str, record: &GroupRecord, address: &str) {
        if group != "g" {
            return;
        }
        self.served.lock().push((record.epoch.0, address.to_owned()));
    }

    fn notice(&self, _: &str, notice: &Notice) {
        self.notices.lock().push(notice.to_string());
    }

    fn record_trouble(&self, _: &str, why: &str) {
        self.troubles.lock().push(why.to_owned());
    }
}

struct Rig {
    server: ElectorServer,
    told: Arc<Told>,
    _dir: tempfile::TempDir,
}

fn group() -> Group {
    let config = Config::new((0..3).map(|n| format!("g-{n}")), Mode::Sync, 2);
    Group { id: "g".to_owned(), name: "g".to_owned(), token: "secret".to_owned(), config }
}

async fn rig() -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let store = RecordFile::new(dir.path().join("record.json"));
    rig_over(store, dir).await
}

async fn rig_over<S: RecordStore>(store: S, dir: tempfile::TempDir) -> Rig {
    let told = Arc::new(Told::default());
    let listener = Arc::clone(&told) as Arc<dyn Listener>;
    let server = ElectorServer::bind("127.0.0.1:0".parse().unwrap(), vec![(group(), store)], listener).await.unwrap();
    Rig { server, told, _dir: dir }
}

async fn connect_to(server: &ElectorServer, broker: &Arc<FakeBroker>) -> Arc<Connection> {
    let handler = Arc::clone(broker) as Arc<dyn Handler>;
    connect(&server.local_addr().to_string(), Limits::default(), Some(handler)).await.unwrap()
}

/// A broker that has joined, reports, and obeys.
pub(crate) async fn join(server: &ElectorServer, hello: Hello) -> Result<Joined, String> {
    let broker = Arc::new(FakeBroker { state: Mutex::new(hello.report.clone()), directives: Mutex::default() });
    let connection = connect_to(server, &broker).await;
    let joined = Joined { broker, connection };
    joined.ask::<Heard>(HELLO, &hello).await?;
    joined.keep_reporting();
    Ok(joined)
}

impl Rig {
    async fn connect(&self, broker: &Arc<FakeBroker>) -> Arc<Connection> {
        connect_to(&self.server, broker).await
    }

    async fn join(&self, hello: Hello) -> Result<Joined, String> {
        join(&self.server, hello).await
    }

    async fn join_all(&self) -> Vec<Joined> {
        let mut all = Vec::new();
        for ordinal in 0..3 {
            all.push(self.join(hello(ordinal)).await.unwrap());
        }
        until("a master serves", || !self.told.served.lock().is_empty()).await;
        until("the others follow", || all[1].role() == Role::Slave && all[2].role() == Role::Slave).await;
        all
    }

    fn view(&self) -> View {
        self.server.view("g").unwrap()
    }
}

pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn rocketmqs_tools_are_told_the_in_sync_set_as_by_a_controller() {
    let rig = rig().await;
    let address = rig.server.local_addr().to_string();
    let tool = connect(&address, Limits::default(), None).await.unwrap();
    let answer = tool.invoke(Command::request(request::CONTROLLER_GET_METADATA_INFO), PATIENCE).await.unwrap();
    assert_eq!(answer.header::<ControllerMetadata<'_>>().unwrap().leader_address, address);
    let names = ["g", "unknown"];
    let before: BrokerReplicasInfo = ask(&tool, request::CONTROLLER_GET_SYNC_STATE_DATA, &names).await.unwrap();
    assert!(before.replicas_info_table.is_empty(), "nobody has been elected: {before:?}");

    let mut all = rig.join_all().await;
    all.pop().unwrap().connection.close("it goes");
    until("its session is over", || rig.view().replicas.len() == 2).await;
    let info: BrokerReplicasInfo = ask(&tool, request::CONTROLLER_GET_SYNC_STATE_DATA, &names).await.unwrap();
    let group = &info.replicas_info_table["g"];
    assert_eq!((group.master_broker_id, group.master_epoch), (1, 1));
    assert_eq!(group.master_address, "127.0.0.1:10000");
    let record = rig.view().record.unwrap();
    assert_eq!(group.in_sync_replicas.len(), record.in_sync.len());
    let mut replicas = [&group.in_sync_replicas[..], &group.not_in_sync_replicas].concat();
    replicas.sort_by_key(|replica| replica.broker_id);
    assert_eq!(
        replicas.iter().map(|it| (it.broker_id, it.alive)).collect::<Vec<_>>(),
        [(1, true), (2, true), (3, false)]
    );
    ask::<BrokerReplicasInfo>(&tool, request::CONTROLLER_GET_SYNC_STATE_DATA, &"no list").await.unwrap_err();
}

#[tokio::test]
async fn a_process_that_ended_counts_only_while_no_other_has_come_in_its_place() {
    let rig = rig().await;
    let brokers = rig.join_all().await;
    rig.server.ended("g", "g-0");
    rig.server.switchover("g", "g-7").await.unwrap_err();
    assert_eq!(rig.view().record.unwrap().epoch, Epoch(1), "what lives is not dead");
    brokers[0].connection.close("it ends");
    rig.server.ended("g", "g-0");
    until("another serves", || rig.told.served.lock().len() == 2).await;
}

#[tokio::test]
async fn a_token_tells_two_groups_of_one_name_apart_and_a_removed_group_is_gone() {
    let rig = rig().await;
    let brokers = rig.join_all().await;
    let dir = tempfile::tempdir().unwrap();
    let other = Group { id: "other".to_owned(), token: "other secret".to_owned(), ..group() };
    rig.server.add(other, RecordFile::new(dir.path().join("record.json")));
    let stranger = rig.join(Hello { token: "other secret".to_owned(), ..hello(2) }).await.unwrap();
    until("it has joined the other group", || rig.server.view("other").unwrap().replicas.len() == 1).await;
    assert_eq!(rig.view().replicas.len(), 3);
    rig.server.remove("other");
    until("its session has ended", || stranger.connection.is_closed()).await;
    assert_eq!((rig.server.view("other"), rig.server.groups()), (None, vec!["g".to_owned()]));
    assert!(brokers.iter().all(|broker| !broker.connection.is_closed()));
}

#[tokio::test]
async fn brokers_that_join_get_a_master_and_its_address_is_told() {
    let rig = rig().await;
    let brokers = rig.join_all().await;
    assert_eq!(*rig.told.served.lock(), [(1, "127.0.0.1:10000".to_owned())]);
    assert_eq!(brokers[0].role(), Role::Master);
    until("the view says so", || rig.view().serving && rig.view().replicas.len() == 3).await;
    let view = rig.view();
    assert_eq!(view.record.unwrap().in_sync.len(), 3);
    let Some(Directive::Slave { ha_address, .. }) = brokers[1].broker.directives.lock().last().cloned() else {
        panic!("no slave directive")
    };
    assert_eq!(ha_address.as_deref(), Some("127.0.0.1:20000"));
}

#[tokio::test]
async fn a_master_that_dies_is_replaced_and_the_new_address_is_told() {
    let rig = rig().await;
    let brokers = rig.join_all().await;
    brokers[0].connection.close("killed");
    rig.server.died("g", "g-0");
    until("another serves", || rig.told.served.lock().len() == 2).await;
    assert_eq!(rig.told.served.lock()[1], (2, "127.0.0.1:10001".to_owned()));
    assert!(
        rig.told.notices.lock().iter().any(|notice| notice.contains("g-0#0000000000000000 -> g-1#0000000000000001"))
    );
    until("it is out of sync", || rig.view().record.is_some_and(|record| record.in_sync.len() == 2)).await;
}

#[tokio::test]
async fn a_master_changes_its_in_sync_set() {
    let rig = rig().await;
    let brokers = rig.join_all().await;
    let in_sync: BTreeSet<_> = [0, 2].map(|n| Member::new(format!("g-{n}"), StoreId(n))).into();
    let wish = AlterInSync { epoch: Epoch(1), revision: 1, in_sync: in_sync.clone() };
    let altered: Altered = brokers[0].ask(ALTER_IN_SYNC, &wish).await.unwrap();
    assert_eq!(altered.record.in_sync, in_sync);
    let everybody: BTreeSet<_> = [0, 1, 2].map(|n| Member::new(format!("g-{n}"), StoreId(n))).into();
    let wish = AlterInSync { epoch: Epoch(1), revision: 2, in_sync: everybody };
    let void: Altered = brokers[1].ask(ALTER_IN_SYNC, &wish).await.unwrap();
    assert_eq!(void.record.in_sync, in_sync, "only the master may wish");
}

#[tokio::test]
async fn a_switchover_answers_with_the_new_epoch() {
    let rig = rig().await;
    let brokers = rig.join_all().await;
    let done = rig.server.switchover("g", "g-2").await.unwrap();
    assert_eq!(done.epoch, Epoch(2));
    assert_eq!(rig.told.served.lock().last(), Some(&(2, "127.0.0.1:10002".to_owned())));
    until("the old master follows", || brokers[0].role() == Role::Slave).await;
    let refused = rig.server.switchover("g", "g-9").await.unwrap_err();
    assert!(refused.contains("there is no replica g-9"), "{refused}");
}

#[tokio::test]
async fn whoever_does_not_belong_here_is_refused_with_the_reason() {
    let rig = rig().await;
    let cases = [
        (Hello { group: "h".to_owned(), ..hello(0) }, "no group \"h\""),
        (Hello { token: "guess".to_owned(), ..hello(0) }, "not the token of group g"),
        (Hello { token: String::new(), ..hello(0) }, "not the token of group g"),
        (Hello { member: Member::new("g-3", StoreId(3)), ..hello(0) }, "has no replica \"g-3\""),
    ];
    for (hello, why) in cases {
        let refused = rig.join(hello).await.err().expect("refused");
        assert!(refused.contains(why), "{refused}");
    }
    assert_eq!(rig.view().replicas.len(), 0);
}

#[tokio::test]
async fn requests_out_of_order_or_out_of_shape_are_refused_and_the_session_goes_on() {
    let rig = rig().await;
    let broker = Arc::new(FakeBroker { state: Mutex::new(hello(0).report), directives: Mutex::default() });
    let connection = rig.connect(&broker).await;
    let early = ask::<Heard>(&connection, REPORT, &hello(0).report).await.unwrap_err();
    assert!(early.contains("begins with a hello"), "{early}");
    let nonsense = ask::<Heard>(&connection, HELLO, &serde_json::json!({"group": 7})).await.unwrap_err();
    assert!(nonsense.contains("body of request code"), "{nonsense}");
    let unknown = ask::<Heard>(&connection, 310, &()).await.unwrap_err();
    assert!(unknown.starts_with("3: "), "{unknown}");
    ask::<Heard>(&connection, HELLO, &hello(0)).await.unwrap();
    let second = ask::<Heard>(&connection, HELLO, &hello(1)).await.unwrap_err();
    assert!(second.contains("is a session already"), "{second}");
    ask::<Heard>(&connection, REPORT, &hello(0).report).await.unwrap();
}

#[tokio::test]
async fn a_replica_that_joins_anew_ends_its_old_session() {
    let rig = rig().await;
    let old = rig.join(hello(0)).await.unwrap();
    let new = rig.join(hello(0)).await.unwrap();
    timeout(PATIENCE, old.connection.closed()).await.unwrap();
    assert!(!new.connection.is_closed());
    until("one session is left", || rig.view().replicas.contains_key("g-0")).await;
}

#[tokio::test]
async fn an_elector_that_restarts_goes_on_from_the_record() {
    let first = rig().await;
    let brokers = first.join_all().await;
    let Rig { server, told: _, _dir: dir } = first;
    drop(server);
    for broker in &brokers {
        timeout(PATIENCE, broker.connection.closed()).await.unwrap();
    }
    let store = RecordFile::new(dir.path().join("record.json"));
    let second = rig_over(store, dir).await;
    let mut again = Vec::new();
    for (ordinal, broker) in (0..3).zip(&brokers) {
        let report = broker.broker.state.lock().clone();
        again.push(second.join(Hello { report, ..hello(ordinal) }).await.unwrap());
    }
    until("the same master is known to serve", || second.told.served.lock().len() == 1).await;
    assert_eq!(*second.told.served.lock(), [(1, "127.0.0.1:10000".to_owned())], "no election was needed");
}

/// A store that fails as often as it is told to.
struct Flaky {
    inner: RecordFile,
    failures: Mutex<u32>,
}

impl Flaky {
    fn fail(&self) -> Result<(), RecordError> {
        let mut failures = self.failures.lock();
        if *failures == 0 {
            return Ok(());
        }
        *failures -= 1;
        Err(RecordError::Damaged { path: "record.json".into(), why: "as asked for".to_owned() })
    }
}

impl RecordStore for Flaky {
    async fn read(&self) -> Result<Recorded, RecordError> {
        self.fail()?;
        self.inner.read().await
    }

    async fn compare_and_set(&self, expected: &Version, record: &GroupRecord) -> Result<Option<Version>, RecordError> {
        self.fail()?;
        self.inner.compare_and_set(expected, record).await
    }
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_told_and_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = Flaky { inner: RecordFile::new(dir.path().join("record.json")), failures: Mutex::new(1) };
    let rig = rig_over(store, dir).await;
    rig.join_all().await;
    assert_eq!(rig.told.troubles.lock().len(), 1);
    assert!(rig.told.troubles.lock()[0].contains("as asked for"));
}
