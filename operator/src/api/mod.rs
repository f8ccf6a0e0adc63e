//! The custom resources as Rust types: what a person writes, `kubectl apply` takes, and `local up` reads.

mod broker_group;
mod crd;
mod manifest;
mod status;

pub use broker_group::{
    BrokerGroup, BrokerGroupSpec, ExternalAccess, ExternalType, FlushMode, IDENTITY_KEYS, MAX_GROUP_NAME_CHARS,
    MAX_REPLICAS, OnShortage, Placement, Replication, ReplicationMode, Spread, Storage, VolumeDeletionPolicy,
};
pub use crd::{CRD_FILE, crd, crd_yaml};
pub use manifest::{ManifestError, read_manifest, read_manifest_text};
pub use status::{BrokerGroupStatus, GroupRecordStatus, LastFailover, ReplicaStatus};
