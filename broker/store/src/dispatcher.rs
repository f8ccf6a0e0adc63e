//! The dispatcher: reads the log behind the confirm offset, and gives each message its consume queue unit and its index entries.
//!
//! Invariant *Visibility*: no unit of a record above `confirmed` is written. A step parses records, writes units queue
//! by queue and index entries, makes them readable, moves `dispatched`, and tells of them. A step can be repeated: nothing of it is
//! readable before all of it is written, and a unit that is there already is passed over.

mod properties;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use self::properties::Properties;
use crate::allocator::is_no_space;
use crate::index::Staged;
use crate::queues::files::FileError;
use crate::queues::unit::Unit;
use crate::queues::{Layout, Queue, Step, convert, place, step};
use crate::record::{self, Checked, RecordView};
use crate::shared::Shared;
use crate::{Damage, Dispatched, PhysicalOffset, RecoveryPhase, StoreFailure, checkpointer, tags};

/// A step ends when it has so many records…
const STEP_RECORDS: usize = 8192;
/// …or so many bytes of the log.
const STEP_BYTES: u64 = 8 << 20;
/// How long to wait for room on a full disk.
const NO_SPACE_PAUSE: Duration = Duration::from_secs(1);
/// The topic of delayed messages, whose tags code is the time of delivery.
const SCHEDULE_TOPIC: &str = "SCHEDULE_TOPIC_XXXX";

/// Builds the steps; keeps its buffers.
#[derive(Default)]
pub(crate) struct Dispatcher {
    told: Vec<Dispatched>,
    /// By (topic, queue): what this step adds.
    pending: HashMap<(Arc<str>, u32), Pending>,
    /// The topics' names, shared by all that is told.
    last_queue: Option<Arc<Queue>>,
    /// What this step adds to the index.
    keys: Vec<Staged>,
}

struct Pending {
    queue: Arc<Queue>,
    /// The place of the first of them.
    first: u64,
    /// The number of the next message.
    next: u64,
    units: Vec<u8>,
}

impl Pending {
    /// The place after the last unit.
    fn end(&self) -> u64 {
        self.first + (self.units.len() / self.queue.layout.unit_bytes()) as u64
    }

    /// A unit of the queue's, written or not yet.
    fn unit(&self, shared: &Shared, at: u64) -> Result<Option<Unit>, FileError> {
        let Some(index) = at.checked_sub(self.first) else { return shared.queues.read_one(&self.queue, at) };
        Ok(self.queue.layout.decode_all(at, &self.units[index as usize * self.queue.layout.unit_bytes()..]).next())
    }

    /// The unit that stands for message `number` or the first one after it.
    fn unit_of(&self, shared: &Shared, number: u64) -> Result<Option<Unit>, FileError> {
        let places = self.queue.places().start..self.end();
        let place = place::of(self.queue.layout, places, number, |at| self.unit(shared, at))?;
        self.unit(shared, place)
    }
}

/// Why a step was not done.
enum Stop {
    Failed(Arc<StoreFailure>),
    /// Heals.
    NoSpace(PathBuf, io::Error),
}

/// The thread: until stopped or failed.
pub(crate) fn run(shared: &Shared) {
    let mut dispatcher = Dispatcher::default();
    while !shared.is_stopping() {
        match dispatcher.step(shared) {
            Ok(true) => {}
            Ok(false) => thread::park(),
            Err(Stop::Failed(_latched)) => return,
            Err(Stop::NoSpace(path, error)) => {
                tracing::warn!(%error, path = %path.display(), "no space for consume queues: consumers see nothing new");
                thread::park_timeout(NO_SPACE_PAUSE);
            }
        }
    }
}

/// Dispatches all that is confirmed, at open. With a checkpoint now and then: an interrupted start goes on where it was.
pub(crate) fn catch_up(shared: &Shared) -> Result<(), Arc<StoreFailure>> {
    let mut dispatcher = Dispatcher::default();
    let (from, to) = (shared.marks.dispatched(), shared.marks.confirmed());
    let progress = &shared.config.recovery;
    progress.begin(RecoveryPhase::BuildingQueues, to - from);
    let mut checkpoint_ms = shared.config.clock.now_ms();
    loop {
        match dispatcher.step(shared) {
            Ok(true) => progress.reach(shared.marks.dispatched() - from),
            Ok(false) => return Ok(()),
            Err(Stop::Failed(failure)) => return Err(failure),
            Err(Stop::NoSpace(path, error)) => {
                // The thread will go on with it.
                tracing::warn!(%error, path = %path.display(), "no space for consume queues at start");
                return Ok(());
            }
        }
        if shared.config.is_checkpoint_due(checkpoint_ms) {
            checkpointer::periodic(shared)?;
            checkpoint_ms = shared.config.clock.now_ms();
        }
    }
}

