//! Repairs that give something up: done only when asked for, with the store locked, and each step durable.
//!
//! A cut is made as the store itself makes one: the tail is kept, a checkpoint says `cut`, files are changed, a checkpoint
//! without `cut` is written. Interrupted, it is finished by the next start.

use std::io;
use std::path::{Path, PathBuf};

use crate::checkpoint::{self, Checkpoint, Found};
use crate::fs::{Fs, OpenMode, RealFs};
use crate::inspect::{DIVERGENT_DIRECTORY, Finding, LogFiles, Unreadable, first_damage};
use crate::queues::Layout;
use crate::recovery::{PROGRESS_FILE, clear_behind, open_segments};
use crate::scan::{End, Scanner};
use crate::segment::Segment;
use crate::store::LOCK_FILE;
use crate::{Config, OpenError};

const COPY_BYTES: usize = 1 << 20;

/// Why a repair wasn't done.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// A broker is running on the store.
    #[error("{0} is locked: stop the broker that uses this store first")]
    Locked(PathBuf),
    /// The system refused.
    #[error("{operation} of {path} failed: {source}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file couldn't be read.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// The store's files are not as they should be by now.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The log doesn't reach there.
    #[error("{at} is not in the log, which has files from {oldest} to {end}")]
    OutOfRange {
        /// Where it was to be cut.
        at: u64,
        /// Its first byte.
        oldest: u64,
        /// The end of its files.
        end: u64,
    },
    /// No record begins there.
    #[error("{at} is not where a record begins or ends: the last such place before it is {before}")]
    NotABoundary {
        /// Where it was to be cut.
        at: u64,
        /// Where it could be.
        before: u64,
    },
}

/// A store that is locked for a repair, until dropped.
pub struct Repair {
    config: Config,
    _lock: Box<dyn Send + Sync>,
}

/// What a cut would take away.
#[derive(Clone, Debug)]
pub struct CutPlan {
    /// Where the log would end.
    pub at: u64,
    /// Where its files' content ends.
    pub end: u64,
    /// Whole records behind the cut, as far as they can be found.
    pub records: u64,
    /// Store time of the first and the last of them, ms since 1970.
    pub store_ms: Option<(i64, i64)>,
    /// Bytes that would be kept in `divergent/`.
    pub kept_bytes: u64,
    /// What is wrong there, for a cut at damage.
    pub damage: Option<Finding>,
}

impl Repair {
    /// Locks the store in `config.root`; of the rest of `config` only where the log lies counts.
    pub fn lock(config: &Config) -> Result<Self, RepairError> {
        let path = config.root.join(LOCK_FILE);
        RealFs.list(&config.root).map_err(failed("listing", &config.root))?;
        let lock = RealFs.lock(&path).map_err(failed("locking", &path))?;
        let lock = lock.ok_or(RepairError::Locked(path))?;
        Ok(Self { config: config.clone(), _lock: lock })
    }

    /// What cutting at the first damage would take away; `None` if the log is whole. Reads all of it.
    pub fn plan_cut_at_damage(&self, watch: &mut dyn FnMut(u64, u64)) -> Result<Option<CutPlan>, RepairError> {
        let files = self.files()?;
        let total = files.bytes();
        let Some((at, damage)) = first_damage(&files, &mut |done| watch(done, total))? else { return Ok(None) };
        Ok(Some(CutPlan { damage: Some(damage), ..plan(&files, at)? }))
    }

    /// What cutting at `at`, where a record begins or ends, would take away.
    pub fn plan_cut(&self, at: u64) -> Result<CutPlan, RepairError> {
        let files = self.files()?;
        let (oldest, end) = (files.oldest(), files.segments.last().map_or(0, |last| last.end()));
        if at < oldest || at > end {
            return Err(RepairError::OutOfRange { at, oldest, end });
        }
        if let Some(segment) = files.segments.iter().find(|segment| segment.base < at && at < segment.end()) {
            let scanned = Scanner::new(segment).scan(segment.base, at, false, |_| {});
            let (reached, end) = scanned.map_err(failed("reading", &segment.path))?;
            if reached != at {
                let before = if matches!(end, End::Stopped(_)) { reached } else { last_boundary(segment, at)? };
                return Err(RepairError::NotABoundary { at, before });
            }
        }
        plan(&files, at)
    }

