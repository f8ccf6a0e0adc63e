//! The name server over real sockets.

use std::sync::Arc;
use std::time::Duration;

use gantry_remoting::body::cluster::{BrokerMemberGroupBody, ClusterInfo, TopicList};
use gantry_remoting::body::kv_table::KvTable;
use gantry_remoting::body::register_broker::{RegisterBrokerBody, body_crc32};
use gantry_remoting::body::route::{QueueData, TopicRouteData};
use gantry_remoting::body::topic_config::{DataVersion, TopicConfig, TopicConfigs};
use gantry_remoting::body::{parse, to_json};
use gantry_remoting::code::{request, response};
use gantry_remoting::headers::route::{
    AddWritePermResponse, BrokerHeartbeat, GetBrokerMemberGroup, GetRouteInfo, GetTopicsByCluster, KvConfigKey,
    KvConfigValue, KvNamespace, NamesrvTopic, PutKvConfig, QueryDataVersion, QueryDataVersionResponse, RegisterBroker,
    RegisterBrokerResponse, UnregisterBroker, WipeWritePermResponse, WritePermOfBroker,
};
use gantry_remoting::{Command, Connection, Limits, connect, version};
use serde::de::DeserializeOwned;

use super::{Config, NameServer, run};

const PATIENCE: Duration = Duration::from_mins(1);
const STABLE: &str = "10.0.0.100:10911";

async fn start(config: Config) -> NameServer {
    run(Config { listen: ([127, 0, 0, 1], 0).into(), scan_interval: Duration::from_millis(5), ..config }).await.unwrap()
}

async fn dial(server: &NameServer) -> Arc<Connection> {
    connect(&server.local_addr().to_string(), Limits::default(), None).await.unwrap()
}

async fn ask(connection: &Connection, request: Command) -> Command {
    connection.invoke(request, PATIENCE).await.unwrap()
}

fn body<T: DeserializeOwned>(response: &Command) -> T {
    assert_eq!(response.code, response::SUCCESS, "{:?}", response.remark);
    parse(&response.body.to_bytes()).unwrap()
}

fn master(addr: &str) -> RegisterBroker<'_> {
    RegisterBroker {
        broker_name: "broker-a",
        broker_addr: addr,
        cluster_name: "DefaultCluster",
        ha_server_addr: "10.0.0.1:10912",
        broker_id: 0,
        heartbeat_timeout_ms: None,
        enable_acting_master: None,
        compressed: None,
        body_crc32: None,
        zone_name: None,
        gantry_epoch: None,
        gantry_replica: None,
        gantry_external_master: None,
    }
}

fn slave(addr: &str, broker_id: i64) -> RegisterBroker<'_> {
    RegisterBroker { broker_id, ha_server_addr: "10.0.0.2:10912", ..master(addr) }
}

fn gantry_master(epoch: i64, replica: &str) -> RegisterBroker<'_> {
    RegisterBroker { gantry_epoch: Some(epoch), gantry_replica: Some(replica), ..master(STABLE) }
}

fn topics(names: &[&str], counter: i64) -> TopicConfigs {
    let topic = |name: &&str| TopicConfig { topic_name: (*name).into(), read_queue_nums: 4, ..TopicConfig::default() };
    TopicConfigs {
        topic_config_table: names.iter().map(|name| ((*name).to_owned(), topic(name))).collect(),
        data_version: DataVersion { counter, ..DataVersion::default() },
    }
}

fn registration(header: &RegisterBroker<'_>, topics: TopicConfigs) -> Command {
    let body = RegisterBrokerBody { topic_config_serialize_wrapper: topics, filter_server_list: Vec::new() };
    let body = to_json(&body).unwrap();
    let header = RegisterBroker { body_crc32: Some(body_crc32(&body)), ..header.clone() };
    Command::request(request::REGISTER_BROKER).with_header(&header).with_body(body)
}

