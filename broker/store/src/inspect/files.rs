//! The log's files as they lie there, whatever is wrong with them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Unreadable, list, unreadable};
use crate::fs::{Fs, OpenMode, RealFs};
use crate::segment::Segment;

/// What is in the log's directory.
pub(crate) struct LogFiles {
    /// Bytes of most segments, and so what the store's setting was.
    pub(crate) segment_bytes: u64,
    /// By their names, oldest first. Each is taken to be as long as it is, and gaps are possible.
    pub(crate) segments: Vec<Arc<Segment>>,
    /// What is no segment.
    pub(crate) foreign: Vec<PathBuf>,
}

impl LogFiles {
    pub(crate) fn list(directory: &Path) -> Result<Self, Unreadable> {
        let (mut segments, mut foreign) = (Vec::new(), Vec::new());
        let mut lengths = BTreeMap::<u64, usize>::new();
        for entry in list(directory)? {
            let path = directory.join(&entry.name);
            let Some(base) = entry.name.parse::<u64>().ok().filter(|_| entry.name.len() == 20 && !entry.is_dir) else {
                foreign.push(path);
                continue;
            };
            let file = RealFs.open(&path, OpenMode::Read).map_err(unreadable(&path))?;
            *lengths.entry(entry.len).or_default() += 1;
            segments.push(Arc::new(Segment::new(base, entry.len, path, file)));
        }
        let most = lengths.into_iter().max_by_key(|(len, count)| (*count, *len));
        Ok(Self { segment_bytes: most.map_or(0, |(len, _)| len), segments, foreign })
    }

    pub(crate) fn oldest(&self) -> u64 {
        self.segments.first().map_or(0, |first| first.base)
    }

    /// All files' bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.len).sum()
    }

    /// What is wrong with a segment as a file, and where in the log; `index` is its place in `segments`.
    pub(crate) fn problem(&self, index: usize) -> Option<(u64, String)> {
        let segment = &self.segments[index];
        let before = index.checked_sub(1).map(|before| self.segments[before].base + self.segment_bytes);
        if let Some(expected) = before.filter(|expected| *expected != segment.base) {
            return Some((expected, format!("the segment before it, {expected:020}, is missing")));
        }
        if segment.len != self.segment_bytes {
            let at = segment.base + segment.len.min(self.segment_bytes);
            return Some((at, format!("has {} bytes, the others have {}", segment.len, self.segment_bytes)));
        }
        None
    }
}
