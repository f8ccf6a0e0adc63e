//! Opening a store: what is there, what of it counts, and making the rest go away for good.
//!
//! 1. A cut that was under way (`checkpoint`, field `cut`) is finished.
//! 2. The log is read from the checkpoint's `dispatched` (everything before it is known to be flushed and indexed), or
//!    from its beginning if no checkpoint of ours holds, to the first bytes that aren't a record: structure, place
//!    (PHYSICALOFFSET), and the record's CRC, or, where it has none, body CRC and sectors of zeros in the properties. A
//!    reading that takes long notes how far it is ([`resume`]), and an interrupted one goes on there.
//! 3. That must not be below what was known to be flushed: this would be damage, not a torn tail, and cutting there would lose
//!    acknowledged messages in silence. Without a checkpoint of ours other signs count ([`evidence`]).
//! 4. Everything behind the end is made zeros, or removed, and synced. What was read and not known to be flushed is
//!    written once more before it is synced: if a write-back of the former process had failed, its pages are marked
//!    clean and a sync alone would not write them.
//! 5. Consume queue units and index entries from `dispatched` on are taken away. The dispatcher makes them again, with
//!    checkpoints in between while that takes long.
//!
//! What comes of each kind of damage is a table in `docs/file-format.md`, with its test in `tests/store/recovery.rs`
//! and `tests/store/damage.rs`.
//!
//! # Why stale bytes are never taken for records
//!
//! Bytes behind the log's end (`written`) are zeros, always: a segment is allocated as zeros and made under a name of
//! its own; the appender writes at the end only; truncation ([`crate::appender`]) and step 4 zero what they cut, and
//! sync that, before anything is appended. Truncation is covered by `cut` from its first change to its last, so a
//! crash in between comes back here to step 1. So after a crash, what lies behind the last flushed byte is a mixture, sector by
//! sector, of what was written there last and of zeros. A record is valid only if all its sectors are there, and it says
//! itself where it lies; and the scan ends at the first that isn't. Whole records behind a torn one are not reached
//! now, and zeroed, so that they can't come back after the gap before them was filled with records of the same size.

mod evidence;
mod log_scan;
mod progress;
mod resume;
mod segments;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::evidence::Known;
pub(crate) use self::evidence::is_record_of;
use self::log_scan::LogScan;
pub use self::progress::{RecoveryPhase, RecoveryProgress, RecoverySnapshot};
pub(crate) use self::resume::FILE as PROGRESS_FILE;
use self::resume::Resume;
pub(crate) use self::segments::{clear_behind, open_segments};
use crate::checkpoint::{self, Checkpoint, Found, Visible};
use crate::commit_log::segment_path;
use crate::fs::{Fs, OpenMode};
use crate::index::{self, Index};
use crate::queue_numbers::{self, QueueNumber, Unreadable};
use crate::queue_offsets::QueueOffsets;
use crate::queues::Queues;
use crate::queues::files::{QueueFiles, UnitsPerFile};
use crate::queues::recover::{self, recover};
use crate::record::Reason;
use crate::segment::Segment;
use crate::{Config, Damage, OpenError, PhysicalOffset, Watermarks, allocator, atomic_file};

/// While the store is open: found at start, the last stop was unclean.
pub(crate) const ABORT_FILE: &str = "abort";
/// A segment that replaces another one, being made.
pub(crate) const CUT_FILE: &str = "commitlog.cut";

/// A store as it was found and put in order.
pub(crate) struct Recovered {
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) queues: Queues,
    pub(crate) index: Index,
    pub(crate) queue_offsets: QueueOffsets,
    pub(crate) marks: Watermarks,
    pub(crate) checkpoint: Checkpoint,
}

