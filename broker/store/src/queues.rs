//! The consume queues: per (topic, queue) a file of 20-byte units that point into the log, RocketMQ's `ConsumeQueue`.
//!
//! They are read and written with `pread` and `pwrite`, not mapped: so thousands of queues need neither maps nor
//! more open files than [`files::QueueFiles`] allows, and a cut may overwrite units.
//!
//! What recovery may trust: units of records below the checkpoint's `dispatched` were synced before the checkpoint
//! said so. All others are zeroed at open ([`recover`]) and made again from the log. In between, a queue's units
//! `[min, max)` are whole and in log order, and everything from `max` on is zeros or about to be overwritten.

pub(crate) mod files;
pub(crate) mod recover;
pub(crate) mod unit;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use self::files::QueueFiles;
use self::unit::{UNIT_BYTES, Unit};
use crate::{QueueOffset, QueueRange};

/// Where the queues are, under the store's root.
pub(crate) const DIRECTORY: &str = "consumequeue";

/// A queue that a record numbers further ahead than this is not filled up: the number must be wrong.
const MAX_GAP_UNITS: u64 = 3_000_000;

/// One queue. Only the dispatcher (or, behind its gate, a truncation) changes it.
pub(crate) struct Queue {
    pub(crate) topic: Arc<str>,
    pub(crate) id: u32,
    /// Names the queue in the table of open files.
    key: u32,
    directory: PathBuf,
    /// The first unit that can be read.
    min: AtomicU64,
    /// The unit after the last that can be read. `min ≤ max`.
    max: AtomicU64,
    /// Units below it may have been written, visible or not. `max ≤ touched`.
    touched: AtomicU64,
}

/// All queues.
pub(crate) struct Queues {
    root: PathBuf,
    pub(crate) files: QueueFiles,
    table: RwLock<Table>,
    next_key: AtomicU64,
}

/// By topic, by number.
type Table = HashMap<Arc<str>, HashMap<u32, Arc<Queue>>>;

/// What a record's queue offset means for its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The next one.
    Next,
    /// It was there already.
    Repeated,
    /// Some before it are missing: they are filled with blanks.
    Gap,
    /// The queue is new and doesn't begin at 0.
    Begin,
    /// Too far ahead to be true.
    Implausible,
}

/// Judges a record's queue offset where `next` is expected; `fresh` queues have no unit yet.
pub(crate) fn step(next: u64, fresh: bool, offset: u64) -> Step {
    const LAST: u64 = i64::MAX as u64 / UNIT_BYTES as u64;
    match offset {
        _ if offset == next => Step::Next,
        _ if offset < next => Step::Repeated,
        _ if offset > LAST => Step::Implausible,
        _ if fresh => Step::Begin,
        _ if offset - next <= MAX_GAP_UNITS => Step::Gap,
        _ => Step::Implausible,
    }
}

impl Queue {
    pub(crate) fn range(&self) -> QueueRange {
        // `min` first: it never exceeds a `max` that is read later, but for a cut, which readers notice by zeros.
        let min = self.min.load(Ordering::Acquire);
        let max = self.max.load(Ordering::Acquire);
        QueueRange { min: QueueOffset(min.min(max)), max: QueueOffset(max) }
    }

    pub(crate) fn max(&self) -> u64 {
        self.max.load(Ordering::Acquire)
    }

    /// Where its files are.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Units below `min` are not shown any more. Behind the dispatcher's gate.
    pub(crate) fn raise_min(&self, min: u64) {
        self.min.fetch_max(min.min(self.max()), Ordering::AcqRel);
    }

    /// Whether it has no unit that can be read.
    pub(crate) fn is_drained(&self) -> bool {
        self.min.load(Ordering::Acquire) >= self.max()
    }

    /// Whether it never had a unit.
    pub(crate) fn is_fresh(&self) -> bool {
        self.max() == 0
    }

    /// Makes units below `max` readable.
    pub(crate) fn publish(&self, max: u64) {
        assert!(max >= self.max() && max <= self.touched.load(Ordering::Acquire), "{self:?}: published to {max}");
        self.max.store(max, Ordering::Release);
    }

