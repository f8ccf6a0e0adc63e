//! A file system that fails at a chosen call, and one that loses power at any.
//!
//! It works on real files in a temporary directory, which are the live image, and remembers what was there before each
//! change that isn't synced yet. Power loss makes the durable image of it: sector by sector a random choice of the old and
//! the new content, the length from before or after, and directory changes undone from some point on, for those that no
//! sync of their directory made durable.

#![allow(unreachable_pub, reason = "a test program exports nothing")]

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gantry_store::fs::{Entry, File, Fs, Map, OpenMode, RealFs, Space};
use parking_lot::Mutex;

use crate::common::Random;

const SECTOR_BYTES: u64 = 512;

/// See the module.
#[derive(Clone, Default)]
pub struct CrashFs {
    state: Arc<Mutex<State>>,
}

/// What happens at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails, and nothing is done.
    Eio,
    /// The same; heals.
    Enospc,
    /// A write fails in the middle, between two sectors: what lies before is there.
    Short,
    /// The power goes out before it: nothing is done any more, until [`CrashFs::heal`].
    Crash,
}

#[derive(Default)]
struct State {
    /// The names of all calls since the last [`CrashFs::strike_at`].
    calls: Vec<&'static str>,
    /// The call that is struck, and how.
    strike: Option<(usize, Fault)>,
    struck: Option<&'static str>,
    /// The next call of this name fails.
    fail_next: Option<&'static str>,
    dead: bool,
    /// Zeroing without writing works, as on ext4 and XFS.
    zeroes_ranges: bool,
    /// By inode.
    files: BTreeMap<u64, Unsynced>,
    /// Directory changes since the last sync of the directory, oldest first.
    changes: Vec<Change>,
    /// What is left of the disk, and how large it is, if not what it really is.
    available: Option<u64>,
    total: Option<u64>,
}

/// What a file would lose.
struct Unsynced {
    path: PathBuf,
    /// Its length at the last sync, if that was another one.
    len: Option<u64>,
    /// Sectors as they were at the last sync, for those that were written since.
    sectors: BTreeMap<u64, Vec<u8>>,
    /// Sectors that a failed sync left marked as clean: no later sync writes them, unless they are written again.
    dropped: BTreeMap<u64, Vec<u8>>,
}

/// A directory change that may be lost.
enum Change {
    /// Made: goes away.
    Created(PathBuf),
    /// Removed or emptied: this content comes back.
    Gone(PathBuf, Vec<u8>),
    /// Renamed: the old name comes back, and what the new one meant before.
    Renamed { from: PathBuf, to: PathBuf, over: Option<Vec<u8>> },
}

struct CrashFile {
    real: Arc<dyn File>,
    inode: u64,
    state: Arc<Mutex<State>>,
}

impl CrashFs {
    /// One that zeroes ranges without writing, or not.
    pub fn new(zeroes_ranges: bool) -> Self {
        let fs = Self::default();
        fs.state.lock().zeroes_ranges = zeroes_ranges;
        fs
    }

    /// Lets the `k`th call (from 0) from now on be struck.
    pub fn strike_at(&self, k: usize, fault: Fault) {
        let mut state = self.state.lock();
        state.calls.clear();
        state.struck = None;
        state.strike = Some((k, fault));
    }

    /// The names of all calls so far, in order.
    pub fn calls(&self) -> Vec<&'static str> {
        self.state.lock().calls.clone()
    }

    /// Lets the next call of that name fail with EIO.
    pub fn fail_next(&self, name: &'static str) {
        self.state.lock().fail_next = Some(name);
    }

    /// The call that was struck, if it came to it.
    pub fn struck(&self) -> Option<&'static str> {
        self.state.lock().struck
    }

    /// Nothing is struck any more, and there is power again.
    pub fn heal(&self) {
        let mut state = self.state.lock();
        state.strike = None;
        state.dead = false;
        state.available = None;
        state.total = None;
    }

    /// What the disk has left.
    pub fn set_available(&self, bytes: u64) {
        self.state.lock().available = Some(bytes);
    }

    /// What the disk has, and has left.
    pub fn set_disk(&self, available: u64, total: u64) {
        let mut state = self.state.lock();
        (state.available, state.total) = (Some(available), Some(total));
    }

    /// Loses power: of what isn't synced, some survives. The store must be gone.
    pub fn lose_power(&self, random: &mut Random) {
        let mut state = self.state.lock();
        let mut files: Vec<_> = std::mem::take(&mut state.files).into_values().collect();
        // One order in every run; inodes are the system's choice.
        files.sort_by(|a, b| a.path.cmp(&b.path));
        for file in files {
            file.lose(random);
        }
        // A journal keeps the order of directory changes: some of the last ones are lost.
        let kept = random.below(state.changes.len() as u64 + 1) as usize;
        for change in state.changes.split_off(kept).into_iter().rev() {
            change.undo();
        }
        state.changes.clear();
    }

    fn call(&self, name: &'static str) -> io::Result<()> {
        self.state.lock().call(name)
    }
}

