//! GET_ROUTEINFO_BY_TOPIC: where a topic's queues are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::null_as_default;

/// Body of the answer to GET_ROUTEINFO_BY_TOPIC (105).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicRouteData {
    /// Of ordered topics, from the KV configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order_topic_conf: Option<String>,
    /// Queues, one entry a broker name.
    #[serde(deserialize_with = "null_as_default")]
    pub queue_datas: Vec<QueueData>,
    /// The brokers' addresses.
    #[serde(deserialize_with = "null_as_default")]
    pub broker_datas: Vec<BrokerData>,
    /// Filter servers by broker address (obsolete, empty).
    #[serde(deserialize_with = "null_as_default")]
    pub filter_server_table: BTreeMap<String, Vec<String>>,
}

/// A topic's queues at one broker name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueueData {
    /// The broker name (a master and its slaves have the same).
    pub broker_name: String,
    /// Queues to read from.
    pub read_queue_nums: i32,
    /// Queues to write to.
    pub write_queue_nums: i32,
    /// Read 4, write 2, inherit 1.
    pub perm: i32,
    /// RocketMQ's unit flags.
    pub topic_sys_flag: i32,
}

/// The addresses of one broker name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BrokerData {
    /// The cluster's name.
    pub cluster: String,
    /// The broker name.
    pub broker_name: String,
    /// Broker id → `host:port`; 0 is the master.
    #[serde(deserialize_with = "null_as_default")]
    pub broker_addrs: BTreeMap<i64, String>,
    /// Whether a slave may act as master (RIP-32).
    pub enable_acting_master: bool,
    /// The zone it was registered with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone_name: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::{parse, to_json, to_json_bare_keys};

    fn sample() -> TopicRouteData {
        TopicRouteData {
            queue_datas: vec![QueueData {
                broker_name: "broker-a".into(),
                read_queue_nums: 4,
                write_queue_nums: 4,
                perm: 6,
                topic_sys_flag: 0,
            }],
            broker_datas: vec![BrokerData {
                cluster: "DefaultCluster".into(),
                broker_name: "broker-a".into(),
                broker_addrs: BTreeMap::from([(0, "127.0.0.1:10911".into()), (1, "127.0.0.1:10921".into())]),
                ..BrokerData::default()
            }],
            ..TopicRouteData::default()
        }
    }

    #[test]
    fn both_forms_of_a_route_are_read_back() {
        let (standard, bare) = (to_json(&sample()).unwrap(), to_json_bare_keys(&sample()).unwrap());
        assert!(std::str::from_utf8(&standard).unwrap().contains(r#""brokerAddrs":{"0":"127.0.0.1:10911","1":"#));
        assert!(std::str::from_utf8(&bare).unwrap().contains(r#""brokerAddrs":{0:"127.0.0.1:10911",1:"#));
        assert_eq!(parse::<TopicRouteData>(&standard).unwrap(), sample());
        assert_eq!(parse::<TopicRouteData>(&bare).unwrap(), sample());
    }

    #[test]
    fn apache_s_route_is_read() {
        let apache = br#"{"brokerDatas":[{"brokerAddrs":{0:"10.0.0.1:10911"},"brokerName":"b","cluster":"c",
            "enableActingMaster":false}],"filterServerTable":{},"queueDatas":[{"brokerName":"b","perm":6,
            "readQueueNums":8,"topicSysFlag":0,"writeQueueNums":8}],"topicQueueMappingByBroker":null}"#;
        let route: TopicRouteData = parse(apache).unwrap();
        assert_eq!(route.broker_datas[0].broker_addrs[&0], "10.0.0.1:10911");
        assert_eq!(route.queue_datas[0].read_queue_nums, 8);
    }
}
