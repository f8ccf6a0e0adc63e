//! What the plugin looks at of a BrokerGroup. All of the status may be absent: an operator may be older, newer, or not there.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use kube::api::DynamicObject;
use serde::Deserialize;

/// On a group's pods: whose they are.
pub(crate) const GROUP_LABEL: &str = "gantry.rs/group";
/// On a group: a replica that shall be master, once. The operator removes it when that is done or refused.
pub(crate) const SWITCHOVER_ANNOTATION: &str = "gantry.rs/switchover-to";
/// On a group: the names of fenced replicas, with `,` between them.
pub(crate) const FENCED_ANNOTATION: &str = "gantry.rs/fenced";

/// A group as the API server has it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) version: Option<String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) replicas: u32,
    pub(crate) status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Status {
    pub(crate) master: Option<String>,
    pub(crate) in_sync: Option<String>,
    pub(crate) record: Option<Record>,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) last_failover: Option<LastFailover>,
    pub(crate) external_address: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Record {
    pub(crate) epoch: u64,
    pub(crate) in_sync: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Replica {
    pub(crate) name: String,
    pub(crate) role: Option<String>,
    pub(crate) epoch: Option<u64>,
    pub(crate) max_offset: Option<u64>,
    pub(crate) confirm_offset: Option<u64>,
    pub(crate) lag_bytes: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Condition {
    #[serde(rename = "type")]
    pub(crate) type_: String,
    pub(crate) status: String,
    pub(crate) reason: String,
    pub(crate) message: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct LastFailover {
    pub(crate) time: String,
    pub(crate) from: Option<String>,
    pub(crate) to: String,
    pub(crate) epoch: u64,
    /// A word for it; `reason` before there was one.
    #[serde(alias = "reason")]
    pub(crate) cause: String,
    pub(crate) message: Option<String>,
    pub(crate) detection_ms: Option<u64>,
    pub(crate) total_ms: Option<u64>,
}

impl Group {
    pub(crate) fn read(object: &DynamicObject) -> anyhow::Result<Self> {
        let name = object.metadata.name.clone().unwrap_or_default();
        let status = object.data.get("status").cloned().filter(|status| !status.is_null());
        let status = status.unwrap_or_else(|| serde_json::json!({}));
        let status = serde_json::from_value(status).with_context(|| format!("the status of BrokerGroup {name}"))?;
        Ok(Self {
            namespace: object.metadata.namespace.clone().unwrap_or_default(),
            name,
            version: object.metadata.resource_version.clone(),
            annotations: object.metadata.annotations.clone().unwrap_or_default(),
            replicas: object.data["spec"]["replicas"].as_u64().and_then(|count| u32::try_from(count).ok()).unwrap_or(0),
            status,
        })
    }

    /// By the annotation.
    pub(crate) fn fenced(&self) -> BTreeSet<String> {
        let names = self.annotations.get(FENCED_ANNOTATION).map(String::as_str).unwrap_or_default().split(',');
        names.map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
    }

    /// Whether the record counts the replica as in sync.
    pub(crate) fn counts_in_sync(&self, replica: &str) -> bool {
        // A member is `<replica>#<store id>`.
        let is = |member: &String| member.split('#').next() == Some(replica);
        self.status.record.as_ref().is_some_and(|record| record.in_sync.iter().any(is))
    }

    /// By the spec, and those that are seen all the same.
    pub(crate) fn replica_names(&self) -> BTreeSet<String> {
        let planned = (0..self.replicas).map(|ordinal| format!("{}-{ordinal}", self.name));
        planned.chain(self.status.replicas.iter().map(|replica| replica.name.clone())).collect()
    }

    /// A replica's name that is one, or an error that tells which there are.
    pub(crate) fn check_replica(&self, replica: &str) -> anyhow::Result<()> {
        let names = self.replica_names();
        if names.contains(replica) {
            return Ok(());
        }
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        anyhow::bail!("BrokerGroup {} has no replica {replica}; it has {names}", self.name)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;

    pub(crate) fn group(change: impl FnOnce(&mut Value)) -> Group {
        let mut object = json!({
            "apiVersion": "gantry.rs/v1alpha1", "kind": "BrokerGroup",
            "metadata": {"name": "broker-a", "namespace": "shop"},
            "spec": {"replicas": 3},
            "status": {
                "master": "broker-a-1", "inSync": "2/3",
                "record": {"epoch": 7, "revision": 9, "master": "broker-a-1#b", "inSync": ["broker-a-0#a", "broker-a-1#b"]},
                "replicas": [
                    {"name": "broker-a-0", "role": "Slave", "epoch": 7, "maxOffset": 900, "confirmOffset": 880, "lagBytes": 100},
                    {"name": "broker-a-1", "role": "Master", "epoch": 7, "maxOffset": 1000, "confirmOffset": 900, "lagBytes": 0},
                ],
                "conditions": [{"type": "Ready", "status": "False", "reason": "PodsNotReady", "message": "2 of 3 pods"}],
                "lastFailover": {
                    "time": "2026-11-25T13:00:00Z", "from": "broker-a-0", "to": "broker-a-1", "epoch": 7, "cause": "MasterDied",
                    "message": "the master's process ended", "detectionMs": 12, "totalMs": 340,
                },
            },
        });
        change(&mut object);
        Group::read(&serde_json::from_value(object).unwrap()).unwrap()
    }

    #[test]
    fn a_group_that_no_operator_has_seen_is_read_all_the_same() {
        let new = group(|object| object["status"] = Value::Null);
        assert_eq!((new.status.master.as_deref(), new.replica_names().len()), (None, 3));
        assert!(!new.counts_in_sync("broker-a-0"));
        let older =
            group(|object| object["status"]["lastFailover"] = json!({"to": "x", "reason": "silence", "epoch": 1}));
        assert_eq!(older.status.last_failover.unwrap().cause, "silence");
    }

    #[test]
    fn replicas_are_checked_by_name() {
        let group = group(|object| object["metadata"]["annotations"] = json!({FENCED_ANNOTATION: " broker-a-2,,"}));
        assert_eq!(group.fenced(), ["broker-a-2".to_owned()].into());
        assert!(group.counts_in_sync("broker-a-1") && !group.counts_in_sync("broker-a-2"));
        let said = group.check_replica("broker-b-0").unwrap_err().to_string();
        assert_eq!(said, "BrokerGroup broker-a has no replica broker-b-0; it has broker-a-0, broker-a-1, broker-a-2");
    }
}
