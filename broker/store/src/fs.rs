//! The file system behind a trait, so that tests can have one that fails and loses power at any call.
//!
//! Dynamic calls: each one stands for a system call, beside which a virtual call is nothing.

mod map;
mod real;

use std::io;
use std::path::Path;
use std::sync::Arc;

pub use map::{Map, PublishedMap};
pub use real::RealFs;

/// What the store needs of a file system.
pub trait Fs: Send + Sync + 'static {
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>>;
    /// Makes a directory and those above it; fine if it is there.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// What is in a directory, sorted by name. Names that aren't UTF-8 are an error.
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>>;
    /// Renames a file over another one. Durable once both directories are synced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file. Durable once its directory is synced.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory and all that is in it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Makes a directory's entries durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// How much room there is.
    fn space(&self, path: &Path) -> io::Result<Space>;
    /// Takes the lock of a file, made if missing; `None` if another one has it. Given back on drop.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>>;
}

/// An open file. All positions are absolute: threads can share it.
pub trait File: Send + Sync {
    /// Writes all of `bytes` at `offset`.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Reads as much as is there, at most `bytes.len()`; less only at the file's end.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
    /// The same of what is in memory, without waiting for the disk: less than asked for means that the rest isn't (or is past the
    /// file's end). A file system that can't tell reads everything.
    fn read_cached_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.read_at(bytes, offset)
    }
    /// Makes the file `len` bytes long, every block of it reserved: later writes below `len` find room.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Makes the file `len` bytes long, with a hole.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes `[from, to)`, inside the file, read as zeros without writing them, its blocks still reserved. `false`: this file system
    /// can't, and nothing was done.
    fn zero_range(&self, _from: u64, _to: u64) -> io::Result<bool> {
        Ok(false)
    }
    /// `fdatasync`: the content and what is needed to read it. A failure is final.
    fn sync_data(&self) -> io::Result<()>;
    /// `fsync`. A failure is final.
    fn sync_all(&self) -> io::Result<()>;
    /// The file's bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }
    /// The first place at or after `offset` that may hold something else than zeros; `None` if only zeros follow.
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>>;
    /// Tells the page cache that `[from, to)` won't be read soon. Only a hint.
    fn forget_cached(&self, _from: u64, _to: u64) -> io::Result<()> {
        Ok(())
    }
    /// A read-only map of the whole file.
    fn map(&self) -> io::Result<Map>;

    /// Reads exactly `bytes.len()`.
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        if self.read_at(bytes, offset)? == bytes.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Must be there; read only.
    Read,
    /// Must be there; read and write.
    Write,
    /// Read and write; made if missing.
    Create,
    /// Read and write; made if missing, emptied if there.
    Truncate,
}

/// Something in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name in the directory.
    pub name: String,
    /// Whether it is a directory itself.
    pub is_dir: bool,
    /// A file's bytes.
    pub len: u64,
}

/// A file system's room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// What we may still use.
    pub available_bytes: u64,
    /// What nobody uses: more than that where root keeps some for itself.
    pub free_bytes: u64,
    /// Its size.
    pub total_bytes: u64,
}