/// Puts the store under `config.root` in order. The lock is held.
pub(crate) fn run(fs: &Arc<dyn Fs>, config: &Config) -> Result<Recovered, OpenError> {
    let root = config.root.as_path();
    let checkpoint_path = root.join(checkpoint::FILE);
    let (known, physical_ms) = match checkpoint::read(&**fs, root).map_err(io_error("read", &checkpoint_path))? {
        Found::Ours(known) => (Some(known), 0),
        Found::Foreign { physical_ms } => (None, physical_ms),
        Found::Nothing => (None, 0),
        Found::Later(version) => return Err(OpenError::Later { path: checkpoint_path, version }),
    };
    remove_unfinished(&**fs, config)?;
    let mut segments = open_segments(&**fs, config)?;
    let found_abort = atomic_file::read_on(&**fs, &root.join(ABORT_FILE));
    let found_abort = found_abort.map_err(io_error("read", &root.join(ABORT_FILE)))?;
    let clean_stop = found_abort.is_none() && known.is_none_or(|known| known.clean);
    let resume = found_abort.as_deref().map(|abort| Resume::read(&**fs, root, abort)).transpose();
    let resume = resume.map_err(io_error("read", &root.join(resume::FILE)))?.flatten();
    // A recovery that goes on keeps the mark of the one before: what that one noted holds with it.
    let abort = match (found_abort, &resume) {
        (Some(abort), Some(_)) => abort,
        _ => mark_running(&**fs, root)?,
    };
    if let Some(cut) = known.and_then(|known| known.cut) {
        tracing::info!(cut, "finishing a truncation that a crash interrupted");
        clear_behind(&**fs, &config.log_directory(), &mut segments, cut)?;
    }
    Opening { fs, config, known, physical_ms, clean_stop, abort }.run(segments, resume)
}

struct Opening<'a> {
    fs: &'a Arc<dyn Fs>,
    config: &'a Config,
    known: Option<Checkpoint>,
    /// What Apache's part of a checkpoint that isn't ours says was on disk.
    physical_ms: i64,
    /// Nothing says that the last stop was unclean.
    clean_stop: bool,
    abort: Vec<u8>,
}