impl Dispatcher {
    /// One step; whether there was anything to do.
    fn step(&mut self, shared: &Shared) -> Result<bool, Stop> {
        let _gate = shared.dispatching.lock();
        let (from, to) = (shared.marks.dispatched(), shared.marks.confirmed());
        if from == to {
            return Ok(false);
        }
        self.told.clear();
        self.pending.clear();
        self.last_queue = None;
        self.keys.clear();
        let end = self.parse(shared, from, to)?;
        if end == from {
            return Ok(false);
        }
        let mut with_units: Vec<_> = self.pending.values().filter(|pending| !pending.units.is_empty()).collect();
        // One order in every run.
        with_units.sort_by(|a, b| (&a.queue.topic, a.queue.id).cmp(&(&b.queue.topic, b.queue.id)));
        for pending in with_units {
            let written = shared.queues.write(&pending.queue, pending.first, &pending.units);
            written.map_err(|error| cant_write(shared, error))?;
        }
        shared.index.add(&self.keys, end).map_err(|error| cant_write(shared, error))?;
        for pending in self.pending.values() {
            pending.queue.publish(pending.end(), pending.next);
        }
        shared.marks.publish_dispatched(end);
        shared.events.dispatched(&self.told);
        if shared.queues.files.too_many_dirty() {
            // The checkpointer is behind: sync here rather than keep ever more files open for it.
            let synced = shared.queues.files.sync();
            synced.map_err(|(path, error)| Stop::Failed(shared.fail("fsync", path, error)))?;
        }
        Ok(true)
    }

    /// Takes in the records of one step; answers where it ends: a record's end, at most `to`.
    fn parse(&mut self, shared: &Shared, from: u64, to: u64) -> Result<u64, Stop> {
        let segment_end = shared.log.segment_end(from).unwrap_or(from);
        let read_to = to.min(segment_end);
        let bytes = shared.log.bytes(from, (read_to - from) as usize);
        let bytes = bytes.map_err(|(path, error)| Stop::Failed(shared.fail("map", path, error)))?;
        // Only a confirmed offset beyond the last segment could come here; there is none above `written`.
        let bytes = bytes.unwrap_or_default();
        let mut at = from;
        let mut records = 0;
        while at < read_to && records < STEP_RECORDS && at - from < STEP_BYTES {
            let place = PhysicalOffset(at);
            match record::check(&bytes[(at - from) as usize..], place, segment_end - at, false) {
                Ok(Checked::Blank(room)) if u64::from(room) <= read_to - at => at += u64::from(room),
                Ok(Checked::Record(record)) => {
                    if !self.take(shared, &record)? {
                        break;
                    }
                    at += u64::from(record.size);
                }
                // `confirmed` lies within a record: that one is not confirmed.
                Ok(Checked::Blank(_)) | Err(record::Reason::CutOff { .. }) if to < segment_end => break,
                Err(record::Reason::Structure(_)) if read_to - at < record::BLANK_BYTES && to < segment_end => break,
                Ok(Checked::Blank(_)) => unreachable!("a blank ends where the segment does"),
                Err(reason) => {
                    let path = shared.log.segment(at).map_or_else(|| shared.root().to_owned(), |s| s.path.clone());
                    let damage = io::Error::other(Damage { at: place, reason });
                    return Err(Stop::Failed(shared.fail("reading a record", path, damage)));
                }
            }
            records += 1;
        }
        Ok(at)
    }

