//! One file of the commit log.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::fs::{File, PublishedMap};

/// Written by the appender with `pwrite`; read through a map that is made when first needed.
pub(crate) struct Segment {
    /// The offset in the log of its first byte.
    pub(crate) base: u64,
    /// Its bytes: all segments have the same.
    pub(crate) len: u64,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn File>,
    map: OnceLock<Arc<PublishedMap>>,
}

impl Segment {
    pub(crate) fn new(base: u64, len: u64, path: PathBuf, file: Arc<dyn File>) -> Self {
        Self { base, len, path, file, map: OnceLock::new() }
    }

    /// Where the next segment begins.
    pub(crate) fn end(&self) -> u64 {
        self.base + self.len
    }

    /// The bytes from `from`, without a copy; `None` unless all of them are in this segment and below `written`.
    pub(crate) fn bytes(&self, from: u64, len: usize, written: &Arc<AtomicU64>) -> io::Result<Option<Bytes>> {
        if let Some(map) = self.map.get() {
            return Ok(map.bytes(from, len));
        }
        let map = PublishedMap::new(self.file.map()?, self.base, Arc::clone(written));
        // Two readers may come here at once: one of the maps is dropped again.
        let map = self.map.get_or_init(|| map);
        Ok(map.bytes(from, len))
    }

    /// Whether no slice of this segment is left anywhere: then its file may be overwritten.
    pub(crate) fn into_unused(segment: Arc<Self>) -> bool {
        match Arc::try_unwrap(segment) {
            Ok(segment) => segment.map.into_inner().is_none_or(|map| PublishedMap::into_unused(map).is_ok()),
            Err(_still_used) => false,
        }
    }

    /// Whether nobody else has this segment, or a slice of it: once it is out of the table that stays so.
    pub(crate) fn is_unused(segment: &Arc<Self>) -> bool {
        Arc::strong_count(segment) == 1 && segment.map.get().is_none_or(|map| Arc::strong_count(map) == 1)
    }

    /// Whether anything but zeros lies in it from `at` (in the log) on.
    pub(crate) fn is_used_from(&self, at: u64) -> io::Result<bool> {
        let mut buffer = vec![0; 256 << 10];
        let mut place = at.max(self.base) - self.base;
        while let Some(data) = self.file.next_data(place)?.filter(|data| *data < self.len) {
            let read = self.file.read_at(&mut buffer, data)?;
            if read == 0 {
                break;
            }
            if buffer[..read].iter().any(|byte| *byte != 0) {
                return Ok(true);
            }
            place = data + read as u64;
        }
        Ok(false)
    }

    /// Writes zeros over `[from, to)` of the log, where anything else may be.
    pub(crate) fn zero(&self, from: u64, to: u64) -> io::Result<()> {
        let (from, to) = (from - self.base, to - self.base);
        // The file system's own means cost the same for a byte and for a gibibyte.
        if from == to || self.file.zero_range(from, to)? { Ok(()) } else { zero_data(&*self.file, from, to) }
    }
}

/// Writes zeros over `[from, to)` of a file, passing over what is zeros already as far as the file system can tell: a
/// sparse file stays sparse.
pub(crate) fn zero_data(file: &dyn File, from: u64, to: u64) -> io::Result<()> {
    const ZEROS: &[u8] = &[0; 256 << 10];
    let mut at = from;
    while let Some(data) = file.next_data(at)?.filter(|data| *data < to) {
        let len = (to - data).min(ZEROS.len() as u64);
        file.write_all_at(&ZEROS[..len as usize], data)?;
        at = data + len;
    }
    Ok(())
}
