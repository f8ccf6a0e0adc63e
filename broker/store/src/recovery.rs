//! Opening a store: what is there, what of it counts, and making the rest go away for good.
//!
//! 1. A cut that was under way (`checkpoint`, field `cut`) is finished.
//! 2. The log is read from the checkpoint's `dispatched` (everything before it is known to be flushed and indexed), or
//!    from its beginning if no checkpoint of ours holds, to the first bytes that aren't a record: structure, place
//!    (PHYSICALOFFSET), and the record's CRC, or, where it has none, body CRC and sectors of zeros in the properties.
//! 3. That must not be below what was known to be flushed: this would be damage, not a torn tail, and cutting there would lose
//!    acknowledged messages in silence.
//! 4. Everything behind the end is made zeros, or removed, and synced. What was read and not known to be flushed is
//!    written once more before it is synced: if a write-back of the former process had failed, its pages are marked
//!    clean and a sync alone would not write them.
//! 5. Consume queue units from `dispatched` on are taken away. The dispatcher makes them again.
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

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::allocator;
use crate::checkpoint::{self, Checkpoint};
use crate::commit_log::segment_path;
use crate::fs::{Fs, OpenMode};
use crate::queue_numbers::{self, QueueNumber};
use crate::queue_offsets::QueueOffsets;
use crate::queues::files::QueueFiles;
use crate::queues::recover::{self, recover};
use crate::queues::{self, Queues};
use crate::scan::{End, Scanner, is_unused};
use crate::segment::Segment;
use crate::{Config, Damage, OpenError, PhysicalOffset, Watermarks};

/// While the store is open: found at start, the last stop was unclean.
pub(crate) const ABORT_FILE: &str = "abort";
/// A segment that replaces another one, being made.
pub(crate) const CUT_FILE: &str = "commitlog.cut";

/// A store as it was found and put in order.
pub(crate) struct Recovered {
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) queues: Queues,
    pub(crate) queue_offsets: QueueOffsets,
    pub(crate) marks: Watermarks,
    pub(crate) checkpoint: Checkpoint,
}

/// Puts the store under `config.root` in order. The lock is held.
pub(crate) fn run(fs: &Arc<dyn Fs>, config: &Config) -> Result<Recovered, OpenError> {
    let root = config.root.as_path();
    let clean_stop = !exists(&**fs, root, ABORT_FILE)?;
    mark_running(&**fs, root)?;
    let unfinished_directory = config.unfinished_directory();
    for unfinished in [allocator::UNFINISHED, CUT_FILE] {
        if exists(&**fs, &unfinished_directory, unfinished)? {
            let path = unfinished_directory.join(unfinished);
            fs.remove_file(&path).map_err(io_error("unlink", &path))?;
        }
    }
    let known = checkpoint::read(&**fs, root).map_err(io_error("read", &root.join(checkpoint::FILE)))?;
    let mut segments = open_segments(&**fs, config)?;
    if let Some(cut) = known.and_then(|known| known.cut) {
        tracing::info!(cut, "finishing a truncation that a crash interrupted");
        clear_behind(&**fs, &config.log_directory(), &mut segments, cut)?;
    }
    Opening { fs, config, known, clean_stop: clean_stop && known.is_some_and(|known| known.clean) }.run(segments)
}

struct Opening<'a> {
    fs: &'a Arc<dyn Fs>,
    config: &'a Config,
    known: Option<Checkpoint>,
    /// The last stop was clean, by our own word.
    clean_stop: bool,
}

