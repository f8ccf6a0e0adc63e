//! A broker's metrics, fetched as Prometheus fetches them.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is the failure")]
#![expect(clippy::float_cmp, reason = "Prometheus knows only f64; these are counts")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use gantry_broker::broker::Broker;
use gantry_broker::config::BrokerConfig;
use gantry_broker::nameserver::{self, NameServer};
use gantry_remoting::code::{request, response};
use gantry_remoting::headers::offset::UpdateConsumerOffset;
use gantry_remoting::headers::pull::{PullMessage, sys_flag};
use gantry_remoting::headers::send::SendMessage;
use gantry_remoting::{Client, Command, Limits};
use tokio::time::sleep;

const PATIENCE: Duration = Duration::from_mins(1);

async fn name_server() -> NameServer {
    let listen = "127.0.0.1:0".parse().unwrap();
    nameserver::run(nameserver::Config { listen, ..nameserver::Config::default() }).await.unwrap()
}

async fn start(dir: &Path, more: &[(&str, &str)]) -> Broker {
    let store = dir.display().to_string();
    let common = [
        ("brokerName", "s"),
        ("listenPort", "0"),
        ("haListenPort", "0"),
        ("metricsPromExporterPort", "0"),
        ("storePathRootDir", store.as_str()),
        ("mappedFileSizeCommitLog", "16777216"),
        ("mappedFileSizeConsumeQueue", "2000"),
        ("haSendHeartbeatInterval", "100"),
    ];
    let entries: BTreeMap<_, _> =
        common.iter().chain(more).map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Broker::start(BrokerConfig::parse(entries).unwrap()).await.unwrap()
}

/// Series with their values, by what stands before the value.
fn scrape(broker: &Broker) -> BTreeMap<String, f64> {
    let mut stream = TcpStream::connect(broker.metrics_addr().unwrap()).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("version=0.0.4"), "{head}");
    let lines = body.lines().filter(|line| !line.starts_with('#'));
    let series = lines.map(|line| line.rsplit_once(' ').unwrap());
    series.map(|(series, value)| (series.to_owned(), value.parse().unwrap())).collect()
}

/// The value of the one series of that name that has these labels.
fn value(series: &BTreeMap<String, f64>, name: &str, labels: &[&str]) -> f64 {
    let fits = |key: &&String| key.split('{').next() == Some(name) && labels.iter().all(|label| key.contains(label));
    let found: Vec<_> = series.keys().filter(fits).collect();
    assert_eq!(found.len(), 1, "{name} {labels:?}: {found:?} of {series:#?}");
    series[found[0]]
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < give_up, "waited for {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn send(client: &Client, topic: &str, queue_id: i32) -> Command {
    let header = SendMessage { default_topic_queue_nums: 8, ..SendMessage::new("p", topic, queue_id) };
    let command = Command::request(request::SEND_MESSAGE_V2).with_header(&header).with_body(b"hello".to_vec());
    client.invoke(command, PATIENCE).await.unwrap()
}

async fn commit(client: &Client, group: &str, topic: &str, queue_id: i32) {
    let header = UpdateConsumerOffset { consumer_group: group, topic, queue_id, commit_offset: 0 };
    let answer =
        client.invoke(Command::request(request::UPDATE_CONSUMER_OFFSET).with_header(&header), PATIENCE).await.unwrap();
    assert_eq!(answer.code, response::SUCCESS, "{:?}", answer.remark);
}

