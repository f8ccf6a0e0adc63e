//! An ext4 of its own on a loop device, whose power can be cut: as root on Linux.
//!
//! The image, the mount and the loop device go with the value, also when a test fails. What a run that was killed left
//! behind goes with the next one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use tempfile::TempDir;

use crate::lab::{self, PREFIX};
use crate::{logs, process};

/// How the power goes, by the file system's own means (`EXT4_IOC_SHUTDOWN`): nothing reaches the disk afterwards, and every
/// call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerLoss {
    /// The journal's last transactions are written first.
    AfterJournal,
    /// At once.
    AtOnce,
}

/// Why there can be no such disk here: for tests that are skipped then, and say so.
pub fn unavailable() -> Option<String> {
    process::cant_use_as_root(&["mkfs.ext4", "mount", "umount", "perl"])
}

/// A mounted disk.
pub struct LoopDisk {
    folder: TempDir,
    mounted: bool,
}

impl LoopDisk {
    /// Makes one of so many bytes and mounts it.
    pub fn new(bytes: u64) -> anyhow::Result<Self> {
        lab::leftovers();
        let folder =
            TempDir::with_prefix(format!("{PREFIX}{}-", std::process::id())).context("making the disk's folder")?;
        let mut disk = Self { folder, mounted: false };
        File::create(disk.image())?.set_len(bytes).context("making the disk's image")?;
        fs::create_dir(disk.path())?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(disk.image()))?;
        disk.mount()?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("mount")
    }

    /// A folder beside the mount: for what must survive.
    pub fn beside(&self) -> &Path {
        self.folder.path()
    }

    /// Mounts it: the journal is replayed if the power was lost.
    pub fn mount(&mut self) -> anyhow::Result<()> {
        run(Command::new("mount").args(["-o", "loop"]).arg(self.image()).arg(self.path()))?;
        self.mounted = true;
        Ok(())
    }

    /// Unmounts it; nobody may have a file open there.
    pub fn unmount(&mut self) -> anyhow::Result<()> {
        run(Command::new("umount").arg(self.path()))?;
        self.mounted = false;
        Ok(())
    }

    /// Cuts the power, and tells when the call for it began, in microseconds since 1970. Perl makes the call: it is on every
    /// Debian, and this crate has no `unsafe`.
    pub fn lose_power(&self, how: PowerLoss) -> anyhow::Result<i64> {
        const SHUTDOWN: &str = "0x8004587D";
        let flags = if how == PowerLoss::AtOnce { 2 } else { 1 };
        let script = format!(
            "use Time::HiRes; open(my $disk, '<', $ARGV[0]) or die \"open: $!\"; my $flags = pack('L', {flags}); \
             my $begun = Time::HiRes::time(); ioctl($disk, {SHUTDOWN}, $flags) // die \"ioctl: $!\"; \
             printf('%d', $begun * 1e6);"
        );
        let begun = process::run(Command::new("perl").args(["-e", &script]).arg(self.path()), None)?;
        begun.trim().parse().with_context(|| format!("perl's time of the power loss: {begun:?}"))
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        if self.mounted
            && let Err(error) = run(Command::new("umount").arg("-l").arg(self.path()))
        {
            logs::say(&format!("unmounting: {error:#}"));
        }
    }
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    process::run(command, None).map(|_said| ())
}