impl Opening<'_> {
    fn run(&self, mut segments: Vec<Arc<Segment>>, resume: Option<Resume>) -> Result<Recovered, OpenError> {
        let root = self.config.root.as_path();
        let oldest = segments.first().map_or(0, |first| first.base);
        self.refuse_missing_end(&segments)?;
        let numbers = read_numbers(&**self.fs, root)?;
        let index = self.index(oldest, &segments)?;
        let (mut scan, queues, stopped) = self.read(oldest, &segments, (&numbers, index.next()), resume)?;
        self.refuse_damage(&segments, &scan, stopped.as_ref())?;
        if let Some(damage) = stopped.filter(|damage| damage.reason != Reason::Zeros) {
            tracing::warn!(%damage, "the log's tail is torn, and cut here");
        }
        scan.secure()?;
        let LogScan { from, reached: end, offsets: mut queue_offsets, .. } = scan;
        queue_numbers::apply(&numbers, &mut queue_offsets, &queues);
        tracing::info!(oldest, from, end, clean = self.clean_stop, "the log is read");
        if let Some(known) = self.known.and_then(|known| known.visible).filter(|known| known.oldest < oldest) {
            // After a checkpoint retention may have deleted some. If it hasn't, here is the trace of it.
            tracing::warn!(oldest, before = known.oldest, "the log begins later than at the last checkpoint");
        }
        clear_behind(&**self.fs, &self.config.log_directory(), &mut segments, end)?;

        let confirmed = self.known.map_or(oldest, |known| known.confirmed).clamp(from, end);
        let marks = Watermarks {
            written: PhysicalOffset(end),
            flushed: PhysicalOffset(end),
            confirmed: PhysicalOffset(confirmed),
            dispatched: PhysicalOffset(from),
        };
        let checkpoint = Checkpoint {
            timestamp_ms: self.known.map_or(0, |known| known.timestamp_ms),
            dispatched: from,
            confirmed,
            flushed: end,
            cut: None,
            queues: queues.count() as u32,
            visible: Some(Visible { messages: queues.visible(), oldest }),
            index: index.claim(),
            clean: false,
        };
        // What was zeroed in the queues is durable before anything is claimed again.
        queues.files.sync().map_err(|(path, error)| io_error("fsync", &path)(error))?;
        Resume::forget(&**self.fs, root).map_err(io_error("unlink", &root.join(resume::FILE)))?;
        checkpoint::write(&**self.fs, root, &checkpoint)
            .map_err(io_error("replacement", &root.join(checkpoint::FILE)))?;
        Ok(Recovered { segments, queues, index, queue_offsets, marks, checkpoint })
    }

    fn index(&self, oldest: u64, segments: &[Arc<Segment>]) -> Result<Index, OpenError> {
        let end = segments.last().map_or(oldest, |last| last.end());
        let known = self.known.filter(|known| (oldest..=end).contains(&known.dispatched));
        let known = known.map(|known| index::Known {
            dispatched: known.dispatched,
            claim: known.index,
            clean: self.clean_stop,
        });
        Index::open(self.fs, self.config, known, oldest).map_err(|(path, error)| io_error("opening", &path)(error))
    }

    /// Opens the consume queues and reads the log from where they hold. If the log shows that they lack something, they are
    /// made again from its beginning.
    fn read<'a>(
        &'a self,
        oldest: u64,
        segments: &'a [Arc<Segment>],
        (numbers, indexed): (&[QueueNumber], u64),
        mut resume: Option<Resume>,
    ) -> Result<(LogScan<'a>, Queues, Option<Damage>), OpenError> {
        let (mut from, mut queues) = self.queues(oldest, segments, numbers, indexed)?;
        loop {
            let mut scan = self.scan(segments, from, &queues, resume.take());
            let stopped = scan.run()?;
            if !scan.gap || from == oldest {
                return Ok((scan, queues, stopped));
            }
            tracing::warn!("consume queues lack messages that the log has: all are made again from the log");
            (from, queues) = (oldest, self.no_queues()?);
        }
    }

    fn scan<'a>(
        &'a self,
        segments: &'a [Arc<Segment>],
        from: u64,
        queues: &Queues,
        resume: Option<Resume>,
    ) -> LogScan<'a> {
        let end = segments.last().map_or(from, |last| last.end());
        let resume = resume.filter(|resume| resume.from == from && resume.reached <= end).unwrap_or_else(|| {
            let mut offsets = QueueOffsets::default();
            for queue in queues.all() {
                offsets.set(&queue.topic, queue.id, queue.max());
            }
            Resume { from, reached: from, timestamp_ms: 0, offsets }
        });
        if resume.reached > from {
            tracing::info!(from, reached = resume.reached, "going on where an interrupted recovery was");
        }
        LogScan {
            fs: &**self.fs,
            config: self.config,
            segments,
            abort: &self.abort,
            clean_stop: self.clean_stop,
            from,
            reached: resume.reached,
            secured: self.known.map_or(0, |known| known.flushed).max(resume.reached),
            offsets: resume.offsets,
            timestamp_ms: resume.timestamp_ms,
            gap: false,
        }
    }

    /// The consume queues, and up to where they hold: the log has to be dispatched from there.
    fn queues(
        &self,
        oldest: u64,
        segments: &[Arc<Segment>],
        numbers: &[QueueNumber],
        indexed: u64,
    ) -> Result<(u64, Queues), OpenError> {
        let end = segments.last().map_or(oldest, |last| last.end());
        if let Some(known) = self.known.filter(|known| (oldest..=end).contains(&known.dispatched)) {
            let queues = self.new_queues();
            // Where the index ends sooner all goes on from there.
            let dispatched = known.dispatched.min(indexed);
            let known = Checkpoint { visible: known.visible.filter(|_| dispatched == known.dispatched), ..known };
            let bounds = recover::Bounds { dispatched, clean: self.clean_stop, segments };
            match recover(&queues, &**self.fs, bounds) {
                Ok(()) if is_all(&queues, numbers, &known, oldest) => return Ok((dispatched, queues)),
                Ok(()) => tracing::warn!(
                    found = queues.count(),
                    expected = known.queues,
                    "consume queues are missing, or parts of them: all are made again from the log"
                ),
                Err(recover::Error::Unusable(why)) => {
                    tracing::warn!(%why, "the consume queues can't be used: all are made again from the log");
                }
                Err(recover::Error::Io((path, error))) => return Err(io_error("opening", &path)(error)),
            }
        } else if oldest < end {
            tracing::warn!("no checkpoint that holds: the consume queues are made again from the log");
        }
        Ok((oldest, self.no_queues()?))
    }

    fn new_queues(&self) -> Queues {
        let Config { queue_file_units, batch_queue_file_units, max_open_queue_files, root, .. } = self.config;
        let units = UnitsPerFile { single: *queue_file_units, batch: *batch_queue_file_units };
        Queues::new(root.clone(), QueueFiles::new(Arc::clone(self.fs), units, *max_open_queue_files))
    }

    /// None, and no files of any.
    fn no_queues(&self) -> Result<Queues, OpenError> {
        let queues = self.new_queues();
        queues.clear().map_err(|(path, error)| io_error("clearing", &path)(error))?;
        Ok(queues)
    }

    /// Segments at the log's end that the checkpoint knows of are missing.
    fn refuse_missing_end(&self, segments: &[Arc<Segment>]) -> Result<(), OpenError> {
        let flushed = self.known.map_or(0, |known| known.flushed);
        let end = segments.last().map_or(flushed - flushed % self.config.segment_bytes, |last| last.end());
        if end >= flushed && (!segments.is_empty() || flushed == 0) {
            return Ok(());
        }
        let give_up = if segments.is_empty() {
            let checkpoint = self.config.root.join(checkpoint::FILE);
            format!("remove {} to begin with an empty log", checkpoint.display())
        } else {
            format!("give up what it held with `gantry store repair --cut {end}`")
        };
        Err(OpenError::Layout {
            path: segment_path(&self.config.log_directory(), end),
            reason: format!(
                "is missing: the checkpoint says that the log reached to {flushed} at least. Restore it (or set \
                 storePathCommitLog to where it is), or {give_up}"
            ),
        })
    }

    fn refuse_damage(
        &self,
        segments: &[Arc<Segment>],
        scan: &LogScan<'_>,
        stopped: Option<&Damage>,
    ) -> Result<(), OpenError> {
        let known =
            self.known.map_or(Known::Foreign { clean_stop: self.clean_stop, physical_ms: self.physical_ms }, |known| {
                Known::Flushed(known.flushed)
            });
        let end = scan.reached;
        let segment = segments.iter().find(|segment| segment.end() > end);
        let path =
            segment.map_or_else(|| segment_path(&self.config.log_directory(), end), |segment| segment.path.clone());
        let proof = evidence::against_cutting(known, segments, end, stopped, scan.timestamp_ms);
        let Some(proof) = proof.map_err(io_error("read", &path))? else { return Ok(()) };
        let at = PhysicalOffset(end);
        let damage = stopped.cloned().unwrap_or(Damage { at, reason: Reason::Zeros });
        Err(OpenError::Damaged { path, damage, proof })
    }
}

