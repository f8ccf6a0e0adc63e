//! The group record behind one compare-and-set.

use std::future::Future;
use std::path::PathBuf;

use gantry_replication::record::Recorded;
use gantry_replication::{GroupRecord, Version};

/// Keeps the record of one group, durably: what was written and acknowledged is there after any crash.
///
/// There may be several writers; the compare-and-set makes sure that one of them wins.
pub trait RecordStore: Send + Sync + 'static {
    /// The record as it stands, with the version to give to [`RecordStore::compare_and_set`].
    fn read(&self) -> impl Future<Output = Result<Recorded, RecordError>> + Send;

    /// Writes `record` if the version still is `expected`: the new version, or none if another stands there.
    ///
    /// An error that [is uncertain](RecordError::is_uncertain) may have written it.
    fn compare_and_set(
        &self,
        expected: &Version,
        record: &GroupRecord,
    ) -> impl Future<Output = Result<Option<Version>, RecordError>> + Send;
}

/// Why the record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The system refused; nothing was changed.
    #[error("group record {}: {doing}: {source}", path.display())]
    Io {
        /// The record's file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// What stands there is no record.
    #[error("group record {} is damaged ({why}); restore it from a backup, or remove it only if the group is new", path.display())]
    Damaged {
        /// The record's file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// What the platform's API said, or that it said nothing.
    #[error("group record in the status of BrokerGroup {group}: {doing}: {why}")]
    Api {
        /// `<namespace>/<name>`
        group: String,
        /// What was tried.
        doing: &'static str,
        /// What was said.
        why: String,
        /// Whether it may have been done all the same.
        uncertain: bool,
    },
    /// The new record may or may not survive a crash.
    #[error("group record {}: not certainly on disk: {why}; the elector must be restarted to read it again", path.display())]
    Uncertain {
        /// The record's file.
        path: PathBuf,
        /// What failed.
        why: String,
    },
}

impl RecordError {
    /// Whether the record may have been written all the same.
    pub fn is_uncertain(&self) -> bool {
        matches!(self, Self::Uncertain { .. } | Self::Api { uncertain: true, .. })
    }
}
