//! Cores over real stores and sockets, with the test in the elector's place.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests: a panic is the failure")]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use gantry_broker::clock::Clock;
use gantry_broker::core::{Core, DivergentLimits, FlowLimits, Job, Limits, Standing};
use gantry_broker::ha::{Follower, HaConfig, HaServer, Metadata};
use gantry_broker::replica::ReplicaState;
use gantry_broker::services::{Done, Log, SendFailure, Submission, Wait};
use gantry_replication::master::{Config, Durability, Mode};
use gantry_replication::{Epoch, GroupRecord};
use gantry_store::{Appended, Dispatched, Events, NewMessage, PhysicalOffset, ReadLog, Store, StoreFailure};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Long enough for any machine; what is waited for takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Bridge(OnceLock<Arc<Core>>);

impl Events for Bridge {
    fn flushed(&self, offset: PhysicalOffset) {
        if let Some(core) = self.0.get() {
            core.flushed(offset);
        }
    }
    fn dispatched(&self, _batch: &[Dispatched]) {}
    fn failed(&self, failure: &Arc<StoreFailure>) {
        panic!("{failure}");
    }
}

/// Metadata that remembers what was installed last.
#[derive(Default)]
struct Text(parking_lot::Mutex<String>);

impl Metadata for Text {
    fn snapshot(&self) -> anyhow::Result<Bytes> {
        Ok(Bytes::from(self.0.lock().clone()))
    }
    fn install(&self, snapshot: &[u8]) -> anyhow::Result<()> {
        *self.0.lock() = String::from_utf8(snapshot.to_vec())?;
        Ok(())
    }
}

struct Node {
    dir: TempDir,
    core: Arc<Core>,
    store: Store,
    ha: HaServer,
    metadata: Arc<Text>,
    _follower: Follower,
    writer: JoinHandle<()>,
}

impl Node {
    async fn start(name: &str) -> Self {
        Self::open(tempfile::tempdir().unwrap(), name, "token").await
    }

    async fn open(dir: TempDir, name: &str, token: &str) -> Self {
        let bridge = Arc::new(Bridge::default());
        let mut config = gantry_store::Config::new(dir.path());
        config.segment_bytes = 1 << 20;
        let (store, appender) = gantry_store::open(config, Arc::clone(&bridge) as _).unwrap();
        let replica = ReplicaState::open(dir.path(), name, false).unwrap();
        let limits = Limits {
            max_queued_sends: 10_000,
            max_parked_sends: 10_000,
            flow: FlowLimits::default(),
            slave_timeout_ms: 60_000,
            sync_flush_timeout_ms: 60_000,
            pressure: None,
            divergent: DivergentLimits::default(),
        };
        let master = Config::new(Mode::Sync, Durability::Written, 2);
        let (core, writer) = Core::start(store.clone(), appender, replica, master, limits, Clock::start()).unwrap();
        bridge.0.get_or_init(|| Arc::clone(&core));
        let metadata = Arc::new(Text::default());
        let ha_config = HaConfig {
            heartbeat: Duration::from_millis(50),
            batch_bytes: 64 << 10,
            cold_lag_bytes: 512 << 10,
            cold_bytes_per_s: Some(64 << 20),
            ..HaConfig::new("g", token)
        };
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let ha = HaServer::bind(local, Arc::clone(&core), ha_config.clone(), Arc::clone(&metadata) as _).await.unwrap();
        let follower = Follower::start(Arc::clone(&core), ha_config, Arc::clone(&metadata) as _);
        Self { dir, core, store, ha, metadata, _follower: follower, writer }
    }

    /// Ends it as a crash would end it for its peers; its directory stays.
    async fn stop(self) -> TempDir {
        self.core.stop();
        tokio::task::spawn_blocking(move || self.writer.join().unwrap()).await.unwrap();
        self.dir
    }

    async fn lead(&self, epoch: u64, others: &[&Node]) -> GroupRecord {
        let me = self.core.member();
        let in_sync: BTreeSet<_> = others.iter().map(|node| node.core.member()).chain([me.clone()]).collect();
        let record = GroupRecord { epoch: Epoch(epoch), revision: epoch * 100, master: me, in_sync };
        let (done, became) = oneshot::channel();
        self.core.submit_job(Job::BecomeMaster(record.clone(), done));
        became.await.unwrap().unwrap();
        self.core.submit_job(Job::Open(record.epoch));
        record
    }

    async fn follow(&self, record: &GroupRecord, master: &Node) {
        self.follow_at(record, master.ha.local_addr().to_string()).await;
    }

