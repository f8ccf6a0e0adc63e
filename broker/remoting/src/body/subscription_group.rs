//! Consumer groups' settings at a broker.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::null_as_default;
use super::topic_config::DataVersion;

/// RocketMQ's `SubscriptionGroupConfig`: body of UPDATE_AND_CREATE_SUBSCRIPTIONGROUP (200), of the answer to 352, and an
/// entry of `subscriptionGroup.json`. The defaults are RocketMQ's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(clippy::struct_excessive_bools, reason = "RocketMQ's own shape")]
pub struct SubscriptionGroupConfig {
    /// The group.
    pub group_name: String,
    /// Whether it may consume.
    pub consume_enable: bool,
    /// Whether it may begin at a queue's oldest message.
    pub consume_from_min_enable: bool,
    /// Whether broadcasting is allowed.
    pub consume_broadcast_enable: bool,
    /// Orderly (POP).
    pub consume_message_orderly: bool,
    /// Queues of its retry topic.
    pub retry_queue_nums: i32,
    /// Deliveries after the first one, before the dead letter queue.
    pub retry_max_times: i32,
    /// The broker to read from.
    pub broker_id: i64,
    /// The broker to read from when it lags.
    pub which_broker_when_consume_slowly: i64,
    /// Whether members are told when others come and go.
    pub notify_consumer_ids_changed_enable: bool,
    /// RocketMQ's unit flags.
    pub group_sys_flag: i32,
    /// Minutes.
    pub consume_timeout_minute: i32,
    /// Free attributes.
    #[serde(deserialize_with = "null_as_default")]
    pub attributes: BTreeMap<String, String>,
}

impl Default for SubscriptionGroupConfig {
    fn default() -> Self {
        Self {
            group_name: String::new(),
            consume_enable: true,
            consume_from_min_enable: true,
            consume_broadcast_enable: true,
            consume_message_orderly: false,
            retry_queue_nums: 1,
            retry_max_times: 16,
            broker_id: 0,
            which_broker_when_consume_slowly: 1,
            notify_consumer_ids_changed_enable: true,
            group_sys_flag: 0,
            consume_timeout_minute: 15,
            attributes: BTreeMap::new(),
        }
    }
}

/// Body of the answer to GET_ALL_SUBSCRIPTIONGROUP_CONFIG (201).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubscriptionGroups {
    /// Group → settings.
    #[serde(deserialize_with = "null_as_default")]
    pub subscription_group_table: BTreeMap<String, SubscriptionGroupConfig>,
    /// Changes with the table.
    pub data_version: DataVersion,
}
