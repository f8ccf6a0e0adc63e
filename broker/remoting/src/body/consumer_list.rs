//! GET_CONSUMER_LIST_BY_GROUP: who shares a group's queues.

use serde::{Deserialize, Serialize};

use super::null_as_default;

/// Body of the answer to GET_CONSUMER_LIST_BY_GROUP (38).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerList {
    /// Client ids of the group's members.
    #[serde(deserialize_with = "null_as_default")]
    pub consumer_id_list: Vec<String>,
}
