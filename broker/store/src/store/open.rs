//! Opening and closing.

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::thread;
use std::time::Instant;

use parking_lot::Mutex;

use super::{Handle, Store};
use crate::allocator::Allocator;
use crate::checkpoint::Checkpoint;
use crate::commit_log::CommitLog;
use crate::fs::{Fs, RealFs};
use crate::index;
use crate::marks::Marks;
use crate::queues::Layout;
use crate::record::MAX_TOPIC_BYTES;
use crate::recovery::{self, ABORT_FILE, Recovered, io_error};
use crate::shared::{Checkpointing, Shared, Wake};
use crate::{
    Appender, Config, Events, OpenError, Retention, StoreFailure, Upkeep, checkpointer, dispatcher, flusher, retention,
};

/// Segments are whole numbers of pages.
const PAGE_BYTES: u64 = 4096;
/// Sizes are Java `int`s in the files.
const MAX_SEGMENT_BYTES: u64 = 1 << 30;
pub(crate) const LOCK_FILE: &str = "lock";

/// Opens the store in `config.root`, which is made if missing: takes the lock, recovers, brings the consume queues up
/// to the confirm offset that the last checkpoint knew, and starts the threads.
///
/// `confirmed` begins at that offset, never above `written`. Until the broker has raised it and `dispatched` has followed,
/// queues may show less than the log has.
pub fn open(config: Config, events: Arc<dyn Events>) -> Result<(Store, Appender), OpenError> {
    open_on(Arc::new(RealFs), config, events)
}

/// [`open`] on any file system.
pub fn open_on(fs: Arc<dyn Fs>, config: Config, events: Arc<dyn Events>) -> Result<(Store, Appender), OpenError> {
    let (store, appender, _by_threads) = open_by_hand(fs, config, events)?;
    start_threads(&store.handle)?;
    Ok((store, appender))
}

/// [`open_on`] without threads: nothing is flushed, dispatched or allocated ahead unless [`Upkeep`] is told to.
pub fn open_by_hand(
    fs: Arc<dyn Fs>,
    config: Config,
    events: Arc<dyn Events>,
) -> Result<(Store, Appender, Upkeep), OpenError> {
    check(&config)?;
    check_retention(&config.retention)?;
    make_directories(&*fs, &config)?;
    let lock_path = config.root.join(LOCK_FILE);
    let lock = fs.lock(&lock_path).map_err(io_error("locking", &lock_path))?;
    let lock = lock.ok_or(OpenError::Locked { path: lock_path })?;

    let progress = config.recovery.clone();
    let recovered = recovery::run(&fs, &config)?;
    let (shared, queue_offsets) = assemble(fs, config, events, recovered);
    dispatcher::catch_up(&shared).map_err(|failure| OpenError::Failed(Arc::clone(&failure)))?;
    let upkeep = Upkeep::new(Arc::clone(&shared));
    let handle = Arc::new(Handle { shared, threads: Mutex::default(), lock: Mutex::new(Some(lock)) });
    progress.finish();
    Ok((Store { handle: Arc::clone(&handle) }, Appender::new(handle, queue_offsets), upkeep))
}

impl Handle {
    /// See [`Store::close`].
    pub(super) fn close(&self) -> Result<(), Arc<StoreFailure>> {
        if std::mem::replace(&mut *self.shared.closed.lock(), true) {
            return self.shared.failure().map_or(Ok(()), |failure| Err(Arc::clone(failure)));
        }
        self.stop_threads();
        let closed = leave_clean(&self.shared);
        self.lock.lock().take();
        closed
    }
}

/// Flushes, syncs, and says that the stop was clean.
fn leave_clean(shared: &Shared) -> Result<(), Arc<StoreFailure>> {
    flusher::flush(shared)?;
    let mut state = shared.checkpointing.lock();
    checkpointer::sync_queues(shared, &mut state, || shared.queues.files.sync_at_once().map(|()| true))?;
    shared.index.seal().map_err(|(path, error)| shared.fail("fsync", path, error))?;
    let checkpoint = Checkpoint { clean: true, ..checkpointer::current(shared, &state) };
    checkpointer::write(shared, &mut state, checkpoint)?;
    let path = shared.root().join(ABORT_FILE);
    shared.fs.remove_file(&path).map_err(|error| shared.fail("unlink", path, error))?;
    shared.fs.sync_dir(shared.root()).map_err(|error| shared.fail("fsync", shared.root().to_owned(), error))
}

