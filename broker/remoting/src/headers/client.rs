//! Clients and their groups. HEART_BEAT, LOCK/UNLOCK_BATCH_MQ and CHECK_CLIENT_CONFIG carry everything in the body.

use crate::headers;

headers! {
    /// Answer to HEART_BEAT (34).
    pub struct HeartbeatResponse {
        "IS_SUPPORT_HEART_BEAT_V2" => supports_v2: bool,
        "IS_SUB_CHANGE" => subscription_changed: Option<bool>,
    }

    /// UNREGISTER_CLIENT (35).
    pub struct UnregisterClient<'a> {
        "clientID" => client_id: &'a str,
        "producerGroup" => producer_group: Option<&'a str>,
        "consumerGroup" => consumer_group: Option<&'a str>,
    }

    /// GET_CONSUMER_LIST_BY_GROUP (38).
    pub struct GetConsumerListByGroup<'a> {
        "consumerGroup" => consumer_group: &'a str,
    }

    /// NOTIFY_CONSUMER_IDS_CHANGED (40), broker to client, one-way.
    pub struct NotifyConsumerIdsChanged<'a> {
        "consumerGroup" => consumer_group: &'a str,
    }
}
