//! A broker and the name servers that its configuration names: they may come later, go, and come again.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is the failure")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use gantry_broker::broker::Broker;
use gantry_broker::config::BrokerConfig;
use gantry_broker::nameserver::{self, NameServer};
use gantry_remoting::code::{request, response};
use gantry_remoting::headers::route::GetRouteInfo;
use gantry_remoting::{Client, Command, Limits};
use tokio::time::{Instant, sleep};

const PATIENCE: Duration = Duration::from_mins(1);

async fn name_server(listen: SocketAddr) -> NameServer {
    nameserver::run(nameserver::Config { listen, ..nameserver::Config::default() }).await.unwrap()
}

/// A broker that registers once an hour by itself.
async fn broker(dir: &std::path::Path, name_servers: &str) -> Broker {
    let store = dir.display().to_string();
    let entries = [
        ("brokerName", "b"),
        ("listenPort", "0"),
        ("haListenPort", "0"),
        ("storePathRootDir", store.as_str()),
        ("namesrvAddr", name_servers),
        ("registerNameServerPeriod", "3600000"),
        ("mappedFileSizeCommitLog", "1048576"),
    ];
    let entries: BTreeMap<_, _> = entries.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    Broker::start(BrokerConfig::parse(entries).unwrap()).await.unwrap()
}

async fn knows_the_broker(name_server: &NameServer) {
    let client = Client::new(name_server.local_addr().to_string(), Limits::default(), None);
    let give_up = Instant::now() + PATIENCE;
    loop {
        let header = GetRouteInfo { topic: "BenchmarkTest", accept_standard_json_only: Some(true) };
        let ask = Command::request(request::GET_ROUTEINFO_BY_TOPIC).with_header(&header);
        let answer = client.invoke(ask, PATIENCE).await.unwrap();
        if answer.code == response::SUCCESS {
            return;
        }
        assert!(Instant::now() < give_up, "no route: {} {:?}", answer.code, answer.remark);
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_server_that_was_started_again_is_told_before_the_next_period() {
    let dir = tempfile::tempdir().unwrap();
    let first = name_server("127.0.0.1:0".parse().unwrap()).await;
    let address = first.local_addr();
    let broker = broker(dir.path(), &address.to_string()).await;
    knows_the_broker(&first).await;
    first.shutdown(PATIENCE).await;
    let second = name_server(address).await;
    knows_the_broker(&second).await;
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn name_servers_are_found_by_name_and_one_that_is_not_there_keeps_no_other_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let there = name_server("127.0.0.1:0".parse().unwrap()).await;
    let names = format!("nowhere.invalid:9876;localhost:{}", there.local_addr().port());
    let broker = broker(dir.path(), &names).await;
    knows_the_broker(&there).await;
    broker.stop().await.unwrap();
}
