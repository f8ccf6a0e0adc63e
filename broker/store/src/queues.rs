//! The consume queues: per (topic, queue) files of units that point into the log, RocketMQ's `ConsumeQueue` and
//! `BatchConsumeQueue`.
//!
//! A unit has a *place* in its queue, counted from the queue's beginning; a message has a *number*. In a queue of single
//! units both are the same. In one of batch units ([`Layout`]) a unit stands for a record that holds many messages, and
//! places begin at 0 whenever the queue is made anew.
//!
//! Which of the two a queue is, its records say: one that holds a batch ([`crate::record::INNER_BATCH`]) is only
//! written to topics that have batch queues. RocketMQ asks the topic's attributes instead, which a recovery, a slave or
//! a repair doesn't know when it dispatches a record: the log alone must be enough. A queue of single units that gets such a
//! record becomes one of batch units, see [`convert`].
//!
//! They are read and written with `pread` and `pwrite`, not mapped: so thousands of queues need neither maps nor
//! more open files than [`files::QueueFiles`] allows, and a cut may overwrite units.
//!
//! What recovery may trust: units of records below the checkpoint's `dispatched` were synced before the checkpoint
//! said so. All others are zeroed at open ([`recover`]) and made again from the log. In between, a queue's units
//! `[min, max)` are whole and in log order, and everything from `max` on is zeros or about to be overwritten.

pub(crate) mod convert;
pub(crate) mod files;
pub(crate) mod place;
pub(crate) mod recover;
pub(crate) mod unit;

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use self::files::{FileError, QueueFiles};
pub(crate) use self::unit::Layout;
use self::unit::{MAX_UNIT_BYTES, Unit};
use crate::{QueueOffset, QueueRange};

/// A queue that a record numbers further ahead than this is not filled up: the number must be wrong.
const MAX_GAP_UNITS: u64 = 3_000_000;

/// One queue. Only the dispatcher (or, behind its gate, a truncation) changes it.
pub(crate) struct Queue {
    pub(crate) topic: Arc<str>,
    pub(crate) id: u32,
    /// Names the queue in the table of open files.
    key: u32,
    pub(crate) layout: Layout,
    directory: PathBuf,
    /// The first unit that can be read: its place, and its first message's number.
    min: Mark,
    /// The unit after the last that can be read. `min ≤ max`.
    max: Mark,
    /// Places below it may have been written, visible or not. `max ≤ touched`.
    touched: AtomicU64,
}

/// A unit's place, and the number of its first message.
#[derive(Default)]
struct Mark {
    place: AtomicU64,
    number: AtomicU64,
}

impl Mark {
    fn store(&self, place: u64, number: u64) {
        // The place first: who sees the number finds the units below it.
        self.place.store(place, Ordering::Release);
        self.number.store(number, Ordering::Release);
    }

    fn lower(&self, place: u64, number: u64) {
        self.number.fetch_min(number, Ordering::AcqRel);
        self.place.fetch_min(place, Ordering::AcqRel);
    }
}

