//! What `gantry-operator local status --json` says.

use serde::Deserialize;

/// All groups of one operator.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Report {
    pub(super) groups: Vec<Status>,
}

/// One group. What the operator doesn't know is `None`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The group's name, which is the brokers' name.
    pub name: String,
    /// The record's epoch.
    pub epoch: Option<u64>,
    /// The record's master.
    pub master: Option<String>,
    /// The record's in-sync set.
    #[serde(default)]
    pub in_sync: Vec<String>,
    /// The name server's address.
    pub nameserver: Option<String>,
    /// The elector's address, which RocketMQ's tools ask as a controller.
    pub controller: Option<String>,
    /// The stable master address.
    pub address: Option<String>,
    /// One for each replica of the manifest.
    pub replicas: Vec<Replica>,
}

/// One replica.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Replica {
    /// `<group>-<ordinal>`.
    pub name: String,
    /// `master` or `slave`, in whatever case.
    pub role: Option<String>,
    /// Its process.
    pub pid: Option<u32>,
    /// Its own address, behind the stable one.
    pub address: Option<String>,
    /// Where its log ends.
    pub max_offset: Option<i64>,
    /// Up to where its log is confirmed.
    pub confirm_offset: Option<i64>,
    /// How far it is behind the master.
    pub lag_bytes: Option<i64>,
    /// Whether the record has it, with the disk that it runs on now, among those in sync.
    #[serde(default)]
    pub in_sync: bool,
}

impl Status {
    /// Whether there is a master, and every replica runs and is in sync.
    pub fn is_whole(&self) -> bool {
        let runs_in_sync = |replica: &Replica| replica.pid.is_some() && self.in_sync.contains(&replica.name);
        self.master.is_some() && self.in_sync.len() == self.replicas.len() && self.replicas.iter().all(runs_in_sync)
    }

    /// Whole, and every replica has joined since its process was started: nothing is hearsay.
    pub fn is_settled(&self) -> bool {
        self.is_whole() && self.replicas.iter().all(|replica| replica.in_sync && replica.max_offset.is_some())
    }

    /// The process of a replica.
    pub fn pid(&self, replica: &str) -> Option<u32> {
        self.replicas.iter().find(|its| its.name == replica)?.pid
    }

    /// In-sync replicas other than the master.
    pub fn in_sync_slaves(&self) -> impl Iterator<Item = &String> {
        self.in_sync.iter().filter(|replica| Some(*replica) != self.master.as_ref())
    }
}
