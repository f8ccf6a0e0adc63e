//! Cutting the log, for good.
//!
//! 1. The tail is copied away, if it is to be kept; nothing has changed so far.
//! 2. With flusher, dispatcher and checkpointer held still, a checkpoint says `cut`, and claims nothing above it. From here on
//!    a crash leads to the new state: the next open finishes the cut before anything else.
//! 3. The consume queues go back, then the watermarks: a reader whose unit's record is gone finds the unit gone, too.
//! 4. Later segments are removed. In the one that holds the cut, all behind it becomes zeros: in place if no slice of
//!    it is held by anybody, else in a copy that takes its name, so that no slice ever changes. Where the disk has no room for
//!    a copy the readers' end is waited for.
//! 5. A checkpoint without `cut`. Only then may something be appended.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;

use super::{Appender, Stop, next_segment, writable};
use crate::allocator::{allocate_file, is_no_space};
use crate::checkpoint::Checkpoint;
use crate::checkpointer;
use crate::fs::OpenMode;
use crate::queue_numbers;
use crate::record;
use crate::recovery::CUT_FILE;
use crate::scan::{End, Scanner};
use crate::segment::Segment;
use crate::shared::{Checkpointing, Shared};
use crate::{Damage, PhysicalOffset, StartError, StoreFailure, TruncateError, Truncated};

const COPY_BYTES: u64 = 1 << 20;
/// A cut on a full disk waits this long for those who read what is cut.
const READERS_PATIENCE: Duration = Duration::from_secs(30);
const READERS_POLL: Duration = Duration::from_millis(5);

/// Everything that would move while the log is cut.
struct Still<'a> {
    _flusher: MutexGuard<'a, ()>,
    _dispatcher: MutexGuard<'a, ()>,
    checkpointing: MutexGuard<'a, Checkpointing>,
}

impl<'a> Still<'a> {
    fn hold(shared: &'a Shared) -> Self {
        Self {
            _flusher: shared.flushing.lock(),
            _dispatcher: shared.dispatching.lock(),
            checkpointing: shared.checkpointing.lock(),
        }
    }
}

impl Appender {
    pub(super) fn truncate_log(
        &mut self,
        to: PhysicalOffset,
        keep_in: Option<&Path>,
    ) -> Result<Truncated, TruncateError> {
        let handle = Arc::clone(&self.handle);
        let shared = &*handle.shared;
        let _open = writable(shared).map_err(|stop| match stop {
            Stop::Closed => TruncateError::Closed,
            Stop::Failed(failure) => TruncateError::Failed(failure),
            Stop::NoSpace(_) => unreachable!("holding the store open takes no room"),
        })?;
        let (oldest, written) = (shared.log.oldest(), self.end);
        if to.0 < oldest || to.0 > written {
            let (oldest, written) = (PhysicalOffset(oldest), PhysicalOffset(written));
            return Err(TruncateError::OutOfRange { to, oldest, written });
        }
        if to.0 == written {
            return Ok(Truncated { bytes: 0, kept: None });
        }
        check_boundary(shared, to)?;
        let kept = keep_in.map(|directory| keep(shared, to.0, written, directory)).transpose()?;
        let first_units = self.take_back(shared, to.0, written).map_err(TruncateError::Failed)?;
        tracing::warn!(%to, written, kept = ?kept, "cutting the log");

        // The appender's own hold of the segment would make it look used.
        self.active = None;
        let cut = self.cut(shared, to.0, written, &first_units);
        self.find_end();
        cut.map_err(TruncateError::Failed)?;
        Ok(Truncated { bytes: written - to.0, kept })
    }

    fn cut(&self, shared: &Shared, to: u64, written: u64, queues: &[(Arc<str>, u32)]) -> Result<(), Arc<StoreFailure>> {
        discard_prepared(shared)?;
        let mut still = Still::hold(shared);
        let state = &mut *still.checkpointing;
        state.queues_synced = state.queues_synced.min(to);
        state.visible = None;
        let intent = Checkpoint { cut: Some(to), ..lowered(checkpointer::current(shared, state), to) };
        checkpointer::write(shared, state, intent)?;

        for (topic, queue_id) in queues {
            if let Some(queue) = shared.queues.get(topic, *queue_id) {
                let next = self.queue_offsets.next(topic, *queue_id);
                shared.queues.cut(&queue, next).map_err(|(path, error)| shared.fail("write", path, error))?;
            }
        }
        shared.marks.lower(to);
        shared.retention.turn_back(to);
        shared.index.cut(to).map_err(|(path, error)| shared.fail("write", path, error))?;
        cut_segments(shared, to, written)?;
        checkpointer::write(shared, state, Checkpoint { cut: None, index: shared.index.claim(), ..intent })
    }

