//! Groups without an elector: who is master stands in the configuration, as in RocketMQ.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is the failure")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use gantry_broker::broker::Broker;
use gantry_broker::config::BrokerConfig;
use gantry_broker::nameserver::{self, NameServer};
use gantry_remoting::code::{request, response};
use gantry_remoting::headers::send::SendMessage;
use gantry_remoting::{Client, Command, Limits};
use tokio::time::{Instant, sleep};

const PATIENCE: Duration = Duration::from_mins(1);

async fn name_server() -> NameServer {
    let listen = "127.0.0.1:0".parse().unwrap();
    nameserver::run(nameserver::Config { listen, ..nameserver::Config::default() }).await.unwrap()
}

async fn start(dir: &Path, name_server: &NameServer, more: &[(&str, &str)]) -> Broker {
    let (store, names) = (dir.display().to_string(), name_server.local_addr().to_string());
    let common = [
        ("brokerName", "s"),
        ("listenPort", "0"),
        ("haListenPort", "0"),
        ("storePathRootDir", store.as_str()),
        ("namesrvAddr", names.as_str()),
        ("mappedFileSizeCommitLog", "1048576"),
        ("slaveTimeout", "500"),
        ("haSendHeartbeatInterval", "100"),
    ];
    let entries: BTreeMap<_, _> =
        common.iter().chain(more).map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Broker::start(BrokerConfig::parse(entries).unwrap()).await.unwrap()
}

async fn send(broker: &Broker) -> Command {
    let header = SendMessage { default_topic_queue_nums: 1, ..SendMessage::new("p", "t", 0) };
    let client = Client::new(broker.local_addr().to_string(), Limits::default(), None);
    let command = Command::request(request::SEND_MESSAGE_V2).with_header(&header).with_body(b"hello".to_vec());
    client.invoke(command, PATIENCE).await.unwrap()
}

/// Sends until the answer is of that code.
async fn send_until(broker: &Broker, code: i32) -> Command {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let answer = send(broker).await;
        if answer.code == code {
            return answer;
        }
        assert!(Instant::now() < give_up, "waited for code {code}; {} {:?}", answer.code, answer.remark);
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_master_needs_a_slave_and_the_slave_follows_whatever_epoch_the_master_is_of() {
    let (names, one, two) = (name_server().await, tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let as_master = [("brokerRole", "SYNC_MASTER")];
    let as_slave = [("brokerRole", "SLAVE"), ("brokerId", "1")];
    let master = start(one.path(), &names, &as_master).await;
    let refused = send_until(&master, response::SYSTEM_ERROR).await;
    assert!(refused.remark.as_ref().unwrap().starts_with("in-sync replicas not enough"), "{:?}", refused.remark);
    let slave = start(two.path(), &names, &as_slave).await;
    send_until(&master, response::SUCCESS).await;

    slave.stop().await.unwrap();
    let refused = send_until(&master, response::SYSTEM_ERROR).await;
    assert!(refused.remark.as_ref().unwrap().starts_with("in-sync replicas not enough"), "{:?}", refused.remark);
    let slave = start(two.path(), &names, &as_slave).await;
    send_until(&master, response::SUCCESS).await;

    // Its next epoch; the slave hears its new address from the name server.
    master.stop().await.unwrap();
    let master = start(one.path(), &names, &as_master).await;
    send_until(&master, response::SUCCESS).await;
    master.stop().await.unwrap();
    slave.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_becomes_a_slave_brings_its_promise_along_and_the_new_master_goes_above_it() {
    let (names, one, two) = (name_server().await, tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // Many lives as a master of its own: many epochs.
    for _life in 0..4 {
        let broker = start(two.path(), &names, &[]).await;
        send_until(&broker, response::SUCCESS).await;
        broker.stop().await.unwrap();
    }
    let master = start(one.path(), &names, &[("brokerRole", "SYNC_MASTER")]).await;
    let slave = start(two.path(), &names, &[("brokerRole", "SLAVE"), ("brokerId", "1")]).await;
    send_until(&master, response::SUCCESS).await;
    assert!(two.path().join("divergent").exists(), "what it had written as a master is kept aside");
    master.stop().await.unwrap();
    slave.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_degrade_a_sync_master_goes_on_alone() {
    let (names, dir) = (name_server().await, tempfile::tempdir().unwrap());
    let master = start(dir.path(), &names, &[("brokerRole", "SYNC_MASTER"), ("onShortage", "Degrade")]).await;
    send_until(&master, response::SUCCESS).await;
    master.stop().await.unwrap();
}
