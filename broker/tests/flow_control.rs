//! Sends that a busy or full disk can't take, on a disk that the test slows down and fills.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is the failure")]

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use gantry_broker::clock::Clock;
use gantry_broker::core::{Core, DivergentLimits, FlowLimits, Job, Limits};
use gantry_broker::replica::ReplicaState;
use gantry_broker::services::{Done, Log, SendFailure, Submission, Wait};
use gantry_replication::master::{Config, Durability, Mode};
use gantry_replication::{Epoch, GroupRecord};
use gantry_store::fs::{Entry, File, Fs, Map, OpenMode, RealFs, Space};
use gantry_store::{Appended, Dispatched, Events, NewMessage, PhysicalOffset, Retention, Store, StoreFailure};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);
/// Longer than any test takes.
const NEVER_MS: u64 = 1_000_000;
const SEGMENT_BYTES: u64 = 1 << 20;

/// A disk whose log takes writes when the test lets it, and that has as much room as the test says.
#[derive(Clone)]
struct Disk(Arc<Controls>);

struct Controls {
    open: Mutex<bool>,
    opened: Condvar,
    /// Writes to the log that were begun.
    begun: AtomicU64,
    available: AtomicU64,
}

struct DiskFile {
    real: Arc<dyn File>,
    /// A segment's.
    gate: Option<Arc<Controls>>,
}

impl Disk {
    fn new() -> Self {
        let (open, available) = (Mutex::new(true), AtomicU64::new(1 << 40));
        Self(Arc::new(Controls { open, opened: Condvar::new(), begun: AtomicU64::new(0), available }))
    }

    fn let_write(&self, open: bool) {
        *self.0.open.lock().unwrap() = open;
        self.0.opened.notify_all();
    }
}

impl Fs for Disk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let segment = path.to_string_lossy().contains("commitlog");
        let gate = segment.then(|| Arc::clone(&self.0));
        Ok(Arc::new(DiskFile { real: RealFs.open(path, mode)?, gate }))
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        RealFs.create_dir_all(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        RealFs.list(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealFs.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        RealFs.remove_file(path)
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        RealFs.remove_dir_all(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealFs.sync_dir(path)
    }
    fn space(&self, _path: &Path) -> io::Result<Space> {
        let available_bytes = self.0.available.load(Ordering::SeqCst);
        Ok(Space { available_bytes, free_bytes: available_bytes, total_bytes: 1 << 40 })
    }
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        RealFs.lock(path)
    }
}

impl File for DiskFile {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if let Some(controls) = &self.gate {
            controls.begun.fetch_add(1, Ordering::SeqCst);
            let open = controls.open.lock().unwrap();
            drop(controls.opened.wait_while(open, |open| !*open).unwrap());
        }
        self.real.write_all_at(bytes, offset)
    }
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.real.read_at(bytes, offset)
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.real.allocate(len)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.real.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.real.sync_data()
    }
    fn sync_all(&self) -> io::Result<()> {
        self.real.sync_all()
    }
    fn len(&self) -> io::Result<u64> {
        self.real.len()
    }
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.real.next_data(offset)
    }
    fn map(&self) -> io::Result<Map> {
        self.real.map()
    }
}

struct NoEvents;

impl Events for NoEvents {
    fn flushed(&self, _offset: PhysicalOffset) {}
    fn dispatched(&self, _batch: &[Dispatched]) {}
    fn failed(&self, failure: &Arc<StoreFailure>) {
        panic!("{failure}");
    }
}

/// A master that stands alone.
struct Master {
    _dir: TempDir,
    disk: Disk,
    core: Arc<Core>,
    store: Store,
    writer: Option<JoinHandle<()>>,
}

type Outcome = oneshot::Receiver<Result<Appended, SendFailure>>;