    async fn follow_at(&self, record: &GroupRecord, address: String) {
        let (done, became) = oneshot::channel();
        self.core.submit_job(Job::BecomeSlave(record.clone(), Some(address), done));
        became.await.unwrap().unwrap();
    }

    fn send(&self, body: &str) -> oneshot::Receiver<Result<Appended, SendFailure>> {
        let host = SocketAddr::from(([127, 0, 0, 1], 1));
        let message = NewMessage {
            topic: Arc::from("t"),
            queue_id: 0,
            flag: 0,
            sys_flag: 0,
            born_timestamp_ms: 0,
            born_host: host,
            store_host: host,
            reconsume_times: 0,
            prepared_offset: 0,
            body: Bytes::copy_from_slice(body.as_bytes()),
            properties: Bytes::new(),
        };
        let (tell, told) = oneshot::channel();
        let done = Done::Call(Box::new(move |outcome| drop(tell.send(outcome))));
        self.core.submit(vec![Submission { append: message.into(), wait: Wait::Acked, done }]);
        told
    }

    async fn acked(&self, body: &str) -> Appended {
        timeout(PATIENCE, self.send(body)).await.expect("in time").unwrap().expect("acknowledged")
    }

    async fn until(&self, what: &str, holds: impl Fn(&Node) -> bool) {
        let mut written = self.core.watch_written();
        let waited = timeout(PATIENCE, async {
            while !holds(self) {
                tokio::select! {
                    changed = written.changed() => changed.unwrap(),
                    () = tokio::time::sleep(Duration::from_millis(5)) => {}
                }
            }
        });
        waited.await.unwrap_or_else(|_| panic!("waited for {what}; {:?}", self.store.watermarks()));
    }

