//! Read-only maps of segments, and slices of them that own the map. **All of the store's `unsafe` is here.**
//!
//! A mapped file changes under the map, so a map is never a `&[u8]` as a whole. What makes a slice of it sound:
//!
//! 1. *Published*: [`PublishedMap::bytes`] hands out only what lies below the `written` watermark, which the writer
//!    stores (release) after the bytes are in the page cache, and which is loaded here (acquire).
//! 2. *Immutable*: bytes below `written` are never written again; the writer only appends at `written`.
//!    Truncation is the one exception, and it first lowers `written`, then takes the segment's `PublishedMap` out of
//!    the table under the table's write lock (slices are made under its read lock), and overwrites the file only
//!    if [`PublishedMap::into_unused`] proves that no slice is left. Else it replaces the file by a new one, and the
//!    slices keep the old inode.
//! 3. *There*: a mapped file is never shortened (a segment is allocated whole before it is mapped, and only ever
//!    unlinked), so no page of the map is past its end. The store's lock file keeps other brokers out.
//!
//! A disk that can't read a page back ends the process with SIGBUS, as with any map.
#![allow(unsafe_code, reason = "the one place for it, each block with its proof")]

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use memmap2::{MmapOptions, MmapRaw};

/// A read-only map of a whole file. Gives no access to its bytes by itself.
#[derive(Debug)]
pub struct Map {
    raw: MmapRaw,
}

/// A segment's map, together with the watermark below which its bytes may be read.
#[derive(Debug)]
pub struct PublishedMap {
    map: Map,
    /// The offset in the log of the map's first byte.
    base: u64,
    /// The log's `written` watermark.
    written: Arc<AtomicU64>,
}

/// Part of a map, below `written` when it was made.
struct Slice {
    owner: Arc<PublishedMap>,
    start: usize,
    len: usize,
}

impl Map {
    /// Maps the whole of `file`.
    pub fn new(file: &File) -> io::Result<Self> {
        Ok(Self { raw: MmapOptions::new().map_raw_read_only(file)? })
    }

    /// The map's bytes.
    pub fn len(&self) -> usize {
        self.raw.len()
    }

    /// Whether the file had no bytes.
    pub fn is_empty(&self) -> bool {
        self.raw.len() == 0
    }
}

impl PublishedMap {
    /// `map` begins at `base` in the log whose end is `written`.
    pub(crate) fn new(map: Map, base: u64, written: Arc<AtomicU64>) -> Arc<Self> {
        Arc::new(Self { map, base, written })
    }

    /// The log's bytes from `from`, without a copy; `None` unless all of them are in this map and written.
    pub(crate) fn bytes(self: &Arc<Self>, from: u64, len: usize) -> Option<Bytes> {
        let end = from.checked_add(len as u64)?;
        let start = usize::try_from(from.checked_sub(self.base)?).ok()?;
        if end > self.written.load(Ordering::Acquire) || start.checked_add(len)? > self.map.len() {
            return None;
        }
        Some(Bytes::from_owner(Slice { owner: Arc::clone(self), start, len }))
    }

    /// Whether no slice of this map is left: then it is unmapped and its file may be overwritten. Else it comes back.
    pub(crate) fn into_unused(this: Arc<Self>) -> Result<(), Arc<Self>> {
        Arc::try_unwrap(this).map(drop)
    }
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `start + len <= map.len()` was checked when the slice was made, the map lives as long as `owner`,
        // and the mapped file is never shortened (3). The bytes were below `written` (1), so nobody writes to them
        // while this slice exists (2): they are initialized and immutable.
        unsafe { std::slice::from_raw_parts(self.owner.map.raw.as_ptr().add(self.start), self.len) }
    }
}