impl Master {
    async fn start(max_queued_sends: usize, flow: FlowLimits, warning_percent: u8) -> Self {
        let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::new());
        let mut config = gantry_store::Config::new(dir.path());
        config.segment_bytes = SEGMENT_BYTES;
        config.retention = Retention {
            check_interval: Duration::from_millis(1),
            forcibly: false,
            warning_percent,
            ..Retention::default()
        };
        let opened = gantry_store::open_on(Arc::new(disk.clone()), config, Arc::new(NoEvents));
        let (store, appender) = opened.unwrap();
        let replica = ReplicaState::open(dir.path(), "a", false).unwrap();
        let limits = Limits {
            max_queued_sends,
            max_parked_sends: 10,
            flow,
            pressure: None,
            slave_timeout_ms: NEVER_MS,
            sync_flush_timeout_ms: NEVER_MS,
            divergent: DivergentLimits::default(),
        };
        let settings = Config::new(Mode::Async, Durability::Written, 1);
        let (core, writer) = Core::start(store.clone(), appender, replica, settings, limits, Clock::start()).unwrap();
        let me = core.member();
        let record = GroupRecord { epoch: Epoch(1), revision: 1, master: me.clone(), in_sync: BTreeSet::from([me]) };
        let (done, became) = oneshot::channel();
        core.submit_job(Job::BecomeMaster(record, done));
        became.await.unwrap().unwrap();
        core.submit_job(Job::Open(Epoch(1)));
        let master = Self { _dir: dir, disk, core, store, writer: Some(writer) };
        master.send("t", 1).await.unwrap().unwrap();
        master
    }

    fn send(&self, topic: &str, bytes: usize) -> Outcome {
        let (tell, told) = oneshot::channel();
        let done = Done::Call(Box::new(move |outcome| drop(tell.send(outcome))));
        self.core.submit(vec![Submission { append: message(topic, bytes).into(), wait: Wait::Acked, done }]);
        told
    }

    /// The writer hangs in a write of this send.
    async fn stick(&self) -> Outcome {
        self.disk.let_write(false);
        let begun = self.disk.0.begun.load(Ordering::SeqCst);
        let stuck = self.send("t", 1);
        self.until("the write has begun", || self.disk.0.begun.load(Ordering::SeqCst) > begun).await;
        stuck
    }

    /// Ticks, as the broker does, until there is an answer.
    async fn answer(&self, mut outcome: Outcome) -> Result<Appended, String> {
        let mut answer = None;
        self.until("an answer", || {
            self.core.tick();
            answer = outcome.try_recv().ok();
            answer.is_some()
        })
        .await;
        answer.unwrap().map_err(|failure| failure.refusal(513).remark.into_owned())
    }

    async fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let waited = timeout(PATIENCE, async {
            while !holds() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        waited.await.unwrap_or_else(|_| panic!("waited for {what}"));
    }

    fn messages(&self) -> u64 {
        self.store.queue_range("t", 0).max.0
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        self.disk.let_write(true);
        self.core.stop();
        let ended = self.writer.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || ended.is_none_or(|ended| ended.is_ok()), "the writer panicked");
    }
}

fn message(topic: &str, bytes: usize) -> NewMessage {
    let host = "127.0.0.1:1".parse().unwrap();
    NewMessage {
        topic: topic.into(),
        queue_id: 0,
        flag: 0,
        sys_flag: 0,
        born_timestamp_ms: 0,
        born_host: host,
        store_host: host,
        reconsume_times: 0,
        prepared_offset: 0,
        body: vec![7; bytes].into(),
        properties: bytes::Bytes::new(),
    }
}

