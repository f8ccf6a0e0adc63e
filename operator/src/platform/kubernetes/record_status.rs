//! The group record in the `BrokerGroup`'s status.
//!
//! A write carries the `resourceVersion` of the object that was read just before it, so the API server refuses it if anything has changed
//! since. What is compared is the *record* (and the object's uid), not that version: conditions and offsets in the same status change
//! often, and are no reason to refuse a master its in-sync set.

use gantry_replication::record::Recorded;
use gantry_replication::{GroupRecord, Version};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::api::{CallError, call};
use super::lease::Leadership;
use crate::api::{BrokerGroup, GroupRecordStatus};
use crate::platform::{RecordError, RecordStore};

/// Who the API server says wrote the record.
const MANAGER: &str = "gantry-elector";

/// Writes of others, between reading and writing, that are put up with.
const TRIES: usize = 5;

/// The record of one group.
#[derive(Clone, Debug)]
pub(super) struct StatusRecord {
    api: Api<BrokerGroup>,
    namespace: String,
    name: String,
    /// Another object of the same name is another group.
    uid: String,
    leadership: Leadership,
}

impl StatusRecord {
    pub(super) fn new(api: Api<BrokerGroup>, group: &BrokerGroup, leadership: Leadership) -> Self {
        let metadata = &group.metadata;
        Self {
            api,
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
            leadership,
        }
    }

    async fn get(&self) -> Result<BrokerGroup, RecordError> {
        let group = call(self.api.get(&self.name)).await.map_err(|error| self.failed("read", &error))?;
        if group.metadata.uid.as_deref() == Some(&*self.uid) {
            return Ok(group);
        }
        Err(self.error("read", "another BrokerGroup of that name has taken its place".to_owned(), false))
    }

    fn record_of(&self, group: &BrokerGroup) -> Result<Option<GroupRecord>, RecordError> {
        let Some(status) = group.status.as_ref().and_then(|status| status.record.as_ref()) else { return Ok(None) };
        let damaged = |why: String| {
            let why = format!("{why}; restore the record from a backup, or remove it only if the group is new");
            self.error("understand", why, false)
        };
        let record = from_status(status).map_err(|error| damaged(error.to_string()))?;
        match record.flaw() {
            Some(flaw) => Err(damaged(flaw.to_owned())),
            None => Ok(Some(record)),
        }
    }

    fn failed(&self, doing: &'static str, error: &CallError) -> RecordError {
        self.error(doing, error.to_string(), error.is_uncertain())
    }

    fn error(&self, doing: &'static str, why: String, uncertain: bool) -> RecordError {
        RecordError::Api { group: format!("{}/{}", self.namespace, self.name), doing, why, uncertain }
    }

    fn version(&self, record: Option<&GroupRecord>) -> Version {
        let record = record.and_then(|record| serde_json::to_string(record).ok());
        Version(format!("{} {}", self.uid, record.unwrap_or_default()))
    }
}

impl RecordStore for StatusRecord {
    async fn read(&self) -> Result<Recorded, RecordError> {
        let record = self.record_of(&self.get().await?)?;
        Ok(Recorded { version: self.version(record.as_ref()), record })
    }

    async fn compare_and_set(&self, expected: &Version, record: &GroupRecord) -> Result<Option<Version>, RecordError> {
        for _ in 0..TRIES {
            let group = self.get().await?;
            if self.version(self.record_of(&group)?.as_ref()) != *expected {
                return Ok(None);
            }
            let patch = json!({
                "metadata": {"resourceVersion": group.metadata.resource_version, "uid": self.uid},
                "status": {"record": to_status(record)},
            });
            self.leadership.check().map_err(|error| self.failed("write", &error))?;
            let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
            match call(self.api.patch_status(&self.name, &params, &Patch::Merge(&patch))).await {
                Ok(_) => return Ok(Some(self.version(Some(record)))),
                // Somebody wrote something: perhaps not the record.
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(self.failed("write", &error)),
            }
        }
        Err(self.error("write", format!("others changed the object {TRIES} times meanwhile"), false))
    }
}

/// The schema's form of a record, field by field the same.
fn to_status(record: &GroupRecord) -> Value {
    json!({
        "epoch": record.epoch, "revision": record.revision, "master": record.master, "inSync": record.in_sync,
    })
}

/// And back.
fn from_status(status: &GroupRecordStatus) -> Result<GroupRecord, serde_json::Error> {
    serde_json::from_value(serde_json::to_value(status)?)
}

#[cfg(test)]
#[path = "record_status_tests.rs"]
mod tests;
