//! Settings that an elector gives a broker while it runs, and what its clients and name servers see of them.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is the failure")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gantry_broker::broker::Broker;
use gantry_broker::config::BrokerConfig;
use gantry_broker::nameserver::{self, NameServer};
use gantry_remoting::body::cluster::ClusterInfo;
use gantry_remoting::code::{request, response};
use gantry_remoting::headers::send::SendMessage;
use gantry_remoting::{Client, Command, Connection, Handler, Inbound, Limits, Response, Server};
use gantry_replication::settings::Settings;
use gantry_replication::wire::{CONFIGURE, DIRECTIVE, Directive, HELLO, Heard, Hello, REPORT, Report};
use gantry_replication::{Epoch, GroupRecord};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep};

const PATIENCE: Duration = Duration::from_mins(1);

/// Takes hellos and reports; what it orders, a test says.
struct Elector(UnboundedSender<(Arc<Connection>, Hello)>);

impl Handler for Elector {
    fn handle(&self, connection: &Arc<Connection>, batch: &mut Vec<Inbound>) {
        for Inbound { request, ticket } in batch.drain(..) {
            match request.code {
                HELLO => {
                    let hello = serde_json::from_slice(&request.body.to_bytes()).unwrap();
                    self.0.send((Arc::clone(connection), hello)).unwrap();
                }
                REPORT => {}
                other => panic!("request {other} of a broker"),
            }
            let heard = serde_json::to_vec(&Heard { record: None }).unwrap();
            ticket.reply(Response::success().with_body(heard));
        }
    }
}

async fn start(dir: &Path, elector: &Server, names: &NameServer, more: &[(&str, &str)]) -> Broker {
    let (store, elector) = (dir.display().to_string(), elector.local_addr().to_string());
    let names = names.local_addr().to_string();
    let common = [
        ("brokerName", "g"),
        ("gantryReplica", "g-0"),
        ("brokerRole", "SLAVE"),
        ("brokerId", "1"),
        ("listenPort", "0"),
        ("haListenPort", "0"),
        ("storePathRootDir", store.as_str()),
        ("mappedFileSizeCommitLog", "1048576"),
        ("gantryElectors", elector.as_str()),
        ("namesrvAddr", names.as_str()),
    ];
    let entries: BTreeMap<_, _> =
        common.iter().chain(more).map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Broker::start(BrokerConfig::parse(entries).unwrap()).await.unwrap()
}

fn settings(pairs: &[(&str, &str)]) -> Settings {
    Settings(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
}

async fn order(broker: &Connection, code: i32, body: Vec<u8>) -> Result<Report, String> {
    let answer = broker.invoke(Command::request(code).with_body(body), PATIENCE).await.unwrap();
    if answer.code != response::SUCCESS {
        return Err(answer.remark.unwrap_or_default());
    }
    Ok(serde_json::from_slice(&answer.body.to_bytes()).unwrap())
}

async fn configure(broker: &Connection, settings: &Settings) -> Result<Report, String> {
    order(broker, CONFIGURE, serde_json::to_vec(settings).unwrap()).await
}

async fn ask(broker: &Broker, command: Command) -> Command {
    let client = Client::new(broker.local_addr().to_string(), Limits::default(), None);
    client.invoke(command, PATIENCE).await.unwrap()
}

async fn send(broker: &Broker) -> Command {
    let header = SendMessage { default_topic_queue_nums: 1, ..SendMessage::new("p", "t", 0) };
    ask(broker, Command::request(request::SEND_MESSAGE_V2).with_header(&header).with_body(b"hello".to_vec())).await
}

async fn config_says(broker: &Broker, line: &str) -> bool {
    let told = ask(broker, Command::request(request::GET_BROKER_CONFIG)).await;
    String::from_utf8(told.body.to_bytes().to_vec()).unwrap().lines().any(|found| found == line)
}

/// Where the name server sends clients outside.
async fn until_outside(names: &NameServer, wanted: Option<&str>) {
    let client = Client::new(names.outside_addr().unwrap().to_string(), Limits::default(), None);
    let give_up = Instant::now() + PATIENCE;
    loop {
        let answer = client.invoke(Command::request(request::GET_BROKER_CLUSTER_INFO), PATIENCE).await.unwrap();
        let info: ClusterInfo = gantry_remoting::body::parse(&answer.body.to_bytes()).unwrap();
        let found = info.broker_addr_table.get("g").map(|broker| broker.broker_addrs[&0].as_str());
        if found == wanted {
            return;
        }
        assert!(Instant::now() < give_up, "waited for {wanted:?}, found {found:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_apply_at_once_as_a_whole_and_go_back_to_their_defaults() {
    let dir = tempfile::tempdir().unwrap();
    let (sessions, mut opened) = unbounded_channel();
    let listen = "127.0.0.1:0".parse().unwrap();
    let elector = Server::bind(listen, Limits::default(), Arc::new(Elector(sessions))).await.unwrap();
    let config = nameserver::Config { listen, listen_outside: Some(listen), ..nameserver::Config::default() };
    let names = nameserver::run(config).await.unwrap();
    let at_start = settings(&[("brokerPermission", "6"), ("gantryExternalMaster", "a.example.org:30911")]);
    let started: Vec<_> = at_start.0.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let broker = start(dir.path(), &elector, &names, &started).await;
    let (session, hello) = opened.recv().await.unwrap();
    assert_eq!(hello.report.settings, Some(at_start.digest()), "what it was started with applies");

    let (master, in_sync) = (hello.member.clone(), BTreeSet::from([hello.member]));
    let record = GroupRecord { epoch: Epoch(1), revision: 1, master, in_sync };
    let lead = serde_json::to_vec(&Directive::Master { record }).unwrap();
    order(&session, DIRECTIVE, lead).await.unwrap();
    until_outside(&names, Some("a.example.org:30911")).await;
    let give_up = Instant::now() + PATIENCE;
    while send(&broker).await.code != response::SUCCESS {
        assert!(Instant::now() < give_up, "it never serves");
        sleep(Duration::from_millis(10)).await;
    }

    let read_only = settings(&[("brokerPermission", "4"), ("gantryExternalMaster", "b.example.org:30911")]);
    let report = configure(&session, &read_only).await.unwrap();
    assert_eq!(report.settings, Some(read_only.digest()));
    assert_eq!(send(&broker).await.code, response::NO_PERMISSION);
    assert!(config_says(&broker, "brokerPermission=4").await);
    until_outside(&names, Some("b.example.org:30911")).await;

    // One that can't be read, one that would need a restart: nothing changes.
    for (key, why) in [("fileReservedTime", "fileReservedTime=x can't be read"), ("flushDiskType", "can't be changed")]
    {
        let said = configure(&session, &settings(&[("brokerPermission", "6"), (key, "x")])).await.unwrap_err();
        assert!(said.contains(why), "{said}");
        assert!(config_says(&broker, "brokerPermission=4").await);
    }
    let said = configure(&session, &settings(&[("diskMaxUsedSpaceRatio", "0")])).await.unwrap_err();
    assert!(said.contains("each must be 1 to 100"), "{said}");

    let report = configure(&session, &Settings::default()).await.unwrap();
    assert_eq!(report.settings, Some(Settings::default().digest()));
    assert_eq!(send(&broker).await.code, response::SUCCESS);
    until_outside(&names, None).await;
    broker.stop().await.unwrap();
    names.shutdown(PATIENCE).await;
}
