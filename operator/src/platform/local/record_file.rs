//! The group record as a file: written beside, fsynced, renamed over, and the directory fsynced.
//!
//! A crash at any point leaves the old record or the new one. A failed write or fsync of the file beside changes nothing and
//! may be tried again with a new file. A failed fsync of the *directory* is final: the rename may or may not survive, a second
//! fsync would lie, so this store answers nothing any more until it is opened again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gantry_replication::record::Recorded;
use gantry_replication::{GroupRecord, Version};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::platform::{RecordError, RecordStore};

/// Larger than any record of a group.
const MAX_RECORD_BYTES: u64 = 1 << 20;

/// The record of one group in a file. The directory's lock makes this process the only writer; within it, a mutex does.
#[derive(Clone, Debug)]
pub struct RecordFile {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    /// Held for each whole read and compare-and-set. `Some` once a directory fsync has failed: what it said.
    failed: Mutex<Option<String>>,
}

/// What the file holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Contents {
    /// Number of writes so far, this one included.
    version: u64,
    record: GroupRecord,
}

impl RecordFile {
    /// The record at `path`; its directory must exist.
    pub fn new(path: PathBuf) -> Self {
        Self { inner: Arc::new(Inner { path, failed: Mutex::new(None) }) }
    }
}

impl RecordStore for RecordFile {
    async fn read(&self) -> Result<Recorded, RecordError> {
        let inner = Arc::clone(&self.inner);
        in_background(&self.inner.path, move || inner.read()).await
    }

    async fn compare_and_set(&self, expected: &Version, record: &GroupRecord) -> Result<Option<Version>, RecordError> {
        let (inner, expected, record) = (Arc::clone(&self.inner), expected.clone(), record.clone());
        in_background(&self.inner.path, move || inner.compare_and_set(&expected, record)).await
    }
}

/// File work off the runtime's own threads.
async fn in_background<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> Result<T, RecordError> + Send + 'static,
) -> Result<T, RecordError> {
    let outcome = tokio::task::spawn_blocking(work).await;
    outcome.map_err(|stopped| RecordError::Uncertain { path: path.to_owned(), why: stopped.to_string() })?
}

impl Inner {
    fn read(&self) -> Result<Recorded, RecordError> {
        let failed = self.failed.lock();
        self.check(failed.as_ref())?;
        Ok(recorded(self.load()?))
    }

    fn compare_and_set(&self, expected: &Version, record: GroupRecord) -> Result<Option<Version>, RecordError> {
        let mut failed = self.failed.lock();
        self.check(failed.as_ref())?;
        let present = self.load()?;
        let version = present.as_ref().map_or(0, |contents| contents.version);
        if version_text(version) != *expected {
            return Ok(None);
        }
        let contents = Contents { version: version + 1, record };
        let text = serde_json::to_vec_pretty(&contents)
            .map_err(|error| self.io("encode", io::Error::new(io::ErrorKind::InvalidData, error)))?;
        let beside = self.path.with_extension("json.new");
        write_durably(&beside, &text).map_err(|error| self.io("write the new one beside it", error))?;
        fs::rename(&beside, &self.path).map_err(|error| self.io("rename the new one over it", error))?;
        if let Err(error) = sync_directory_of(&self.path) {
            let why = format!("fsync of its directory: {error}");
            *failed = Some(why.clone());
            return Err(RecordError::Uncertain { path: self.path.clone(), why });
        }
        Ok(Some(version_text(contents.version)))
    }

    fn check(&self, failed: Option<&String>) -> Result<(), RecordError> {
        let Some(why) = failed else { return Ok(()) };
        Err(RecordError::Uncertain { path: self.path.clone(), why: why.clone() })
    }

    fn load(&self) -> Result<Option<Contents>, RecordError> {
        let bytes = match fs::metadata(&self.path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.io("read", error)),
        };
        let damaged = |why: String| RecordError::Damaged { path: self.path.clone(), why };
        if bytes > MAX_RECORD_BYTES {
            return Err(damaged(format!("it is {bytes} bytes long")));
        }
        let text = fs::read(&self.path).map_err(|error| self.io("read", error))?;
        let contents: Contents = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        match contents.record.flaw() {
            Some(flaw) => Err(damaged(flaw.to_owned())),
            None => Ok(Some(contents)),
        }
    }

    fn io(&self, doing: &'static str, source: io::Error) -> RecordError {
        RecordError::Io { path: self.path.clone(), doing, source }
    }
}

fn recorded(contents: Option<Contents>) -> Recorded {
    let version = version_text(contents.as_ref().map_or(0, |contents| contents.version));
    Recorded { record: contents.map(|contents| contents.record), version }
}

fn version_text(version: u64) -> Version {
    Version(version.to_string())
}