fn flow(send_wait_ms: u64, page_cache_busy_ms: u64) -> FlowLimits {
    FlowLimits { fast_failure: true, send_wait_ms, page_cache_busy_ms }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_send_that_waited_too_long_is_refused_and_leaves_no_trace() {
    let master = Master::start(100, flow(20, NEVER_MS), 90).await;
    let stuck = master.stick().await;
    let (first, second) = (master.send("t", 1), master.send("t", 1));
    let own = master.send("GANTRY_SYS_TEST", 1);
    let text = master.answer(first).await.unwrap_err();
    assert!(
        text.starts_with("[TIMEOUT_CLEAN_QUEUE]broker busy, start flow control for a while, period in queue: "),
        "{text}"
    );
    assert!(text.ends_with("ms, size of queue: 3"), "{text}");
    master.answer(second).await.unwrap_err();
    assert_eq!(master.core.counters().timed_out.load(Ordering::Relaxed), 2);
    master.disk.let_write(true);
    master.answer(stuck).await.expect("what was begun is done");
    master.answer(own).await.expect("the broker's own records wait as long as it takes");
    master.answer(master.send("t", 1)).await.unwrap();
    master.until("three messages", || master.messages() == 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_write_hangs_those_who_wait_and_those_who_come_are_refused() {
    let master = Master::start(100, flow(NEVER_MS, 20), 90).await;
    let stuck = master.stick().await;
    let text = master.answer(master.send("t", 1)).await.unwrap_err();
    assert!(text.starts_with("[PCBUSY_CLEAN_QUEUE]broker busy") && text.ends_with("size of queue: 1"), "{text}");
    let text = master.answer(master.send("t", 1)).await.unwrap_err();
    assert_eq!(text, "[REJECTREQUEST]system busy, start flow control for a while");
    master.disk.let_write(true);
    master.answer(stuck).await.unwrap();
    master.answer(master.send("t", 1)).await.unwrap();
    let counters = master.core.counters();
    assert_eq!((counters.page_cache_busy.load(Ordering::Relaxed), counters.rejected.load(Ordering::Relaxed)), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_told() {
    let master = Master::start(2, flow(NEVER_MS, NEVER_MS), 90).await;
    let stuck = master.stick().await;
    let waiting = [master.send("t", 1), master.send("t", 1)];
    let text = master.answer(master.send("t", 1)).await.unwrap_err();
    assert_eq!(text, "[OVERLOAD]system busy, start flow control for a while");
    assert_eq!(master.core.counters().overload.load(Ordering::Relaxed), 1);
    master.disk.let_write(true);
    master.answer(stuck).await.unwrap();
    for waiting in waiting {
        master.answer(waiting).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_fast_failure_off_everybody_waits() {
    let limits = FlowLimits { fast_failure: false, ..flow(0, 0) };
    let master = Master::start(100, limits, 90).await;
    let stuck = master.stick().await;
    let waiting = master.send("t", 1);
    for _ in 0..20 {
        master.core.tick();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    master.disk.let_write(true);
    master.answer(stuck).await.unwrap();
    master.answer(waiting).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_above_its_warning_level_refuses_clients_until_there_is_room() {
    let master = Master::start(100, FlowLimits::default(), 90).await;
    master.disk.0.available.store((1 << 40) / 100 * 9, Ordering::SeqCst);
    master.until("the store knows", || master.store.disk().full).await;
    let text = master.answer(master.send("t", 1)).await.unwrap_err();
    assert!(
        text.starts_with(
            "service not available now. It may be caused by one of the following reasons: \
             the broker's disk is full [CL:  0.92 CQ:  0.92 INDEX:  0.92], messages are put to the slave,"
        ),
        "{text}"
    );
    master.answer(master.send("GANTRY_SYS_TEST", 1)).await.expect("metadata and heartbeats go on");
    assert_eq!(master.core.counters().disk_full.load(Ordering::Relaxed), 1);
    master.disk.0.available.store(1 << 39, Ordering::SeqCst);
    master.until("the store knows", || !master.store.disk().full).await;
    master.answer(master.send("t", 1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_no_room_for_a_segment_nothing_is_half_appended_and_the_disk_still_proves_itself() {
    let master = Master::start(100, FlowLimits::default(), 100).await;
    master.disk.0.available.store(SEGMENT_BYTES - 1, Ordering::SeqCst);
    let mut acked = 1;
    let text = loop {
        match master.answer(master.send("t", 300 << 10)).await {
            Ok(_) => acked += 1,
            Err(text) => break text,
        }
        assert!(acked < 10, "a segment has room for three");
    };
    assert!(
        text.starts_with("service not available now.") && text.contains("the broker's disk is full [CL:"),
        "{text}"
    );
    assert_eq!(master.messages_when_dispatched().await, acked);

    // Not even a heartbeat record fits: it fills the segment first.
    for bytes in [50 << 10, 5 << 10, 500, 50, 0] {
        while master.answer(master.send("GANTRY_SYS_HEARTBEAT", bytes)).await.is_ok() {}
    }
    let alive = || master.core.report().data_plane_alive;
    master.until("a proof is due", || master.core.needs_heartbeat_record(100)).await;
    master.core.submit_job(Job::Heartbeat(message("GANTRY_SYS_HEARTBEAT", 0).into()));
    master.until("a proof", || !master.core.needs_heartbeat_record(100)).await;
    assert!(alive());

    master.disk.0.available.store(1 << 40, Ordering::SeqCst);
    master.answer(master.send("t", 300 << 10)).await.expect("taken again by itself");
    assert_eq!(master.messages_when_dispatched().await, acked + 1);
}

impl Master {
    async fn messages_when_dispatched(&self) -> u64 {
        self.until("all is visible", || {
            let marks = self.store.watermarks();
            marks.dispatched == marks.written
        })
        .await;
        self.messages()
    }
}
