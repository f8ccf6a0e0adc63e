//! Reading what is in memory, and finding out that something isn't before anybody waits for it.
//!
//! A page of a map that isn't in memory stops the thread that touches it. So before records are touched on a thread that must
//! not stop, they are read once with `RWF_NOWAIT`, which gives only what is there. What was written last is there anyhow.

use std::path::PathBuf;

use super::read_queue::Chosen;
use crate::ReadError;
use crate::queues::Queue;
use crate::queues::unit::{MAX_UNIT_BYTES, Unit};
use crate::shared::Shared;

/// So much of the log's end is taken to be in memory: it was just written.
const RECENT_BYTES: u64 = 16 << 20;
/// Records so near each other are asked for in one call.
const GAP_BYTES: u64 = 4 << 10;
/// Read at once.
const SCRATCH_BYTES: u64 = 256 << 10;

/// Where a read may go.
pub(super) enum Source {
    /// Anywhere.
    Disk,
    /// Only to memory.
    Memory {
        /// What was read only to see that it is there.
        scratch: Vec<u8>,
    },
}

impl Source {
    /// One unit; `Ok(None)` if its file is gone, `Err(None)` if it isn't in memory.
    pub(super) fn unit(&self, shared: &Shared, queue: &Queue, place: u64) -> Result<Option<Unit>, Option<ReadError>> {
        let mut bytes = [0; MAX_UNIT_BYTES];
        let bytes = &mut bytes[..queue.layout.unit_bytes()];
        let read = self.units(shared, queue, place, bytes)?.ok_or(None::<ReadError>)?;
        Ok((read == 1).then(|| queue.layout.decode(place, bytes)))
    }

    /// Reads units as [`Queues::read`](crate::queues::Queues::read); `None` if they aren't in memory.
    pub(super) fn units(
        &self,
        shared: &Shared,
        queue: &Queue,
        from: u64,
        into: &mut [u8],
    ) -> Result<Option<usize>, ReadError> {
        let io = |(path, source)| ReadError::Io { path, source };
        match self {
            Self::Disk => shared.queues.read(queue, from, into).map(Some).map_err(io),
            Self::Memory { .. } => {
                let (read, wanted) = shared.queues.read_cached(queue, from, into).map_err(io)?;
                Ok((read > 0 || wanted == 0).then_some(read))
            }
        }
    }

    /// Whether the records of all chosen units can be read from here.
    pub(super) fn has_records(&mut self, shared: &Shared, chosen: &Chosen) -> Result<bool, ReadError> {
        let Self::Memory { scratch } = self else { return Ok(true) };
        let recent = shared.marks.written().saturating_sub(RECENT_BYTES);
        let mut units = chosen.units.iter().filter(|unit| unit.physical < recent).peekable();
        while let Some(first) = units.next() {
            let mut end = first.end();
            while let Some(next) = units.next_if(|unit| (end..=end + GAP_BYTES).contains(&unit.physical)) {
                end = next.end();
            }
            if !is_cached(shared, scratch, first.physical, end)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Whether `[from, to)` of the log is in memory. What isn't in the log counts as if it were: touching it costs nothing.
fn is_cached(shared: &Shared, scratch: &mut Vec<u8>, from: u64, to: u64) -> Result<bool, ReadError> {
    for segment in shared.log.overlapping(from, to) {
        let (mut at, end) = (from.max(segment.base), to.min(segment.end()));
        while at < end {
            let len = (end - at).min(SCRATCH_BYTES) as usize;
            scratch.resize(scratch.len().max(len), 0);
            let read = segment.file.read_cached_at(&mut scratch[..len], at - segment.base);
            let path = || -> PathBuf { segment.path.clone() };
            if read.map_err(|source| ReadError::Io { path: path(), source })? < len {
                return Ok(false);
            }
            at += len as u64;
        }
    }
    Ok(true)
}