    /// A fresh queue's first unit is number `first`; nobody can read it yet.
    pub(crate) fn begin_at(&self, first: u64) {
        assert!(self.is_fresh(), "{self:?}: begins at {first}");
        self.min.store(first, Ordering::Release);
        self.touched.store(first, Ordering::Release);
        self.max.store(first, Ordering::Release);
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let range = self.range();
        write!(f, "{} queue {} [{}, {})", self.topic, self.id, range.min, range.max)
    }
}

impl Queues {
    pub(crate) fn new(root: PathBuf, files: QueueFiles) -> Self {
        Self { root, files, table: RwLock::default(), next_key: AtomicU64::new(0) }
    }

    pub(crate) fn get(&self, topic: &str, queue_id: u32) -> Option<Arc<Queue>> {
        self.table.read().get(topic)?.get(&queue_id).cloned()
    }

    /// The queue, made (in memory) if missing.
    pub(crate) fn get_or_add(&self, topic: &str, queue_id: u32) -> Arc<Queue> {
        if let Some(queue) = self.get(topic, queue_id) {
            return queue;
        }
        let mut table = self.table.write();
        let topic = table.get_key_value(topic).map_or_else(|| Arc::from(topic), |(name, _)| Arc::clone(name));
        let queue = self.new_queue(Arc::clone(&topic), queue_id);
        Arc::clone(table.entry(topic).or_default().entry(queue_id).or_insert(queue))
    }

    /// All of them, sorted by topic and number.
    pub(crate) fn all(&self) -> Vec<Arc<Queue>> {
        let mut all: Vec<_> = self.table.read().values().flat_map(|queues| queues.values().cloned()).collect();
        all.sort_by(|a, b| (&a.topic, a.id).cmp(&(&b.topic, b.id)));
        all
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.table.read().values().map(HashMap::len).sum()
    }

    /// The messages that can be read: fewer, when a file of a queue is lost.
    pub(crate) fn visible(&self) -> u64 {
        let units = |queue: &Arc<Queue>| queue.max() - queue.min.load(Ordering::Acquire).min(queue.max());
        self.table.read().values().flat_map(HashMap::values).map(units).sum()
    }

