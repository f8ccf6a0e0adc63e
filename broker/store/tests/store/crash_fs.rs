//! A file system that fails at a chosen call, and one that loses power.
//!
//! It works on real files in a temporary directory, and remembers what was there before each write that isn't synced yet.
//! Power loss puts a random choice of it back, sector by sector, and undoes directory changes that no sync of their
//! directory made durable.

#![allow(unreachable_pub, reason = "a test program exports nothing")]

use std::collections::BTreeMap;
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

#[derive(Default)]
struct State {
    /// Calls that can fail so far.
    calls: u64,
    /// The call that fails, and how; and whether all later ones of its kind do, too.
    fail_at: Option<(u64, Fault)>,
    /// The next call of this name fails.
    fail_next: Option<&'static str>,
    failed: Option<&'static str>,
    /// By inode: sectors as they were at the last sync, for those that were written since.
    unsynced: BTreeMap<u64, BTreeMap<u64, Vec<u8>>>,
    /// Sectors that a failed sync left marked as clean: no later sync writes them, unless they are written again.
    dropped: BTreeMap<u64, BTreeMap<u64, Vec<u8>>>,
    /// By inode: where the file is.
    paths: BTreeMap<u64, PathBuf>,
    /// Directory changes since the last sync of the directory, oldest first.
    renames: Vec<Undo>,
    /// What is left of the disk, and how large it is, if not what it really is.
    pub available: Option<u64>,
    total: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Eio,
    Enospc,
}

enum Undo {
    /// Made: goes away.
    Created(PathBuf),
    /// Removed or renamed over: this content comes back.
    Gone(PathBuf, Vec<u8>),
}

struct CrashFile {
    real: Arc<dyn File>,
    inode: u64,
    state: Arc<Mutex<State>>,
}

impl CrashFs {
    /// Lets the `k`th call (from 0) from now on fail.
    pub fn fail_call(&self, k: u64, fault: Fault) {
        let mut state = self.state.lock();
        state.calls = 0;
        state.failed = None;
        state.fail_at = Some((k, fault));
    }

    /// Lets the next call of that name fail with EIO.
    pub fn fail_next(&self, name: &'static str) {
        self.state.lock().fail_next = Some(name);
    }

    /// The call that failed, if it came to it.
    pub fn failed(&self) -> Option<&'static str> {
        self.state.lock().failed
    }

    pub fn heal(&self) {
        let mut state = self.state.lock();
        state.fail_at = None;
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
        for (inode, sectors) in std::mem::take(&mut state.unsynced) {
            let path = state.paths[&inode].clone();
            // A disk may have written much or nothing of it.
            let survives_in_10 = [0, 1, 5, 9, 10][random.below(5) as usize];
            let file = RealFs.open(&path, OpenMode::Write).unwrap();
            for (sector, before) in sectors {
                if random.below(10) >= survives_in_10 {
                    file.write_all_at(&before, sector * SECTOR_BYTES).unwrap();
                }
            }
        }
        for (inode, sectors) in std::mem::take(&mut state.dropped) {
            let file = RealFs.open(&state.paths[&inode], OpenMode::Write).unwrap();
            for (sector, before) in sectors {
                file.write_all_at(&before, sector * SECTOR_BYTES).unwrap();
            }
        }
        // A journal keeps the order of directory changes: some of the last ones are lost.
        let lost = random.below(state.renames.len() as u64 + 1) as usize;
        let kept = state.renames.len() - lost;
        for undo in state.renames.split_off(kept).into_iter().rev() {
            match undo {
                Undo::Created(path) if path.is_dir() => std::fs::remove_dir_all(path).unwrap(),
                Undo::Created(path) => drop(std::fs::remove_file(path)),
                Undo::Gone(path, content) => {
                    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                    std::fs::write(path, content).unwrap();
                }
            }
        }
        state.renames.clear();
    }

    fn call(&self, name: &'static str) -> io::Result<()> {
        self.state.lock().call(name)
    }
}

impl State {
    fn call(&mut self, name: &'static str) -> io::Result<()> {
        let call = self.calls;
        self.calls += 1;
        if self.fail_next == Some(name) {
            self.fail_next = None;
            return Err(io::Error::from_raw_os_error(5));
        }
        match self.fail_at {
            Some((k, fault)) if k == call => {
                self.failed = Some(name);
                Err(match fault {
                    Fault::Eio => io::Error::from_raw_os_error(5),
                    Fault::Enospc => io::Error::from_raw_os_error(28),
                })
            }
            _ => Ok(()),
        }
    }

    /// The file has no name any more.
    fn forget(&mut self, inode: u64) {
        self.unsynced.remove(&inode);
        self.dropped.remove(&inode);
        self.paths.remove(&inode);
    }