async fn register(connection: &Connection, header: &RegisterBroker<'_>, names: &[&str]) -> Command {
    ask(connection, registration(header, topics(names, 1))).await
}

async fn route(connection: &Connection, topic: &str) -> Command {
    let header = GetRouteInfo { topic, accept_standard_json_only: None };
    ask(connection, Command::request(request::GET_ROUTEINFO_BY_TOPIC).with_header(&header)).await
}

async fn addrs(connection: &Connection) -> Vec<(i64, String)> {
    let header = GetBrokerMemberGroup { cluster_name: "DefaultCluster", broker_name: "broker-a" };
    let answer = ask(connection, Command::request(request::GET_BROKER_MEMBER_GROUP).with_header(&header)).await;
    body::<BrokerMemberGroupBody>(&answer).broker_member_group.broker_addrs.into_iter().collect()
}

fn members<const N: usize>(members: [(i64, &str); N]) -> Vec<(i64, String)> {
    members.into_iter().map(|(id, addr)| (id, addr.to_owned())).collect()
}

async fn until_members<const N: usize>(connection: &Connection, wanted: [(i64, &str); N]) {
    let wanted = members(wanted);
    let met = async {
        while addrs(connection).await != wanted {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, met).await.is_ok(), "never: {wanted:?}");
}

#[tokio::test]
async fn a_client_finds_the_queues_and_addresses_of_a_registered_topic() {
    let server = start(Config::default()).await;
    let (broker, client) = (dial(&server).await, dial(&server).await);
    assert_eq!(register(&broker, &master("10.0.0.1:10911"), &["t", "u"]).await.code, response::SUCCESS);
    let told = register(&broker, &slave("10.0.0.2:10911", 1), &["t", "u"]).await;
    let told: RegisterBrokerResponse<'_> = told.header().unwrap();
    assert_eq!((told.master_addr, told.ha_server_addr), (Some("10.0.0.1:10911"), Some("10.0.0.1:10912")));
    let route: TopicRouteData = body(&route(&client, "t").await);
    let queues = QueueData {
        broker_name: "broker-a".into(),
        read_queue_nums: 4,
        write_queue_nums: 16,
        perm: 6,
        topic_sys_flag: 0,
    };
    assert_eq!(route.queue_datas, [queues]);
    let addrs: Vec<_> = route.broker_datas[0].broker_addrs.clone().into_iter().collect();
    assert_eq!(addrs, members([(0, "10.0.0.1:10911"), (1, "10.0.0.2:10911")]));
    let unknown = self::route(&client, "nowhere").await;
    assert_eq!(unknown.code, response::TOPIC_NOT_EXIST);
    assert_eq!(unknown.remark.unwrap(), "No topic route info in name server for the topic: nowhere");
}

