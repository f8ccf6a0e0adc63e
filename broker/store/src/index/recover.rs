//! The index as it is found when the store opens.

use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::file::{State, push};
use super::format::{ENTRY_BYTES, Entry, FIRST_ENTRY, Header, Layout};
use super::slots::Slots;
use super::{Claim, DIRECTORY, FileError, Index, IndexFile, Staged, name, sync_dir};
use crate::Config;
use crate::fs::{Entry as DirEntry, Fs, OpenMode};

/// Read at once.
const CHUNK_ENTRIES: u32 = 16 << 10;

/// What a checkpoint says of the whole store, for the index.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    /// All records below it are in the index that it claims.
    pub(crate) dispatched: u64,
    /// `None`: it was written by a store without an index.
    pub(crate) claim: Option<Claim>,
    /// The last stop was clean, and nothing was written since.
    pub(crate) clean: bool,
}

impl Index {
    /// Opens the files under `config.root`. `known: None`: nothing is known of them. `oldest` is where the log begins.
    pub(crate) fn open(
        fs: &Arc<dyn Fs>,
        config: &Config,
        known: Option<Known>,
        oldest: u64,
    ) -> Result<Self, FileError> {
        let index = Self {
            fs: Arc::clone(fs),
            directory: config.root.join(DIRECTORY),
            layout: Layout { slots: config.index_slots, entries: config.index_entries },
            enabled: config.message_index,
            files: RwLock::default(),
            next: u64::MAX.into(),
            claim: Mutex::new(known.and_then(|known| known.claim)),
            clock: config.clock.clone(),
            zone: config.retention.zone.clone(),
        };
        if index.enabled {
            let next = index.recover(known)?.max(oldest);
            index.next.store(next, std::sync::atomic::Ordering::Release);
        }
        Ok(index)
    }

    /// Takes up the files that count and removes the others; answers up to where the index is whole.
    fn recover(&self, known: Option<Known>) -> Result<u64, FileError> {
        let mut names = self.names()?;
        let Some(Known { dispatched, claim, clean }) = known else {
            if !names.is_empty() {
                tracing::info!("the index is made again from the log");
            }
            self.remove_all(&names)?;
            *self.claim.lock() = Some(Claim::default());
            return Ok(0);
        };
        let claim = claim.unwrap_or_else(|| {
            if dispatched > 0 {
                tracing::info!("the store had no index: messages before offset {dispatched} can't be found by key");
            }
            Claim::default()
        });
        *self.claim.lock() = Some(claim);
        // Newer ones hold nothing that the checkpoint counts on.
        let unclaimed = names.split_off(names.partition_point(|name| *name <= claim.name));
        self.remove_all(&unclaimed)?;
        let newest = if names.last() == Some(&claim.name) { names.pop() } else { None };
        for name in names {
            if let Some(file) = self.open_old(name)? {
                self.files.write().push(Arc::new(file));
            }
        }
        let opened = newest.map(|name| self.open_newest(name, claim, clean)).transpose()?.flatten();
        let whole = claim.next_entry <= FIRST_ENTRY
            || opened.as_ref().is_some_and(|file| file.next_entry() == claim.next_entry);
        self.files.write().extend(opened.map(Arc::new));
        let next = if whole { dispatched } else { self.newest().physical };
        if !whole {
            tracing::warn!(
                file = claim.name,
                "the index lacks entries that were on disk: it is made again from offset {next} on"
            );
        }
        self.cut_entries(next)?;
        Ok(next)
    }

    /// The files' names, oldest first. Others are left alone, but those of another size, which this index can't go on with.
    fn names(&self) -> Result<Vec<u64>, FileError> {
        let entries = match self.fs.list(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            other => other.map_err(|error| (self.directory.clone(), error))?,
        };
        let mut names = Vec::with_capacity(entries.len());
        for DirEntry { name, is_dir, len } in entries {
            let Some(number) = name::parse(&name).filter(|_| !is_dir) else {
                tracing::warn!(name, "no index file: left alone");
                continue;
            };
            if len == self.layout.file_bytes() {
                names.push(number);
                continue;
            }
            tracing::warn!(
                name,
                len,
                expected = self.layout.file_bytes(),
                "an index file of another size is removed: unfinished, or maxHashSlotNum or maxIndexNum changed"
            );
            self.remove_all(&[number])?;
        }
        Ok(names)
    }