    fn is_created(&self, path: &Path) -> bool {
        self.renames.iter().any(|undo| matches!(undo, Undo::Created(created) if created == path))
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
        if new {
            state.renames.push(Undo::Created(path.to_owned()));
        }
        if let Some(before) = before {
            state.renames.push(Undo::Gone(path.to_owned(), before));
        }
        let inode = inode(path)?;
        state.paths.insert(inode, path.to_owned());
        Ok(Arc::new(CrashFile { real, inode, state: Arc::clone(&self.state) }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.call("mkdir")?;
        let missing: Vec<_> = path.ancestors().take_while(|path| !path.exists()).map(Path::to_owned).collect();
        RealFs.create_dir_all(path)?;
        self.state.lock().renames.extend(missing.into_iter().rev().map(Undo::Created));
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
            state.forget(inode(to)?);
        }
        RealFs.rename(from, to)?;
        state.paths.insert(inode(to)?, to.to_owned());
        // The old name was new, too, or synced: it isn't looked for after a crash either way.
        state.renames.retain(|undo| !matches!(undo, Undo::Created(path) if path == from));
        if let Some(content) = over {
            state.renames.push(Undo::Gone(to.to_owned(), content));
        } else {
            state.renames.push(Undo::Created(to.to_owned()));
        }
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.call("unlink")?;
        let content = std::fs::read(path)?;
        let mut state = self.state.lock();
        state.forget(inode(path)?);
        RealFs.remove_file(path)?;
        if state.is_created(path) {
            state.renames.retain(|undo| !matches!(undo, Undo::Created(created) if created == path));
        } else {
            state.renames.push(Undo::Gone(path.to_owned(), content));
        }
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.call("rmdir")?;
        let mut state = self.state.lock();
        let gone: Vec<u64> = state.paths.iter().filter(|(_, file)| file.starts_with(path)).map(|(id, _)| *id).collect();
        for inode in gone {
            state.forget(inode);
        }
        RealFs.remove_dir_all(path)?;
        state.renames.retain(|undo| match undo {
            Undo::Created(other) | Undo::Gone(other, _) => !other.starts_with(path),
        });
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.call("fsync of a directory")?;
        std::fs::metadata(path)?;
        self.state.lock().renames.retain(|undo| match undo {
            Undo::Created(other) | Undo::Gone(other, _) => other.parent() != Some(path),
        });
        Ok(())
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let real = RealFs.space(path)?;
        let state = self.state.lock();
        Ok(Space {
            available_bytes: state.available.unwrap_or(real.available_bytes),
            free_bytes: state.available.unwrap_or(real.free_bytes),
            total_bytes: state.total.unwrap_or(real.total_bytes),
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        RealFs.lock(path)
    }
}

impl CrashFile {
    /// Remembers the sectors that a write is about to change.
    fn remember(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        if !state.paths.contains_key(&self.inode) {
            // Unlinked: nobody will look.
            return Ok(());
        }
        let State { unsynced, dropped, .. } = &mut *state;
        let sectors = unsynced.entry(self.inode).or_default();
        let dropped = dropped.entry(self.inode).or_default();
        for sector in offset / SECTOR_BYTES..(offset + len).div_ceil(SECTOR_BYTES) {
            if let Some(before) = dropped.remove(&sector) {
                sectors.entry(sector).or_insert(before);
            }
            if let std::collections::btree_map::Entry::Vacant(vacant) = sectors.entry(sector) {
                let mut before = vec![0; SECTOR_BYTES as usize];
                let read = self.real.read_at(&mut before, sector * SECTOR_BYTES)?;
                before.truncate(read);
                vacant.insert(before);
            }
        }
        Ok(())
    }

    /// All handles of this file are synced, as with a real one; or all it held back is dropped and marked as clean, as with a
    /// real one, too.
    fn sync(&self, name: &'static str) -> io::Result<()> {
        let mut state = self.state.lock();
        let synced = state.call(name);
        let sectors = state.unsynced.remove(&self.inode);
        if synced.is_err() && state.paths.contains_key(&self.inode) {
            let dropped = state.dropped.entry(self.inode).or_default();
            for (sector, before) in sectors.unwrap_or_default() {
                dropped.entry(sector).or_insert(before);
            }
        }
        synced
    }
}

impl File for CrashFile {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.state.lock().call("write")?;
        self.remember(offset, bytes.len() as u64)?;
        self.real.write_all_at(bytes, offset)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.real.read_at(bytes, offset)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.state.lock().call("fallocate")?;
        self.real.allocate(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.state.lock().call("ftruncate")?;
        self.real.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync("fdatasync")
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync("fsync")
    }

    fn len(&self) -> io::Result<u64> {
        self.real.len()
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.real.next_data(offset)
    }

    fn map(&self) -> io::Result<Map> {
        self.real.map()
    }
}
