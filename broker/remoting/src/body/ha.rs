//! How brokers replicate, for administrators.

use serde::{Deserialize, Serialize};

/// RocketMQ's `HARuntimeInfo`: answer to GET_BROKER_HA_STATUS (907), what `mqadmin haStatus` prints.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HaRuntimeInfo {
    /// Is it master?
    pub master: bool,
    /// The end of a master's log.
    pub master_commit_log_max_offset: i64,
    /// Slaves in sync, the master not counted.
    pub in_sync_slave_nums: i32,
    /// A master's connections.
    pub ha_connection_info: Vec<HaConnectionInfo>,
    /// A slave's.
    pub ha_client_runtime_info: HaClientInfo,
}

/// A slave, as its master sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HaConnectionInfo {
    /// `host:port` of the slave's end of the connection.
    pub addr: String,
    /// What it has acknowledged.
    pub slave_ack_offset: i64,
    /// How many bytes of the log it lacks.
    pub diff: i64,
    /// Printed as `OK`, otherwise `Fall Behind`.
    pub in_sync: bool,
    /// Bytes sent in the last second.
    pub transferred_byte_in_second: i64,
    /// What is sent next.
    pub transfer_from_where: i64,
}

/// A slave's connection to its master, as the slave sees it. Times are ms since 1970; 0: never.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HaClientInfo {
    /// The master's HA address.
    pub master_addr: String,
    /// Bytes received in the last second.
    pub transferred_byte_in_second: i64,
    /// The end of the slave's log.
    pub max_offset: i64,
    /// When the master was last heard.
    pub last_read_timestamp: i64,
    /// When it was last told something.
    pub last_write_timestamp: i64,
    /// How far the master's log is safe, as far as the slave knows.
    pub master_flush_offset: i64,
    /// Does the connection stand?
    pub activated: bool,
}

/// RocketMQ's `EpochEntryCache`: answer to GET_BROKER_EPOCH_CACHE (1007), what `mqadmin getBrokerEpoch` prints.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EpochEntryCache {
    /// `brokerClusterName`
    pub cluster_name: String,
    /// `brokerName`
    pub broker_name: String,
    /// `brokerId`, 0 for the master.
    pub broker_id: i64,
    /// Oldest first.
    pub epoch_list: Vec<EpochEntry>,
    /// The log's end, which is the last epoch's.
    pub max_offset: i64,
}

/// An epoch of a log.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EpochEntry {
    /// Its number.
    pub epoch: i32,
    /// Where it begins.
    pub start_offset: i64,
    /// Where it ends.
    pub end_offset: i64,
}

/// RocketMQ's `BrokerReplicasInfo`: a controller's answer to CONTROLLER_GET_SYNC_STATE_DATA (1006), what
/// `mqadmin getSyncStateSet` prints.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BrokerReplicasInfo {
    /// By broker name.
    pub replicas_info_table: std::collections::BTreeMap<String, ReplicasInfo>,
}

/// One group's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplicasInfo {
    /// The master's own id among the replicas.
    pub master_broker_id: i64,
    /// Where clients reach it.
    pub master_address: String,
    /// Its epoch.
    pub master_epoch: i32,
    /// Grows with each change of the in-sync set.
    pub sync_state_set_epoch: i32,
    /// The master included.
    pub in_sync_replicas: Vec<ReplicaIdentity>,
    /// The others.
    pub not_in_sync_replicas: Vec<ReplicaIdentity>,
}

/// A replica.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplicaIdentity {
    /// The group.
    pub broker_name: String,
    /// Its id in the group.
    pub broker_id: i64,
    /// Where clients would reach it.
    pub broker_address: String,
    /// Is it there?
    pub alive: bool,
}