    /// Cuts: what lies behind is kept in `divergent/`, whose files are answered. Consume queues follow at the next start.
    pub fn cut(&self, plan: &CutPlan) -> Result<Vec<PathBuf>, RepairError> {
        let root = self.config.root.as_path();
        let files = self.files()?;
        if let Some(path) = files.foreign.first() {
            let reason = "no segment of a commit log: move it elsewhere first".to_owned();
            return Err(OpenError::Layout { path: path.clone(), reason }.into());
        }
        let kept = keep_tail(&files, plan.at, &root.join(DIVERGENT_DIRECTORY))?;
        let path = root.join(checkpoint::FILE);
        let known = match checkpoint::read(&RealFs, root).map_err(failed("reading", &path))? {
            Found::Ours(known) => known,
            Found::Later(version) => return Err(OpenError::Later { path, version }.into()),
            Found::Foreign { .. } | Found::Nothing => {
                let oldest = files.oldest().min(plan.at);
                Checkpoint { dispatched: oldest, confirmed: oldest, flushed: plan.at, ..Checkpoint::default() }
            }
        };
        let lowered = Checkpoint {
            dispatched: known.dispatched.min(plan.at),
            confirmed: known.confirmed.min(plan.at),
            flushed: known.flushed.min(plan.at),
            cut: Some(plan.at),
            visible: None,
            clean: false,
            ..known
        };
        checkpoint::write(&RealFs, root, &lowered).map_err(failed("replacing", &path))?;
        forget(&root.join(PROGRESS_FILE))?;
        make_whole(&files, plan.at)?;
        let config = Config { segment_bytes: files.segment_bytes, ..self.config.clone() };
        let mut segments = open_segments(&RealFs, &config)?;
        clear_behind(&RealFs, &config.log_directory(), &mut segments, plan.at)?;
        checkpoint::write(&RealFs, root, &Checkpoint { cut: None, ..lowered }).map_err(failed("replacing", &path))?;
        Ok(kept)
    }

    /// Removes all consume queues: the next start makes them again from the log.
    pub fn remove_queues(&self) -> Result<(), RepairError> {
        for layout in Layout::ALL {
            let directory = self.config.root.join(layout.directory());
            match RealFs.remove_dir_all(&directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other.map_err(failed("removal", &directory))?,
            }
        }
        RealFs.sync_dir(&self.config.root).map_err(failed("fsync", &self.config.root))
    }

    fn files(&self) -> Result<LogFiles, RepairError> {
        Ok(LogFiles::list(&self.config.log_directory())?)
    }
}

fn plan(files: &LogFiles, at: u64) -> Result<CutPlan, RepairError> {
    let mut plan = CutPlan { at, end: at, records: 0, store_ms: None, kept_bytes: 0, damage: None };
    for segment in files.segments.iter().filter(|segment| segment.end() > at) {
        let from = at.max(segment.base);
        let used = used_end(segment, from)?;
        plan.end = plan.end.max(used);
        plan.kept_bytes += used - from;
        let scanned = Scanner::new(segment).scan(from, segment.end(), true, |record| {
            plan.records += 1;
            let first = plan.store_ms.map_or(record.store_timestamp_ms, |(first, _)| first);
            plan.store_ms = Some((first, record.store_timestamp_ms));
        });
        scanned.map_err(failed("reading", &segment.path))?;
    }
    Ok(plan)
}

/// The last place before `at` where a record begins.
fn last_boundary(segment: &Segment, at: u64) -> Result<u64, RepairError> {
    let mut last = segment.base;
    let scanned = Scanner::new(segment).scan(segment.base, at, false, |record| last = record.physical.0);
    scanned.map_err(failed("reading", &segment.path))?;
    Ok(last)
}