fn client_of(broker: &Broker) -> Client {
    Client::new(broker.local_addr().to_string(), Limits::default(), None)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_masters_metrics_tell_how_far_its_slave_is_and_a_slaves_that_it_follows() {
    let (names, one, two) = (name_server().await, tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let names = names.local_addr().to_string();
    let names = ("namesrvAddr", names.as_str());
    let master = start(one.path(), &[names, ("brokerRole", "SYNC_MASTER")]).await;
    until("a master", || value(&scrape(&master), "rocketmq_ha_role", &["role=\"master\""]) > 0.0).await;
    let client = client_of(&master);
    until("the gate", || value(&scrape(&master), "rocketmq_ha_serving", &[]) > 0.0).await;
    assert_eq!(send(&client, "t", 0).await.code, response::SYSTEM_ERROR, "no slave is in sync");
    let alone = scrape(&master);
    let short = ["reason=\"in_sync_short\"", "code=\"1\""];
    assert_eq!(value(&alone, "rocketmq_sends_refused_total", &short), 1.0);
    assert_eq!(value(&alone, "rocketmq_ha_in_sync_replicas", &[]), 1.0);
    assert_eq!(value(&alone, "rocketmq_ha_alive_in_sync_replicas", &[]), 1.0);
    assert_eq!(value(&alone, "rocketmq_ha_min_in_sync_replicas", &[]), 2.0);

    let slave = start(two.path(), &[names, ("brokerRole", "SLAVE"), ("brokerId", "1")]).await;
    let in_sync = || scrape(&master).keys().any(|key| key.starts_with("rocketmq_ha_slave_in_sync{"));
    until("a slave", in_sync).await;
    until("the slave in sync", || value(&scrape(&master), "rocketmq_ha_in_sync_replicas", &[]) == 2.0).await;
    assert_eq!(send(&client, "t", 0).await.code, response::SUCCESS);

    let visible = || {
        scrape(&master).keys().any(|key| key.starts_with("rocketmq_messages_in_total{") && key.contains("topic=\"t\""))
    };
    until("the message visible", visible).await;
    let of_slave = ["slaveId=\"s-1\"", "cluster=\"DefaultCluster\"", "node_type=\"broker\"", "node_id=\"s\""];
    let series = scrape(&master);
    let end = value(&series, "rocketmq_ha_master_max_offset", &["replica=\"s-0\""]);
    assert!(end > 0.0);
    until("all acknowledged", || {
        let now = scrape(&master);
        value(&now, "rocketmq_ha_slave_max_offset", &of_slave) >= end
    })
    .await;
    assert!(value(&series, "rocketmq_ha_transfer_byte_total", &["role=\"master\""]) > 0.0);
    assert_eq!(value(&series, "rocketmq_ha_connection_count", &[]), 1.0);
    assert_eq!(value(&series, "ha_send_timeout_count", &[]), 0.0);
    assert_eq!(value(&series, "rocketmq_ha_send_timeout_total", &[]), 0.0);
    assert!(value(&series, "rocketmq_ha_ack_wait_seconds_count", &[]) >= 1.0);
    assert_eq!(value(&series, "rocketmq_messages_in_total", &["topic=\"t\"", "message_type=\"normal\""]), 1.0);

    let series = scrape(&slave);
    assert_eq!(value(&series, "rocketmq_ha_upstream_connected", &["replica=\"s-1\""]), 1.0);
    assert!(value(&series, "rocketmq_ha_transfer_byte_total", &["role=\"slave\""]) > 0.0);
    assert!(!series.keys().any(|key| key.starts_with("rocketmq_ha_master_max_offset")), "only a master shows it");
    slave.stop().await.unwrap();
    until("the slave gone", || value(&scrape(&master), "rocketmq_ha_slave_connected", &of_slave) == 0.0).await;
    master.stop().await.unwrap();
}

/// CPU time that the thread of that name has taken.
fn cpu_of_thread(name: &str) -> Duration {
    let mut tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|entry| entry.unwrap().path());
    let task = tasks.find(|task| std::fs::read_to_string(task.join("comm")).unwrap().trim() == name).unwrap();
    let stat = std::fs::read_to_string(task.join("schedstat")).unwrap();
    Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, on ten thousand queues"]
async fn a_scrape_of_10000_queues_and_1000_groups_shows_them_all() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path(), &[]).await;
    let client = client_of(&broker);
    until("a master", || value(&scrape(&broker), "rocketmq_ha_serving", &[]) > 0.0).await;
    for topic in 0..1_250 {
        for queue in 0..8 {
            let answer = send(&client, &format!("topic-{topic}"), queue).await;
            assert_eq!(answer.code, response::SUCCESS, "{:?}", answer.remark);
        }
    }
    for group in 0..1_000 {
        for queue in 0..8 {
            commit(&client, &format!("group-{group}"), &format!("topic-{group}"), queue).await;
        }
    }
    until("all visible", || value(&scrape(&broker), "rocketmq_storage_dispatch_lag_bytes", &[]) == 0.0).await;
    let (before, rounds) = (cpu_of_thread("metrics"), 20);
    let mut series = BTreeMap::new();
    for _ in 0..rounds {
        series = scrape(&broker);
    }
    let each = cpu_of_thread("metrics").saturating_sub(before) / rounds;
    println!("{} series, {each:?} of CPU a scrape", series.len());
    let count = |name: &str| series.keys().filter(|key| key.starts_with(name)).count();
    assert_eq!(count("rocketmq_messages_in_total{"), 1_250);
    assert_eq!(count("rocketmq_consumer_lag_messages{"), 1_000);
    assert_eq!(value(&series, "rocketmq_consumer_lag_messages", &["topic=\"topic-77\""]), 8.0);
    let begun = Instant::now();
    broker.stop().await.unwrap();
    println!("{:?} to stop", begun.elapsed());
    let begun = Instant::now();
    drop(dir);
    println!("{:?} to remove its files", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_through_a_broker_is_counted_by_rocketmqs_names() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path(), &[]).await;
    let client = client_of(&broker);
    until("a master", || value(&scrape(&broker), "rocketmq_ha_serving", &[]) > 0.0).await;
    for _ in 0..3 {
        assert_eq!(send(&client, "t", 0).await.code, response::SUCCESS);
    }
    until("all visible", || value(&scrape(&broker), "rocketmq_storage_dispatch_lag_bytes", &[]) == 0.0).await;
    let pull = Command::request(request::PULL_MESSAGE).with_header(&PullMessage::new("g", "t", 0, 0));
    assert_eq!(client.invoke(pull, PATIENCE).await.unwrap().code, response::SUCCESS);
    let waits = PullMessage {
        sys_flag: sys_flag::SUBSCRIPTION | sys_flag::SUSPEND,
        suspend_timeout_ms: 1,
        ..PullMessage::new("g", "t", 0, 3)
    };
    let pull = Command::request(request::PULL_MESSAGE).with_header(&waits);
    assert_eq!(client.invoke(pull, PATIENCE).await.unwrap().code, response::PULL_NOT_FOUND);

    let series = scrape(&broker);
    let topic = ["topic=\"t\"", "message_type=\"normal\"", "is_system=\"false\""];
    let group = ["topic=\"t\"", "consumer_group=\"g\"", "is_retry=\"false\""];
    let bytes = value(&series, "rocketmq_throughput_in_total", &topic);
    assert!(bytes > 3.0 * 5.0, "more than their bodies: {bytes}");
    assert_eq!(value(&series, "rocketmq_message_size_count", &topic), 3.0);
    assert_eq!(value(&series, "rocketmq_message_size_sum", &topic), bytes);
    assert_eq!(value(&series, "rocketmq_messages_out_total", &group), 3.0);
    assert_eq!(value(&series, "rocketmq_throughput_out_total", &group), bytes);
    let answers = |request: &str, response: &str, waited: &str| {
        let labels = [
            format!("request_code=\"{request}\""),
            format!("response_code=\"{response}\""),
            format!("is_long_polling=\"{waited}\""),
        ];
        let labels: Vec<_> = labels.iter().map(String::as_str).collect();
        value(&series, "rocketmq_rpc_latency_count", &labels)
    };
    assert_eq!(answers("send_message_v2", "success", "false"), 3.0);
    assert_eq!(answers("pull_message", "success", "false"), 1.0);
    assert_eq!(answers("pull_message", "pull_not_found", "true"), 1.0);
    assert!(value(&series, "rocketmq_storage_message_reserve_time", &["storage_type=\"local\""]) >= 0.0);
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn series_beyond_the_bound_are_left_out_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path(), &[("gantryMetricsMaxSeries", "12")]).await;
    let client = client_of(&broker);
    until("a master", || value(&scrape(&broker), "rocketmq_ha_serving", &[]) > 0.0).await;
    for group in 0..15 {
        assert_eq!(send(&client, "t", 0).await.code, response::SUCCESS);
        commit(&client, &format!("group-{group}"), "t", 0).await;
    }
    let series = scrape(&broker);
    assert_eq!(series.keys().filter(|key| key.starts_with("rocketmq_consumer_lag_messages{")).count(), 12);
    assert_eq!(value(&series, "gantry_metrics_series_dropped", &["metric=\"rocketmq_consumer_lag_messages\""]), 3.0);
    broker.stop().await.unwrap();
}
