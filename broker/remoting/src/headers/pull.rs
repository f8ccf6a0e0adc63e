//! Pulling: PULL_MESSAGE and LITE_PULL_MESSAGE.

use crate::headers;

/// Bits of [`PullMessage::sys_flag`].
pub mod sys_flag {
    /// `commitOffset` is to be stored.
    pub const COMMIT_OFFSET: i32 = 1;
    /// The request may be held until something arrives.
    pub const SUSPEND: i32 = 2;
    /// `subscription` is in the header (otherwise the heartbeat's holds).
    pub const SUBSCRIPTION: i32 = 4;
    /// Class filter (obsolete).
    pub const CLASS_FILTER: i32 = 8;
    /// A lite pull consumer asks.
    pub const LITE_PULL: i32 = 16;
}

headers! {
    /// PULL_MESSAGE (11), LITE_PULL_MESSAGE (361).
    pub struct PullMessage<'a> {
        "consumerGroup" => consumer_group: &'a str,
        "topic" => topic: &'a str,
        "queueId" => queue_id: i32,
        "queueOffset" => queue_offset: i64,
        "maxMsgNums" => max_msg_nums: i32,
        /// See [`sys_flag`].
        "sysFlag" => sys_flag: i32,
        "commitOffset" => commit_offset: i64,
        "suspendTimeoutMillis" => suspend_timeout_ms: i64,
        "subscription" => subscription: Option<&'a str>,
        "subVersion" => sub_version: i64,
        /// `TAG` (default) or `SQL92`.
        "expressionType" => expression_type: Option<&'a str>,
        "maxMsgBytes" => max_msg_bytes: Option<i32>,
        "requestSource" => request_source: Option<i32>,
        "proxyFrowardClientId" => proxy_forward_client_id: Option<&'a str>,
    }

    /// Answer to a pull; the body is whole commit log records.
    pub struct PullMessageResponse {
        "suggestWhichBrokerId" => suggest_which_broker_id: i64,
        "nextBeginOffset" => next_begin_offset: i64,
        "minOffset" => min_offset: i64,
        "maxOffset" => max_offset: i64,
        "offsetDelta" => offset_delta: Option<i64>,
        "topicSysFlag" => topic_sys_flag: Option<i32>,
        "groupSysFlag" => group_sys_flag: Option<i32>,
        "forbiddenType" => forbidden_type: Option<i32>,
    }
}

impl<'a> PullMessage<'a> {
    /// A pull of at most 32 messages of any tag, which brings its subscription, waits for nothing and commits nothing.
    pub fn new(consumer_group: &'a str, topic: &'a str, queue_id: i32, queue_offset: i64) -> Self {
        Self {
            consumer_group,
            topic,
            queue_id,
            queue_offset,
            max_msg_nums: 32,
            sys_flag: sys_flag::SUBSCRIPTION,
            commit_offset: 0,
            suspend_timeout_ms: 0,
            subscription: Some("*"),
            sub_version: 0,
            expression_type: None,
            max_msg_bytes: None,
            request_source: None,
            proxy_forward_client_id: None,
        }
    }
}
