//! Brokers and clients to a name server.

use crate::headers;

headers! {
    /// REGISTER_BROKER (103).
    pub struct RegisterBroker<'a> {
        "brokerName" => broker_name: &'a str,
        "brokerAddr" => broker_addr: &'a str,
        "clusterName" => cluster_name: &'a str,
        "haServerAddr" => ha_server_addr: &'a str,
        /// 0 is the master.
        "brokerId" => broker_id: i64,
        "heartbeatTimeoutMillis" => heartbeat_timeout_ms: Option<i64>,
        "enableActingMaster" => enable_acting_master: Option<bool>,
        "compressed" => compressed: Option<bool>,
        /// CRC-32 of the body; 0: not given.
        "bodyCrc32" => body_crc32: Option<i32>,
        "__ZONE_NAME" => zone_name: Option<&'a str>,
        /// Gantry only: the epoch of the master at this stable address.
        "gantryEpoch" => gantry_epoch: Option<i64>,
        /// Gantry only: the replica's name, the same whatever its id and address.
        "gantryReplica" => gantry_replica: Option<&'a str>,
        /// Gantry only: where clients outside the cluster reach the master, `host:port`.
        "gantryExternalMaster" => gantry_external_master: Option<&'a str>,
    }

    /// Answer to REGISTER_BROKER: the master, told to a slave.
    pub struct RegisterBrokerResponse<'a> {
        "haServerAddr" => ha_server_addr: Option<&'a str>,
        "masterAddr" => master_addr: Option<&'a str>,
    }

    /// UNREGISTER_BROKER (104).
    pub struct UnregisterBroker<'a> {
        "brokerName" => broker_name: &'a str,
        "brokerAddr" => broker_addr: &'a str,
        "clusterName" => cluster_name: &'a str,
        "brokerId" => broker_id: i64,
        /// Gantry only: as in the registration; a lower epoch than the known one unregisters nobody.
        "gantryEpoch" => gantry_epoch: Option<i64>,
    }

    /// BROKER_HEARTBEAT (904).
    pub struct BrokerHeartbeat<'a> {
        "clusterName" => cluster_name: &'a str,
        "brokerAddr" => broker_addr: &'a str,
        "brokerName" => broker_name: &'a str,
        "brokerId" => broker_id: Option<i64>,
        "epoch" => epoch: Option<i32>,
        "maxOffset" => max_offset: Option<i64>,
        "confirmOffset" => confirm_offset: Option<i64>,
        /// RocketMQ's spelling.
        "heartbeatTimeoutMills" => heartbeat_timeout_ms: Option<i64>,
        "electionPriority" => election_priority: Option<i32>,
    }

    /// QUERY_DATA_VERSION (322); the body is a `DataVersion`.
    pub struct QueryDataVersion<'a> {
        "brokerName" => broker_name: &'a str,
        "brokerAddr" => broker_addr: &'a str,
        "clusterName" => cluster_name: &'a str,
        "brokerId" => broker_id: i64,
    }

    /// Answer to QUERY_DATA_VERSION.
    pub struct QueryDataVersionResponse {
        "changed" => changed: bool,
    }

    /// GET_ROUTEINFO_BY_TOPIC (105).
    pub struct GetRouteInfo<'a> {
        "topic" => topic: &'a str,
        "acceptStandardJsonOnly" => accept_standard_json_only: Option<bool>,
    }

    /// GET_BROKER_MEMBER_GROUP (901).
    pub struct GetBrokerMemberGroup<'a> {
        "clusterName" => cluster_name: &'a str,
        "brokerName" => broker_name: &'a str,
    }

    /// PUT_KV_CONFIG (100).
    pub struct PutKvConfig<'a> {
        "namespace" => namespace: &'a str,
        "key" => key: &'a str,
        "value" => value: &'a str,
    }

    /// GET_KV_CONFIG (101), DELETE_KV_CONFIG (102).
    pub struct KvConfigKey<'a> {
        "namespace" => namespace: &'a str,
        "key" => key: &'a str,
    }

    /// Answer to GET_KV_CONFIG.
    pub struct KvConfigValue<'a> {
        "value" => value: Option<&'a str>,
    }

    /// GET_KVLIST_BY_NAMESPACE (219).
    pub struct KvNamespace<'a> {
        "namespace" => namespace: &'a str,
    }

    /// WIPE_WRITE_PERM_OF_BROKER (205), ADD_WRITE_PERM_OF_BROKER (327).
    pub struct WritePermOfBroker<'a> {
        "brokerName" => broker_name: &'a str,
    }

    /// Answer to WIPE_WRITE_PERM_OF_BROKER.
    pub struct WipeWritePermResponse {
        "wipeTopicCount" => wipe_topic_count: i32,
    }

    /// Answer to ADD_WRITE_PERM_OF_BROKER.
    pub struct AddWritePermResponse {
        "addTopicCount" => add_topic_count: i32,
    }

    /// DELETE_TOPIC_IN_NAMESRV (216), REGISTER_TOPIC_IN_NAMESRV (217).
    pub struct NamesrvTopic<'a> {
        "topic" => topic: &'a str,
        "clusterName" => cluster_name: Option<&'a str>,
    }

    /// GET_TOPICS_BY_CLUSTER (224).
    pub struct GetTopicsByCluster<'a> {
        "cluster" => cluster: &'a str,
    }
}
