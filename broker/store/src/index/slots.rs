//! The slots of a file that is being filled, in memory.

use std::io;

use super::format::{Layout, SLOT_BYTES};
use crate::fs::File;

/// Written together, if anything of it changed.
const PAGE_SLOTS: u32 = 1024;
/// Read or written at once.
const CHUNK_PAGES: u32 = 64;

/// The newest entry of each slot, and which pages of them differ from the file's.
pub(super) struct Slots {
    newest: Vec<u32>,
    dirty: Vec<bool>,
}

impl Slots {
    /// All empty, as in a file that was never written. Takes no memory until slots are used.
    pub(super) fn empty(layout: Layout) -> Self {
        let pages = layout.slots.div_ceil(PAGE_SLOTS) as usize;
        Self { newest: vec![0; layout.slots as usize], dirty: vec![false; pages] }
    }

    /// All empty, in place of whatever the file has.
    pub(super) fn replacing(layout: Layout) -> Self {
        let mut slots = Self::empty(layout);
        slots.dirty.fill(true);
        slots
    }

    /// The file's.
    pub(super) fn read(file: &dyn File, layout: Layout) -> io::Result<Self> {
        let mut slots = Self::empty(layout);
        let mut buffer = Vec::new();
        for page in (0..slots.dirty.len() as u32).step_by(CHUNK_PAGES as usize) {
            let range = slots.range(page, CHUNK_PAGES);
            buffer.resize(range.len() * SLOT_BYTES as usize, 0);
            file.read_exact_at(&mut buffer, Layout::slot_at(range.start as u32))?;
            for (slot, bytes) in slots.newest[range].iter_mut().zip(buffer.as_chunks::<4>().0) {
                *slot = u32::from_be_bytes(*bytes);
            }
        }
        Ok(slots)
    }

    pub(super) fn get(&self, slot: u32) -> u32 {
        self.newest[slot as usize]
    }

    pub(super) fn set(&mut self, slot: u32, entry: u32) {
        self.newest[slot as usize] = entry;
        self.dirty[(slot / PAGE_SLOTS) as usize] = true;
    }

    /// Writes what differs.
    pub(super) fn write(&self, file: &dyn File) -> io::Result<()> {
        let mut buffer = Vec::new();
        let mut page = 0;
        while let Some(skipped) = self.dirty[page as usize..].iter().position(|dirty| *dirty) {
            page += skipped as u32;
            let run = self.dirty[page as usize..].iter().take(CHUNK_PAGES as usize).take_while(|dirty| **dirty).count();
            let range = self.range(page, run as u32);
            buffer.clear();
            buffer.extend(self.newest[range.clone()].iter().flat_map(|entry| entry.to_be_bytes()));
            file.write_all_at(&buffer, Layout::slot_at(range.start as u32))?;
            page += run as u32;
        }
        Ok(())
    }

    pub(super) fn is_clean(&self) -> bool {
        !self.dirty.contains(&true)
    }

    /// The file has them all.
    pub(super) fn clean(&mut self) {
        self.dirty.fill(false);
    }

    fn range(&self, page: u32, pages: u32) -> std::ops::Range<usize> {
        let begin = page as usize * PAGE_SLOTS as usize;
        begin..(begin + pages as usize * PAGE_SLOTS as usize).min(self.newest.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::{Fs, OpenMode, RealFs};

    #[test]
    fn slots_are_read_as_they_were_written_and_only_changed_pages_are() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout { slots: 200_000, entries: 10 };
        let file = RealFs.open(&directory.path().join("f"), OpenMode::Create).unwrap();
        file.set_len(layout.file_bytes()).unwrap();
        let mut slots = Slots::empty(layout);
        let some = [0, 1023, 1024, 70_000, 199_999];
        for slot in some {
            slots.set(slot, slot + 7);
        }
        slots.write(&*file).unwrap();
        let read = Slots::read(&*file, layout).unwrap();
        for slot in some {
            assert_eq!(read.get(slot), slot + 7);
        }
        assert_eq!(read.newest.iter().filter(|entry| **entry != 0).count(), some.len());
        assert_eq!(slots.dirty.iter().filter(|dirty| **dirty).count(), 4);

        let mut replaced = Slots::replacing(layout);
        replaced.set(5, 1);
        replaced.write(&*file).unwrap();
        let read = Slots::read(&*file, layout).unwrap();
        assert_eq!(read.newest.iter().sum::<u32>(), 1, "nothing of the old ones is left");
    }
}
