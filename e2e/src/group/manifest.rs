//! The BrokerGroup manifest of a group under test.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// What a test may want of a group; the defaults are those of the example: three replicas, `Sync`, two in sync.
#[derive(Clone, Debug)]
pub struct Options {
    /// Brokers, the master included.
    pub replicas: u8,
    /// `Sync` or `Async`.
    pub mode: &'static str,
    /// `spec.replication.minInSync`.
    pub min_in_sync: u8,
    /// `Async` or `Sync`: whether an acknowledged message is on disk.
    pub flush: &'static str,
    /// How many seconds failovers on suspicion are apart at least; the operator's default if none.
    pub suspicion_gap: Option<u32>,
    /// Whether replicas can be taken down for a while: each is started behind a gate then.
    pub gates: bool,
    /// Further broker keys.
    pub config: BTreeMap<String, String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            replicas: 3,
            mode: "Sync",
            min_in_sync: 2,
            flush: "Async",
            suspicion_gap: None,
            gates: false,
            config: BTreeMap::new(),
        }
    }
}

impl Options {
    /// The same with `flush: Sync`.
    pub fn flushed(self) -> Self {
        Self { flush: "Sync", ..self }
    }

    /// The manifest; JSON is YAML.
    pub(super) fn manifest(&self, name: &str) -> Value {
        json!({
            "apiVersion": "gantry.rs/v1alpha1",
            "kind": "BrokerGroup",
            "metadata": { "name": name },
            "spec": {
                "replicas": self.replicas,
                "clusterName": "DefaultCluster",
                "replication": { "mode": self.mode, "minInSync": self.min_in_sync, "onShortage": "Refuse" },
                "flush": self.flush,
                "config": self.config,
            },
        })
    }
}
