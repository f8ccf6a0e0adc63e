//! The real file system, with a look at each read and write, which may refuse it.

#![allow(unreachable_pub, reason = "a test program exports nothing")]

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gantry_store::fs::{Entry, File, Fs, Map, OpenMode, RealFs, Space};

/// What is about to be done to a file.
pub enum Call<'a> {
    Read {
        path: &'a Path,
        bytes: u64,
    },
    /// Of what is in memory; refused means that nothing is.
    ReadCached {
        path: &'a Path,
    },
    Write {
        path: &'a Path,
    },
}

type Hook = Arc<dyn Fn(Call<'_>) -> io::Result<()> + Send + Sync>;

struct HookFs(Hook);

struct HookFile {
    real: Arc<dyn File>,
    path: PathBuf,
    hook: Hook,
}

/// A file system that asks `hook` first.
pub fn hooked(hook: impl Fn(Call<'_>) -> io::Result<()> + Send + Sync + 'static) -> Arc<dyn Fs> {
    Arc::new(HookFs(Arc::new(hook)))
}

/// What a broken disk says.
pub fn eio() -> io::Error {
    io::Error::from_raw_os_error(5)
}

impl Fs for HookFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let real = RealFs.open(path, mode)?;
        Ok(Arc::new(HookFile { real, path: path.to_owned(), hook: Arc::clone(&self.0) }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        RealFs.create_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        RealFs.list(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealFs.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        RealFs.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        RealFs.remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealFs.sync_dir(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        RealFs.space(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        RealFs.lock(path)
    }
}

impl File for HookFile {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        (self.hook)(Call::Write { path: &self.path })?;
        self.real.write_all_at(bytes, offset)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        (self.hook)(Call::Read { path: &self.path, bytes: bytes.len() as u64 })?;
        self.real.read_at(bytes, offset)
    }

    fn read_cached_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let cached = (self.hook)(Call::ReadCached { path: &self.path });
        if cached.is_ok() { self.real.read_at(bytes, offset) } else { Ok(0) }
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.real.allocate(len)
    }

    fn zero_range(&self, from: u64, to: u64) -> io::Result<bool> {
        self.real.zero_range(from, to)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.real.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.real.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.real.sync_all()
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
