//! The files of the log, as recovery finds and leaves them.

use std::path::Path;
use std::sync::Arc;

use super::io_error;
use crate::fs::{Fs, OpenMode};
use crate::segment::Segment;
use crate::{Config, OpenError};

/// The segments in the log's directory: whole, aligned, without gaps. Only listed and opened, whatever their number: none is
/// read. A left-over at the end is removed.
pub(crate) fn open_segments(fs: &dyn Fs, config: &Config) -> Result<Vec<Arc<Segment>>, OpenError> {
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
            return Err(layout(wrong_length(entry.len, config.segment_bytes)));
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

fn wrong_length(len: u64, expected: u64) -> String {
    format!(
        "has {len} bytes, but mappedFileSizeCommitLog is {expected}: set it to what it was. If only this file differs, it was \
         cut short or added to: restore it, or give up what it lacks with `gantry store repair --cut-at-damage`"
    )
}

/// Makes `[from, to)` dirty again, with the bytes that it has.
pub(super) fn rewrite(segments: &[Arc<Segment>], from: u64, to: u64) -> Result<(), OpenError> {
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
pub(crate) fn clear_behind(
    fs: &dyn Fs,
    directory: &Path,
    segments: &mut Vec<Arc<Segment>>,
    end: u64,
) -> Result<(), OpenError> {
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
