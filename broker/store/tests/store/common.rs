//! What the store's tests share.
#![allow(unreachable_pub, reason = "a test program exports nothing")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gantry_store::fs::Fs;
use gantry_store::record::{self, RecordView};
use gantry_store::{
    Append, AppendError, Appended, Appender, Clock, Config, Dispatched, Events, Flush, NewMessage, OpenError,
    PhysicalOffset, Query, QueueOffset, ReadLimits, ReadLog, ReadQueue, ReadStatus, Store, StoreFailure, open, open_on,
    properties,
};
use parking_lot::{Condvar, Mutex};
use tempfile::TempDir;

/// Small segments, so that a few messages fill several.
pub const SEGMENT_BYTES: u64 = 16 << 10;
pub const ALL: ReadLimits = ReadLimits::new(1 << 20, usize::MAX);
/// What the stores' clock says, unless a test moves it.
pub const NOW_MS: i64 = 1_700_000_000_000;
const DEADLINE: Duration = Duration::from_mins(1);

/// Remembers what the store tells, and lets a test wait for it.
#[derive(Default)]
pub struct Recorder {
    told: Mutex<Told>,
    changed: Condvar,
}

#[derive(Clone, Default)]
pub struct Told {
    pub flushed: Vec<PhysicalOffset>,
    pub dispatched: Vec<Dispatched>,
    pub failed: Vec<Arc<StoreFailure>>,
}

impl Recorder {
    pub fn told(&self) -> Told {
        self.told.lock().clone()
    }

    /// Waits until `condition` holds for what was told; fails the test when it takes too long.
    pub fn wait(&self, what: &str, mut condition: impl FnMut(&Told) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        let mut told = self.told.lock();
        while !condition(&told) {
            let late = self.changed.wait_until(&mut told, deadline).timed_out();
            assert!(!late || condition(&told), "waited in vain: {what}");
        }
    }

    fn tell(&self, change: impl FnOnce(&mut Told)) {
        change(&mut self.told.lock());
        self.changed.notify_all();
    }
}

impl Events for Recorder {
    fn flushed(&self, offset: PhysicalOffset) {
        self.tell(|told| told.flushed.push(offset));
    }

    fn dispatched(&self, batch: &[Dispatched]) {
        self.tell(|told| told.dispatched.extend_from_slice(batch));
    }

    fn failed(&self, failure: &Arc<StoreFailure>) {
        self.tell(|told| told.failed.push(Arc::clone(failure)));
    }
}

/// An open store and who listens to it. Dropped without `close` it is as killed.
pub struct Opened {
    pub store: Store,
    pub appender: Appender,
    pub events: Arc<Recorder>,
}

pub fn config(root: &Path) -> Config {
    Config {
        segment_bytes: SEGMENT_BYTES,
        queue_file_units: 16,
        // So small that messages fill several files, and slots hold several entries.
        index_slots: 7,
        index_entries: 20,
        flush: Flush::Sync,
        checkpoint_interval: Duration::from_millis(5),
        max_open_queue_files: 3,
        clock: Clock::new(|| NOW_MS),
        ..Config::new(root)
    }
}

pub fn open_in(root: &Path) -> Opened {
    try_open(config(root)).unwrap()
}

pub fn try_open(config: Config) -> Result<Opened, OpenError> {
    let events = Arc::new(Recorder::default());
    open(config, events.clone()).map(|(store, appender)| Opened { store, appender, events })
}

pub fn try_open_on(fs: Arc<dyn Fs>, config: Config) -> Result<Opened, OpenError> {
    let events = Arc::new(Recorder::default());
    open_on(fs, config, events.clone()).map(|(store, appender)| Opened { store, appender, events })
}

pub fn message(topic: &str, queue_id: u32, body: &[u8]) -> NewMessage {
    NewMessage {
        topic: topic.into(),
        queue_id,
        flag: 0,
        sys_flag: 0,
        born_timestamp_ms: 1_600_000_000_000,
        born_host: "10.0.0.1:1234".parse().unwrap(),
        store_host: "10.0.0.2:10911".parse().unwrap(),
        reconsume_times: 0,
        prepared_offset: 0,
        body: body.to_vec().into(),
        properties: bytes::Bytes::from_static(b"TAGS\x01TagA\x02KEYS\x01k\x02"),
    }
}

impl Opened {
    pub fn append(&mut self, batch: &[Append]) -> Vec<Result<Appended, AppendError>> {
        let mut results = Vec::new();
        self.appender.append(batch, &mut results);
        assert_eq!(results.len(), batch.len());
        results
    }

    /// Appends one message, which must succeed.
    pub fn put(&mut self, topic: &str, queue_id: u32, body: &[u8]) -> Appended {
        self.append(&[message(topic, queue_id, body).into()]).remove(0).unwrap()
    }

