//! One index file.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;

use super::format::{ENTRY_BYTES, Entry, FIRST_ENTRY, HEADER_BYTES, Header, Layout, SLOT_BYTES};
use super::slots::Slots;
use super::{FileError, Newest, Staged, sync_dir};
use crate::fs::{File, Fs, OpenMode};

/// See [`super`]. Its header on disk may be behind; what counts is in memory.
pub(crate) struct IndexFile {
    pub(crate) name: u64,
    pub(crate) path: PathBuf,
    pub(super) layout: Layout,
    pub(super) file: Arc<dyn File>,
    pub(super) state: RwLock<State>,
}

pub(super) struct State {
    pub(super) header: Header,
    /// `None`: they are in the file, and nothing is added any more.
    pub(super) slots: Option<Slots>,
    /// Something is not on disk, apart from slots.
    pub(super) dirty: bool,
    /// Entries on their way to the file.
    pub(super) buffer: Vec<u8>,
}

impl IndexFile {
    /// A new file, sparse, its directory made if need be. Its name is durable.
    pub(super) fn create(fs: &dyn Fs, directory: &Path, name: u64, layout: Layout) -> Result<Self, FileError> {
        let path = directory.join(format!("{name:017}"));
        let make = || {
            fs.create_dir_all(directory)?;
            let file = fs.open(&path, OpenMode::Truncate)?;
            file.set_len(layout.file_bytes())?;
            Ok(file)
        };
        let file = make().map_err(|error: io::Error| (path.clone(), error))?;
        sync_dir(fs, directory)?;
        sync_dir(fs, directory.parent().unwrap_or(directory))?;
        let slots = Some(Slots::empty(layout));
        let state = State { header: Header::EMPTY, slots, dirty: true, buffer: Vec::new() };
        Ok(Self { name, path, layout, file, state: RwLock::new(state) })
    }

    /// Adds as many as find room, at least one in a file that isn't full; answers how many. On an error none is added.
    pub(super) fn append(&self, staged: &[Staged]) -> Result<usize, FileError> {
        let mut state = self.state.write();
        let State { header, slots: Some(slots), dirty, buffer } = &mut *state else {
            unreachable!("entries are added to the newest file only, which has its slots in memory")
        };
        let count = staged.len().min((self.layout.entries - header.next_entry) as usize);
        let at = self.layout.entry_at(header.next_entry);
        let before = *header;
        buffer.clear();
        for key in &staged[..count] {
            buffer.extend_from_slice(&push(header, slots, self.layout, *key).encode());
        }
        *dirty = true;
        if let Err(error) = self.file.write_all_at(buffer, at) {
            for bytes in buffer.as_chunks::<ENTRY_BYTES>().0.iter().rev() {
                let entry = Entry::decode(bytes);
                slots.set(self.layout.slot_of(entry.hash), entry.older);
            }
            *header = before;
            return Err((self.path.clone(), error));
        }
        Ok(count)
    }

    /// Takes away entries that point to `to` and later; answers what the next entry's number is then.
    pub(super) fn cut(&self, to: u64) -> Result<u32, FileError> {
        let mut state = self.state.write();
        let header = state.header;
        if header.next_entry == FIRST_ENTRY || header.end_physical < to {
            return Ok(header.next_entry);
        }
        let cut = self.cut_state(&mut state, to);
        cut.map_err(|error| (self.path.clone(), error))?;
        Ok(state.header.next_entry)
    }

    fn cut_state(&self, state: &mut State, to: u64) -> io::Result<()> {
        let header = &mut state.header;
        let slots = match &mut state.slots {
            Some(slots) => slots,
            unloaded => unloaded.insert(Slots::read(&*self.file, self.layout)?),
        };
        state.dirty = true;
        while header.next_entry > FIRST_ENTRY {
            let newest = self.read_entry(header.next_entry - 1)?;
            if newest.physical < to {
                header.end_physical = newest.physical;
                header.end_ms = header.begin_ms.saturating_add(i64::from(newest.seconds) * 1000);
                return Ok(());
            }
            slots.set(self.layout.slot_of(newest.hash), newest.older);
            header.used_slots -= u32::from(newest.older == 0);
            header.next_entry -= 1;
        }
        *header = Header::EMPTY;
        Ok(())
    }

