//! CHECK_CLIENT_CONFIG: a client asks whether its subscription would do.

use serde::{Deserialize, Serialize};

use super::heartbeat::SubscriptionData;

/// Body of CHECK_CLIENT_CONFIG (46).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CheckClient {
    /// Who asks.
    pub client_id: String,
    /// Its group.
    pub group: String,
    /// The subscription in question.
    pub subscription_data: Option<SubscriptionData>,
    /// RocketMQ's namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}
