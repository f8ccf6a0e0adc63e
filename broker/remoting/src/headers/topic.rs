//! Topics at a broker.

use crate::headers;

headers! {
    /// UPDATE_AND_CREATE_TOPIC (17).
    pub struct CreateTopic<'a> {
        "topic" => topic: &'a str,
        "defaultTopic" => default_topic: &'a str,
        "readQueueNums" => read_queue_nums: i32,
        "writeQueueNums" => write_queue_nums: i32,
        /// Read 4, write 2, inherit 1.
        "perm" => perm: i32,
        /// `SINGLE_TAG` or `MULTI_TAG`.
        "topicFilterType" => topic_filter_type: &'a str,
        "topicSysFlag" => topic_sys_flag: Option<i32>,
        "order" => order: Option<bool>,
        /// `+key=value,-key`.
        "attributes" => attributes: Option<&'a str>,
        "force" => force: Option<bool>,
    }

    /// DELETE_TOPIC_IN_BROKER (215).
    pub struct DeleteTopic<'a> {
        "topic" => topic: &'a str,
    }

    /// GET_TOPIC_CONFIG (351).
    pub struct GetTopicConfig<'a> {
        "topic" => topic: &'a str,
    }
}
