//! LOCK_BATCH_MQ and UNLOCK_BATCH_MQ: queues of orderly consumers.

use serde::{Deserialize, Serialize};

use super::null_as_default;

/// A queue of a topic at a broker name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageQueue {
    /// The topic.
    pub topic: String,
    /// The broker name.
    pub broker_name: String,
    /// The queue.
    pub queue_id: i32,
}

/// Body of LOCK_BATCH_MQ (41) and UNLOCK_BATCH_MQ (42).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LockBatch {
    /// For which group.
    pub consumer_group: String,
    /// For which member.
    pub client_id: String,
    /// Not at the other replicas (RocketMQ 5).
    pub only_this_broker: bool,
    /// The queues.
    #[serde(deserialize_with = "null_as_default")]
    pub mq_set: Vec<MessageQueue>,
}

/// Body of the answer to LOCK_BATCH_MQ: what the member has locked now.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LockBatchResponse {
    /// The queues.
    #[serde(rename = "lockOKMQSet", default, deserialize_with = "null_as_default")]
    pub locked: Vec<MessageQueue>,
}
