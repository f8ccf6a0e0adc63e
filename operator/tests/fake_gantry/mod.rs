//! A `gantry` without a store: its name server only says where it listens, its brokers join the elector, obey, and tell their
//! names to whoever connects. The broker is this very test binary, started again.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gantry_remoting::{Command, Connection, Handler, Inbound, Limits, Response, connect};
use gantry_replication::wire::{DIRECTIVE, Directive, HELLO, Hello, REPORT, Report, Role};
use gantry_replication::{Epoch, Member, StoreId};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Holds the path of the broker's configuration.
const CONF: &str = "FAKE_GANTRY_CONF";

/// Writes the program's script into `dir`.
pub(crate) fn install(dir: &Path) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let script = format!(
        "#!/bin/sh\n\
         if [ \"$1\" = nameserver ]; then echo \"listening on 127.0.0.1:9\"; exec cat; fi\n\
         {CONF}=\"$3\" exec {:?} fake_broker --exact --ignored --nocapture\n",
        tests.display()
    );
    let path = dir.join("gantry");
    // Beside and over: a script that is being run can't be written.
    let beside = dir.join("gantry.new");
    std::fs::write(&beside, script).unwrap();
    make_executable(&beside);
    std::fs::rename(beside, &path).unwrap();
    path
}

pub(crate) fn make_executable(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Runs until standard input ends or SIGTERM comes.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn broker() {
    // Nobody's broker when all ignored tests are asked for.
    let Some(conf) = std::env::var_os(CONF) else { return };
    let text = std::fs::read_to_string(conf).unwrap();
    let conf: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hello = hello(&conf, listener.local_addr().unwrap().to_string());
    let state = Arc::new(State { report: Mutex::new(hello.report.clone()), promise: promise_file(&conf) });
    tokio::spawn(tell_name(listener, hello.member.name.clone()));
    tokio::spawn(keep_reporting(conf["gantryElectors"].to_owned(), hello, Arc::clone(&state)));
    let mut terminate = signal(SignalKind::terminate()).unwrap();
    std::thread::spawn(|| {
        let ended = std::io::stdin().read(&mut [0]);
        std::process::exit(i32::from(ended.is_err()));
    });
    terminate.recv().await;
    std::process::exit(0);
}

struct State {
    report: Mutex<Report>,
    promise: PathBuf,
}

fn promise_file(conf: &BTreeMap<&str, &str>) -> PathBuf {
    Path::new(conf["storePathRootDir"]).join("promise")
}

fn hello(conf: &BTreeMap<&str, &str>, address: String) -> Hello {
    let promised = std::fs::read_to_string(promise_file(conf)).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let store_id = StoreId(conf["brokerId"].parse().unwrap());
    Hello {
        group: conf["brokerName"].to_owned(),
        token: conf["gantryToken"].to_owned(),
        member: Member::new(conf["gantryReplica"], store_id),
        client_address: address.clone(),
        ha_address: address,
        pid: std::process::id(),
        priority: 0,
        zone: None,
        report: Report {
            role: Role::Fenced,
            promised: Epoch(promised),
            revision: 0,
            last_epoch: Epoch(promised),
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

async fn tell_name(listener: TcpListener, name: String) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let name = name.clone();
        tokio::spawn(async move {
            if stream.read_u8().await.is_ok() {
                stream.write_all(format!("{name}\n").as_bytes()).await.ok();
            }
        });
    }
}

async fn keep_reporting(elector: String, hello: Hello, state: Arc<State>) {
    let handler = Arc::clone(&state) as Arc<dyn Handler>;
    let connection = connect(&elector, Limits::default(), Some(handler)).await.unwrap();
    let mut request = Command::request(HELLO).with_body(serde_json::to_vec(&hello).unwrap());
    loop {
        let Ok(answer) = connection.invoke(request, Duration::from_secs(20)).await else { return };
        assert_eq!(answer.code, 0, "{:?}", answer.remark);
        tokio::time::sleep(Duration::from_millis(50)).await;
        request = Command::request(REPORT).with_body(serde_json::to_vec(&*state.report.lock()).unwrap());
    }
}

impl Handler for State {
    fn handle(&self, _: &Arc<Connection>, batch: &mut Vec<Inbound>) {
        for Inbound { request, ticket } in batch.drain(..) {
            if request.code == DIRECTIVE {
                self.obey(serde_json::from_slice(&request.body.to_bytes()).unwrap());
            }
            let body = serde_json::to_vec(&*self.report.lock()).unwrap();
            ticket.reply(Response::success().with_body(body));
        }
    }
}

impl State {
    fn obey(&self, directive: Directive) {
        let mut report = self.report.lock();
        match directive {
            Directive::Master { record } => {
                (report.role, report.promised, report.last_epoch) = (Role::Master, record.epoch, record.epoch);
                report.drained = false;
            }
            Directive::Slave { record, .. } => {
                (report.role, report.promised) = (Role::Slave, record.epoch);
                report.drained = false;
            }
            Directive::Park { .. } => report.drained = true,
            Directive::Unpark { .. } => report.drained = false,
        }
        std::fs::write(&self.promise, report.promised.to_string()).unwrap();
    }
}