    fn log(&self) -> Vec<u8> {
        let (mut log, mut from) = (Vec::new(), self.store.min_offset());
        while let ReadLog::Bytes { bytes, next } = self.store.read_log(from, 1 << 20).unwrap() {
            log.extend_from_slice(&bytes);
            from = next;
        }
        log
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_send_is_acknowledged_when_the_slave_has_it_and_both_logs_are_the_same() {
    let (a, b) = (Node::start("a").await, Node::start("b").await);
    let record = a.lead(1, &[&b]).await;
    let early = a.send("before the slave follows");
    a.until("the write", |a| a.store.watermarks().written.0 > 0).await;
    assert_eq!(a.store.watermarks().confirmed.0, 0, "in sync, but it has nothing yet");
    b.follow(&record, &a).await;
    timeout(PATIENCE, early).await.unwrap().unwrap().unwrap();
    for n in 0..200 {
        a.acked(&format!("message {n}")).await;
    }
    assert_eq!(a.log(), b.log());
    assert_eq!(b.core.report().last_epoch, Epoch(1));
    let end = a.store.watermarks().written;
    b.until("the confirm offset, told without another send", |b| b.store.watermarks().confirmed == end).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_slave_gets_the_log_from_its_first_byte_over_all_segments() {
    let (a, b, c) = (Node::start("a").await, Node::start("b").await, Node::start("c").await);
    let record = a.lead(1, &[&b]).await;
    b.follow(&record, &a).await;
    let body = "x".repeat(60_000);
    let sends: Vec<_> = (0..50).map(|_| a.send(&body)).collect();
    for send in sends {
        timeout(PATIENCE, send).await.unwrap().unwrap().unwrap();
    }
    c.follow(&record, &a).await;
    let end = a.store.watermarks().written;
    assert!(end.0 > 2 << 20, "more than two segments");
    c.until("the whole log", |c| c.store.watermarks().written == end).await;
    assert!(a.log() == c.log(), "byte by byte");
    let counters = a.ha.counters();
    let [cold, sent] = [&counters.cold_bytes, &counters.sent_bytes].map(|bytes| bytes.load(Relaxed));
    assert!(cold > 1 << 20 && cold < sent, "{cold} of {sent}: the far past from the files, the rest from the maps");
}

/// Ends a node, takes the segments below `oldest` away as retention does, and starts it again.
async fn forget_below(node: Node, name: &str, oldest: u64) -> Node {
    let dir = node.stop().await;
    for entry in std::fs::read_dir(dir.path().join("commitlog")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().parse::<u64>().unwrap() < oldest {
            std::fs::remove_file(path).unwrap();
        }
    }
    Node::open(dir, name, "token").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slave_whose_position_is_gone_is_taken_anew_with_the_metadata_and_keeps_what_was_its_own() {
    let (a, b, c) = (Node::start("a").await, Node::start("b").await, Node::start("c").await);
    let first = a.lead(1, &[&b]).await;
    b.follow(&first, &a).await;
    c.follow(&first, &a).await;
    a.acked("all have this").await;
    let shared = a.store.watermarks().written;
    c.until("the first message", |c| c.store.watermarks().written == shared).await;
    // c leads an epoch that nobody joins, and is left behind with a tail of its own.
    c.lead(2, &[&b]).await;
    let lonely = c.send("nobody has this");
    c.until("its own tail", |c| c.store.watermarks().written > shared).await;
    let own = c.store.watermarks().written.0 - shared.0;
    let body = "x".repeat(60_000);
    for _ in 0..40 {
        a.acked(&body).await;
    }
    let a = forget_below(a, "a", 1 << 20).await;
    assert_eq!(a.store.min_offset().0, 1 << 20);
    *a.metadata.0.lock() = "topics of long ago".to_owned();
    let third = a.lead(3, &[&b]).await;
    b.follow(&third, &a).await;
    c.follow(&third, &a).await;
    let failure = timeout(PATIENCE, lonely).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(failure, SendFailure::SwitchingOver), "{failure}");
    a.acked("goes on").await;
    let end = a.store.watermarks().written;
    c.until("the whole log", |c| c.store.watermarks().written == end).await;
    assert!(a.log() == c.log() && c.store.min_offset().0 == 1 << 20);
    assert_eq!(*c.metadata.0.lock(), "topics of long ago");
    assert_eq!(*b.metadata.0.lock(), "", "b went on where it was");
    assert_eq!(c.core.epochs(), a.core.epochs(), "nothing is left of the epoch that was its own");
    let kept: Vec<_> = std::fs::read_dir(c.dir.path().join("divergent")).unwrap().map(|entry| entry.unwrap()).collect();
    assert_eq!(kept.iter().map(|entry| entry.metadata().unwrap().len()).collect::<Vec<_>>(), [own]);
    let told = c.core.report().last_cut.expect("the cut is reported");
    assert!(told.number >= 1 && told.epoch == Epoch(3), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catching_up_slave_goes_on_after_a_break() {
    let (a, b, c) = (Node::start("a").await, Node::start("b").await, Node::start("c").await);
    let record = a.lead(1, &[&b]).await;
    b.follow(&record, &a).await;
    let body = "x".repeat(60_000);
    for _ in 0..60 {
        a.acked(&body).await;
    }
    c.follow(&record, &a).await;
    c.until("a part", |c| c.store.watermarks().written.0 > 256 << 10).await;
    let part = c.store.watermarks().written;
    let dir = c.stop().await;
    let c = Node::open(dir, "c", "token").await;
    assert!(c.store.watermarks().written >= part);
    c.follow(&record, &a).await;
    let end = a.store.watermarks().written;
    c.until("the whole log", |c| c.store.watermarks().written == end).await;
    assert!(a.log() == c.log());
    assert!(!c.dir.path().join("divergent").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_the_old_master_had_is_cut_kept_aside_and_never_acknowledged() {
    let (a, b, c) = (Node::start("a").await, Node::start("b").await, Node::start("c").await);
    let record = a.lead(1, &[&b, &c]).await;
    b.follow(&record, &a).await;
    c.follow(&record, &a).await;
    for n in 0..20 {
        a.acked(&format!("kept {n}")).await;
    }
    let shared = a.store.watermarks().written;
    for slave in [&b, &c] {
        slave.until("all so far", |slave| slave.store.watermarks().written == shared).await;
    }
    // Both slaves leave for the next epoch; what the old master still takes in reaches nobody.
    let second = b.lead(2, &[&c]).await;
    c.follow(&second, &b).await;
    let lost = a.send("never acknowledged");
    a.until("the divergent write", |a| a.store.watermarks().written > shared).await;
    b.acked("of the new epoch").await;
    let divergent = a.store.watermarks().written.0 - shared.0;

    a.follow(&second, &b).await;
    let failure = timeout(PATIENCE, lost).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(failure, SendFailure::SwitchingOver), "{failure}");
    let end = b.store.watermarks().written;
    a.until("the new master's log", |a| a.store.watermarks().written == end && a.core.report().last_epoch == Epoch(2))
        .await;
    assert_eq!(a.log(), b.log());
    let kept: Vec<_> = std::fs::read_dir(a.dir.path().join("divergent")).unwrap().map(|entry| entry.unwrap()).collect();
    assert_eq!(kept.iter().map(|entry| entry.metadata().unwrap().len()).collect::<Vec<_>>(), [divergent]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_slave_goes_on_from_where_its_log_ends() {
    let (a, b) = (Node::start("a").await, Node::start("b").await);
    let record = a.lead(1, &[&b]).await;
    b.follow(&record, &a).await;
    a.acked("first").await;
    let member = b.core.member();
    let dir = b.stop().await;
    let b = Node::open(dir, "b", "token").await;
    assert_eq!(b.core.member(), member);
    assert_eq!(b.core.report().promised, Epoch(1));
    let second = a.send("while it was away");
    b.follow(&record, &a).await;
    timeout(PATIENCE, second).await.unwrap().unwrap().unwrap();
    assert_eq!(a.log(), b.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn promises_are_kept_an_epoch_is_opened_once_and_never_again_below_it() {
    let (a, b) = (Node::start("a").await, Node::start("b").await);
    let record = a.lead(3, &[&b]).await;
    let dir = a.stop().await;
    let a = Node::open(dir, "a", "token").await;
    for epoch in [2, 3] {
        let (done, became) = oneshot::channel();
        let again = GroupRecord { epoch: Epoch(epoch), ..record.clone() };
        a.core.submit_job(Job::BecomeMaster(again, done));
        let said = became.await.unwrap().unwrap_err().to_string();
        assert!(said.contains("promised"), "{said}");
    }
    assert_eq!(*a.core.watch_standing().borrow(), Standing::Fenced);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slave_that_reconnects_under_load_cuts_nothing() {
    let (a, b) = (Node::start("a").await, Node::start("b").await);
    let record = a.lead(1, &[&b]).await;
    b.follow(&record, &a).await;
    let body = "x".repeat(20_000);
    let port = a.ha.local_addr().port();
    let mut sends = Vec::new();
    for round in 0..20 {
        let before = a.store.watermarks().written;
        sends.extend((0..20).map(|_| a.send(&body)));
        // Another name of the same address: the connection is left with pieces on their way to the writer.
        b.follow_at(&record, format!("{}:{port}", if round % 2 == 0 { "localhost" } else { "127.0.0.1" })).await;
        b.until("the round before", |b| b.store.watermarks().written >= before).await;
    }
    for send in sends {
        timeout(PATIENCE, send).await.unwrap().unwrap().unwrap();
    }
    assert!(a.log() == b.log(), "byte by byte");
    assert!(!b.dir.path().join("divergent").exists(), "good bytes were taken for divergent ones");
}

/// Frames as they go over the wire, said by somebody who means no good.
mod frames {
    pub(super) fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![b'G', 1, kind, 0];
        frame.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        frame.extend_from_slice(payload);
        frame
    }

    pub(super) fn hello(group: &str, token: &str, member: &str, promised: u64) -> Vec<u8> {
        let hello = format!(
            r#"{{"group":"{group}","token":"{token}","member":"{member}","promised":{promised},"epochs":[],"begin":0,"end":0,"life":1}}"#
        );
        frame(1, hello.as_bytes())
    }

    pub(super) fn ack(session: u64, written: u64, flushed: u64) -> Vec<u8> {
        frame(4, &[session.to_be_bytes(), written.to_be_bytes(), flushed.to_be_bytes()].concat())
    }
}

const STRANGER: &str = "s#000000000000abcd";
const FENCED: [u8; 3] = [b'G', 1, 6];

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_refused_by_name_and_gets_nothing() {
    let a = Node::start("a").await;
    a.lead(1, &[]).await;
    for (group, token) in [("g", "another token"), ("g", ""), ("another group", "token")] {
        let answer = say(&a, &frames::hello(group, token, STRANGER, 9)).await;
        assert_eq!(answer[..3], FENCED);
        assert!(String::from_utf8_lossy(&answer[8..]).contains("another group, or shows another token"));
    }
    assert!(a.core.slaves().is_empty());
    assert_eq!(*a.core.watch_standing().borrow(), Standing::Master { epoch: Epoch(1), start: 0 }, "and deposes nobody");
    assert!(say(&a, &0_u64.to_be_bytes()).await.is_empty(), "a slave of the classic protocol is closed");
    a.until("all counted", |a| refused(a) == 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_and_frames_that_are_too_large_are_closed_at_once() {
    let a = Node::start("a").await;
    a.lead(1, &[]).await;
    let two_mib = (2_u32 << 20).to_be_bytes();
    let said: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[b'G', 1, 1, 0, two_mib[0], two_mib[1], two_mib[2], two_mib[3]],
        &frames::frame(1, b"{\"group\":"),
        &frames::frame(77, b""),
        &frames::ack(1, 0, 0),
    ];
    for (count, bytes) in said.iter().enumerate() {
        assert!(say(&a, bytes).await.is_empty(), "{bytes:?}");
        a.until("counted", |a| refused(a) == count as u64 + 1).await;
    }
    assert!(a.core.slaves().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_that_cannot_be_ends_the_connection_and_counts_for_nothing() {
    let (a, b) = (Node::start("a").await, Node::start("b").await);
    let record = a.lead(1, &[&b]).await;
    let early = a.send("not on b");
    a.until("the write", |a| a.store.watermarks().written.0 > 0).await;
    let end = a.store.watermarks().written.0;
    let b_itself = b.core.member().to_string();
    for (count, ack) in
        [frames::ack(1, end + 1, 0), frames::ack(1, end, end + 1), frames::ack(2, end, end)].iter().enumerate()
    {
        let said = [frames::hello("g", "token", &b_itself, 1), ack.clone()].concat();
        let answer = say(&a, &said).await;
        assert_eq!(answer[..3], [b'G', 1, 2], "welcome; the connection ends by the acknowledgement");
        a.until("counted", |a| refused(a) == count as u64 + 1).await;
    }
    assert_eq!(a.store.watermarks().confirmed.0, 0);
    b.follow(&record, &a).await;
    timeout(PATIENCE, early).await.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_slaves_store_is_refused_while_the_slave_is_heard() {
    let (a, b) = (Node::start("a").await, Node::start("b").await);
    let record = a.lead(1, &[&b]).await;
    b.follow(&record, &a).await;
    a.acked("on b").await;
    let answer = say(&a, &frames::hello("g", "token", &b.core.member().to_string(), 1)).await;
    assert_eq!(answer[..3], FENCED);
    let text = String::from_utf8_lossy(&answer[8..]);
    assert!(text.contains("is connected from 127.0.0.1") && text.contains("copy"), "{text}");
    a.acked("the slave goes on").await;
    let own_name = say(&a, &frames::hello("g", "token", "a#000000000000abcd", 1)).await;
    assert!(String::from_utf8_lossy(&own_name[8..]).contains("the master's own name"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_stops_leaves_no_connection_behind() {
    let (a, b) = (Node::start("a").await, Node::start("b").await);
    let record = a.lead(1, &[&b]).await;
    b.follow(&record, &a).await;
    a.acked("on b").await;
    let links = a.ha.links();
    assert_eq!(links.len(), 1);
    assert_eq!((&links[0].member, links[0].epoch), (&b.core.member(), Epoch(1)));
    assert_eq!((links[0].written, links[0].next), (a.store.watermarks().written.0, a.store.watermarks().written.0));
    a.stop().await;
    b.until("the end of the connection", |b| b.core.report().master_heard_ms_ago.is_none()).await;
}

fn refused(node: &Node) -> u64 {
    node.ha.counters().refused.load(Relaxed)
}

/// What the HA port answers before it closes.
async fn say(node: &Node, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(node.ha.local_addr()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A reset is an end, too.
    drop(timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("in time"));
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn parked_sends_wait_and_go_to_whoever_is_next_or_on_where_they_were() {
    let (a, b) = (Node::start("a").await, Node::start("b").await);
    let record = a.lead(1, &[&b]).await;
    b.follow(&record, &a).await;
    a.acked("before").await;
    a.core.submit_job(Job::Park(record.epoch, b.core.member()));
    let given_up = a.send("parked, then let go");
    a.until("drained", |a| a.core.report().drained).await;
    a.core.submit_job(Job::Unpark(record.epoch));
    timeout(PATIENCE, given_up).await.unwrap().unwrap().unwrap();

    a.core.submit_job(Job::Park(record.epoch, b.core.member()));
    let moved_on = a.send("parked, then sent away");
    a.until("drained", |a| a.core.report().drained).await;
    let end = a.store.watermarks().written;
    assert_eq!(b.store.watermarks().written, end, "the candidate has everything");
    let second = b.lead(2, &[&a]).await;
    a.follow(&second, &b).await;
    let failure = timeout(PATIENCE, moved_on).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(failure, SendFailure::SwitchingOver), "{failure}");
    b.acked("after").await;
    assert_eq!(a.log(), b.log());
}
