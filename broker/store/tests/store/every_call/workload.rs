//! What is done to a store while calls are struck, and what it said about that.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use gantry_store::{
    Append, AppendError, Config, PhysicalOffset, RawError, ReadLog, Retention, StartError, StoreFailure, TruncateError,
    Upkeep, open_by_hand, record,
};

use super::judge;
use crate::common::*;
use crate::crash_fs::CrashFs;

/// Few messages fill several.
pub(super) const SEGMENT_BYTES: u64 = 8 << 10;
pub(super) const QUEUES: u32 = 2;
/// The queue whose messages come in batches, but for the first: so it becomes one of batch units.
const BATCHES: u32 = 1;
/// Messages of a batch.
const BATCH: u16 = 3;

/// What happens.
#[derive(Clone, Copy, Debug)]
pub(super) enum Life {
    /// Appends over several segments, flushes, checkpoints, cuts, a power loss, deletion, a clean stop.
    Master,
    /// A log that begins elsewhere, fetched from a master, cut, and fetched again.
    Replica,
}

/// A message as it was appended, or may have been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) queue: u32,
    pub(super) number: u64,
    /// It is a batch of so many.
    pub(super) count: u16,
    pub(super) at: u64,
    pub(super) end: u64,
    pub(super) body: Vec<u8>,
}

/// What the store said, to hold the next open against.
#[derive(Default)]
pub(super) struct Model {
    /// For messages of failed assertions.
    pub(super) what: String,
    /// The log.
    pub(super) log: Vec<Message>,
    /// What may follow it: an append that failed in the middle.
    pub(super) maybe: Vec<Message>,
    pub(super) flushed: u64,
    /// Nothing older is there.
    pub(super) oldest: u64,
    /// Nothing younger has been deleted.
    pub(super) deletable: u64,
    /// A cut to so many messages began, and how it ended isn't known.
    pub(super) cut: Option<usize>,
    /// Power was lost since: what wasn't flushed may be gone.
    pub(super) power_lost: bool,
    /// Messages made so far.
    pub(super) made: u8,
}

/// The store could do no more, as it said itself.
#[derive(Debug)]
pub(super) struct Stopped(#[expect(dead_code, reason = "for the message of a failed assertion")] pub(super) String);

/// A store without threads.
pub(super) struct Driven {
    pub(super) opened: Opened,
    upkeep: Upkeep,
}

impl Life {
    /// Runs until its end or until the store has failed.
    pub(super) fn run(self, fs: &CrashFs, root: &Path, model: &mut Model, random: &mut Random) -> Result<(), Stopped> {
        match self {
            Self::Master => master(fs, root, model, random),
            Self::Replica => replica(fs, root, model),
        }
    }
}

fn master(fs: &CrashFs, root: &Path, model: &mut Model, random: &mut Random) -> Result<(), Stopped> {
    let mut driven = Driven::open(fs, root)?;
    for round in 0..5 {
        driven.append(model, &[600, 900, 600, 1300])?;
        driven.upkeep.allocate_ahead();
        if round % 2 == 1 {
            driven.settle(model)?;
        }
    }
    // Somebody reads while the segment is cut, so that it is replaced; then nobody does.
    let held = model.log.get(12).map(|message| driven.opened.store.read_log(PhysicalOffset(message.at), 0));
    driven.cut(model, 13)?;
    drop(held);
    // The same sizes: what was cut would fit on.
    driven.append(model, &[900, 600, 1300])?;
    driven.settle(model)?;
    driven.cut(model, 15)?;
    driven.append(model, &[1300, 600, 900, 600])?;
    driven.dispatch(model)?;
    driven.append(model, &[900])?;
    drop(driven);
    fs.lose_power(random);
    model.power_lost = true;

    let mut driven = Driven::open(fs, root)?;
    judge::check(&driven, model)?;
    driven.append(model, &[600, 900, 1300, 1300, 600])?;
    driven.settle(model)?;
    driven.delete(fs, model)?;
    driven.append(model, &[600])?;
    driven.close(model)?;
    let mut driven = Driven::open(fs, root)?;
    driven.append(model, &[900])?;
    driven.settle(model)?;
    driven.append(model, &[600])
}

fn replica(fs: &CrashFs, root: &Path, model: &mut Model) -> Result<(), Stopped> {
    let mut driven = Driven::open(fs, root)?;
    let chunks = masters_log();
    model.deletable = chunks[0].from;
    driven.start_at(model, chunks[0].from)?;
    for (number, chunk) in chunks.iter().enumerate() {
        driven.append_raw(model, chunk)?;
        if number % 3 == 1 {
            driven.settle(model)?;
        }
    }
    let again = chunks.len() - 2;
    let keep = model.log.len() - chunks[again..].iter().map(|chunk| chunk.messages.len()).sum::<usize>();
    driven.cut(model, keep)?;
    if model.log.len() > keep {
        // What was to be cut couldn't be kept.
        return Ok(());
    }
    for chunk in &chunks[again..] {
        driven.append_raw(model, chunk)?;
    }
    driven.dispatch(model)
}

/// Bytes of a master's log.
struct Chunk {
    from: u64,
    bytes: Vec<u8>,
    messages: Vec<Message>,
}

/// From its second segment on.
fn masters_log() -> &'static [Chunk] {
    static LOG: OnceLock<Vec<Chunk>> = OnceLock::new();
    LOG.get_or_init(|| {
        let directory = memory_dir();
        let mut master = Driven::open(&CrashFs::default(), directory.path()).unwrap();
        let mut model = Model::default();
        for _ in 0..6 {
            master.append(&mut model, &[600, 900, 600, 1300]).unwrap();
        }
        let mut from = PhysicalOffset(SEGMENT_BYTES);
        let mut chunks = Vec::new();
        while let ReadLog::Bytes { bytes, next } = master.opened.store.read_log(from, 3000).unwrap() {
            let messages = model.log.iter().filter(|message| (from.0..next.0).contains(&message.at));
            chunks.push(Chunk { from: from.0, bytes: bytes.to_vec(), messages: messages.cloned().collect() });
            from = next;
        }
        chunks
    })
}