    /// Confirms all that is written, and waits until it can be read, and found by key.
    pub fn confirm_all(&self) {
        self.dispatch_all();
        self.assert_all_are_found_by_key();
    }

    /// Confirms all that is written, and waits until it can be read.
    pub fn dispatch_all(&self) {
        let written = self.store.watermarks().written;
        self.store.confirm(written);
        wait_until("dispatch", || self.store.watermarks().dispatched == written);
    }

    /// Every visible message has the key `k`, unless a test gave it others, and must be found by it; nothing else must.
    pub fn assert_all_are_found_by_key(&self) {
        let mut expected = BTreeMap::<String, Vec<PhysicalOffset>>::new();
        let mut from = self.store.min_offset();
        loop {
            let (bytes, next) = match self.store.read_log(from, 0).unwrap() {
                ReadLog::Bytes { bytes, next } => (bytes, next),
                // Retention may be deleting meanwhile.
                ReadLog::Gone { oldest } => {
                    from = oldest;
                    continue;
                }
                ReadLog::AtEnd => break,
            };
            let record =
                record::decode(&bytes).ok().filter(|record| properties::get(record.properties, "KEYS") == Some("k"));
            if let Some(record) = record.filter(|_| next <= self.store.watermarks().dispatched) {
                expected.entry(record.topic.to_owned()).or_default().insert(0, from);
            }
            from = next;
        }
        for (topic, mut expected) in expected {
            let mut found = self.find(&topic, "k");
            let oldest = self.store.min_offset();
            expected.retain(|at| *at >= oldest);
            found.retain(|at| *at >= oldest);
            assert_eq!(found, expected, "messages of {topic}, by key");
        }
    }

    /// Where messages with a key lie, the newest first.
    pub fn find(&self, topic: &str, key: &str) -> Vec<PhysicalOffset> {
        let query = Query { topic, key, max_count: usize::MAX, begin_ms: 0, end_ms: i64::MAX };
        let found = self.store.query(&query).unwrap().records;
        found.iter().map(|bytes| decode(bytes).physical).collect()
    }

    pub fn wait_flushed(&self) {
        let written = self.store.watermarks().written;
        wait_until("flush", || self.store.watermarks().flushed >= written);
    }

    pub fn read(&self, topic: &str, queue_id: u32, from: u64) -> ReadQueue {
        self.store.read_queue(topic, queue_id, QueueOffset(from), ALL, |_| true).unwrap()
    }

    /// All messages that a consumer of the queue gets, from its oldest on: their numbers and bodies.
    pub fn consume(&self, topic: &str, queue_id: u32) -> Vec<(u64, Vec<u8>)> {
        let mut next = self.store.queue_range(topic, queue_id).min.0;
        let mut messages = Vec::new();
        loop {
            let read = self.read(topic, queue_id, next);
            if !matches!(read.status, ReadStatus::Found | ReadStatus::NoMatchedMessage) {
                return messages;
            }
            for bytes in &read.messages {
                let record = record::decode(bytes).unwrap();
                messages.push((record.queue_offset.0, record.body.to_vec()));
            }
            assert!(read.next.0 > next, "a read goes on");
            next = read.next.0;
        }
    }

    pub fn close(self) {
        self.store.close().unwrap();
    }

    /// As `kill -9`: nothing is flushed or written any more.
    pub fn kill(self) {
        drop(self);
    }
}

/// The whole log as it lies in the files, blanks included.
pub fn log_bytes(store: &Store) -> Vec<u8> {
    let mut all = Vec::new();
    let mut from = store.min_offset();
    while let ReadLog::Bytes { bytes, next } = store.read_log(from, 4096).unwrap() {
        assert_eq!(next, from + bytes.len() as u64);
        all.extend_from_slice(&bytes);
        from = next;
    }
    assert_eq!(from, store.watermarks().written);
    all
}

/// Copies all of `from`'s log behind `to`'s end.
pub fn replicate(from: &Store, to: &mut Appender, mut at: PhysicalOffset, max_bytes: usize) -> PhysicalOffset {
    while let ReadLog::Bytes { bytes, next } = from.read_log(at, max_bytes).unwrap() {
        assert_eq!(to.append_raw(at, &bytes).unwrap(), next);
        at = next;
    }
    at
}

pub fn decode(bytes: &[u8]) -> RecordView<'_> {
    record::decode(bytes).unwrap()
}

/// Waits on a condition that nothing announces.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::yield_now();
    }
}

/// A directory in memory where the system has such: thousands of small stores need no disk.
pub fn memory_dir() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A small generator: the same seed, the same numbers.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit.max(1)
    }
}
