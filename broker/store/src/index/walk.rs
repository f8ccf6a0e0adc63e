//! Following the entries of one slot, newest first.

use std::io;
use std::ops::ControlFlow;

use super::format::{ENTRY_BYTES, Entry, FIRST_ENTRY};
use super::{FileError, IndexFile};

/// Read at once: entries of one slot often lie near each other.
const BLOCK_ENTRIES: u32 = 128;
/// Entries know the time to the second, rounded down.
const SECOND_MS: i64 = 1000;

impl IndexFile {
    /// Hands the physical offsets of entries with this hash to `visit`, those that may have been stored from `begin_ms` to
    /// `end_ms`. Each entry looked at takes one of `budget`; once that is used up it stops.
    pub(super) fn walk(
        &self,
        hash: u32,
        (begin_ms, end_ms): (i64, i64),
        budget: &mut u32,
        visit: &mut impl FnMut(u64) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, FileError> {
        let io = |error| (self.path.clone(), error);
        let (mut number, header) = self.head(hash).map_err(io)?;
        if header.begin_ms > end_ms || header.end_ms.saturating_add(SECOND_MS) < begin_ms {
            return Ok(ControlFlow::Continue(()));
        }
        let mut block = Block { file: self, bytes: [0; BLOCK_ENTRIES as usize * ENTRY_BYTES], first: 0, count: 0 };
        let mut limit = header.next_entry;
        while *budget > 0 {
            // Older entries have smaller numbers: whatever a damaged file says, this ends.
            if number < FIRST_ENTRY || number >= limit {
                return Ok(ControlFlow::Continue(()));
            }
            *budget -= 1;
            let entry = block.entry(number).map_err(io)?;
            let stored_ms = header.begin_ms.saturating_add(i64::from(entry.seconds) * SECOND_MS);
            if stored_ms.saturating_add(SECOND_MS) <= begin_ms {
                return Ok(ControlFlow::Continue(()));
            }
            if entry.hash == hash && stored_ms <= end_ms && visit(entry.physical).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            (limit, number) = (number, entry.older);
        }
        Ok(ControlFlow::Break(()))
    }
}

/// Some entries of the file.
struct Block<'a> {
    file: &'a IndexFile,
    bytes: [u8; BLOCK_ENTRIES as usize * ENTRY_BYTES],
    first: u32,
    count: u32,
}

impl Block<'_> {
    /// An entry; those before it are read with it.
    fn entry(&mut self, number: u32) -> io::Result<Entry> {
        if number < self.first || number >= self.first + self.count {
            self.first = number.saturating_sub(BLOCK_ENTRIES - 1);
            self.count = number + 1 - self.first;
            let wanted = &mut self.bytes[..self.count as usize * ENTRY_BYTES];
            self.file.file.read_exact_at(wanted, self.file.layout.entry_at(self.first))?;
        }
        let (entries, _) = self.bytes.as_chunks::<ENTRY_BYTES>();
        Ok(Entry::decode(&entries[(number - self.first) as usize]))
    }
}
