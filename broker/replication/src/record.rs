//! The group record: who is master, in which epoch, and which members hold every acknowledged message.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{Epoch, Member};

/// The one truth of a group. It lives where a single compare-and-set decides (the BrokerGroup's status on Kubernetes,
/// an fsynced file locally), and only an elector writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GroupRecord {
    /// The epoch that `master` opened or is to open.
    pub epoch: Epoch,
    /// Grows by one with each change, so that whoever hears two records knows which is newer.
    pub revision: u64,
    /// The master of that epoch.
    pub master: Member,
    /// Every member that holds all acknowledged messages. Only these may become master (invariant *Election*).
    pub in_sync: BTreeSet<Member>,
}

impl GroupRecord {
    /// Why this can't be a record, or nothing.
    pub fn flaw(&self) -> Option<&'static str> {
        if self.epoch == Epoch(0) {
            return Some("its epoch is 0, which is no master's");
        }
        if !self.in_sync.contains(&self.master) {
            return Some("its master is not in its in-sync set");
        }
        None
    }
}

/// What compare-and-set compares: opaque, the store's own (a `resourceVersion`, a counter in a file).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub String);

/// The record as it was read or written, with its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// What stood there; none before the first election.
    pub record: Option<GroupRecord>,
    /// To be given to the next compare-and-set.
    pub version: Version,
}
