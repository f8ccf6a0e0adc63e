//! Finding messages by key: RocketMQ's index files, under `index/`.
//!
//! Each is named by the time it was made (`yyyyMMddHHmmssSSS`, always later than the one before), and has
//!
//! | part | bytes | |
//! |---|---|---|
//! | header | 40 | store time of the first and the last message (ms), their physical offsets, used slots (4), next entry's number (4), from 1 |
//! | slots | `maxHashSlotNum` × 4 | the number of the newest entry whose hash falls into the slot; 0: none |
//! | entries | `maxIndexNum` × 20 | hash of the key (4), physical offset (8), seconds after the header's first time (4), next older entry of the slot (4); number 0 is not used |
//!
//! big-endian, and sparse. A key is `topic#key`, for UNIQ_KEY and each word of KEYS; its hash is the absolute value of Java's.
//! All records have entries but those rolled back. (Apache 5.5 makes an entry for the tag, too; nothing but its own
//! search by tag reads it.)
//!
//! Entries are written by the dispatcher, one `pwrite` a step, and are in log order over all files. The slots of the newest
//! file are kept in memory, and written when the file is full or the store is closed: they follow from the entries. So
//! what a checkpoint claims ([`Claim`]) is a number of entries; after an unclean stop those are read, each is checked against
//! the slots made of the ones before it, and the rest is made again from the log.
//!
//! An index says where a message may be, never what it is: whoever reads looks at the record itself. So an old file that is
//! damaged can hide messages, and never gives wrong ones.

mod file;
mod format;
mod keys;
mod name;
mod recover;
mod slots;
mod walk;

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

pub(crate) use self::file::IndexFile;
pub(crate) use self::format::{FIRST_ENTRY, Layout, key_hash};
pub(crate) use self::keys::{Keys, Staged, has_key};
pub(crate) use self::recover::Known;
use crate::fs::Fs;

/// Where the files are, under the store's root.
pub(crate) const DIRECTORY: &str = "index";

/// So many entries are looked at for one query, over all files: a key that millions of messages have must not keep a thread busy
/// for minutes.
const MAX_ENTRIES: u32 = 1_000_000;

/// What went wrong with which file.
pub(crate) type FileError = (PathBuf, io::Error);

/// What is on disk for sure, as a checkpoint says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Claim {
    /// The newest file; 0: there is none yet.
    pub(crate) name: u64,
    /// Its next entry's number: all before it are on disk. All older files are whole.
    pub(crate) next_entry: u32,
    /// Store time up to which slots are on disk, too, ms since 1970: what RocketMQ's checkpoint says of the index.
    pub(crate) sealed_ms: i64,
}

/// The index, or what is remembered of it while `messageIndexEnable` is off.
pub(crate) struct Index {
    fs: Arc<dyn Fs>,
    directory: PathBuf,
    layout: Layout,
    enabled: bool,
    /// By name. Only the newest gets entries. Changed by the dispatcher, or behind its gate; and by `delete_before`.
    files: RwLock<Vec<Arc<IndexFile>>>,
    /// Records below it are in the index.
    next: AtomicU64,
    claim: Mutex<Option<Claim>>,
    clock: crate::Clock,
    zone: jiff::tz::TimeZone,
}

/// Where the index ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Newest {
    pub(crate) timestamp_ms: i64,
    pub(crate) physical: u64,
}