impl Model {
    /// The number that the next message of a queue gets.
    fn next_number(&self, queue: u32) -> u64 {
        self.log.iter().rfind(|message| message.queue == queue).map_or(0, |last| last.number + u64::from(last.count))
    }

    /// How many messages are flushed.
    pub(super) fn flushed_count(&self) -> usize {
        self.log.iter().filter(|message| message.end <= self.flushed).count()
    }
}

fn record_of(queue: u32, count: u16, body: &[u8]) -> Append {
    let mut message = message("T", queue, body);
    if count > 1 {
        message.sys_flag = record::INNER_BATCH;
        message.properties = format!("INNER_NUM\u{1}{count}\u{2}KEYS\u{1}k\u{2}").into();
    }
    message.into()
}

impl Driven {
    pub(super) fn open(fs: &CrashFs, root: &Path) -> Result<Self, Stopped> {
        let events = Arc::new(Recorder::default());
        let retention = Retention { files_a_round: 1, ..Retention::default() };
        let config = Config {
            segment_bytes: SEGMENT_BYTES,
            queue_file_units: 4,
            batch_queue_file_units: 3,
            retention,
            ..config(root)
        };
        let opened = open_by_hand(Arc::new(fs.clone()), config, events.clone());
        let (store, appender, upkeep) = opened.map_err(|error| Stopped(error.to_string()))?;
        Ok(Self { opened: Opened { store, appender, events }, upkeep })
    }

    /// One append, a message or a batch of some for each size.
    pub(super) fn append(&mut self, model: &mut Model, sizes: &[usize]) -> Result<(), Stopped> {
        let mut made = Vec::new();
        for size in sizes {
            model.made += 1;
            let queue = u32::from(model.made) % QUEUES;
            let count = if queue == BATCHES && model.made > 1 { BATCH } else { 1 };
            made.push((queue, count, vec![model.made; *size]));
        }
        let appends: Vec<Append> = made.iter().map(|(queue, count, body)| record_of(*queue, *count, body)).collect();
        let mut failure = None;
        for ((queue, count, body), result) in made.into_iter().zip(self.opened.append(&appends)) {
            match result {
                Ok(appended) => {
                    let number = appended.first_queue_offset.0;
                    assert_eq!(number, model.next_number(queue), "{}", model.what);
                    let (at, end) = (appended.physical.0, appended.end.0);
                    model.log.push(Message { queue, number, count, at, end, body });
                }
                Err(AppendError::NoSpace(_)) => {}
                Err(AppendError::Failed(failed)) => {
                    model.maybe.push(Message { queue, number: 0, count, at: 0, end: 0, body });
                    failure = Some(failed);
                }
                Err(other) => panic!("{}: {other}", model.what),
            }
        }
        failure.map_or(Ok(()), |failure| self.failed(model, &failure))
    }

