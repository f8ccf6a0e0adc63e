//! Segments are allocated whole, and durable in their directory, before anything is written to them; one ahead, by a
//! thread of its own, so that the appender doesn't wait for a gigabyte.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::commit_log::segment_path;
use crate::fs::{Fs, OpenMode};
use crate::segment::Segment;
use crate::{Config, NoSpace};

/// A segment is allocated under this name in [`Config::unfinished_directory`], and renamed.
pub(crate) const UNFINISHED: &str = "commitlog.next";

pub(crate) struct Allocator {
    fs: Arc<dyn Fs>,
    /// The log's.
    directory: PathBuf,
    unfinished: PathBuf,
    segment_bytes: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The base of the segment that should be ready.
    wanted: Option<u64>,
    /// It is being made right now.
    busy: bool,
    ready: Option<Arc<Segment>>,
    stopped: bool,
}

/// Why there is no segment.
#[derive(Debug)]
pub(crate) enum Error {
    /// Heals.
    NoSpace(Arc<NoSpace>),
    /// Doesn't: (operation, path, error).
    Io(&'static str, PathBuf, io::Error),
}

impl Allocator {
    pub(crate) fn new(fs: Arc<dyn Fs>, config: &Config) -> Self {
        Self {
            fs,
            directory: config.log_directory(),
            unfinished: config.unfinished_directory().join(UNFINISHED),
            segment_bytes: config.segment_bytes,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Asks for the segment at `base` to be made ready.
    pub(crate) fn prepare(&self, base: u64) {
        let mut state = self.state.lock();
        if state.ready.is_none() && !state.busy {
            state.wanted = Some(base);
            self.changed.notify_all();
        }
    }

    /// The segment at `base`: the one that was made ready, or a new one made here and now.
    pub(crate) fn take(&self, base: u64) -> Result<Arc<Segment>, Error> {
        let ready = self.idle_state().ready.take();
        match ready {
            Some(segment) if segment.base == base => Ok(segment),
            // `prepare` is asked for the next base only, and `discard` called before the log turns back.
            Some(other) => unreachable!("the segment at {} is ready, {base} is needed", other.base),
            None => self.allocate(base),
        }
    }

    /// Removes the segment that was made ready, if there is one: the log will go on elsewhere.
    pub(crate) fn discard(&self) -> Result<(), Error> {
        let Some(segment) = self.idle_state().ready.take() else { return Ok(()) };
        let removed = self.fs.remove_file(&segment.path);
        removed.map_err(|error| Error::Io("unlink", segment.path.clone(), error))?;
        self.fs.sync_dir(&self.directory).map_err(|error| Error::Io("fsync", self.directory.clone(), error))
    }

    /// Ends the thread.
    pub(crate) fn stop(&self) {
        self.state.lock().stopped = true;
        self.changed.notify_all();
    }

    /// The thread: makes ready what is wanted, until stopped. A failure is left to the appender, which will try
    /// again when it needs the segment and tell its producers.
    pub(crate) fn run(&self) {
        let mut state = self.state.lock();
        while !state.stopped {
            if state.wanted.is_none() {
                self.changed.wait(&mut state);
                continue;
            }
            drop(state);
            self.allocate_ahead();
            state = self.state.lock();
        }
    }

    /// Makes ready what is wanted, if anything is.
    pub(crate) fn allocate_ahead(&self) {
        let mut state = self.state.lock();
        let Some(base) = state.wanted.take() else { return };
        state.busy = true;
        drop(state);
        let result = self.allocate(base);
        let mut state = self.state.lock();
        state.busy = false;
        match result {
            Ok(segment) => state.ready = Some(segment),
            Err(Error::NoSpace(error)) => {
                tracing::warn!(%error, "can't allocate the next segment ahead of its use");
            }
            Err(Error::Io(operation, path, error)) => {
                tracing::warn!(%error, operation, path = %path.display(), "can't allocate the next segment ahead of its use");
            }
        }
        self.changed.notify_all();
    }

    /// The state once the thread isn't at work, with nothing left for it to do.
    fn idle_state(&self) -> parking_lot::MutexGuard<'_, State> {
        let mut state = self.state.lock();
        state.wanted = None;
        while state.busy {
            self.changed.wait(&mut state);
        }
        state
    }

    fn allocate(&self, base: u64) -> Result<Arc<Segment>, Error> {
        let path = segment_path(&self.directory, base);
        let result = allocate_file(&*self.fs, &self.unfinished, &path, self.segment_bytes, |_| Ok(()));
        let file = result.map_err(|(operation, error)| self.explain(operation, &path, error))?;
        Ok(Arc::new(Segment::new(base, self.segment_bytes, path, file)))
    }

    fn explain(&self, operation: &'static str, path: &Path, error: io::Error) -> Error {
        if !is_no_space(&error) {
            return Error::Io(operation, path.to_owned(), error);
        }
        Error::NoSpace(Arc::new(NoSpace {
            path: path.to_owned(),
            wanted_bytes: self.segment_bytes,
            space: self.fs.space(&self.directory).ok(),
            source: error,
        }))
    }
}

/// Whether an error means that room is missing, which heals.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Makes a file of `len` allocated bytes at `unfinished`, lets `put` write into it, and moves it durably to `path`.
pub(crate) fn allocate_file(
    fs: &dyn Fs,
    unfinished: &Path,
    path: &Path,
    len: u64,
    put: impl FnOnce(&dyn crate::fs::File) -> io::Result<()>,
) -> Result<Arc<dyn crate::fs::File>, (&'static str, io::Error)> {
    let root = unfinished.parent().unwrap_or(unfinished);
    let directory = path.parent().unwrap_or(path);
    // Looking first keeps a nearly full disk from being filled to the brim by an allocation that fails anyway.
    if fs.space(root).map_err(|error| ("statvfs", error))?.available_bytes < len {
        return Err(("fallocate", io::ErrorKind::StorageFull.into()));
    }
    let file = fs.open(unfinished, OpenMode::Truncate).map_err(|error| ("open", error))?;
    let made = file
        .allocate(len)
        .map_err(|error| ("fallocate", error))
        .and_then(|()| put(&*file).map_err(|error| ("write", error)))
        .and_then(|()| file.sync_all().map_err(|error| ("fsync", error)));
    if let Err(error) = made {
        // Best effort: what is left is removed at the next attempt or start.
        let _removed = fs.remove_file(unfinished);
        return Err(error);
    }
    fs.rename(unfinished, path).map_err(|error| ("rename", error))?;
    fs.sync_dir(directory).and_then(|()| fs.sync_dir(root)).map_err(|error| ("fsync of the directory", error))?;
    Ok(file)
}
