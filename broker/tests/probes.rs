//! A broker's probes, asked over HTTP.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is the failure")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use gantry_broker::broker::Broker;
use gantry_broker::config::BrokerConfig;

const PATIENCE: Duration = Duration::from_mins(1);

fn config(dir: &Path, more: &[(&str, &str)]) -> BrokerConfig {
    let store = dir.display().to_string();
    let common = [
        ("listenPort", "0"),
        ("haListenPort", "0"),
        ("metricsPromExporterPort", "0"),
        ("storePathRootDir", store.as_str()),
        ("mappedFileSizeCommitLog", "1048576"),
    ];
    let entries: BTreeMap<_, _> =
        common.iter().chain(more).map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    BrokerConfig::parse(entries).unwrap()
}

/// Status and body.
fn ask(address: SocketAddr, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(format!("{request} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_serves_is_alive_and_ready_and_strangers_are_told_what_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(config(dir.path(), &[])).await.unwrap();
    let address = broker.metrics_addr().unwrap();
    let give_up = Instant::now() + PATIENCE;
    while ask(address, "GET /readyz").0 != 200 {
        assert!(Instant::now() < give_up, "{:?}", ask(address, "GET /readyz"));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(ask(address, "GET /readyz"), (200, "master of epoch 1\n".to_owned()));
    assert_eq!(ask(address, "GET /livez"), (200, "alive\n".to_owned()));
    assert_eq!(ask(address, "HEAD /livez"), (200, String::new()));
    let alone = "master of epoch 1, and no slave could take its place\n";
    assert_eq!(ask(address, "GET /leavez"), (200, alone.to_owned()));
    let (status, said) = ask(address, "GET /");
    assert!(status == 404 && said.contains("/readyz"), "{status} {said}");
    assert_eq!(ask(address, "POST /livez").0, 405);
    broker.stop().await.unwrap();
    assert!(TcpStream::connect(address).is_err(), "nobody listens after the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_nobody_has_told_its_role_is_alive_and_not_ready() {
    let dir = tempfile::tempdir().unwrap();
    // Nobody listens there: the discard port.
    let broker = Broker::start(config(dir.path(), &[("gantryElectors", "127.0.0.1:9")])).await.unwrap();
    let address = broker.metrics_addr().unwrap();
    assert_eq!(ask(address, "GET /livez").0, 200);
    assert_eq!(ask(address, "GET /readyz"), (503, "it has not been told its role yet\n".to_owned()));
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_named_with_its_key() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let dir = tempfile::tempdir().unwrap();
    let started = Broker::start(config(dir.path(), &[("metricsPromExporterPort", &port)])).await;
    let said = format!("{:#}", started.err().unwrap());
    assert!(said.contains(&port) && said.contains("metricsPromExporterPort"), "{said}");
}