    /// Adds a record's unit to the step; `false` if the step has to end before it.
    fn take(&mut self, shared: &Shared, record: &RecordView<'_>) -> Result<bool, Stop> {
        let queue = if record::has_queue_offset(record.sys_flag) {
            let Some(queue) = self.queue(shared, record).map_err(|error| cant_write(shared, error))? else {
                return Ok(false);
            };
            Some(queue)
        } else {
            None
        };
        shared.dispatched_timestamp_ms.store(record.store_timestamp_ms, Ordering::Release);
        let properties = Properties::of(record);
        if shared.index.is_enabled() {
            properties.keys.stage(record, &mut self.keys);
        }
        let Some(queue) = queue else { return Ok(true) };
        let tags_code = tags_code(shared, record, &properties);
        let unit = Unit::of(record, tags_code);
        if self.place(shared, &queue, unit).map_err(|error| cant_write(shared, error))? {
            self.told.push(Dispatched {
                topic: Arc::clone(&queue.topic),
                queue_id: record.queue_id,
                queue_offset: record.queue_offset,
                count: unit.count,
                tags_code,
                physical: record.physical,
                size: record.size,
            });
        }
        Ok(true)
    }

    /// The queue that a record's unit goes to. `None`: it has to become one of batch units, and not in this step, which has
    /// units for it already.
    fn queue(&mut self, shared: &Shared, record: &RecordView<'_>) -> Result<Option<Arc<Queue>>, FileError> {
        let layout = Layout::of(record);
        let mut queue = match &self.last_queue {
            Some(queue) if queue.id == record.queue_id && *queue.topic == *record.topic => Arc::clone(queue),
            _ => shared.queues.get_or_add(record.topic, record.queue_id, layout),
        };
        if layout == Layout::Batch && queue.layout == Layout::Single {
            if self.pending.contains_key(&(Arc::clone(&queue.topic), queue.id)) {
                return Ok(None);
            }
            queue = convert::to_batch(shared, &queue)?;
        }
        self.last_queue = Some(Arc::clone(&queue));
        Ok(Some(queue))
    }

    /// Puts a unit where it belongs; `false` if it has no place.
    fn place(&mut self, shared: &Shared, queue: &Arc<Queue>, unit: Unit) -> Result<bool, FileError> {
        let pending = self.pending.entry((Arc::clone(&queue.topic), queue.id)).or_insert_with(|| {
            let (first, next) = (queue.places().end, queue.max());
            Pending { queue: Arc::clone(queue), first, next, units: Vec::new() }
        });
        let (at, layout, fresh) = (unit.first, queue.layout, pending.next == 0);
        match step(pending.next, fresh, at) {
            Step::Next => {}
            Step::Begin => {
                shared.queues.begin(queue, at)?;
                (pending.first, pending.next) = (layout.first_place(at), at);
            }
            Step::Gap => {
                tracing::warn!(?queue, from = pending.next, to = at, "the log lacks messages of a queue");
                if layout == Layout::Single {
                    (pending.next..at).for_each(|_| layout.put(Unit::BLANK, &mut pending.units));
                }
            }
            Step::Repeated => {
                let there = pending.unit_of(shared, at)?;
                let same = there.is_some_and(|there| {
                    (there.physical, there.size, there.tags_code) == (unit.physical, unit.size, unit.tags_code)
                });
                if !same {
                    tracing::error!(
                        ?queue,
                        at,
                        ?unit,
                        "two records with one number in their queue: the first one stays"
                    );
                }
                return Ok(same);
            }
            Step::Implausible => {
                tracing::error!(?queue, at, ?unit, "a record's number in its queue can't be: it is left out");
                return Ok(false);
            }
        }
        layout.put(unit, &mut pending.units);
        pending.next = unit.next();
        Ok(true)
    }
}

fn cant_write(shared: &Shared, (path, error): (PathBuf, io::Error)) -> Stop {
    if is_no_space(&error) { Stop::NoSpace(path, error) } else { Stop::Failed(shared.fail("write", path, error)) }
}

/// The tag's hash; of a delayed message the time of its delivery.
fn tags_code(shared: &Shared, record: &RecordView<'_>, properties: &Properties<'_>) -> i64 {
    if record.topic == SCHEDULE_TOPIC {
        let level = properties.delay.and_then(|level| level.parse::<usize>().ok());
        let levels = &shared.config.delay_levels_ms;
        if let Some(level) = level.filter(|level| *level > 0 && !levels.is_empty()) {
            return record.store_timestamp_ms + levels[level.min(levels.len()) - 1];
        }
    }
    properties.tags.map_or(0, tags::tags_code)
}