/// The end of the last bytes from `from` on that aren't zeros; `from` if there are none.
fn used_end(segment: &Segment, from: u64) -> Result<u64, RepairError> {
    let mut end = from;
    pieces(segment, from, |at, bytes| {
        if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
            end = at + last as u64 + 1;
        }
        Ok(())
    })?;
    Ok(end)
}

/// Hands what may be data from `from` on to `visit`, with its place in the log.
fn pieces(
    segment: &Segment,
    from: u64,
    mut visit: impl FnMut(u64, &[u8]) -> Result<(), RepairError>,
) -> Result<(), RepairError> {
    let failed = |error| failed("reading", &segment.path)(error);
    let mut buffer = vec![0; COPY_BYTES];
    let mut place = from - segment.base;
    while let Some(data) = segment.file.next_data(place).map_err(failed)?.filter(|data| *data < segment.len) {
        let read = segment.file.read_at(&mut buffer, data).map_err(failed)?;
        if read == 0 {
            break;
        }
        visit(segment.base + data, &buffer[..read])?;
        place = data + read as u64;
    }
    Ok(())
}

/// Copies what lies behind `at` to a file a segment, durably, unused room left out.
fn keep_tail(files: &LogFiles, at: u64, directory: &Path) -> Result<Vec<PathBuf>, RepairError> {
    RealFs.create_dir_all(directory).map_err(failed("making", directory))?;
    let mut kept = Vec::new();
    for segment in files.segments.iter().filter(|segment| segment.end() > at) {
        let from = at.max(segment.base);
        let end = used_end(segment, from)?;
        if end == from {
            continue;
        }
        let path = unused_name(directory, from, end);
        let unfinished = path.with_extension("tmp");
        let file = RealFs.open(&unfinished, OpenMode::Truncate).map_err(failed("making", &unfinished))?;
        pieces(segment, from, |place, bytes| {
            let len = bytes.len().min(end.saturating_sub(place) as usize);
            file.write_all_at(&bytes[..len], place - from).map_err(failed("writing", &unfinished))
        })?;
        file.sync_all().map_err(failed("fsync", &unfinished))?;
        RealFs.rename(&unfinished, &path).map_err(failed("renaming", &unfinished))?;
        kept.push(path);
    }
    RealFs.sync_dir(directory).map_err(failed("fsync", directory))?;
    let root = directory.parent().unwrap_or(directory);
    RealFs.sync_dir(root).map_err(failed("fsync", root))?;
    Ok(kept)
}

/// The same range may have been cut before, with other bytes.
fn unused_name(directory: &Path, from: u64, end: u64) -> PathBuf {
    let name = |number: u32| directory.join(format!("{from:020}-{end:020}.{number}"));
    (0..u32::MAX).map(name).find(|path| !path.exists()).unwrap_or_else(|| name(u32::MAX))
}

/// Removes segments behind the cut, whatever they are, and gives the one that holds it its whole length.
fn make_whole(files: &LogFiles, at: u64) -> Result<(), RepairError> {
    for (index, segment) in files.segments.iter().enumerate() {
        let path = &segment.path;
        if segment.base >= at && index > 0 {
            RealFs.remove_file(path).map_err(failed("removal", path))?;
        } else if segment.len != files.segment_bytes {
            let file = RealFs.open(path, OpenMode::Write).map_err(failed("opening", path))?;
            file.set_len(files.segment_bytes).map_err(failed("setting the length", path))?;
            file.allocate(files.segment_bytes).map_err(failed("allocating", path))?;
            file.sync_all().map_err(failed("fsync", path))?;
        }
    }
    Ok(())
}

fn forget(path: &Path) -> Result<(), RepairError> {
    match RealFs.remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(failed("removal", path)),
    }
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RepairError {
    let path = path.to_owned();
    move |source| RepairError::Io { operation, path, source }
}
