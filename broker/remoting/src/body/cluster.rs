//! What a name server tells of its clusters.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::null_as_default;
use super::route::BrokerData;

/// Body of the answer to GET_BROKER_CLUSTER_INFO (106).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterInfo {
    /// Broker name → addresses.
    #[serde(deserialize_with = "null_as_default")]
    pub broker_addr_table: BTreeMap<String, BrokerData>,
    /// Cluster name → broker names.
    #[serde(deserialize_with = "null_as_default")]
    pub cluster_addr_table: BTreeMap<String, BTreeSet<String>>,
}

/// Body of the answers to 206, 224, 304, 305.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicList {
    /// The topics.
    #[serde(deserialize_with = "null_as_default")]
    pub topic_list: BTreeSet<String>,
    /// Some broker that has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_addr: Option<String>,
}

/// Body of the answer to GET_BROKER_MEMBER_GROUP (901).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BrokerMemberGroupBody {
    /// The group asked for, without addresses if it isn't known.
    pub broker_member_group: BrokerMemberGroup,
}

/// A master and its slaves.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BrokerMemberGroup {
    /// The cluster's name.
    pub cluster: String,
    /// The broker name.
    pub broker_name: String,
    /// Broker id → `host:port`.
    #[serde(deserialize_with = "null_as_default")]
    pub broker_addrs: BTreeMap<i64, String>,
}