    /// Flushes, dispatches and makes a checkpoint.
    pub(super) fn settle(&mut self, model: &mut Model) -> Result<(), Stopped> {
        let flushed = self.upkeep.flush();
        self.done(model, flushed)?;
        self.dispatch(model)?;
        let written = self.upkeep.checkpoint();
        self.done(model, written)
    }

    /// Confirms everything and makes it visible.
    pub(super) fn dispatch(&mut self, model: &mut Model) -> Result<(), Stopped> {
        self.opened.store.confirm(self.opened.store.watermarks().written);
        let dispatched = self.upkeep.dispatch();
        self.done(model, dispatched)
    }

    fn cut(&mut self, model: &mut Model, keep: usize) -> Result<(), Stopped> {
        // Less was appended where the disk was full.
        let Some(last) = keep.checked_sub(1).and_then(|last| model.log.get(last)) else { return Ok(()) };
        let (to, divergent) = (PhysicalOffset(last.end), self.opened.store.root().join("divergent"));
        model.cut = Some(keep);
        match self.opened.appender.truncate(to, Some(&divergent)) {
            Ok(_) => model.log.truncate(keep),
            Err(TruncateError::Keep { .. }) => {}
            Err(TruncateError::Failed(failure)) => return self.failed(model, &failure),
            Err(other) => panic!("{}: {other}", model.what),
        }
        model.cut = None;
        self.done(model, Ok(()))
    }

    /// Deletes a segment, because the disk is rather full.
    fn delete(&mut self, fs: &CrashFs, model: &mut Model) -> Result<(), Stopped> {
        let store = &self.opened.store;
        let releasable = store.watermarks().dispatched;
        model.deletable = releasable.0;
        store.release(releasable);
        fs.set_disk(12 << 30, 100 << 30);
        self.upkeep.clean();
        self.done(model, self.opened.store.failure().map_or(Ok(()), Err))?;
        if self.opened.store.disk().deleted_segments > 0 {
            model.oldest = self.opened.store.min_offset().0;
            model.log.retain(|message| message.at >= model.oldest);
        }
        Ok(())
    }

    fn start_at(&mut self, model: &mut Model, at: u64) -> Result<(), Stopped> {
        match self.opened.appender.start_at(PhysicalOffset(at)) {
            Ok(()) => {
                model.oldest = at;
                self.done(model, Ok(()))
            }
            Err(StartError::NoSpace(error)) => Err(Stopped(error.to_string())),
            Err(StartError::Failed(failure)) => self.failed(model, &failure),
            Err(other) => panic!("{}: {other}", model.what),
        }
    }

    fn append_raw(&mut self, model: &mut Model, chunk: &Chunk) -> Result<(), Stopped> {
        match self.opened.appender.append_raw(PhysicalOffset(chunk.from), &chunk.bytes) {
            Ok(_) => model.log.extend_from_slice(&chunk.messages),
            Err(RawError::NoSpace(error)) => return Err(Stopped(error.to_string())),
            Err(RawError::Failed(failure)) => {
                model.maybe.extend_from_slice(&chunk.messages);
                return self.failed(model, &failure);
            }
            Err(other) => panic!("{}: {other}", model.what),
        }
        self.done(model, Ok(()))
    }

    pub(super) fn close(self, model: &mut Model) -> Result<(), Stopped> {
        let closed = self.opened.store.close();
        self.done(model, closed)?;
        assert_eq!(self.opened.store.watermarks().written.0, model.flushed, "{}: a clean stop", model.what);
        Ok(())
    }

    fn done(&self, model: &mut Model, result: Result<(), Arc<StoreFailure>>) -> Result<(), Stopped> {
        model.flushed = self.opened.store.watermarks().flushed.0;
        result.or_else(|failure| self.failed(model, &failure))
    }

    /// The store has failed: for good, told once, and nothing becomes flushed any more.
    fn failed(&self, model: &mut Model, failure: &StoreFailure) -> Result<(), Stopped> {
        let Opened { store, events, .. } = &self.opened;
        let what = &model.what;
        let flushed = store.watermarks().flushed;
        assert!(self.upkeep.flush().is_err() && self.upkeep.checkpoint().is_err(), "{what}: works after a failure");
        assert!(store.close().is_err(), "{what}: a clean stop after a failure");
        assert_eq!(store.watermarks().flushed, flushed, "{what}: flushed after a failure");
        assert!(store.failure().is_some() && events.told().failed.len() == 1, "{what}: the failure is told once");
        Err(Stopped(failure.to_string()))
    }
}