    /// Gives back the queue numbers of all records in `[to, written)`; answers whose they were.
    fn take_back(&mut self, shared: &Shared, to: u64, written: u64) -> Result<Vec<(Arc<str>, u32)>, Arc<StoreFailure>> {
        let mut queues = std::collections::BTreeSet::new();
        for segment in shared.log.overlapping(to, written) {
            let scanned =
                Scanner::new(&segment).scan(to.max(segment.base), written.min(segment.end()), false, |record| {
                    self.queue_offsets.take_back(record);
                    if record::has_queue_offset(record.sys_flag) {
                        queues.insert((Arc::<str>::from(record.topic), record.queue_id));
                    }
                });
            let failed = |error| shared.fail("read", segment.path.clone(), error);
            match scanned.map_err(failed)? {
                (_, End::Reached) => {}
                (_, End::Stopped(damage)) => return Err(failed(io::Error::other(damage))),
            }
        }
        Ok(queues.into_iter().collect())
    }

    pub(super) fn start_log_at(&mut self, at: PhysicalOffset) -> Result<(), StartError> {
        let handle = Arc::clone(&self.handle);
        let shared = &*handle.shared;
        // A segment that is being deleted may have the name of one that is about to come.
        let mut doomed = shared.retention.deleting.lock();
        let _open = writable(shared)?;
        let segment_bytes = shared.config.segment_bytes;
        let oldest = shared.log.oldest();
        if oldest != self.end {
            let (oldest, written) = (PhysicalOffset(oldest), PhysicalOffset(self.end));
            return Err(StartError::NotEmpty { at, oldest, written });
        }
        if !at.0.is_multiple_of(segment_bytes) {
            return Err(StartError::Unaligned { at, segment_bytes });
        }
        doomed.finish(shared).map_err(StartError::Failed)?;
        self.active = None;
        let moved = self.move_start(shared, at.0);
        self.find_end();
        moved.map_err(StartError::from)
    }

    /// First the checkpoint claims nothing, then the old segment goes, then the new one comes: a crash in between leaves
    /// an empty log at the old place, at 0, or at the new one. So does a full disk, and the next call goes on.
    fn move_start(&mut self, shared: &Shared, at: u64) -> Result<(), Stop> {
        discard_prepared(shared).map_err(Stop::Failed)?;
        let mut still = Still::hold(shared);
        let state = &mut *still.checkpointing;
        state.queues_synced = 0;
        state.visible = None;
        let nothing = Checkpoint {
            dispatched: 0,
            confirmed: 0,
            flushed: 0,
            queues: 0,
            visible: None,
            index: None,
            ..state.written
        };
        checkpointer::write(shared, state, nothing).map_err(Stop::Failed)?;

        for segment in shared.log.split_off(0) {
            let removed = shared.fs.remove_file(&segment.path);
            removed.map_err(|error| Stop::Failed(shared.fail("unlink", segment.path.clone(), error)))?;
        }
        let directory = shared.config.log_directory();
        let synced = shared.fs.sync_dir(&directory);
        synced.map_err(|error| Stop::Failed(shared.fail("fsync", directory, error)))?;
        shared.queues.clear().map_err(|(path, error)| Stop::Failed(shared.fail("removal", path, error)))?;
        shared.index.clear(at).map_err(|(path, error)| Stop::Failed(shared.fail("removal", path, error)))?;
        self.queue_offsets.clear();
        shared.marks.reset(0);
        shared.retention.turn_back(0);
        let forgotten = queue_numbers::replace(&*shared.fs, shared.root(), &[]);
        let numbers = shared.root().join(queue_numbers::FILE);
        forgotten.map_err(|error| Stop::Failed(shared.fail("replacement", numbers, error)))?;

        let segment = next_segment(shared, at)?;
        shared.marks.reset(at);
        shared.log.push(segment);
        state.queues_synced = at;
        let empty = Checkpoint { dispatched: at, confirmed: at, flushed: at, index: shared.index.claim(), ..nothing };
        checkpointer::write(shared, state, empty).map_err(Stop::Failed)
    }
}

/// A claim that says nothing above `to`.
fn lowered(checkpoint: Checkpoint, to: u64) -> Checkpoint {
    Checkpoint {
        dispatched: checkpoint.dispatched.min(to),
        confirmed: checkpoint.confirmed.min(to),
        flushed: checkpoint.flushed.min(to),
        ..checkpoint
    }
}

/// Whether a record, or the blank, begins at `to`.
fn check_boundary(shared: &Shared, to: PhysicalOffset) -> Result<(), TruncateError> {
    let zeros = Damage { at: to, reason: record::Reason::Zeros };
    let segment = shared.log.segment(to.0).ok_or(TruncateError::NotABoundary(zeros))?;
    let limit = to.0 + 1;
    match Scanner::new(&segment).scan(to.0, limit, false, |_| {}) {
        Ok((_, End::Reached)) => Ok(()),
        Ok((_, End::Stopped(damage))) => Err(TruncateError::NotABoundary(damage)),
        Err(error) => Err(TruncateError::Failed(shared.fail("read", segment.path.clone(), error))),
    }
}

