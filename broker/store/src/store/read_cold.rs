//! Reading the log from the files, past the maps: for whoever reads much that nobody else will read soon.

use bytes::Bytes;

use super::read_log::{head, place, whole_records};
use crate::record::{BLANK_BYTES, Reason};
use crate::shared::Shared;
use crate::{Damage, PhysicalOffset, ReadError, ReadLog};

/// See [`Store::read_cold`](crate::Store::read_cold).
pub(super) fn read_cold(shared: &Shared, from: PhysicalOffset, max_bytes: usize) -> Result<ReadLog, ReadError> {
    let readable = match place(shared, from)? {
        Ok(readable) => readable,
        Err(nothing) => return Ok(nothing),
    };
    let Some(segment) = shared.log.segment(from.0) else { return Ok(ReadLog::AtEnd) };
    let read = |len: u64| {
        let mut buffer = vec![0; len as usize];
        let read = segment.file.read_exact_at(&mut buffer, from.0 - segment.base);
        read.map(|()| buffer).map_err(|source| ReadError::Io { path: segment.path.clone(), source })
    };
    let mut buffer = read(readable.min((max_bytes as u64).max(BLANK_BYTES)))?;
    let whole = whole_prefix(&buffer);
    if whole > 0 {
        buffer.truncate(whole);
    } else {
        // One record that is longer than what was asked for; or damage, which is named below.
        let size =
            head(&buffer).map_or(readable, |(size, _)| u64::from(size).clamp(BLANK_BYTES, readable.max(BLANK_BYTES)));
        buffer = read(size.min(readable))?;
    }
    let len = whole_records(&buffer, from, usize::MAX)?;
    if len == 0 {
        return Err(Damage { at: from, reason: Reason::Structure("size") }.into());
    }
    buffer.truncate(len);
    Ok(ReadLog::Bytes { bytes: Bytes::from(buffer), next: from + len as u64 })
}

/// See [`Store::forget_cached`](crate::Store::forget_cached).
pub(super) fn forget_cached(shared: &Shared, from: PhysicalOffset, to: PhysicalOffset) {
    for segment in shared.log.overlapping(from.0, to.0) {
        let (from, to) = (from.0.max(segment.base), to.0.min(segment.end()));
        if let Err(error) = segment.file.forget_cached(from - segment.base, to - segment.base) {
            tracing::debug!(%error, path = %segment.path.display(), "the page cache keeps what it was told to forget");
        }
    }
}

/// How many of the bytes are records that end within them.
fn whole_prefix(bytes: &[u8]) -> usize {
    let mut len = 0;
    while let Some((size, _)) = head(&bytes[len..]) {
        let next = len + size as usize;
        if size == 0 || next > bytes.len() {
            break;
        }
        len = next;
    }
    len
}