fn write_durably(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

fn sync_directory_of(path: &Path) -> io::Result<()> {
    let directory = path.parent().ok_or_else(|| io::Error::other("it has no directory"))?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use gantry_replication::{Epoch, Member, StoreId};

    fn record(epoch: u64) -> GroupRecord {
        let master = Member::new("broker-a-0", StoreId(7));
        GroupRecord { epoch: Epoch(epoch), revision: epoch, in_sync: BTreeSet::from([master.clone()]), master }
    }

    fn new_file() -> (tempfile::TempDir, RecordFile) {
        let dir = tempfile::tempdir().unwrap();
        let file = RecordFile::new(dir.path().join("record.json"));
        (dir, file)
    }

    #[tokio::test]
    async fn a_record_is_there_again_when_the_file_is_opened_anew() {
        let (dir, file) = new_file();
        let empty = file.read().await.unwrap();
        assert_eq!(empty.record, None);
        let first = file.compare_and_set(&empty.version, &record(1)).await.unwrap().unwrap();
        let again = RecordFile::new(dir.path().join("record.json"));
        assert_eq!(again.read().await.unwrap(), Recorded { record: Some(record(1)), version: first });
    }

    #[tokio::test]
    async fn whoever_compares_with_an_old_version_changes_nothing() {
        let (_dir, file) = new_file();
        let empty = file.read().await.unwrap().version;
        let first = file.compare_and_set(&empty, &record(1)).await.unwrap().unwrap();
        assert_eq!(file.compare_and_set(&empty, &record(9)).await.unwrap(), None);
        let second = file.compare_and_set(&first, &record(2)).await.unwrap().unwrap();
        assert_eq!(file.compare_and_set(&first, &record(9)).await.unwrap(), None);
        assert_eq!(file.read().await.unwrap(), Recorded { record: Some(record(2)), version: second });
    }

    #[tokio::test]
    async fn of_many_who_compare_with_the_same_version_one_wins() {
        let (_dir, file) = new_file();
        let empty = file.read().await.unwrap().version;
        let racers = (1..=8).map(|epoch| {
            let (file, empty) = (file.clone(), empty.clone());
            tokio::spawn(async move { file.compare_and_set(&empty, &record(epoch)).await.unwrap().map(|_| epoch) })
        });
        let mut winners = Vec::new();
        for racer in racers.collect::<Vec<_>>() {
            winners.extend(racer.await.unwrap());
        }
        assert_eq!(winners.len(), 1, "{winners:?}");
        assert_eq!(file.read().await.unwrap().record, Some(record(winners[0])));
    }

    #[tokio::test]
    async fn a_crash_between_writing_and_renaming_leaves_the_old_record() {
        let (dir, file) = new_file();
        let empty = file.read().await.unwrap().version;
        let first = file.compare_and_set(&empty, &record(1)).await.unwrap().unwrap();
        for torn in [&b""[..], b"{\"version\": 2, \"rec", b"\0\0\0\0"] {
            fs::write(dir.path().join("record.json.new"), torn).unwrap();
            assert_eq!(file.read().await.unwrap().record, Some(record(1)));
        }
        let second = file.compare_and_set(&first, &record(2)).await.unwrap();
        assert!(second.is_some(), "a left-over file is in nobody's way");
        assert!(!dir.path().join("record.json.new").exists());
    }

    #[tokio::test]
    async fn a_damaged_record_is_an_error_and_never_an_absent_one() {
        let (dir, file) = new_file();
        let path = dir.path().join("record.json");
        let no_master = serde_json::json!({"version": 3, "record": {
            "epoch": 1, "revision": 1, "master": "a#0000000000000001", "inSync": []}});
        for damaged in ["", "{}", "\0\0\0", &no_master.to_string(), "{\"version\":1,\"record\":null}"] {
            fs::write(&path, damaged).unwrap();
            let error = file.read().await.unwrap_err();
            assert!(matches!(error, RecordError::Damaged { .. }), "{damaged:?}: {error}");
            assert!(error.to_string().contains("record.json is damaged"), "{error}");
            let error = file.compare_and_set(&Version("0".to_owned()), &record(1)).await.unwrap_err();
            assert!(matches!(error, RecordError::Damaged { .. }), "{damaged:?}: {error}");
        }
    }

    #[tokio::test]
    async fn a_directory_that_is_gone_is_an_error_that_wrote_nothing() {
        let (dir, file) = new_file();
        let empty = file.read().await.unwrap().version;
        drop(dir);
        let error = file.compare_and_set(&empty, &record(1)).await.unwrap_err();
        assert!(!error.is_uncertain() && error.to_string().contains("write the new one beside it"), "{error}");
    }

    #[tokio::test]
    async fn after_a_failed_sync_of_the_directory_nothing_is_answered_any_more() {
        let (_dir, file) = new_file();
        let empty = file.read().await.unwrap().version;
        *file.inner.failed.lock() = Some("fsync of its directory: Input/output error".to_owned());
        assert!(file.read().await.unwrap_err().is_uncertain());
        assert!(file.compare_and_set(&empty, &record(1)).await.unwrap_err().is_uncertain());
    }
}