/// Copies `[to, written)` to a new file in `directory`, durably.
fn keep(shared: &Shared, to: u64, written: u64, directory: &Path) -> Result<PathBuf, TruncateError> {
    let fs = &*shared.fs;
    let copy = || {
        fs.create_dir_all(directory)?;
        let names: Vec<_> = fs.list(directory)?.into_iter().map(|entry| entry.name).collect();
        let stem = format!("{to:020}-{written:020}");
        // The same range may have been cut before, with other bytes.
        let mut numbers = 0..;
        let name =
            numbers.find_map(|number: u32| Some(format!("{stem}.{number}")).filter(|name| !names.contains(name)));
        let path = directory.join(name.ok_or(io::ErrorKind::AlreadyExists)?);
        let unfinished = path.with_extension("tmp");
        let file = fs.open(&unfinished, OpenMode::Truncate)?;
        for segment in shared.log.overlapping(to, written) {
            let from = to.max(segment.base);
            let end = written.min(segment.end());
            copy_bytes(&segment, from, end, |at, bytes| file.write_all_at(bytes, at - to))?;
        }
        file.sync_all()?;
        fs.rename(&unfinished, &path)?;
        fs.sync_dir(directory)?;
        fs.sync_dir(directory.parent().unwrap_or(directory))?;
        Ok(path)
    };
    copy().map_err(|error: io::Error| TruncateError::Keep { path: directory.to_owned(), source: Arc::new(error) })
}

/// Removes segments behind `to`, and makes zeros of what its own segment has behind it.
fn cut_segments(shared: &Shared, to: u64, written: u64) -> Result<(), Arc<StoreFailure>> {
    // The first segment stays whatever is cut: its name says where the log begins.
    let first_kept = shared.log.oldest() + 1;
    for segment in shared.log.split_off(to.max(first_kept)) {
        shared.fs.remove_file(&segment.path).map_err(|error| shared.fail("unlink", segment.path.clone(), error))?;
    }
    let directory = shared.config.log_directory();
    shared.fs.sync_dir(&directory).map_err(|error| shared.fail("fsync", directory.clone(), error))?;
    let Some(segment) = shared.log.segment(to) else { return Ok(()) };

    // The watermark is down: slices of a new map end at `to`. Of the old map no more are made.
    let fresh = Segment::new(segment.base, segment.len, segment.path.clone(), Arc::clone(&segment.file));
    let fresh = Arc::new(fresh);
    drop(segment);
    let Some(old) = shared.log.swap(Arc::clone(&fresh)) else { return Ok(()) };
    if !Segment::is_unused(&old) && replace_segment(shared, &fresh, to)? {
        return Ok(());
    }
    wait_unused(&old);
    if !Segment::into_unused(old) {
        let source = io::Error::other("there is no room for a copy, and its readers don't end");
        return Err(shared.fail("cutting", fresh.path.clone(), source));
    }
    let end = written.min(fresh.end());
    fresh.zero(to, end).map_err(|error| shared.fail("write", fresh.path.clone(), error))?;
    fresh.file.sync_data().map_err(|error| shared.fail("fdatasync", fresh.path.clone(), error))
}

/// Readers are answers on their way to clients: they end soon.
fn wait_unused(segment: &Arc<Segment>) {
    let deadline = Instant::now() + READERS_PATIENCE;
    while !Segment::is_unused(segment) && Instant::now() < deadline {
        thread::sleep(READERS_POLL);
    }
}

/// Puts a copy that ends at `to` in the segment's place: somebody still reads the old file's bytes. `false`: the disk has no room
/// for one.
fn replace_segment(shared: &Shared, segment: &Arc<Segment>, to: u64) -> Result<bool, Arc<StoreFailure>> {
    let unfinished = shared.config.unfinished_directory().join(CUT_FILE);
    let made = allocate_file(&*shared.fs, &unfinished, &segment.path, segment.len, |file| {
        copy_bytes(segment, segment.base, to, |at, bytes| file.write_all_at(bytes, at - segment.base))
    });
    let file = match made {
        Ok(file) => file,
        Err((_, error)) if is_no_space(&error) => return Ok(false),
        Err((operation, error)) => return Err(shared.fail(operation, segment.path.clone(), error)),
    };
    shared.log.swap(Arc::new(Segment::new(segment.base, segment.len, segment.path.clone(), file)));
    Ok(true)
}

/// Hands `[from, to)` of the log, all in `segment`, to `write` piece by piece.
fn copy_bytes(
    segment: &Segment,
    from: u64,
    to: u64,
    mut write: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; COPY_BYTES.min(to - from) as usize];
    let mut at = from;
    while at < to {
        let part = &mut buffer[..COPY_BYTES.min(to - at) as usize];
        segment.file.read_exact_at(part, at - segment.base)?;
        write(at, part)?;
        at += part.len() as u64;
    }
    Ok(())
}

/// Removes the segment that was allocated ahead.
fn discard_prepared(shared: &Shared) -> Result<(), Arc<StoreFailure>> {
    shared.allocator.discard().or_else(|error| match shared.allocation_failed(error) {
        Ok(_never) => Ok(()),
        Err(failure) => Err(failure),
    })
}
