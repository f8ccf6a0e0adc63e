//! The system's file system.

use std::fs;
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Advice, FallocateFlags, FlockOperation, SeekFrom};
use rustix::io::{Errno, ReadWriteFlags};

use super::{Entry, File, Fs, Map, OpenMode, Space};

/// The system's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFs;

struct RealFile(fs::File);

impl Fs for RealFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => {}
            OpenMode::Write => _ = options.write(true),
            OpenMode::Create => _ = options.write(true).create(true).truncate(false),
            OpenMode::Truncate => _ = options.write(true).create(true).truncate(true),
        }
        Ok(Arc::new(RealFile(options.open(path)?)))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = fs::read_dir(path)?
            .map(|entry| {
                let entry = entry?;
                let name = entry.file_name().into_string().map_err(|name| {
                    io::Error::other(format!("{} holds a name that is not UTF-8: {}", path.display(), name.display()))
                })?;
                let metadata = entry.metadata()?;
                Ok(Entry { name, is_dir: metadata.is_dir(), len: metadata.len() })
            })
            .collect::<io::Result<Vec<_>>>()?;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let figures = rustix::fs::statvfs(path)?;
        Ok(Space {
            available_bytes: figures.f_bavail.saturating_mul(figures.f_frsize),
            free_bytes: figures.f_bfree.saturating_mul(figures.f_frsize),
            total_bytes: figures.f_blocks.saturating_mul(figures.f_frsize),
        })
    }

    /// Takes both kinds of lock: `flock` counts between two stores of one process, the record lock is what Java's
    /// `FileChannel.tryLock` of an Apache broker sees.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let locked = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
            .and_then(|()| rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive));
        match locked {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(Errno::AGAIN | Errno::ACCESS) => Ok(None),
            Err(other) => Err(other.into()),
        }
    }
}

impl File for RealFile {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < bytes.len() {
            match self.0.read_at(&mut bytes[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn read_cached_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < bytes.len() {
            let into = &mut [io::IoSliceMut::new(&mut bytes[done..])];
            match rustix::io::preadv2(&self.0, into, offset + done as u64, ReadWriteFlags::NOWAIT) {
                Ok(0) | Err(Errno::AGAIN) => break,
                Ok(read) => done += read,
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => return self.read_at(bytes, offset),
                Err(other) => return Err(other.into()),
            }
        }
        Ok(done)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        loop {
            match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, len) {
                Err(Errno::INTR) => {}
                // A file system without it (NFS, some FUSE): blocks are reserved by writing them.
                Err(Errno::OPNOTSUPP) => return self.write_zeros(len),
                other => return Ok(other?),
            }
        }
    }

    fn zero_range(&self, from: u64, to: u64) -> io::Result<bool> {
        loop {
            let flags = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
            match rustix::fs::fallocate(&self.0, flags, from, to - from) {
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP) => return Ok(false),
                other => return other.map(|()| true).map_err(Into::into),
            }
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    /// Allocated blocks that were never written count as holes, so a segment's unused part costs nothing to pass.
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        match rustix::fs::seek(&self.0, SeekFrom::Data(offset)) {
            Ok(at) => Ok(Some(at)),
            Err(Errno::NXIO) => Ok(None),
            // A file system that can't tell: everything may be data.
            Err(Errno::INVAL) => Ok((offset < self.len()?).then_some(offset)),
            Err(other) => Err(other.into()),
        }
    }

    fn forget_cached(&self, from: u64, to: u64) -> io::Result<()> {
        let Some(len) = NonZeroU64::new(to.saturating_sub(from)) else { return Ok(()) };
        Ok(rustix::fs::fadvise(&self.0, from, Some(len), Advice::DontNeed)?)
    }

    fn map(&self) -> io::Result<Map> {
        Map::new(&self.0)
    }
}

impl RealFile {
    fn write_zeros(&self, len: u64) -> io::Result<()> {
        const ZEROS: &[u8] = &[0; 256 << 10];
        let mut at = 0;
        while at < len {
            let part = (len - at).min(ZEROS.len() as u64);
            self.0.write_all_at(&ZEROS[..part as usize], at)?;
            at += part;
        }
        Ok(())
    }
}
