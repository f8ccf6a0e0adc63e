//! Administration of a broker.

use crate::headers;

headers! {
    /// DELETE_SUBSCRIPTIONGROUP (207).
    pub struct DeleteSubscriptionGroup<'a> {
        "groupName" => group_name: &'a str,
        "cleanOffset" => clean_offset: Option<bool>,
    }

    /// GET_SUBSCRIPTIONGROUP_CONFIG (352).
    pub struct GetSubscriptionGroup<'a> {
        "group" => group: &'a str,
    }

    /// GET_CONSUMER_CONNECTION_LIST (203).
    pub struct GetConsumerConnectionList<'a> {
        "consumerGroup" => consumer_group: &'a str,
    }

    /// GET_PRODUCER_CONNECTION_LIST (204).
    pub struct GetProducerConnectionList<'a> {
        "producerGroup" => producer_group: &'a str,
    }

    /// QUERY_CONSUME_QUEUE (321): what a consume queue points at.
    pub struct QueryConsumeQueue<'a> {
        "topic" => topic: &'a str,
        "queueId" => queue_id: i32,
        "index" => index: i64,
        "count" => count: i32,
        "consumerGroup" => consumer_group: Option<&'a str>,
    }

    /// GET_TOPIC_STATS_INFO (202).
    pub struct GetTopicStatsInfo<'a> {
        "topic" => topic: &'a str,
    }

    /// GET_CONSUME_STATS (208).
    pub struct GetConsumeStats<'a> {
        "consumerGroup" => consumer_group: &'a str,
        "topic" => topic: Option<&'a str>,
        /// Separated by `;`.
        "topicList" => topic_list: Option<&'a str>,
    }
}
