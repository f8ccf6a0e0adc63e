//! A small disk of a replica's own: ext4 on a file.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use crate::logs;
use crate::process::run;

/// What fills the disk.
const FILLER: &str = "filler";

/// A mounted disk; dropped, it is unmounted.
#[derive(Debug)]
pub struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// Makes one of so many bytes in a sparse file and mounts it at a folder.
    pub(super) fn make(image: &Path, folder: &Path, bytes: u64) -> anyhow::Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let file = File::create(image).with_context(|| format!("making {}", image.display()))?;
        file.set_len(bytes)?;
        // Nothing is kept back for root, whom the broker is.
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(image), None)?;
        run(Command::new("mount").args(["-o", "loop"]).arg(image).arg(folder), None)?;
        let disk = Self { folder: folder.to_owned() };
        disk.empty()?;
        Ok(disk)
    }

    /// Takes all its free space.
    pub fn fill(&self) -> anyhow::Result<()> {
        let path = self.folder.join(FILLER);
        let file = File::create(&path).with_context(|| format!("making {}", path.display()))?;
        let (mut taken, mut step) = (0, 1 << 30);
        while step >= 4096 {
            match fallocate(&file, FallocateFlags::empty(), taken, step) {
                Ok(()) => taken += step,
                Err(Errno::NOSPC) => step /= 2,
                Err(error) => return Err(error).with_context(|| format!("filling {}", path.display())),
            }
        }
        Ok(())
    }

    /// Gives it back.
    pub fn free(&self) -> anyhow::Result<()> {
        let path = self.folder.join(FILLER);
        fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))
    }

    /// As a disk that was replaced: nothing is on it. Nobody may use it meanwhile.
    pub fn empty(&self) -> anyhow::Result<()> {
        for entry in fs::read_dir(&self.folder).with_context(|| format!("reading {}", self.folder.display()))? {
            let path = entry?.path();
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.with_context(|| format!("removing {}", path.display()))?;
        }
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = unmount(&self.folder) {
            logs::say(&format!("{error:#}"));
        }
    }
}

/// At once if it can be, else when its last user has gone.
pub(super) fn unmount(folder: &Path) -> anyhow::Result<()> {
    run(Command::new("umount").arg(folder), None)
        .or_else(|_busy| run(Command::new("umount").arg("-l").arg(folder), None))
        .map(|_| ())
}
