//! Reading the log as it lies in the files.

use bytes::Bytes;

use crate::record::{self, BLANK_BYTES, Checked, MAGIC_BLANK, MAGIC_V1, MAGIC_V2, Reason};
use crate::shared::Shared;
use crate::{Damage, PhysicalOffset, ReadError, ReadLog};

pub(super) fn read_log(shared: &Shared, from: PhysicalOffset, max_bytes: usize) -> Result<ReadLog, ReadError> {
    cut_to(readable(shared, from)?, |bytes| whole_records(bytes, from, max_bytes).map_err(ReadError::from))
}

/// See [`Store::read_bytes`](crate::Store::read_bytes).
pub(super) fn read_bytes(shared: &Shared, from: PhysicalOffset, max_bytes: usize) -> Result<ReadLog, ReadError> {
    cut_to(readable(shared, from)?, |bytes| Ok(bytes.len().min(max_bytes)))
}

fn cut_to(read: ReadLog, len: impl FnOnce(&[u8]) -> Result<usize, ReadError>) -> Result<ReadLog, ReadError> {
    let ReadLog::Bytes { bytes, next } = read else { return Ok(read) };
    let len = len(&bytes)?;
    let cut = (bytes.len() - len) as u64;
    Ok(ReadLog::Bytes { bytes: bytes.slice(..len), next: PhysicalOffset(next.0 - cut) })
}

/// All that is written from `from` to the segment's end.
fn readable(shared: &Shared, from: PhysicalOffset) -> Result<ReadLog, ReadError> {
    let readable = match place(shared, from)? {
        Ok(readable) => readable,
        Err(nothing) => return Ok(nothing),
    };
    Ok(match slice(shared, from.0, readable)? {
        Some(bytes) => ReadLog::Bytes { bytes, next: from + readable },
        None => ReadLog::AtEnd,
    })
}

/// How many bytes can be read from `from` to its segment's end; or why none can.
pub(super) fn place(shared: &Shared, from: PhysicalOffset) -> Result<Result<u64, ReadLog>, ReadError> {
    let written = shared.marks.written();
    let oldest = shared.log.oldest();
    if from.0 < oldest {
        return Ok(Err(ReadLog::Gone { oldest: PhysicalOffset(oldest) }));
    }
    if from.0 > written {
        return Err(ReadError::PastEnd { from, written: PhysicalOffset(written) });
    }
    let segment_end = shared.log.segment_end(from.0).unwrap_or(from.0);
    let readable = segment_end.min(written) - from.0;
    Ok(if readable > 0 { Ok(readable) } else { Err(ReadLog::AtEnd) })
}

/// A record's size and magic.
pub(super) fn head(bytes: &[u8]) -> Option<(u32, u32)> {
    let (head, _) = bytes.split_first_chunk::<8>()?;
    let [size, magic] = [0, 4].map(|at| head[at..at + 4].iter().fold(0_u32, |n, &b| n << 8 | u32::from(b)));
    Some((size, magic))
}

/// How much of `bytes`, which end at a record's end, to take: whole records, at least one.
pub(super) fn whole_records(bytes: &[u8], from: PhysicalOffset, max_bytes: usize) -> Result<usize, Damage> {
    let mut len = 0;
    while let Some((size, magic)) = head(&bytes[len..]) {
        let next = len + size as usize;
        let reason = match magic {
            MAGIC_V1 | MAGIC_V2 | MAGIC_BLANK if next > bytes.len() => {
                Some(Reason::CutOff { have: (bytes.len() - len) as u64, need: u64::from(size) })
            }
            MAGIC_V1 | MAGIC_V2 | MAGIC_BLANK if u64::from(size) < BLANK_BYTES => Some(Reason::Structure("size")),
            MAGIC_V1 | MAGIC_V2 | MAGIC_BLANK => None,
            0 if size == 0 => Some(Reason::Zeros),
            other => Some(Reason::Magic(other)),
        };
        if let Some(reason) = reason {
            return Err(Damage { at: from + len as u64, reason });
        }
        if len > 0 && next > max_bytes {
            break;
        }
        len = next;
    }
    Ok(len)
}

/// See [`Store::record_at`](crate::Store::record_at).
pub(super) fn record_at(shared: &Shared, physical: PhysicalOffset) -> Option<Bytes> {
    let dispatched = shared.marks.dispatched();
    let segment_end = shared.log.segment_end(physical.0)?;
    let readable = segment_end.min(dispatched).checked_sub(physical.0)?;
    let bytes = match slice(shared, physical.0, readable) {
        Ok(bytes) => bytes?,
        Err(error) => {
            tracing::error!(%error, %physical, "can't read a record");
            return None;
        }
    };
    match record::check(&bytes, physical, segment_end - physical.0, false) {
        Ok(Checked::Record(record)) => Some(bytes.slice(..record.size as usize)),
        Ok(Checked::Blank(_)) | Err(_) => None,
    }
}

/// The log's bytes, if they are there and written.
pub(super) fn slice(shared: &Shared, from: u64, len: u64) -> Result<Option<Bytes>, ReadError> {
    shared.log.bytes(from, len as usize).map_err(|(path, source)| ReadError::Io { path, source })
}
