//! What `Topic` and `ConsumerGroup` have in common: each is declared once, and carried out at the master of every broker group of a cluster.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What becomes of the brokers' side when the object is deleted.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeletionPolicy {
    /// It stays at the brokers, and is nobody's.
    #[default]
    Retain,
    /// It is deleted at every broker group of the cluster, and the object goes after it.
    Delete,
}

/// What the operator reports about a `Topic` or a `ConsumerGroup`.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeclaredStatus {
    /// Its name at the brokers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,

    /// On how many broker groups of the cluster it is as declared, of how many: `2/2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_groups: Option<String>,

    /// Each broker group of the cluster as last seen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub groups: Vec<AtGroup>,

    /// `Ready`: every group of the cluster has it. `Synced`: just as it is declared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// `metadata.generation` that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// How it is at one broker group.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AtGroup {
    /// The broker group.
    pub name: String,
    /// How it is there.
    pub state: GroupState,
    /// What is there, or why it isn't as declared.
    #[serde(default)]
    pub message: String,
}

/// How a declared thing is at a broker group.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum GroupState {
    /// As declared.
    Synced,
    /// It is there, and differs in what can't be changed.
    Drifted,
    /// The master refused it.
    Refused,
    /// The group has no master now.
    NoMaster,
    /// The master didn't answer.
    Unreachable,
}