impl Index {
    /// Records below it are in the index (or the index is off): the dispatcher has to begin there at the latest.
    pub(crate) fn next(&self) -> u64 {
        self.next.load(Ordering::Acquire)
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Adds the keys of records, which reach to `end`. Repeating it after an error is right: then none of them is in.
    pub(crate) fn add(&self, staged: &[Staged], end: u64) -> Result<(), FileError> {
        if !self.enabled || end <= self.next() {
            return Ok(());
        }
        // What is below was there before the consume queues had to be made again.
        let fresh = staged.partition_point(|key| key.physical < self.next());
        let mut rest = &staged[fresh..];
        while let Some(first) = rest.first() {
            let added = self.file_with_room().and_then(|file| file.append(rest));
            match added {
                Ok(count) => rest = &rest[count..],
                Err(error) => {
                    let begun = staged[fresh].physical;
                    tracing::debug!(from = begun, at = first.physical, "index entries are taken back");
                    if let Err((path, problem)) = self.cut_entries(begun) {
                        tracing::error!(path = %path.display(), %problem, "index entries can't be taken back");
                    }
                    return Err(error);
                }
            }
        }
        self.next.store(end, Ordering::Release);
        Ok(())
    }

    /// Takes away what points to `to` and later. Behind the dispatcher's gate.
    pub(crate) fn cut(&self, to: u64) -> Result<(), FileError> {
        if self.enabled {
            self.cut_entries(to)?;
            self.next.fetch_min(to, Ordering::AcqRel);
        }
        Ok(())
    }

    /// Forgets all and removes all files, durably: the log begins anew at `at`.
    pub(crate) fn clear(&self, at: u64) -> Result<(), FileError> {
        self.remove(|_| true)?;
        if self.enabled {
            self.next.store(at, Ordering::Release);
            *self.claim.lock() = Some(Claim::default());
        }
        Ok(())
    }

    /// Removes files that hold nothing of `oldest` and later. The newest file stays.
    pub(crate) fn delete_before(&self, oldest: u64) -> Result<(), FileError> {
        let newest = self.files.read().last().map(|file| file.name);
        self.remove(|file| Some(file.name) != newest && file.newest().physical < oldest)
    }

    /// Makes durable what is in the files by now, and the slots of full ones; remembers it as the claim. Only one
    /// thread at a time.
    pub(crate) fn sync(&self) -> Result<(), FileError> {
        self.sync_files(IndexFile::is_full)
    }

    /// [`Index::sync`], with all slots: any broker can read the files then.
    pub(crate) fn seal(&self) -> Result<(), FileError> {
        self.sync_files(|_| true)
    }

    /// What a checkpoint may say.
    pub(crate) fn claim(&self) -> Option<Claim> {
        *self.claim.lock()
    }

    /// Where the index ends; zeros while it is empty.
    pub(crate) fn newest(&self) -> Newest {
        self.files.read().last().map_or_else(Newest::default, |file| file.newest())
    }

    /// Shows where messages with a key of this hash may lie, newest first, that may have been stored from `begin_ms` to
    /// `end_ms`.
    pub(crate) fn find(
        &self,
        hash: u32,
        (begin_ms, end_ms): (i64, i64),
        mut visit: impl FnMut(u64) -> ControlFlow<()>,
    ) -> Result<(), FileError> {
        let files = self.files.read().clone();
        let mut budget = MAX_ENTRIES;
        for file in files.iter().rev() {
            let walked = file.walk(hash, (begin_ms, end_ms), &mut budget, &mut visit)?;
            if budget == 0 {
                tracing::warn!(
                    path = %file.path.display(),
                    "a query by key looked at {MAX_ENTRIES} entries and stopped: narrow its time, or use keys that fewer messages have"
                );
            }
            if walked.is_break() || file.oldest_ms() < begin_ms {
                break;
            }
        }
        Ok(())
    }

    fn sync_files(&self, with_slots: impl Fn(&IndexFile) -> bool) -> Result<(), FileError> {
        if !self.enabled {
            return Ok(());
        }
        let files = self.files.read().clone();
        let mut claim = self.claim().unwrap_or_default();
        for (index, file) in files.iter().enumerate() {
            claim.name = file.name;
            let is_newest = index + 1 == files.len();
            if with_slots(file) {
                claim.next_entry = file.seal(!is_newest)?;
                claim.sealed_ms = file.newest().timestamp_ms;
            } else {
                claim.next_entry = file.sync()?;
            }
        }
        *self.claim.lock() = Some(claim);
        Ok(())
    }

    fn file_with_room(&self) -> Result<Arc<IndexFile>, FileError> {
        let newest = self.files.read().last().cloned();
        if let Some(newest) = newest.as_ref().filter(|file| !file.is_full()) {
            return Ok(Arc::clone(newest));
        }
        let name = name::after(self.clock.now_ms(), &self.zone, newest.map_or(0, |newest| newest.name));
        let file = Arc::new(IndexFile::create(&*self.fs, &self.directory, name, self.layout)?);
        self.files.write().push(Arc::clone(&file));
        Ok(file)
    }

    fn cut_entries(&self, to: u64) -> Result<(), FileError> {
        let files = self.files.read().clone();
        let mut emptied = Vec::new();
        for file in files.iter().rev() {
            if file.cut(to)? > FIRST_ENTRY {
                break;
            }
            emptied.push(file.name);
        }
        self.remove(|file| emptied.contains(&file.name))?;
        let newest = self.files.read().last().map(|file| (file.name, file.next_entry()));
        if let Some(claim) = &mut *self.claim.lock() {
            match newest {
                None => *claim = Claim::default(),
                Some((name, next)) if name < claim.name => (claim.name, claim.next_entry) = (name, next),
                Some((name, next)) if name == claim.name => claim.next_entry = claim.next_entry.min(next),
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Removes files, durably. One that isn't there any more is removed; one that can't be doesn't keep the others.
    fn remove(&self, which: impl Fn(&IndexFile) -> bool) -> Result<(), FileError> {
        let mut gone = Vec::new();
        self.files.write().retain(|file| {
            let goes = which(file);
            if goes {
                gone.push(file.path.clone());
            }
            !goes
        });
        if gone.is_empty() {
            return Ok(());
        }
        let mut failed = None;
        for path in gone {
            match self.fs.remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => failed = failed.or(Some((path, error))),
                _ => {}
            }
        }
        sync_dir(&*self.fs, &self.directory)?;
        failed.map_or(Ok(()), Err)
    }
}

fn sync_dir(fs: &dyn Fs, path: &Path) -> Result<(), FileError> {
    fs.sync_dir(path).map_err(|error| (path.to_owned(), error))
}