impl State {
    fn call(&mut self, name: &'static str) -> io::Result<()> {
        let eio = || io::Error::from_raw_os_error(5);
        if self.dead {
            return Err(eio());
        }
        let number = self.calls.len();
        self.calls.push(name);
        if self.fail_next == Some(name) {
            self.fail_next = None;
            return Err(eio());
        }
        match self.strike {
            Some((k, fault)) if k == number => {
                self.struck = Some(name);
                self.dead = fault == Fault::Crash;
                Err(if fault == Fault::Enospc { io::Error::from_raw_os_error(28) } else { eio() })
            }
            _ => Ok(()),
        }
    }

    /// Whether the call that just failed did so half way.
    fn is_short(&self) -> bool {
        matches!(self.strike, Some((k, Fault::Short)) if self.calls.len() == k + 1 && !self.dead)
    }
}

impl Unsynced {
    fn lose(self, random: &mut Random) {
        let file = RealFs.open(&self.path, OpenMode::Write).unwrap();
        let now = file.len().unwrap();
        let len = self.len.filter(|_| random.below(2) == 0).unwrap_or(now);
        // A disk may have written much or nothing of it.
        let survives_in_10 = [0, 1, 5, 9, 10][random.below(5) as usize];
        for (sector, before) in self.sectors {
            if random.below(10) >= survives_in_10 {
                put_back(&*file, sector, &before, now);
            }
        }
        for (sector, before) in self.dropped {
            put_back(&*file, sector, &before, now);
        }
        if len != now {
            file.set_len(len).unwrap();
        }
    }
}

/// Sectors behind the file's end, now or before, have nothing to come back.
fn put_back(file: &dyn File, sector: u64, before: &[u8], len: u64) {
    let at = sector * SECTOR_BYTES;
    let bytes = len.saturating_sub(at).min(SECTOR_BYTES) as usize;
    file.write_all_at(&before[..bytes], at).unwrap();
}

impl Change {
    fn is_in(&self, directory: &Path) -> bool {
        let (Self::Created(path) | Self::Gone(path, _) | Self::Renamed { to: path, .. }) = self;
        path.parent() == Some(directory)
    }

    fn is_below(&self, directory: &Path) -> bool {
        let (Self::Created(path) | Self::Gone(path, _) | Self::Renamed { to: path, .. }) = self;
        path.starts_with(directory)
    }

    fn undo(self) {
        let restore = |path: PathBuf, content: Vec<u8>| {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        };
        match self {
            Self::Created(path) if path.is_dir() => std::fs::remove_dir_all(path).unwrap(),
            Self::Created(path) => drop(std::fs::remove_file(path)),
            Self::Gone(path, content) => restore(path, content),
            Self::Renamed { from, to, over } => {
                if to.exists() {
                    std::fs::rename(&to, from).unwrap();
                }
                if let Some(content) = over {
                    restore(to, content);
                }
            }
        }
    }
}

fn inode(path: &Path) -> io::Result<u64> {
    Ok(std::fs::metadata(path)?.ino())
}