    /// What all units take that can be read: files are sparse.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.visible() * UNIT_BYTES as u64
    }

    /// Reads units from `from` on into `into`, as many as fit and lie in one file; answers how many.
    pub(crate) fn read(&self, queue: &Queue, from: u64, into: &mut [u8]) -> Result<usize, (PathBuf, io::Error)> {
        let units = self.files.units_per_file();
        let (file_no, index) = (from / units, from % units);
        let wanted = (into.len() / UNIT_BYTES).min((units - index) as usize);
        let Some(file) = self.files.existing(queue, file_no)? else { return Ok(0) };
        let read = file.read_at(&mut into[..wanted * UNIT_BYTES], index * UNIT_BYTES as u64);
        Ok(read.map_err(|error| (self.files.path(queue, file_no), error))? / UNIT_BYTES)
    }

    /// The same of units that are in memory, without waiting for the disk; and how many could have been read.
    pub(crate) fn read_cached(
        &self,
        queue: &Queue,
        from: u64,
        into: &mut [u8],
    ) -> Result<(usize, usize), (PathBuf, io::Error)> {
        let units = self.files.units_per_file();
        let (file_no, index) = (from / units, from % units);
        let wanted = (into.len() / UNIT_BYTES).min((units - index) as usize);
        let Some(file) = self.files.existing(queue, file_no)? else { return Ok((0, 0)) };
        let read = file.read_cached_at(&mut into[..wanted * UNIT_BYTES], index * UNIT_BYTES as u64);
        Ok((read.map_err(|error| (self.files.path(queue, file_no), error))? / UNIT_BYTES, wanted))
    }

    /// One unit; `None` if its file is gone.
    pub(crate) fn read_one(&self, queue: &Queue, at: u64) -> Result<Option<Unit>, (PathBuf, io::Error)> {
        let mut bytes = [0; UNIT_BYTES];
        Ok((self.read(queue, at, &mut bytes)? == 1).then(|| Unit::decode(&bytes)))
    }

    /// Writes encoded units from `from` on, which nobody can read before [`Queue::publish`].
    pub(crate) fn write(&self, queue: &Queue, from: u64, encoded: &[u8]) -> Result<(), (PathBuf, io::Error)> {
        let units = self.files.units_per_file();
        assert!(from >= queue.max(), "{queue:?}: visible units are not overwritten, {from}");
        let (mut at, mut rest) = (from, encoded);
        while !rest.is_empty() {
            let (file_no, index) = (at / units, at % units);
            let count = ((units - index) as usize).min(rest.len() / UNIT_BYTES);
            if index > 0 && queue.is_drained() && self.files.existing(queue, file_no)?.is_none() {
                // Only its number was remembered, without a file.
                self.fill_blanks(queue, file_no * units, at)?;
            }
            let (now, later) = rest.split_at(count * UNIT_BYTES);
            queue.touched.fetch_max(at + count as u64, Ordering::AcqRel);
            self.files.write(queue, file_no, index * UNIT_BYTES as u64, now)?;
            (at, rest) = (at + count as u64, later);
        }
        Ok(())
    }

    /// Writes blanks over units `[from, to)`, all in one file, that nobody reads.
    fn fill_blanks(&self, queue: &Queue, from: u64, to: u64) -> Result<(), (PathBuf, io::Error)> {
        const CHUNK_UNITS: u64 = 8192;
        let units = self.files.units_per_file();
        let blanks = Unit::BLANK.encode().repeat((to - from).min(CHUNK_UNITS) as usize);
        let mut at = from;
        while at < to {
            let count = (to - at).min(CHUNK_UNITS);
            let bytes = &blanks[..count as usize * UNIT_BYTES];
            self.files.write(queue, at / units, at % units * UNIT_BYTES as u64, bytes)?;
            at += count;
        }
        Ok(())
    }

    /// A fresh queue's first record is number `first`: what comes before it in its file is blank.
    pub(crate) fn begin(&self, queue: &Queue, first: u64) -> Result<(), (PathBuf, io::Error)> {
        self.fill_blanks(queue, first - first % self.files.units_per_file(), first)?;
        queue.begin_at(first);
        Ok(())
    }

    /// Takes units from `to` on away, for good: they read as zeros before anything is written there again.
    pub(crate) fn cut(&self, queue: &Queue, to: u64) -> Result<(), (PathBuf, io::Error)> {
        let touched = queue.touched.load(Ordering::Acquire);
        queue.max.fetch_min(to, Ordering::AcqRel);
        queue.min.fetch_min(to, Ordering::AcqRel);
        let units = self.files.units_per_file();
        let mut at = to;
        while at < touched {
            let (file_no, index) = (at / units, at % units);
            let end = units.min(touched - file_no * units);
            self.files.zero(queue, file_no, index * UNIT_BYTES as u64, end * UNIT_BYTES as u64)?;
            at = file_no * units + end;
        }
        queue.touched.store(to.min(touched), Ordering::Release);
        Ok(())
    }

    /// Forgets all queues and removes their files, durably.
    pub(crate) fn clear(&self) -> Result<(), (PathBuf, io::Error)> {
        self.table.write().clear();
        self.files.clear(&self.root)
    }

    fn new_queue(&self, topic: Arc<str>, queue_id: u32) -> Arc<Queue> {
        let key = u32::try_from(self.next_key.fetch_add(1, Ordering::Relaxed));
        let directory = self.root.join(&*topic).join(queue_id.to_string());
        Arc::new(Queue {
            topic,
            id: queue_id,
            key: key.unwrap_or_else(|_| unreachable!("4 billion queues don't fit into memory")),
            directory,
            min: AtomicU64::new(0),
            max: AtomicU64::new(0),
            touched: AtomicU64::new(0),
        })
    }
}
