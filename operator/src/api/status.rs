//! What the operator reports about a `BrokerGroup`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Status of a group: the record that decides who is master, and what is seen of the replicas.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BrokerGroupStatus {
    /// The name of the replica that serves as master; absent while none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master: Option<String>,

    /// How many replicas are in sync, of how many: `3/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_sync: Option<String>,

    /// How many replicas there are: pods that have not ended. For the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_replicas: Option<u32>,

    /// What finds the group's pods, as text. For the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,

    /// The group record. Only the elector writes it, by compare-and-set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<GroupRecordStatus>,

    /// Each replica as last seen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub replicas: Vec<ReplicaStatus>,

    /// `Ready`, `Available`, `InSync`, `Degraded` and others, in Kubernetes' usual form.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// The last time that another replica became master, as planned or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failover: Option<LastFailover>,

    /// Where clients outside the cluster are sent to: `host:port`; absent where they can't reach it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_address: Option<String>,

    /// `metadata.generation` that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// The group record: who is master since which epoch, and who has every acknowledged message.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupRecordStatus {
    /// Grows with each new master.
    pub epoch: u64,
    /// Grows by one with each change of the record.
    pub revision: u64,
    /// The master of that epoch: `<replica>#<store id>`.
    pub master: String,
    /// The members that have every acknowledged message, the master included.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub in_sync: Vec<String>,
}

/// One replica as last seen.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaStatus {
    /// `<group>-<ordinal>`.
    pub name: String,
    /// `Master`, `Slave`, or what else it reports; absent where unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The highest epoch that it has accepted; absent where unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// Address of its client port; absent where unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// End of its log, in bytes since the log's beginning; absent where unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_offset: Option<u64>,
    /// What consumers may see of its log, in bytes since the log's beginning; absent where unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_offset: Option<u64>,
    /// Bytes that it is behind the master's log; absent where unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_bytes: Option<u64>,
}

/// A change of master.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastFailover {
    /// When the new master began to serve; until it does, when the record named it.
    pub time: Time,
    /// The master before; absent for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The master since.
    pub to: String,
    /// Its epoch.
    pub epoch: u64,
    /// Why: `Planned`, `MasterDied`, `MasterStuck`, `MasterSilent`, or `RecordRestored` (from the past).
    #[serde(default)]
    pub cause: String,
    /// The same in words.
    #[serde(default)]
    pub message: String,
    /// Milliseconds from the first sign that a new master was needed, or from the request for a planned one, to the record that names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detection_ms: Option<u64>,
    /// Milliseconds from the same to the moment when the new master was known to serve; absent until it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_ms: Option<u64>,
}