impl Opening<'_> {
    fn run(&self, mut segments: Vec<Arc<Segment>>) -> Result<Recovered, OpenError> {
        let root = self.config.root.as_path();
        let oldest = segments.first().map_or(0, |first| first.base);
        let numbers = read_numbers(&**self.fs, root)?;
        let (from, queues) = self.queues(oldest, &segments, &numbers)?;
        let mut queue_offsets = QueueOffsets::default();
        for queue in queues.all() {
            queue_offsets.set(&queue.topic, queue.id, queue.max());
        }

        let (end, stopped) = scan(&segments, from, &mut queue_offsets)?;
        queue_numbers::apply(&numbers, &mut queue_offsets, &queues);
        let flushed = self.known.map_or(0, |known| known.flushed);
        if end < flushed {
            return Err(self.damaged(&segments, end, flushed, stopped));
        }
        tracing::info!(oldest, from, end, clean = self.clean_stop, "the log is read");
        if !self.clean_stop {
            rewrite(&segments, flushed.max(oldest).min(end), end)?;
        }
        clear_behind(&**self.fs, &self.config.log_directory(), &mut segments, end)?;
        for segment in segments.iter().filter(|segment| segment.base < end && segment.end() > flushed) {
            segment.file.sync_data().map_err(io_error("fdatasync", &segment.path))?;
        }

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
            clean: false,
        };
        // What was zeroed in the queues is durable before anything is claimed again.
        queues.files.sync().map_err(|(path, error)| io_error("fsync", &path)(error))?;
        checkpoint::write(&**self.fs, root, &checkpoint)
            .map_err(io_error("replacement", &root.join(checkpoint::FILE)))?;
        Ok(Recovered { segments, queues, queue_offsets, marks, checkpoint })
    }

    /// The consume queues, and up to where they hold: the log has to be dispatched from there.
    fn queues(
        &self,
        oldest: u64,
        segments: &[Arc<Segment>],
        numbers: &[QueueNumber],
    ) -> Result<(u64, Queues), OpenError> {
        let end = segments.last().map_or(oldest, |last| last.end());
        let directory = self.config.root.join(queues::DIRECTORY);
        let make = || {
            let files =
                QueueFiles::new(Arc::clone(self.fs), self.config.queue_file_units, self.config.max_open_queue_files);
            Queues::new(directory.clone(), files)
        };
        if let Some(known) = self.known.filter(|known| (oldest..=end).contains(&known.dispatched)) {
            let queues = make();
            match recover(&queues, &**self.fs, known.dispatched, oldest, self.clean_stop) {
                Ok(()) if queues.count() as u32 + without_files(&queues, numbers) >= known.queues => {
                    return Ok((known.dispatched, queues));
                }
                Ok(()) => tracing::warn!(
                    found = queues.count(),
                    expected = known.queues,
                    "consume queues are missing: all are made again from the log"
                ),
                Err(recover::Error::Unusable(why)) => {
                    tracing::warn!(%why, "the consume queues can't be used: all are made again from the log");
                }
                Err(recover::Error::Io((path, error))) => return Err(io_error("opening", &path)(error)),
            }
        } else if oldest < end {
            tracing::warn!("no checkpoint that holds: the consume queues are made again from the log");
        }
        let queues = make();
        queues.clear().map_err(|(path, error)| io_error("clearing", &path)(error))?;
        Ok((oldest, queues))
    }

    fn damaged(&self, segments: &[Arc<Segment>], end: u64, flushed: u64, stopped: Option<Damage>) -> OpenError {
        let at = PhysicalOffset(end);
        let segment = segments.iter().find(|segment| segment.end() > end);
        OpenError::Damaged {
            path: segment
                .map_or_else(|| segment_path(&self.config.log_directory(), end), |segment| segment.path.clone()),
            damage: stopped.unwrap_or(Damage { at, reason: crate::record::Reason::Zeros }),
            flushed: PhysicalOffset(flushed),
        }
    }
}

/// How many queues are known by their number only.
fn without_files(queues: &Queues, numbers: &[QueueNumber]) -> u32 {
    numbers.iter().filter(|number| queues.get(&number.topic, number.queue_id).is_none()).count() as u32
}

fn read_numbers(fs: &dyn Fs, root: &Path) -> Result<Vec<QueueNumber>, OpenError> {
    let path = root.join(queue_numbers::FILE);
    let numbers = queue_numbers::read(fs, root).map_err(io_error("read", &path))?;
    Ok(numbers.unwrap_or_else(|| {
        tracing::error!(
            path = %path.display(),
            "the file is damaged: a queue that has neither messages nor a consume queue file begins at 0 again"
        );
        Vec::new()
    }))
}

/// Reads records from `from` on; answers where they end, and what is wrong there.
fn scan(segments: &[Arc<Segment>], from: u64, offsets: &mut QueueOffsets) -> Result<(u64, Option<Damage>), OpenError> {
    let mut at = from;
    for segment in segments.iter().filter(|segment| segment.end() > from) {
        let scanned = Scanner::new(segment).scan(at, segment.end(), true, |record| offsets.observe(record));
        let (reached, end) = scanned.map_err(io_error("read", &segment.path))?;
        at = reached;
        if let End::Stopped(damage) = &end {
            if !is_unused(&end) {
                tracing::warn!(%damage, path = %segment.path.display(), "the log's tail is torn, and cut here");
            }
            return Ok((at, Some(damage.clone())));
        }
    }
    Ok((at, None))
}

