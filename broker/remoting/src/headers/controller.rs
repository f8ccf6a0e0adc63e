//! What RocketMQ's tools ask a controller.

use crate::headers;

headers! {
    /// Answer to CONTROLLER_GET_METADATA_INFO (1005): whom to ask for everything else.
    pub struct ControllerMetadata<'a> {
        "group" => group: Option<&'a str>,
        "controllerLeaderId" => leader_id: Option<&'a str>,
        "controllerLeaderAddress" => leader_address: &'a str,
        "isLeader" => is_leader: bool,
        "peers" => peers: Option<&'a str>,
    }
}
