//! Topics' settings.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::null_as_default;

/// RocketMQ's `TopicConfig`, an entry of a registration, of `topics.json`, and of the answer to 21.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicConfig {
    /// The topic.
    pub topic_name: String,
    /// Queues to read from.
    pub read_queue_nums: i32,
    /// Queues to write to.
    pub write_queue_nums: i32,
    /// Read 4, write 2, inherit 1.
    pub perm: i32,
    /// `SINGLE_TAG` or `MULTI_TAG`.
    pub topic_filter_type: String,
    /// RocketMQ's unit flags.
    pub topic_sys_flag: i32,
    /// Whether its queues' order is kept when brokers go.
    pub order: bool,
    /// Free attributes, such as `message.type`.
    #[serde(deserialize_with = "null_as_default")]
    pub attributes: BTreeMap<String, String>,
}

/// RocketMQ's defaults.
impl Default for TopicConfig {
    fn default() -> Self {
        Self {
            topic_name: String::new(),
            read_queue_nums: 16,
            write_queue_nums: 16,
            perm: 6,
            topic_filter_type: "SINGLE_TAG".into(),
            topic_sys_flag: 0,
            order: false,
            attributes: BTreeMap::new(),
        }
    }
}

/// Tells whether a table has changed. Equal versions mean equal tables.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DataVersion {
    /// Which incarnation of the broker counts (RocketMQ: 0 or the controller's epoch); a lower one never replaces a higher.
    pub state_version: i64,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// Changes since then.
    #[serde(deserialize_with = "null_as_default")]
    pub counter: i64,
}

/// RocketMQ's `TopicConfigSerializeWrapper`: the topic table of a broker, answer to GET_ALL_TOPIC_CONFIG (21).
/// Static topics' mappings are not kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicConfigs {
    /// Topic → settings.
    #[serde(deserialize_with = "null_as_default")]
    pub topic_config_table: BTreeMap<String, TopicConfig>,
    /// Changes with the table.
    pub data_version: DataVersion,
}