    /// Makes all entries durable; answers the next one's number as of then.
    pub(super) fn sync(&self) -> Result<u32, FileError> {
        self.sync_with(false, false)
    }

    /// The same with slots, which are given back to the system if the file `is_done`.
    pub(super) fn seal(&self, is_done: bool) -> Result<u32, FileError> {
        if self.state.read().slots.is_none() {
            return Ok(self.next_entry());
        }
        self.sync_with(true, is_done)
    }

    fn sync_with(&self, slots: bool, is_done: bool) -> Result<u32, FileError> {
        let mut state = self.state.write();
        let is_written = !slots || !is_done && state.slots.as_ref().is_none_or(Slots::is_clean);
        if !state.dirty && is_written {
            return Ok(state.header.next_entry);
        }
        state.dirty = false;
        let next_entry = state.header.next_entry;
        let written = self.file.write_all_at(&state.header.encode(), 0);
        drop(state);
        // The slots of a full file don't change, and others are written when nothing is added any more.
        let state = self.state.read();
        let written = match &state.slots {
            Some(in_memory) if slots => written.and_then(|()| in_memory.write(&*self.file)),
            _ => written,
        };
        drop(state);
        written.and_then(|()| self.file.sync_data()).map_err(|error| (self.path.clone(), error))?;
        if slots {
            let mut state = self.state.write();
            // Changed meanwhile: written once more by the next call.
            if !state.dirty && is_done {
                state.slots = None;
            } else if let (false, Some(slots)) = (state.dirty, &mut state.slots) {
                slots.clean();
            }
        }
        Ok(next_entry)
    }

    pub(super) fn is_full(&self) -> bool {
        self.next_entry() >= self.layout.entries
    }

    pub(super) fn next_entry(&self) -> u32 {
        self.state.read().header.next_entry
    }

    pub(super) fn newest(&self) -> Newest {
        let header = self.state.read().header;
        Newest { timestamp_ms: header.end_ms, physical: header.end_physical }
    }

    pub(super) fn oldest_ms(&self) -> i64 {
        self.state.read().header.begin_ms
    }

    /// The newest entry of a hash's slot (0: none), and the header it belongs to.
    pub(super) fn head(&self, hash: u32) -> io::Result<(u32, Header)> {
        let slot = self.layout.slot_of(hash);
        let state = self.state.read();
        let entry = if let Some(slots) = &state.slots {
            slots.get(slot)
        } else {
            let mut bytes = [0; SLOT_BYTES as usize];
            self.file.read_exact_at(&mut bytes, Layout::slot_at(slot))?;
            u32::from_be_bytes(bytes)
        };
        Ok((entry, state.header))
    }

    pub(super) fn read_entry(&self, number: u32) -> io::Result<Entry> {
        let mut bytes = [0; ENTRY_BYTES];
        self.file.read_exact_at(&mut bytes, self.layout.entry_at(number))?;
        Ok(Entry::decode(&bytes))
    }

    pub(super) fn read_header(file: &dyn File) -> io::Result<Header> {
        let mut bytes = [0; HEADER_BYTES as usize];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(Header::decode(&bytes))
    }
}

/// Takes a key into header and slots, and answers its entry.
pub(super) fn push(header: &mut Header, slots: &mut Slots, layout: Layout, key: Staged) -> Entry {
    if header.next_entry == FIRST_ENTRY {
        (header.begin_ms, header.begin_physical) = (key.store_ms, key.physical);
    }
    let slot = layout.slot_of(key.hash);
    let older = slots.get(slot);
    let seconds = (key.store_ms.saturating_sub(header.begin_ms) / 1000).clamp(0, i64::from(i32::MAX)) as u32;
    slots.set(slot, header.next_entry);
    header.used_slots += u32::from(older == 0);
    header.next_entry += 1;
    (header.end_ms, header.end_physical) = (key.store_ms, key.physical);
    Entry { hash: key.hash, physical: key.physical, seconds, older }
}
