//! The custom resources as Rust types: what a person writes, `kubectl apply` takes, and `local up` reads.

mod broker_group;
mod consumer_group;
mod crd;
mod declared;
mod manifest;
mod name_server;
mod status;
mod topic;

pub use broker_group::{
    BrokerGroup, BrokerGroupSpec, ExternalAccess, ExternalType, FlushMode, IDENTITY_KEYS, MAX_GROUP_NAME_CHARS,
    MAX_REPLICAS, OnShortage, Placement, Replication, ReplicationMode, Spread, Storage, VolumeDeletionPolicy,
};
pub use consumer_group::{ConsumerGroup, ConsumerGroupSpec};
pub use crd::{crds, crds_yaml};
pub use declared::{AtGroup, DeclaredStatus, DeletionPolicy, GroupState};
pub use manifest::{ManifestError, read_manifest, read_manifest_text};
pub use name_server::{MAX_NAME_SERVER_NAME_CHARS, MAX_NAME_SERVERS, NameServer, NameServerSpec, NameServerStatus};
pub use status::{BrokerGroupStatus, GroupRecordStatus, LastFailover, ReplicaStatus};
pub use topic::{Perm, Topic, TopicSpec};

/// RocketMQ's own default of `brokerClusterName`.
fn default_cluster() -> String {
    "DefaultCluster".to_owned()
}