fn check(config: &Config) -> Result<(), OpenError> {
    let bytes = config.segment_bytes;
    let refuse = |why: String| Err(OpenError::Config(why));
    if bytes == 0 || !bytes.is_multiple_of(PAGE_BYTES) || bytes > MAX_SEGMENT_BYTES {
        return refuse(format!(
            "mappedFileSizeCommitLog must be a multiple of {PAGE_BYTES}, at most {MAX_SEGMENT_BYTES}: {bytes}"
        ));
    }
    if config.queue_file_units == 0 || config.queue_file_units > i32::MAX as u32 / 20 {
        return refuse(format!("mappedFileSizeConsumeQueue must hold 1 to {} units of 20 bytes", i32::MAX / 20));
    }
    if config.batch_queue_file_units == 0 || config.batch_queue_file_units > i32::MAX as u32 / 46 {
        return refuse(format!("mapperFileSizeBatchConsumeQueue must hold 1 to {} units of 46 bytes", i32::MAX / 46));
    }
    let index = index::Layout { slots: config.index_slots, entries: config.index_entries };
    if index.slots == 0 || index.entries < 2 || index.file_bytes() > i32::MAX as u64 {
        let index::Layout { slots, entries } = index;
        return refuse(format!(
            "maxHashSlotNum={slots}, maxIndexNum={entries}: at least 1 and 2, and an index file of at most 2 GiB (4 bytes a slot, 20 an entry)"
        ));
    }
    if !(1..=MAX_TOPIC_BYTES).contains(&config.max_topic_bytes) {
        return refuse(format!("topics can have 1 to {MAX_TOPIC_BYTES} bytes, not {}", config.max_topic_bytes));
    }
    Ok(())
}

fn check_retention(retention: &Retention) -> Result<(), OpenError> {
    retention.flaw().map_or(Ok(()), |why| Err(OpenError::Config(why)))
}

fn make_directories(fs: &dyn Fs, config: &Config) -> Result<(), OpenError> {
    let (root, log) = (config.root.as_path(), config.log_directory());
    let queues = Layout::ALL.map(|layout| root.join(layout.directory()));
    for path in queues.iter().chain([&log]) {
        fs.create_dir_all(path).map_err(io_error("making", path))?;
    }
    // The root's own entry, too: it may be new. And that of a log that lies elsewhere.
    for path in
        [Some(root), root.parent(), log.parent()].into_iter().flatten().filter(|path| !path.as_os_str().is_empty())
    {
        fs.sync_dir(path).map_err(io_error("fsync", path))?;
    }
    Ok(())
}

fn assemble(
    fs: Arc<dyn Fs>,
    config: Config,
    events: Arc<dyn Events>,
    recovered: Recovered,
) -> (Arc<Shared>, crate::queue_offsets::QueueOffsets) {
    let marks = Marks::new(recovered.marks);
    let log = CommitLog::new(recovered.segments, marks.shared_written());
    let checkpointing = Checkpointing {
        queues_synced: recovered.checkpoint.dispatched,
        timestamp_ms: recovered.checkpoint.timestamp_ms,
        visible: recovered.checkpoint.visible,
        next_queue_sync: Instant::now(),
        written: recovered.checkpoint,
    };
    let retention = retention::State::new(log.oldest(), config.retention.clone());
    let shared = Arc::new(Shared {
        allocator: Allocator::new(Arc::clone(&fs), &config),
        config,
        fs,
        events,
        marks,
        log,
        queues: recovered.queues,
        index: recovered.index,
        closed: Mutex::new(false),
        flushing: Mutex::new(()),
        dispatching: Mutex::new(()),
        checkpointing: Mutex::new(checkpointing),
        checkpointed: AtomicU64::new(recovered.checkpoint.dispatched),
        retention,
        dispatched_timestamp_ms: AtomicI64::new(recovered.checkpoint.timestamp_ms),
        flushes: crate::Flushes::default(),
        flusher: Wake::default(),
        dispatcher: Wake::default(),
        checkpointer: Wake::default(),
        cleaner: Wake::default(),
        stopping: false.into(),
        failure: std::sync::OnceLock::new(),
    });
    (shared, recovered.queue_offsets)
}

/// A thread that dies of a broken invariant must not leave a store behind that never flushes or shows anything again: it
/// counts as a failure, and the broker stops.
fn supervised(shared: &Shared, name: &str, run: fn(&Shared)) {
    if panic::catch_unwind(AssertUnwindSafe(|| run(shared))).is_err() {
        let source = io::Error::other(format!("thread {name} panicked, see its message in the log"));
        shared.fail("upkeep", shared.root().to_owned(), source);
    }
}

/// If one can't be started, those that could end with the handle.
fn start_threads(handle: &Arc<Handle>) -> Result<(), OpenError> {
    let start = |name: &'static str, wake: fn(&Shared) -> Option<&Wake>, run: fn(&Shared)| {
        let shared = Arc::clone(&handle.shared);
        let started = thread::Builder::new().name(name.to_owned()).spawn(move || supervised(&shared, name, run));
        let started = started.map_err(io_error("starting a thread", Path::new(name)))?;
        if let Some(wake) = wake(&handle.shared) {
            wake.set(started.thread().clone());
            // Whatever happened before the thread could be woken.
            wake.wake();
        }
        handle.threads.lock().push(started);
        Ok(())
    };
    start("store-segments", |_| None, |shared| shared.allocator.run())?;
    start("store-flush", |shared| Some(&shared.flusher), flusher::run)?;
    start("store-dispatch", |shared| Some(&shared.dispatcher), dispatcher::run)?;
    start("store-checkpt", |shared| Some(&shared.checkpointer), checkpointer::run)?;
    start("store-clean", |shared| Some(&shared.cleaner), retention::run)
}
