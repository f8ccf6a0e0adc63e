//! Offsets of queues and consumers, and messages by offset.

use crate::headers;

headers! {
    /// QUERY_CONSUMER_OFFSET (14).
    pub struct QueryConsumerOffset<'a> {
        "consumerGroup" => consumer_group: &'a str,
        "topic" => topic: &'a str,
        "queueId" => queue_id: i32,
        "setZeroIfNotFound" => set_zero_if_not_found: Option<bool>,
    }

    /// UPDATE_CONSUMER_OFFSET (15), often one-way.
    pub struct UpdateConsumerOffset<'a> {
        "consumerGroup" => consumer_group: &'a str,
        "topic" => topic: &'a str,
        "queueId" => queue_id: i32,
        "commitOffset" => commit_offset: i64,
    }

    /// SEARCH_OFFSET_BY_TIMESTAMP (29).
    pub struct SearchOffset<'a> {
        "topic" => topic: &'a str,
        "queueId" => queue_id: i32,
        /// Milliseconds since 1970.
        "timestamp" => timestamp: i64,
        /// `lower` (default) or `upper`, in any case.
        "boundaryType" => boundary_type: Option<&'a str>,
    }

    /// GET_MAX_OFFSET (30).
    pub struct GetMaxOffset<'a> {
        "topic" => topic: &'a str,
        "queueId" => queue_id: i32,
        "committed" => committed: Option<bool>,
    }

    /// GET_MIN_OFFSET (31).
    pub struct GetMinOffset<'a> {
        "topic" => topic: &'a str,
        "queueId" => queue_id: i32,
    }

    /// GET_EARLIEST_MSG_STORETIME (32).
    pub struct GetEarliestStoreTime<'a> {
        "topic" => topic: &'a str,
        "queueId" => queue_id: i32,
    }

    /// QUERY_MESSAGE (12).
    pub struct QueryMessage<'a> {
        "topic" => topic: &'a str,
        /// A word of the message's KEYS, or its unique key.
        "key" => key: &'a str,
        "maxNum" => max_num: i32,
        /// Milliseconds since 1970.
        "beginTimestamp" => begin_timestamp: i64,
        "endTimestamp" => end_timestamp: i64,
        /// `true`: the key is a unique one, and the broker says how many it gives.
        "_UNIQUE_KEY_QUERY" => unique: Option<&'a str>,
        /// Since 5.5: `K` (default) keys, `U` unique keys, `T` tags.
        "indexType" => index_type: Option<&'a str>,
    }

    /// Answer to code 12; the records are its body.
    pub struct QueryMessageResponse {
        /// Milliseconds since 1970.
        "indexLastUpdateTimestamp" => index_last_update_timestamp: i64,
        /// RocketMQ writes it so.
        "indexLastUpdatePhyoffset" => index_last_update_physical: i64,
    }

    /// Answer to codes 14, 29, 30, 31.
    pub struct OffsetResponse {
        "offset" => offset: i64,
    }

    /// Answer to code 32.
    pub struct EarliestStoreTimeResponse {
        /// Milliseconds since 1970; -1 for an empty queue.
        "timestamp" => timestamp: i64,
    }

    /// VIEW_MESSAGE_BY_ID (33).
    pub struct ViewMessage<'a> {
        /// Physical offset in the commit log.
        "offset" => offset: i64,
        "topic" => topic: Option<&'a str>,
    }
}
