//! The table of segments, and reading from it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::RwLock;

use crate::segment::Segment;

/// The segments, without gaps, oldest first. There may be none: a new store gets its first one with the first message.
pub(crate) struct CommitLog {
    segments: RwLock<Vec<Arc<Segment>>>,
    written: Arc<AtomicU64>,
}

/// A segment's file name: its base in 20 digits.
pub(crate) fn file_name(base: u64) -> String {
    format!("{base:020}")
}

/// A segment's path in the log's `directory`.
pub(crate) fn segment_path(directory: &Path, base: u64) -> PathBuf {
    directory.join(file_name(base))
}

/// Where segments are, under the store's root, unless told otherwise.
pub(crate) const DIRECTORY: &str = "commitlog";

impl CommitLog {
    pub(crate) fn new(segments: Vec<Arc<Segment>>, written: Arc<AtomicU64>) -> Self {
        for pair in segments.windows(2) {
            assert_eq!(pair[0].end(), pair[1].base, "segments without gaps");
        }
        Self { segments: RwLock::new(segments), written }
    }

    /// The oldest byte: where an empty log begins, too.
    pub(crate) fn oldest(&self) -> u64 {
        let segments = self.segments.read();
        segments.first().map_or_else(|| self.written.load(Ordering::Acquire), |first| first.base)
    }

    /// The log's bytes, without a copy; `None` unless all of them are in one segment and written.
    pub(crate) fn bytes(&self, from: u64, len: usize) -> Result<Option<Bytes>, (PathBuf, io::Error)> {
        // Slices are made under this lock: a truncation that has taken a segment out under the write lock knows that no
        // more of its slices are made.
        let segments = self.segments.read();
        let Some(segment) = find(&segments, from) else { return Ok(None) };
        segment.bytes(from, len, &self.written).map_err(|error| (segment.path.clone(), error))
    }

    /// The end of the segment that holds `offset`.
    pub(crate) fn segment_end(&self, offset: u64) -> Option<u64> {
        find(&self.segments.read(), offset).map(|segment| segment.end())
    }

    /// The segment that holds `offset`.
    pub(crate) fn segment(&self, offset: u64) -> Option<Arc<Segment>> {
        find(&self.segments.read(), offset).cloned()
    }

    /// The segments that hold any of `[from, to)`.
    pub(crate) fn overlapping(&self, from: u64, to: u64) -> Vec<Arc<Segment>> {
        let segments = self.segments.read();
        segments.iter().filter(|segment| segment.base < to && segment.end() > from).cloned().collect()
    }

    /// Adds the next segment.
    pub(crate) fn push(&self, segment: Arc<Segment>) {
        let mut segments = self.segments.write();
        assert!(segments.last().is_none_or(|last| last.end() == segment.base), "segments without gaps");
        segments.push(segment);
    }

    /// What the segments take of the disk: they are allocated whole.
    pub(crate) fn allocated_bytes(&self) -> u64 {
        self.segments.read().iter().map(|segment| segment.len).sum()
    }

    /// The last segment.
    pub(crate) fn last(&self) -> Option<Arc<Segment>> {
        self.segments.read().last().cloned()
    }

    /// Takes all segments before `base` out of the table, where one must remain to say where the log begins.
    pub(crate) fn split_front(&self, base: u64) -> Vec<Arc<Segment>> {
        let mut segments = self.segments.write();
        let at = segments.partition_point(|segment| segment.base < base);
        assert!(segments.get(at).is_some_and(|first| first.base == base), "a log begins with a segment, {base}");
        segments.drain(..at).collect()
    }

    /// Takes all segments from `base` on out of the table.
    pub(crate) fn split_off(&self, base: u64) -> Vec<Arc<Segment>> {
        let mut segments = self.segments.write();
        let at = segments.partition_point(|segment| segment.base < base);
        segments.split_off(at)
    }

    /// Puts `new` in the place of the segment with the same base, which is handed out.
    pub(crate) fn swap(&self, new: Arc<Segment>) -> Option<Arc<Segment>> {
        let mut segments = self.segments.write();
        let place = segments.iter_mut().find(|segment| segment.base == new.base)?;
        Some(std::mem::replace(place, new))
    }
}

fn find(segments: &[Arc<Segment>], offset: u64) -> Option<&Arc<Segment>> {
    let first = segments.first()?;
    let index = usize::try_from(offset.checked_sub(first.base)? / first.len).ok()?;
    segments.get(index)
}