#[tokio::test]
async fn clients_before_4_9_4_get_bare_numeric_keys_unless_they_ask_for_standard_json() {
    let server = start(Config::default()).await;
    let connection = dial(&server).await;
    register(&connection, &master("10.0.0.1:10911"), &["t", "u"]).await;
    for (version, standard, expected) in [
        (version::V4_9_4, None, r#""brokerAddrs":{"0":"#),
        (version::V4_9_4 - 1, None, r#""brokerAddrs":{0:"#),
        (version::V4_9_4 - 1, Some(true), r#""brokerAddrs":{"0":"#),
    ] {
        let header = GetRouteInfo { topic: "t", accept_standard_json_only: standard };
        let request = Command { version, ..Command::request(request::GET_ROUTEINFO_BY_TOPIC).with_header(&header) };
        let answer = ask(&connection, request).await.body.to_bytes();
        assert!(std::str::from_utf8(&answer).unwrap().contains(expected), "{version} {standard:?}: {answer:?}");
    }
}

#[tokio::test]
async fn a_broker_s_entry_ends_with_its_connection_and_its_topics_with_it() {
    let server = start(Config::default()).await;
    let (first, again, client) = (dial(&server).await, dial(&server).await, dial(&server).await);
    register(&first, &master("10.0.0.1:10911"), &["t", "u"]).await;
    register(&again, &master("10.0.0.1:10911"), &["t", "u"]).await;
    register(&first, &slave("10.0.0.2:10911", 1), &["t", "u"]).await;
    // The master has registered again elsewhere: the end of its old connection means nothing.
    first.close("test");
    until_members(&client, [(0, "10.0.0.1:10911")]).await;
    again.close("test");
    until_members(&client, []).await;
    assert_eq!(route(&client, "t").await.code, response::TOPIC_NOT_EXIST);
}

#[tokio::test]
async fn a_silent_broker_is_forgotten_after_the_time_it_asked_for_and_a_heard_one_is_kept() {
    let server = start(Config::default()).await;
    let connection = dial(&server).await;
    let short = RegisterBroker { heartbeat_timeout_ms: Some(30), ..slave("10.0.0.2:10911", 1) };
    register(&connection, &master("10.0.0.1:10911"), &["t", "u"]).await;
    register(&connection, &short, &["t", "u"]).await;
    until_members(&connection, [(0, "10.0.0.1:10911")]).await;
}

#[tokio::test]
async fn a_heartbeat_and_a_version_query_are_signs_of_life() {
    use std::time::Instant;

    use super::table::Table;
    let mut table = Table::new(Duration::from_mins(2));
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    table.register(&master("10.0.0.1:10911"), &topics(&["t", "u"], 1), 7, start).unwrap();
    table.heard("broker-a", "10.0.0.1:10911", at(100));
    table.heard("broker-a", "10.9.9.9:1", at(200));
    table.expire(at(219));
    assert!(table.route("t").is_ok());
    table.expire(at(220));
    assert!(table.route("t").is_err());
}

#[tokio::test]
async fn heartbeats_are_answered_also_for_a_broker_that_is_not_known() {
    let server = start(Config::default()).await;
    let connection = dial(&server).await;
    let header = BrokerHeartbeat {
        cluster_name: "c",
        broker_addr: "a:1",
        broker_name: "b",
        broker_id: Some(0),
        epoch: None,
        max_offset: None,
        confirm_offset: None,
        heartbeat_timeout_ms: None,
        election_priority: None,
    };
    let answer = ask(&connection, Command::request(request::BROKER_HEARTBEAT).with_header(&header)).await;
    assert_eq!(answer.code, response::SUCCESS);
}

#[tokio::test]
async fn a_stable_master_address_outlives_its_connection_until_it_expires() {
    let server = start(Config::default()).await;
    let (broker, client) = (dial(&server).await, dial(&server).await);
    register(&broker, &RegisterBroker { heartbeat_timeout_ms: Some(300), ..gantry_master(1, "a-0") }, &["t"]).await;
    register(&broker, &slave("10.0.0.2:10911", 1), &["t", "u"]).await;
    broker.close("test");
    // The slave's entry tells when the name server has seen the end.
    until_members(&client, [(0, STABLE)]).await;
    assert_eq!(route(&client, "t").await.code, response::SUCCESS);
    until_members(&client, []).await;
}

#[tokio::test]
async fn an_old_master_can_neither_take_the_route_back_nor_end_it() {
    let server = start(Config::default()).await;
    let (old, new) = (dial(&server).await, dial(&server).await);
    register(&old, &gantry_master(4, "a-0"), &["t"]).await;
    register(&new, &gantry_master(5, "a-1"), &["t", "u"]).await;
    let refused =
        register(&old, &RegisterBroker { broker_addr: "10.0.0.7:1", ..gantry_master(4, "a-0") }, &["t"]).await;
    assert_eq!(refused.code, response::CONTROLLER_FENCED_MASTER_EPOCH);
    let remark = refused.remark.unwrap();
    assert!(remark.contains("epoch 4 of 10.0.0.7:1") && remark.contains("knows epoch 5"), "{remark}");
    // One without an epoch (an Apache master) is older than all.
    assert_eq!(register(&old, &master("10.0.0.7:1"), &["t", "u"]).await.code, response::CONTROLLER_FENCED_MASTER_EPOCH);
    let unregister = |epoch| {
        let header = UnregisterBroker {
            broker_name: "broker-a",
            broker_addr: STABLE,
            cluster_name: "DefaultCluster",
            broker_id: 0,
            gantry_epoch: epoch,
        };
        Command::request(request::UNREGISTER_BROKER).with_header(&header)
    };
    assert_eq!(ask(&old, unregister(Some(4))).await.code, response::CONTROLLER_FENCED_MASTER_EPOCH);
    assert_eq!(addrs(&old).await, members([(0, STABLE)]));
    assert_eq!(body::<TopicRouteData>(&route(&old, "u").await).broker_datas[0].broker_addrs[&0], STABLE);
    assert_eq!(ask(&new, unregister(Some(5))).await.code, response::SUCCESS);
    assert_eq!(addrs(&old).await, []);
}

#[tokio::test]
async fn one_replica_has_one_entry_whatever_it_was_before() {
    let server = start(Config::default()).await;
    let connection = dial(&server).await;
    let replica = |id, addr, name| RegisterBroker { gantry_replica: Some(name), ..slave(addr, id) };
    register(&connection, &gantry_master(1, "a-0"), &["t"]).await;
    register(&connection, &replica(1, "10.0.0.1:1", "a-1"), &["t"]).await;
    register(&connection, &replica(2, "10.0.0.2:1", "a-2"), &["t"]).await;
    assert_eq!(addrs(&connection).await, members([(0, STABLE), (1, "10.0.0.1:1"), (2, "10.0.0.2:1")]));
    // a-2 becomes master under the stable address; a-0 comes back as a slave; a-1 comes back at another address.
    register(&connection, &gantry_master(2, "a-2"), &["t"]).await;
    assert_eq!(addrs(&connection).await, members([(0, STABLE), (1, "10.0.0.1:1")]));
    register(&connection, &replica(3, "10.0.0.3:1", "a-0"), &["t"]).await;
    register(&connection, &replica(4, "10.0.0.4:1", "a-1"), &["t"]).await;
    assert_eq!(addrs(&connection).await, members([(0, STABLE), (3, "10.0.0.3:1"), (4, "10.0.0.4:1")]));
}

#[tokio::test]
async fn an_apache_slave_that_becomes_master_leaves_its_old_id() {
    let server = start(Config::default()).await;
    let connection = dial(&server).await;
    register(&connection, &slave("10.0.0.2:1", 1), &["t", "u"]).await;
    register(&connection, &master("10.0.0.2:1"), &["t", "u"]).await;
    assert_eq!(addrs(&connection).await, members([(0, "10.0.0.2:1")]));
}

#[tokio::test]
async fn an_older_state_does_not_replace_a_newer_one() {
    let server = start(Config::default()).await;
    let connection = dial(&server).await;
    let at_state = |addr, state_version| {
        let mut topics = topics(&["t", "u"], 1);
        topics.data_version.state_version = state_version;
        registration(&master(addr), topics)
    };
    ask(&connection, at_state("10.0.0.1:1", 5)).await;
    let refused = ask(&connection, at_state("10.0.0.2:1", 4)).await;
    assert_eq!(refused.code, response::SYSTEM_ERROR);
    assert!(refused.remark.unwrap().contains("state version 5, 10.0.0.2:1 comes with 4"));
    assert_eq!(addrs(&connection).await, members([(0, "10.0.0.1:1")]));
    assert_eq!(ask(&connection, at_state("10.0.0.2:1", 5)).await.code, response::SUCCESS);
}

#[tokio::test]
async fn the_first_registration_of_an_apache_broker_must_be_whole() {
    let server = start(Config::default()).await;
    let connection = dial(&server).await;
    let refused = register(&connection, &master("10.0.0.1:1"), &["t"]).await;
    assert_eq!(refused.code, response::SYSTEM_ERROR);
    register(&connection, &master("10.0.0.1:1"), &["t", "u"]).await;
    assert_eq!(register(&connection, &master("10.0.0.1:1"), &["v"]).await.code, response::SUCCESS);
    let all: TopicList = body(&ask(&connection, Command::request(request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER)).await);
    assert_eq!(all.topic_list.into_iter().collect::<Vec<_>>(), ["t", "u", "v"]);
}

#[tokio::test]
async fn a_damaged_registration_is_refused_and_changes_nothing() {
    let server = start(Config::default()).await;
    let connection = dial(&server).await;
    let mut damaged = registration(&master("10.0.0.1:1"), topics(&["t", "u"], 1));
    damaged.ext.set("bodyCrc32", "1");
    let negative = registration(&slave("10.0.0.1:1", -1), topics(&["t", "u"], 1));
    let nameless = registration(&RegisterBroker { broker_name: "", ..master("10.0.0.1:1") }, topics(&["t", "u"], 1));
    let mut nonsense = registration(&master("10.0.0.1:1"), topics(&["t", "u"], 1)).with_body(b"{".to_vec());
    nonsense.ext.set("bodyCrc32", "0");
    for (request, reason) in [
        (damaged, "crc32 not match"),
        (negative, "broker id -1 is negative"),
        (nameless, "must not be empty"),
        (nonsense, "body is not a RegisterBrokerBody"),
        (
            Command::request(request::REGISTER_BROKER),
            "RegisterBroker: the required field `brokerName (broker_name)` is missing",
        ),
    ] {
        let refused = ask(&connection, request).await;
        assert_eq!(refused.code, response::SYSTEM_ERROR);
        assert!(refused.remark.as_deref().unwrap().contains(reason), "{:?}", refused.remark);
    }
    assert_eq!(addrs(&connection).await, []);
}

#[tokio::test]
async fn a_broker_learns_whether_its_topics_are_known() {
    let server = start(Config::default()).await;
    let connection = dial(&server).await;
    let query = |counter| {
        let header = QueryDataVersion {
            broker_name: "broker-a",
            broker_addr: "10.0.0.1:1",
            cluster_name: "DefaultCluster",
            broker_id: 0,
        };
        let version = DataVersion { counter, ..DataVersion::default() };
        Command::request(request::QUERY_DATA_VERSION).with_header(&header).with_body(to_json(&version).unwrap())
    };
    let changed = |answer: &Command| answer.header::<QueryDataVersionResponse>().unwrap().changed;
    let unknown = ask(&connection, query(1)).await;
    assert!(changed(&unknown) && unknown.body.is_empty());
    register(&connection, &master("10.0.0.1:1"), &["t", "u"]).await;
    assert!(!changed(&ask(&connection, query(1)).await));
    let newer = ask(&connection, query(2)).await;
    assert!(changed(&newer));
    assert_eq!(body::<DataVersion>(&newer).counter, 1);
}

#[tokio::test]
async fn a_wiped_permission_stays_wiped_until_the_topics_change() {
    let server = start(Config::default()).await;
    let connection = dial(&server).await;
    register(&connection, &master("10.0.0.1:1"), &["t", "u"]).await;
    let header = WritePermOfBroker { broker_name: "broker-a" };
    let wiped = ask(&connection, Command::request(request::WIPE_WRITE_PERM_OF_BROKER).with_header(&header)).await;
    assert_eq!(wiped.header::<WipeWritePermResponse>().unwrap().wipe_topic_count, 2);
    register(&connection, &master("10.0.0.1:1"), &["t", "u"]).await;
    assert_eq!(perm(&connection).await, 4);
    let added = ask(&connection, Command::request(request::ADD_WRITE_PERM_OF_BROKER).with_header(&header)).await;
    assert_eq!(added.header::<AddWritePermResponse>().unwrap().add_topic_count, 2);
    assert_eq!(perm(&connection).await, 6);
    ask(&connection, Command::request(request::WIPE_WRITE_PERM_OF_BROKER).with_header(&header)).await;
    ask(&connection, registration(&master("10.0.0.1:1"), topics(&["t", "u"], 2))).await;
    assert_eq!(perm(&connection).await, 6);
}

async fn perm(connection: &Connection) -> i32 {
    body::<TopicRouteData>(&route(connection, "t").await).queue_datas[0].perm
}

#[tokio::test]
async fn topics_may_only_be_read_while_a_slave_stands_in_for_the_master() {
    let server = start(Config::default()).await;
    let (master_side, slave_side) = (dial(&server).await, dial(&server).await);
    let acting = |header| RegisterBroker { enable_acting_master: Some(true), ..header };
    register(&master_side, &acting(master("10.0.0.1:1")), &["t", "u"]).await;
    register(&slave_side, &acting(slave("10.0.0.2:1", 1)), &["t", "u"]).await;
    assert_eq!(perm(&slave_side).await, 6);
    master_side.close("test");
    until_members(&slave_side, [(1, "10.0.0.2:1")]).await;
    assert_eq!(perm(&slave_side).await, 4);
    register(&slave_side, &acting(slave("10.0.0.2:1", 1)), &["t", "u", "v"]).await;
    assert_eq!(perm(&slave_side).await, 4);
}

#[tokio::test]
async fn clusters_and_topics_are_listed() {
    let server = start(Config::default()).await;
    let connection = dial(&server).await;
    register(&connection, &master("10.0.0.1:1"), &["t", "u"]).await;
    let other = RegisterBroker { broker_name: "broker-b", cluster_name: "Other", ..master("10.0.0.9:1") };
    register(&connection, &other, &["u", "v"]).await;
    let info: ClusterInfo = body(&ask(&connection, Command::request(request::GET_BROKER_CLUSTER_INFO)).await);
    assert_eq!(info.cluster_addr_table["Other"].iter().collect::<Vec<_>>(), ["broker-b"]);
    assert_eq!(info.broker_addr_table["broker-a"].broker_addrs[&0], "10.0.0.1:1");
    let by_cluster = GetTopicsByCluster { cluster: "Other" };
    let topics = ask(&connection, Command::request(request::GET_TOPICS_BY_CLUSTER).with_header(&by_cluster)).await;
    assert_eq!(body::<TopicList>(&topics).topic_list.into_iter().collect::<Vec<_>>(), ["u", "v"]);
    let system: TopicList = body(&ask(&connection, Command::request(request::GET_SYSTEM_TOPIC_LIST_FROM_NS)).await);
    assert!(system.topic_list.contains("DefaultCluster") && system.topic_list.contains("broker-b"));
    assert_eq!(system.broker_addr.as_deref(), Some("10.0.0.1:1"));
}

#[tokio::test]
async fn topics_can_be_registered_and_deleted_by_name() {
    let server = start(Config::default()).await;
    let connection = dial(&server).await;
    register(&connection, &master("10.0.0.1:1"), &["t", "u"]).await;
    let topic = |code, cluster_name| Command::request(code).with_header(&NamesrvTopic { topic: "new", cluster_name });
    let at = |broker_name: &str| {
        let queues = QueueData { broker_name: broker_name.into(), perm: 6, ..QueueData::default() };
        to_json(&TopicRouteData { queue_datas: vec![queues], ..TopicRouteData::default() }).unwrap()
    };
    let stray = ask(&connection, topic(request::REGISTER_TOPIC_IN_NAMESRV, None).with_body(at("broker-z"))).await;
    assert_eq!(stray.remark.unwrap(), "topic new: broker broker-z is not registered");
    ask(&connection, topic(request::REGISTER_TOPIC_IN_NAMESRV, None).with_body(at("broker-a"))).await;
    assert_eq!(route(&connection, "new").await.code, response::SUCCESS);
    ask(&connection, topic(request::DELETE_TOPIC_IN_NAMESRV, Some("Other"))).await;
    assert_eq!(route(&connection, "new").await.code, response::SUCCESS);
    ask(&connection, topic(request::DELETE_TOPIC_IN_NAMESRV, Some("DefaultCluster"))).await;
    assert_eq!(route(&connection, "new").await.code, response::TOPIC_NOT_EXIST);
}

#[tokio::test]
async fn the_kv_configuration_survives_a_restart_and_reaches_brokers() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config { kv_config_path: Some(directory.path().join("kvConfig.json")), ..Config::default() };
    let server = start(config.clone()).await;
    let connection = dial(&server).await;
    let key = KvConfigKey { namespace: "ORDER_TOPIC_CONFIG", key: "t" };
    let get = || Command::request(request::GET_KV_CONFIG).with_header(&key);
    let missing = ask(&connection, get()).await;
    assert_eq!(missing.code, response::QUERY_NOT_FOUND);
    assert_eq!(missing.remark.unwrap(), "No config item, Namespace: ORDER_TOPIC_CONFIG Key: t");
    let put = PutKvConfig { namespace: "ORDER_TOPIC_CONFIG", key: "t", value: "broker-a:4" };
    assert_eq!(
        ask(&connection, Command::request(request::PUT_KV_CONFIG).with_header(&put)).await.code,
        response::SUCCESS
    );
    server.shutdown(PATIENCE).await;

    let server = start(config).await;
    let connection = dial(&server).await;
    assert_eq!(ask(&connection, get()).await.header::<KvConfigValue<'_>>().unwrap().value, Some("broker-a:4"));
    let told = register(&connection, &master("10.0.0.1:1"), &["t", "u"]).await;
    assert_eq!(body::<KvTable>(&told).table["t"], "broker-a:4");
    let namespace = Command::request(request::GET_KVLIST_BY_NAMESPACE);
    let namespace = namespace.with_header(&KvNamespace { namespace: "ORDER_TOPIC_CONFIG" });
    assert_eq!(body::<KvTable>(&ask(&connection, namespace.clone()).await).table.len(), 1);
    ask(&connection, Command::request(request::DELETE_KV_CONFIG).with_header(&key)).await;
    assert_eq!(ask(&connection, namespace).await.code, response::QUERY_NOT_FOUND);
}

#[tokio::test]
async fn a_kv_file_that_is_none_stops_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kvConfig.json");
    std::fs::write(&path, "not json").unwrap();
    let config = Config { listen: ([127, 0, 0, 1], 0).into(), kv_config_path: Some(path.clone()), ..Config::default() };
    let error = run(config).await.unwrap_err();
    assert!(format!("{error:#}").contains(&format!("{} is not a KV configuration", path.display())), "{error:#}");
}

#[tokio::test]
async fn an_unknown_request_is_not_supported() {
    let server = start(Config::default()).await;
    let connection = dial(&server).await;
    let answer = ask(&connection, Command::request(9999)).await;
    assert_eq!(answer.code, response::REQUEST_CODE_NOT_SUPPORTED);
    assert_eq!(answer.remark.unwrap(), " request type 9999 not supported");
}

#[tokio::test]
async fn a_taken_port_is_one_clear_error() {
    let server = start(Config::default()).await;
    let error = run(Config { listen: server.local_addr(), ..Config::default() }).await.unwrap_err();
    assert!(format!("{error:#}").starts_with(&format!("the name server can't start at {}", server.local_addr())));
}

const OUTSIDE: &str = "198.51.100.7:30911";

async fn outside(server: &NameServer) -> Arc<Connection> {
    connect(&server.outside_addr().unwrap().to_string(), Limits::default(), None).await.unwrap()
}

#[tokio::test]
async fn clients_outside_get_the_masters_outer_address_and_those_inside_its_own() {
    let server = start(Config { listen_outside: Some(([127, 0, 0, 1], 0).into()), ..Config::default() }).await;
    let (broker, inside, outside) = (dial(&server).await, dial(&server).await, outside(&server).await);
    let master = RegisterBroker { gantry_external_master: Some(OUTSIDE), ..gantry_master(1, "a-0") };
    register(&broker, &master, &["t", "u"]).await;
    register(&broker, &slave("10.0.0.2:10911", 1), &["t", "u"]).await;
    let of = |route: &TopicRouteData| -> Vec<_> { route.broker_datas[0].broker_addrs.clone().into_iter().collect() };
    let seen: TopicRouteData = body(&route(&inside, "t").await);
    assert_eq!(of(&seen), members([(0, STABLE), (1, "10.0.0.2:10911")]));
    let seen: TopicRouteData = body(&route(&outside, "t").await);
    assert_eq!(of(&seen), members([(0, OUTSIDE)]));
    assert_eq!(seen.queue_datas.len(), 1);
    let info: ClusterInfo = body(&ask(&outside, Command::request(request::GET_BROKER_CLUSTER_INFO)).await);
    assert_eq!(info.broker_addr_table["broker-a"].broker_addrs[&0], OUTSIDE);

    // Another master of the group, which says another address.
    let elsewhere = "203.0.113.9:30911";
    let next = RegisterBroker { gantry_external_master: Some(elsewhere), ..gantry_master(2, "a-1") };
    register(&broker, &next, &["t", "u"]).await;
    let seen: TopicRouteData = body(&route(&outside, "t").await);
    assert_eq!(of(&seen), members([(0, elsewhere)]));
}

#[tokio::test]
async fn clients_outside_hear_nothing_of_queues_that_they_cannot_reach() {
    let server = start(Config { listen_outside: Some(([127, 0, 0, 1], 0).into()), ..Config::default() }).await;
    let (broker, outside) = (dial(&server).await, outside(&server).await);
    register(&broker, &gantry_master(1, "a-0"), &["t", "u"]).await;
    let none = route(&outside, "t").await;
    assert_eq!(none.code, response::TOPIC_NOT_EXIST);
    assert!(none.remark.unwrap().contains("none of its brokers has an address for clients outside"));
    let other = RegisterBroker {
        broker_name: "broker-b",
        broker_addr: "10.0.0.101:10911",
        gantry_external_master: Some(OUTSIDE),
        ..gantry_master(1, "b-0")
    };
    register(&broker, &other, &["t", "v"]).await;
    let seen: TopicRouteData = body(&route(&outside, "t").await);
    let queues: Vec<_> = seen.queue_datas.iter().map(|queues| queues.broker_name.as_str()).collect();
    assert_eq!((queues, seen.broker_datas.len()), (vec!["broker-b"], 1));
}

#[tokio::test]
async fn nothing_can_be_changed_from_outside() {
    let server = start(Config { listen_outside: Some(([127, 0, 0, 1], 0).into()), ..Config::default() }).await;
    let outside = outside(&server).await;
    let refused = register(&outside, &gantry_master(1, "a-0"), &["t", "u"]).await;
    assert_eq!(refused.code, response::REQUEST_CODE_NOT_SUPPORTED);
    let header = NamesrvTopic { topic: "t", cluster_name: None };
    let delete = Command::request(request::DELETE_TOPIC_IN_NAMESRV).with_header(&header);
    assert_eq!(ask(&outside, delete).await.code, response::REQUEST_CODE_NOT_SUPPORTED);
    let header = PutKvConfig { namespace: "n", key: "k", value: "v" };
    let put = Command::request(request::PUT_KV_CONFIG).with_header(&header);
    assert_eq!(ask(&outside, put).await.code, response::REQUEST_CODE_NOT_SUPPORTED);
}