/// Makes `[from, to)` dirty again, with the bytes that it has.
fn rewrite(segments: &[Arc<Segment>], from: u64, to: u64) -> Result<(), OpenError> {
    const CHUNK_BYTES: u64 = 1 << 20;
    let mut buffer = Vec::new();
    for segment in segments.iter().filter(|segment| segment.base < to && segment.end() > from) {
        let mut at = from.max(segment.base);
        let end = to.min(segment.end());
        while at < end {
            buffer.resize((end - at).min(CHUNK_BYTES) as usize, 0);
            let place = at - segment.base;
            segment.file.read_exact_at(&mut buffer, place).map_err(io_error("read", &segment.path))?;
            segment.file.write_all_at(&buffer, place).map_err(io_error("write", &segment.path))?;
            at += buffer.len() as u64;
        }
    }
    Ok(())
}

/// Takes away, durably, what lies behind `end`: segments that begin there or later (but the first one, which says where
/// the log begins, is only emptied), and what the segment that holds `end` has behind it.
fn clear_behind(fs: &dyn Fs, directory: &Path, segments: &mut Vec<Arc<Segment>>, end: u64) -> Result<(), OpenError> {
    let keep = segments.partition_point(|segment| segment.base < end).max(1).min(segments.len());
    for segment in segments.drain(keep..) {
        fs.remove_file(&segment.path).map_err(io_error("unlink", &segment.path))?;
    }
    fs.sync_dir(directory).map_err(io_error("fsync", directory))?;
    if let Some(last) = segments.last().filter(|last| last.end() > end) {
        let from = end.max(last.base);
        let stale = last.file.next_data(from - last.base).map_err(io_error("seek", &last.path))?;
        if stale.is_some() {
            last.zero(from, last.end()).map_err(io_error("write", &last.path))?;
            last.file.sync_data().map_err(io_error("fdatasync", &last.path))?;
        }
    }
    Ok(())
}

/// The segments in the log's directory: whole, aligned, without gaps.
fn open_segments(fs: &dyn Fs, config: &Config) -> Result<Vec<Arc<Segment>>, OpenError> {
    let directory = config.log_directory();
    let entries = fs.list(&directory).map_err(io_error("listing", &directory))?;
    let mut segments: Vec<Arc<Segment>> = Vec::with_capacity(entries.len());
    let last = entries.last().map(|entry| entry.name.clone());
    for entry in entries {
        let path = directory.join(&entry.name);
        let layout = |reason: String| OpenError::Layout { path: path.clone(), reason };
        let base = entry.name.parse::<u64>().ok().filter(|_| entry.name.len() == 20 && !entry.is_dir);
        let base = base.ok_or_else(|| layout("no segment of a commit log: move it elsewhere".to_owned()))?;
        let file = fs.open(&path, OpenMode::Write).map_err(io_error("open", &path))?;
        if entry.len != config.segment_bytes {
            // An Apache broker that died while it made its next file.
            if last.as_ref() == Some(&entry.name) && file.next_data(0).map_err(io_error("seek", &path))?.is_none() {
                fs.remove_file(&path).map_err(io_error("unlink", &path))?;
                continue;
            }
            let expected = config.segment_bytes;
            return Err(layout(format!(
                "has {} bytes, but mappedFileSizeCommitLog is {expected}: set it to what it was",
                entry.len
            )));
        }
        if !base.is_multiple_of(config.segment_bytes) {
            return Err(layout(format!(
                "its name is no multiple of mappedFileSizeCommitLog ({})",
                config.segment_bytes
            )));
        }
        if let Some(before) = segments.last().filter(|before| before.end() != base) {
            return Err(layout(format!(
                "the segment before it, {:020}, is missing: restore it or empty the directory",
                before.end()
            )));
        }
        segments.push(Arc::new(Segment::new(base, config.segment_bytes, path, file)));
    }
    Ok(segments)
}

fn mark_running(fs: &dyn Fs, root: &Path) -> Result<(), OpenError> {
    let path = root.join(ABORT_FILE);
    let file = fs.open(&path, OpenMode::Truncate).map_err(io_error("open", &path))?;
    file.write_all_at(std::process::id().to_string().as_bytes(), 0).map_err(io_error("write", &path))?;
    fs.sync_dir(root).map_err(io_error("fsync", root))
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