    /// A file that was full: its entries and slots are on disk since before the checkpoint.
    fn open_old(&self, name: u64) -> Result<Option<IndexFile>, FileError> {
        let file = self.open_file(name)?;
        let io = |error| (file.path.clone(), error);
        let header = IndexFile::read_header(&*file.file).map_err(io)?;
        let counted = (FIRST_ENTRY + 1..=self.layout.entries).contains(&header.next_entry);
        let sound = counted && {
            let first = file.read_entry(FIRST_ENTRY).map_err(io)?;
            let last = file.read_entry(header.next_entry - 1).map_err(io)?;
            (first.physical, last.physical) == (header.begin_physical, header.end_physical)
        };
        if !sound {
            tracing::error!(path = %file.path.display(), ?header, "a damaged index file is removed: its messages can't be found by key");
            self.remove_all(&[name])?;
            return Ok(None);
        }
        file.state.write().header = header;
        Ok(Some(file))
    }

    /// The file that was being filled, with the claimed entries at most; `None` if it has none.
    fn open_newest(&self, name: u64, claim: Claim, clean: bool) -> Result<Option<IndexFile>, FileError> {
        let file = self.open_file(name)?;
        let io = |error| (file.path.clone(), error);
        let header = IndexFile::read_header(&*file.file).map_err(io)?;
        let state = if clean && header.next_entry == claim.next_entry {
            let slots = Some(Slots::read(&*file.file, self.layout).map_err(io)?);
            State { header, slots, dirty: false, buffer: Vec::new() }
        } else {
            let floor = self.newest().physical;
            read_entries(&file, claim.next_entry.min(self.layout.entries), header.begin_ms, floor).map_err(io)?
        };
        if state.header.next_entry == FIRST_ENTRY {
            self.remove_all(&[name])?;
            return Ok(None);
        }
        *file.state.write() = state;
        Ok(Some(file))
    }

    fn open_file(&self, name: u64) -> Result<IndexFile, FileError> {
        let path = self.path(name);
        let file = self.fs.open(&path, OpenMode::Write).map_err(|error| (path.clone(), error))?;
        let state = State { header: Header::EMPTY, slots: None, dirty: false, buffer: Vec::new() };
        Ok(IndexFile { name, path, layout: self.layout, file, state: RwLock::new(state) })
    }

    fn remove_all(&self, names: &[u64]) -> Result<(), FileError> {
        for name in names {
            let path = self.path(*name);
            self.fs.remove_file(&path).map_err(|error| (path, error))?;
        }
        if names.is_empty() { Ok(()) } else { sync_dir(&*self.fs, &self.directory) }
    }

    fn path(&self, name: u64) -> std::path::PathBuf {
        Path::new(&self.directory).join(format!("{name:017}"))
    }
}

/// Header and slots made of the entries below number `end`, up to the first that can't be right: one that lies before
/// the one before it, or names another older entry than its slot had.
fn read_entries(file: &IndexFile, end: u32, begin_ms: i64, floor: u64) -> io::Result<State> {
    let (mut header, mut slots) = (Header::EMPTY, Slots::replacing(file.layout));
    let mut floor = floor;
    let mut bytes = Vec::new();
    'file: while header.next_entry < end {
        let count = (end - header.next_entry).min(CHUNK_ENTRIES);
        bytes.resize(count as usize * ENTRY_BYTES, 0);
        file.file.read_exact_at(&mut bytes, file.layout.entry_at(header.next_entry))?;
        for entry in bytes.as_chunks::<ENTRY_BYTES>().0.iter().map(Entry::decode) {
            let store_ms = begin_ms.saturating_add(i64::from(entry.seconds) * 1000);
            let key = Staged { hash: entry.hash, physical: entry.physical, store_ms };
            let fits = entry.physical >= floor && entry.older == slots.get(file.layout.slot_of(entry.hash));
            if !fits || (header.next_entry > FIRST_ENTRY && entry == Entry::decode(&[0; ENTRY_BYTES])) {
                break 'file;
            }
            push(&mut header, &mut slots, file.layout, key);
            floor = entry.physical;
        }
    }
    Ok(State { header, slots: Some(slots), dirty: true, buffer: Vec::new() })
}