/// All queues.
pub(crate) struct Queues {
    /// The store's.
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
    const LAST: u64 = i64::MAX as u64 / MAX_UNIT_BYTES as u64;
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
        let min = self.min.number.load(Ordering::Acquire);
        let max = self.max();
        QueueRange { min: QueueOffset(min.min(max)), max: QueueOffset(max) }
    }

    /// The number after the last message's.
    pub(crate) fn max(&self) -> u64 {
        self.max.number.load(Ordering::Acquire)
    }

    /// The places of the units that can be read.
    pub(crate) fn places(&self) -> Range<u64> {
        let min = self.min.place.load(Ordering::Acquire);
        let max = self.max.place.load(Ordering::Acquire);
        min.min(max)..max
    }

    /// Where its files are.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Units before the one at `place`, whose first message is `number`, are not shown any more. Behind the dispatcher's gate.
    pub(crate) fn raise_min(&self, place: u64, number: u64) {
        self.min.place.fetch_max(place.min(self.places().end), Ordering::AcqRel);
        self.min.number.fetch_max(number.min(self.max()), Ordering::AcqRel);
    }

    /// Whether it has no unit that can be read.
    pub(crate) fn is_drained(&self) -> bool {
        self.places().is_empty()
    }

    /// Whether it never had a unit.
    pub(crate) fn is_fresh(&self) -> bool {
        self.max() == 0
    }

    /// Makes units below `place` readable, whose messages go up to `number`.
    pub(crate) fn publish(&self, place: u64, number: u64) {
        assert!(
            place >= self.places().end && number >= self.max() && place <= self.touched.load(Ordering::Acquire),
            "{self:?}: published to {number} at {place}"
        );
        assert!(self.layout == Layout::Batch || place == number, "{self:?}: single units lie where their numbers say");
        self.max.store(place, number);
    }

    /// A fresh queue's first message is number `first`; nobody can read it yet.
    pub(crate) fn begin_at(&self, first: u64) {
        assert!(self.is_fresh(), "{self:?}: begins at {first}");
        let place = self.layout.first_place(first);
        self.min.store(place, first);
        self.touched.store(place, Ordering::Release);
        self.max.store(place, first);
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

    /// The queue; made (in memory) with this layout if missing.
    pub(crate) fn get_or_add(&self, topic: &str, queue_id: u32, layout: Layout) -> Arc<Queue> {
        if let Some(queue) = self.get(topic, queue_id) {
            return queue;
        }
        let mut table = self.table.write();
        let topic = table.get_key_value(topic).map_or_else(|| Arc::from(topic), |(name, _)| Arc::clone(name));
        let queue = self.new_queue(Arc::clone(&topic), queue_id, layout);
        Arc::clone(table.entry(topic).or_default().entry(queue_id).or_insert(queue))
    }

    /// A queue of the same name as `queue`, which nobody else sees before [`Queues::put`].
    pub(crate) fn detached(&self, queue: &Queue, layout: Layout) -> Arc<Queue> {
        self.new_queue(Arc::clone(&queue.topic), queue.id, layout)
    }

    /// Puts `queue` in the place of the one that has its name. Behind the dispatcher's gate.
    pub(crate) fn put(&self, queue: &Arc<Queue>) {
        self.table.write().entry(Arc::clone(&queue.topic)).or_default().insert(queue.id, Arc::clone(queue));
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

    /// The units that can be read: fewer, when a file of a queue is lost.
    pub(crate) fn visible(&self) -> u64 {
        let units = |queue: &Arc<Queue>| queue.places().count() as u64;
        self.table.read().values().flat_map(HashMap::values).map(units).sum()
    }

    /// What all units take that can be read: files are sparse.
    pub(crate) fn used_bytes(&self) -> u64 {
        let bytes = |queue: &Arc<Queue>| queue.places().count() as u64 * queue.layout.unit_bytes() as u64;
        self.table.read().values().flat_map(HashMap::values).map(bytes).sum()
    }

    /// Reads units from place `from` on into `into`, as many as fit and lie in one file; answers how many.
    pub(crate) fn read(&self, queue: &Queue, from: u64, into: &mut [u8]) -> Result<usize, FileError> {
        let (file_no, at, bytes) = self.extent(queue, from, into.len());
        let Some(file) = self.files.existing(queue, file_no)? else { return Ok(0) };
        let read = file.read_at(&mut into[..bytes], at);
        Ok(read.map_err(|error| (self.files.path(queue, file_no), error))? / queue.layout.unit_bytes())
    }

    /// The same of units that are in memory, without waiting for the disk; and how many could have been read.
    pub(crate) fn read_cached(&self, queue: &Queue, from: u64, into: &mut [u8]) -> Result<(usize, usize), FileError> {
        let (file_no, at, bytes) = self.extent(queue, from, into.len());
        let Some(file) = self.files.existing(queue, file_no)? else { return Ok((0, 0)) };
        let read = file.read_cached_at(&mut into[..bytes], at);
        let unit_bytes = queue.layout.unit_bytes();
        Ok((read.map_err(|error| (self.files.path(queue, file_no), error))? / unit_bytes, bytes / unit_bytes))
    }

    /// The file that has the unit at `from`, where in it, and the bytes of the units there that fit into `room`.
    fn extent(&self, queue: &Queue, from: u64, room: usize) -> (u64, u64, usize) {
        let (units, unit_bytes) = (self.files.units_per_file(queue.layout), queue.layout.unit_bytes());
        let (file_no, index) = (from / units, from % units);
        let count = (room / unit_bytes).min((units - index) as usize);
        (file_no, index * unit_bytes as u64, count * unit_bytes)
    }

    /// One unit; `None` if its file is gone.
    pub(crate) fn read_one(&self, queue: &Queue, place: u64) -> Result<Option<Unit>, FileError> {
        let mut bytes = [0; MAX_UNIT_BYTES];
        let bytes = &mut bytes[..queue.layout.unit_bytes()];
        Ok((self.read(queue, place, bytes)? == 1).then(|| queue.layout.decode(place, bytes)))
    }

    /// Writes encoded units from place `from` on, which nobody can read before [`Queue::publish`].
    pub(crate) fn write(&self, queue: &Queue, from: u64, encoded: &[u8]) -> Result<(), FileError> {
        let (units, unit_bytes) = (self.files.units_per_file(queue.layout), queue.layout.unit_bytes());
        assert!(from >= queue.places().end, "{queue:?}: visible units are not overwritten, {from}");
        let (mut at, mut rest) = (from, encoded);
        while !rest.is_empty() {
            let (file_no, index) = (at / units, at % units);
            let count = ((units - index) as usize).min(rest.len() / unit_bytes);
            if index > 0 && queue.is_drained() && self.files.existing(queue, file_no)?.is_none() {
                // Only its number was remembered, without a file. (Batch units begin at place 0 then.)
                self.fill_blanks(queue, file_no * units, at)?;
            }
            let (now, later) = rest.split_at(count * unit_bytes);
            queue.touched.fetch_max(at + count as u64, Ordering::AcqRel);
            self.files.write(queue, file_no, index * unit_bytes as u64, now)?;
            (at, rest) = (at + count as u64, later);
        }
        Ok(())
    }

    /// Writes blanks over single units `[from, to)`, all in one file, that nobody reads.
    fn fill_blanks(&self, queue: &Queue, from: u64, to: u64) -> Result<(), FileError> {
        const CHUNK_UNITS: u64 = 8192;
        assert!(queue.layout == Layout::Single, "{queue:?}: batch units have no gaps to fill");
        let (units, unit_bytes) = (self.files.units_per_file(queue.layout), queue.layout.unit_bytes());
        let mut blank = Vec::with_capacity(unit_bytes);
        queue.layout.put(Unit::BLANK, &mut blank);
        let blanks = blank.repeat((to - from).min(CHUNK_UNITS) as usize);
        let mut at = from;
        while at < to {
            let count = (to - at).min(CHUNK_UNITS);
            let bytes = &blanks[..count as usize * unit_bytes];
            self.files.write(queue, at / units, at % units * unit_bytes as u64, bytes)?;
            at += count;
        }
        Ok(())
    }

    /// A fresh queue's first record is number `first`: where numbers are places, what comes before it in its file is blank.
    pub(crate) fn begin(&self, queue: &Queue, first: u64) -> Result<(), FileError> {
        if queue.layout == Layout::Single {
            self.fill_blanks(queue, first - first % self.files.units_per_file(queue.layout), first)?;
        }
        queue.begin_at(first);
        Ok(())
    }

    /// Takes units of messages from number `to` on away, for good: they read as zeros before anything is written there again.
    pub(crate) fn cut(&self, queue: &Queue, to: u64) -> Result<(), FileError> {
        let touched = queue.touched.load(Ordering::Acquire);
        // What isn't readable goes in any case.
        let place = place::of(queue.layout, queue.places(), to, |at| self.read_one(queue, at))?;
        queue.max.lower(place, to);
        queue.min.lower(place, to);
        let (units, unit_bytes) = (self.files.units_per_file(queue.layout), queue.layout.unit_bytes() as u64);
        let mut at = place;
        while at < touched {
            let (file_no, index) = (at / units, at % units);
            let end = units.min(touched - file_no * units);
            self.files.zero(queue, file_no, index * unit_bytes, end * unit_bytes)?;
            at = file_no * units + end;
        }
        queue.touched.store(place.min(touched), Ordering::Release);
        Ok(())
    }

    /// Forgets all queues and removes their files, durably.
    pub(crate) fn clear(&self) -> Result<(), FileError> {
        self.table.write().clear();
        Layout::ALL.into_iter().try_for_each(|layout| self.files.clear(&self.directory(layout)))
    }

    /// Where the queues of a layout are.
    pub(crate) fn directory(&self, layout: Layout) -> PathBuf {
        self.root.join(layout.directory())
    }

    fn new_queue(&self, topic: Arc<str>, queue_id: u32, layout: Layout) -> Arc<Queue> {
        let key = u32::try_from(self.next_key.fetch_add(1, Ordering::Relaxed));
        let directory = self.directory(layout).join(&*topic).join(queue_id.to_string());
        Arc::new(Queue {
            topic,
            id: queue_id,
            key: key.unwrap_or_else(|_| unreachable!("4 billion queues don't fit into memory")),
            layout,
            directory,
            min: Mark::default(),
            max: Mark::default(),
            touched: AtomicU64::new(0),
        })
    }
}
