//! Looking at a store's directory without opening it: nothing is written and no lock is taken, so a broker may be running
//! on it. What it does meanwhile may be seen in part; what [`look`] says of a running store's last segment is of one moment.

mod files;
mod log;
mod queues;
mod report;

use std::io;
use std::path::{Path, PathBuf};

pub(crate) use self::files::LogFiles;
pub(crate) use self::log::first_damage;
pub use self::report::{
    CheckpointReport, Finding, IndexReport, LogReport, QueueReport, Report, SegmentReport, TailReport,
};
use crate::checkpoint::{self, Found};
use crate::fs::{Fs, OpenMode, RealFs};
use crate::recovery::ABORT_FILE;
use crate::{Config, atomic_file};

/// Where cut tails are kept, under the store's root.
pub const DIVERGENT_DIRECTORY: &str = "divergent";
const INDEX_DIRECTORY: &str = "index";
const INDEX_HEADER_BYTES: usize = 40;

/// A file or directory that couldn't be read.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct Unreadable {
    /// Which.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// How much to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Names, lengths, the first record of each segment, the end of each queue, and the log behind the checkpoint.
    Heads,
    /// Every record with its CRC, and every unit with its record.
    Everything,
}

/// Looks at the store in `config.root` (of the rest of `config` only where the log lies counts). `watch` is told how many
/// bytes of how many have been read.
pub fn look(config: &Config, depth: Depth, watch: &mut dyn FnMut(u64, u64)) -> Result<Report, Unreadable> {
    let root = config.root.as_path();
    RealFs.list(root).map_err(unreadable(root))?;
    let running = is_locked(&root.join(crate::store::LOCK_FILE))?;
    let checkpoint_path = root.join(checkpoint::FILE);
    let found = checkpoint::read(&RealFs, root).map_err(unreadable(&checkpoint_path))?;
    let files = LogFiles::list(&config.log_directory())?;
    let mut report = Report {
        directory: root.to_owned(),
        running,
        verified: depth == Depth::Everything,
        checkpoint: CheckpointReport::new(&checkpoint_path, found)?,
        abort: exists(&root.join(ABORT_FILE)),
        interrupted_recovery: exists(&root.join(crate::recovery::PROGRESS_FILE)),
        divergent: tails(&root.join(DIVERGENT_DIRECTORY))?,
        index_files: index_files(&root.join(INDEX_DIRECTORY))?,
        ..Report::default()
    };
    if let Found::Later(version) = found {
        report.damage.push(Finding::new(&checkpoint_path, None, format!("version {version} is of a later broker")));
    }
    let known = if let Found::Ours(known) = found { Some(known) } else { None };
    let total = files.bytes() + if report.verified { queues::bytes(root)? } else { 0 };
    let mut watch = |done| watch(done, total);
    let log = log::look(&files, known, depth, running, &mut watch, &mut report)?;
    queues::look(root, &files, &log, depth, &mut watch, &mut report)?;
    Ok(report)
}

/// Whether a broker holds the lock, ours or Apache's; the lock isn't touched.
fn is_locked(path: &Path) -> Result<bool, Unreadable> {
    let file = match std::fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other.map_err(unreadable(path))?,
    };
    let whole = rustix::process::Flock::from(rustix::process::FlockType::WriteLock);
    let holder = rustix::process::fcntl_getlk(&file, &whole);
    Ok(holder.map_err(|error| unreadable(path)(error.into()))?.is_some())
}

/// The tails of the log that were cut.
fn tails(directory: &Path) -> Result<Vec<TailReport>, Unreadable> {
    let tail = |entry: crate::fs::Entry| TailReport { name: entry.name, bytes: entry.len };
    Ok(list(directory)?.into_iter().filter(|entry| !entry.is_dir).map(tail).collect())
}

fn index_files(directory: &Path) -> Result<Vec<IndexReport>, Unreadable> {
    let mut reports = Vec::new();
    for entry in list(directory)?.into_iter().filter(|entry| !entry.is_dir) {
        let path = directory.join(&entry.name);
        let file = RealFs.open(&path, OpenMode::Read).map_err(unreadable(&path))?;
        let mut header = [0; INDEX_HEADER_BYTES];
        if file.read_at(&mut header, 0).map_err(unreadable(&path))? == INDEX_HEADER_BYTES {
            reports.push(IndexReport::new(entry.name, entry.len, &header));
        }
    }
    Ok(reports)
}

/// What is in a directory; nothing if there is none.
fn list(directory: &Path) -> Result<Vec<crate::fs::Entry>, Unreadable> {
    match RealFs.list(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.map_err(unreadable(directory)),
    }
}

fn exists(path: &Path) -> bool {
    matches!(atomic_file::read(path), Ok(Some(_)))
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> Unreadable {
    let path = path.to_owned();
    move |source| Unreadable { path, source }
}
