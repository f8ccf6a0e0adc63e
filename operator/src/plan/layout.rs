//! What lies where in the state directory of a local installation.

use std::path::{Path, PathBuf};

/// The paths below one state directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Of the directory `root`, which should be absolute: children may run elsewhere.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The state directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Locked by the operator that runs on this directory.
    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// The unix socket on which the running operator takes requests.
    pub fn control(&self) -> PathBuf {
        self.root.join("control.sock")
    }

    /// The operator's own log.
    pub fn operator_log(&self) -> PathBuf {
        self.root.join("log").join("operator.log")
    }

    /// The name server's log.
    pub fn nameserver_log(&self) -> PathBuf {
        self.root.join("log").join("nameserver.log")
    }

    /// What the elector keeps of a group.
    pub fn group(&self, group: &str) -> PathBuf {
        self.root.join("groups").join(group)
    }

    /// The group record.
    pub fn record(&self, group: &str) -> PathBuf {
        self.group(group).join("record.json")
    }

    /// The group's secret.
    pub fn token(&self, group: &str) -> PathBuf {
        self.group(group).join("token")
    }

    /// A replica's directory.
    pub fn replica(&self, replica: &str) -> PathBuf {
        self.root.join("replicas").join(replica)
    }

    /// A replica's configuration.
    pub fn broker_conf(&self, replica: &str) -> PathBuf {
        self.replica(replica).join("broker.conf")
    }

    /// A replica's store.
    pub fn store(&self, replica: &str) -> PathBuf {
        self.replica(replica).join("store")
    }

    /// A replica's log.
    pub fn broker_log(&self, replica: &str) -> PathBuf {
        self.replica(replica).join("log").join("broker.log")
    }
}