impl Fs for CrashFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        self.call("open")?;
        let new = !path.exists();
        let before = if mode == OpenMode::Truncate && !new { Some(std::fs::read(path)?) } else { None };
        let real = RealFs.open(path, mode)?;
        let mut state = self.state.lock();
        let inode = inode(path)?;
        if new {
            state.changes.push(Change::Created(path.to_owned()));
        }
        if let Some(before) = before {
            // Emptied: as if removed and made anew.
            state.files.remove(&inode);
            state.changes.push(Change::Gone(path.to_owned(), before));
        }
        state.files.entry(inode).or_insert_with(|| Unsynced::new(path));
        Ok(Arc::new(CrashFile { real, inode, state: Arc::clone(&self.state) }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.call("mkdir")?;
        let missing: Vec<_> = path.ancestors().take_while(|path| !path.exists()).map(Path::to_owned).collect();
        RealFs.create_dir_all(path)?;
        self.state.lock().changes.extend(missing.into_iter().rev().map(Change::Created));
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        self.call("list")?;
        RealFs.list(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call("rename")?;
        let over = std::fs::read(to).ok();
        let mut state = self.state.lock();
        if over.is_some() {
            state.files.remove(&inode(to)?);
        }
        RealFs.rename(from, to)?;
        if let Some(file) = state.files.get_mut(&inode(to)?) {
            to.clone_into(&mut file.path);
        }
        state.changes.push(Change::Renamed { from: from.to_owned(), to: to.to_owned(), over });
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.call("unlink")?;
        let content = std::fs::read(path)?;
        let mut state = self.state.lock();
        state.files.remove(&inode(path)?);
        RealFs.remove_file(path)?;
        state.changes.push(Change::Gone(path.to_owned(), content));
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.call("rmdir")?;
        let mut state = self.state.lock();
        state.files.retain(|_, file| !file.path.starts_with(path));
        RealFs.remove_dir_all(path)?;
        state.changes.retain(|change| !change.is_below(path));
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.call("fsync of a directory")?;
        std::fs::metadata(path)?;
        self.state.lock().changes.retain(|change| !change.is_in(path));
        Ok(())
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.call("statvfs")?;
        let real = RealFs.space(path)?;
        let state = self.state.lock();
        Ok(Space {
            available_bytes: state.available.unwrap_or(real.available_bytes),
            free_bytes: state.available.unwrap_or(real.free_bytes),
            total_bytes: state.total.unwrap_or(real.total_bytes),
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        self.call("lock")?;
        RealFs.lock(path)
    }
}

impl Unsynced {
    fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), len: None, sectors: BTreeMap::new(), dropped: BTreeMap::new() }
    }
}

impl CrashFile {
    /// Remembers what a change of these bytes is about to overwrite.
    fn remember(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        // Unlinked: nobody will look.
        let Some(file) = state.files.get_mut(&self.inode) else { return Ok(()) };
        for sector in offset / SECTOR_BYTES..(offset + len).div_ceil(SECTOR_BYTES) {
            if let Some(before) = file.dropped.remove(&sector) {
                file.sectors.entry(sector).or_insert(before);
            }
            if let Slot::Vacant(vacant) = file.sectors.entry(sector) {
                let mut before = vec![0; SECTOR_BYTES as usize];
                self.real.read_at(&mut before, sector * SECTOR_BYTES)?;
                vacant.insert(before);
            }
        }
        Ok(())
    }

    /// Remembers the length that a change is about to end.
    fn remember_len(&self) -> io::Result<()> {
        let len = self.real.len()?;
        if let Some(file) = self.state.lock().files.get_mut(&self.inode) {
            file.len.get_or_insert(len);
        }
        Ok(())
    }

    fn put(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.remember(offset, bytes.len() as u64)?;
        if offset + bytes.len() as u64 > self.real.len()? {
            self.remember_len()?;
        }
        self.real.write_all_at(bytes, offset)
    }

    /// All handles of this file are synced, as with a real one; or all it held back is dropped and marked as clean, as with a
    /// real one, too.
    fn sync(&self, name: &'static str) -> io::Result<()> {
        let mut state = self.state.lock();
        let synced = state.call(name);
        if state.dead {
            return synced;
        }
        let Some(file) = state.files.get_mut(&self.inode) else { return synced };
        let sectors = std::mem::take(&mut file.sectors);
        if synced.is_ok() {
            file.len = None;
        } else {
            for (sector, before) in sectors {
                file.dropped.entry(sector).or_insert(before);
            }
        }
        synced
    }

    fn call(&self, name: &'static str) -> io::Result<()> {
        self.state.lock().call(name)
    }
}

impl File for CrashFile {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let called = {
            let mut state = self.state.lock();
            state.call("write").map_err(|error| (error, state.is_short()))
        };
        match called {
            Ok(()) => self.put(bytes, offset),
            Err((error, is_short)) => {
                if is_short {
                    let end = (offset + bytes.len() as u64 / 2).next_multiple_of(SECTOR_BYTES);
                    let done = ((end - offset) as usize).min(bytes.len());
                    self.put(&bytes[..done], offset)?;
                }
                Err(error)
            }
        }
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.call("read")?;
        self.real.read_at(bytes, offset)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.call("fallocate")?;
        self.remember_len()?;
        self.real.allocate(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.call("ftruncate")?;
        self.remember_len()?;
        self.real.set_len(len)
    }

    fn zero_range(&self, from: u64, to: u64) -> io::Result<bool> {
        self.call("fallocate of zeros")?;
        if !self.state.lock().zeroes_ranges {
            return Ok(false);
        }
        self.put(&vec![0; (to - from) as usize], from)?;
        Ok(true)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync("fdatasync")
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync("fsync")
    }

    fn len(&self) -> io::Result<u64> {
        self.call("fstat")?;
        self.real.len()
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.call("lseek")?;
        self.real.next_data(offset)
    }

    fn map(&self) -> io::Result<Map> {
        self.call("mmap")?;
        self.real.map()
    }
}