/// Whether no queue is missing, and no file of one.
fn is_all(queues: &Queues, numbers: &[QueueNumber], known: &Checkpoint, oldest: u64) -> bool {
    let visible = known.visible.filter(|visible| visible.oldest == oldest);
    queues.count() as u32 + without_files(queues, numbers) >= known.queues
        && visible.is_none_or(|visible| queues.visible() >= visible.messages)
}

/// How many queues are known by their number only.
fn without_files(queues: &Queues, numbers: &[QueueNumber]) -> u32 {
    numbers.iter().filter(|number| queues.get(&number.topic, number.queue_id).is_none()).count() as u32
}

fn read_numbers(fs: &dyn Fs, root: &Path) -> Result<Vec<QueueNumber>, OpenError> {
    let path = root.join(queue_numbers::FILE);
    let numbers = queue_numbers::read(fs, root).map_err(io_error("read", &path))?;
    match numbers {
        Ok(numbers) => Ok(numbers),
        Err(Unreadable::Later(version)) => Err(OpenError::Later { path, version }),
        Err(Unreadable::Damaged) => {
            tracing::error!(
                path = %path.display(),
                "the file is damaged: a queue that has neither messages nor a consume queue file begins at 0 again"
            );
            Ok(Vec::new())
        }
    }
}

fn remove_unfinished(fs: &dyn Fs, config: &Config) -> Result<(), OpenError> {
    let directory = config.unfinished_directory();
    for unfinished in [allocator::UNFINISHED, CUT_FILE] {
        if exists(fs, &directory, unfinished)? {
            let path = directory.join(unfinished);
            fs.remove_file(&path).map_err(io_error("unlink", &path))?;
        }
    }
    Ok(())
}

/// Makes `abort`, with a content that no other run of any broker writes; answers it.
fn mark_running(fs: &dyn Fs, root: &Path) -> Result<Vec<u8>, OpenError> {
    let path = root.join(ABORT_FILE);
    // The standard library's random hash keys.
    let unique = RandomState::new().build_hasher().finish();
    let content = format!("{} gantry {unique:016x}\n", std::process::id()).into_bytes();
    let file = fs.open(&path, OpenMode::Truncate).map_err(io_error("open", &path))?;
    file.write_all_at(&content, 0).map_err(io_error("write", &path))?;
    fs.sync_dir(root).map_err(io_error("fsync", root))?;
    Ok(content)
}

fn exists(fs: &dyn Fs, root: &Path, name: &str) -> Result<bool, OpenError> {
    let entries = fs.list(root).map_err(io_error("listing", root))?;
    Ok(entries.iter().any(|entry| entry.name == name))
}

/// Says which file it was.
pub(crate) fn io_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path: PathBuf = path.to_owned();
    move |source| OpenError::Io { operation, path, source }
}
