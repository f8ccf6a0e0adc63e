//! What a group's replicas store and read: volumes, and their configuration.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use gantry_replication::settings::{LIVE_KEYS, Settings};
use serde_json::json;

use super::volumes::{ClaimSeen, bytes};
use super::{Blueprint, CLIENT_PORT, HA_PORT, HTTP_PORT, Kind, Object};
use crate::api::VolumeDeletionPolicy;
use crate::plan::broker_conf::{Surroundings, render};

/// Where a replica's volume is.
pub(super) const DATA_DIR: &str = "/data";

impl Blueprint {
    /// A replica's volume. By default it has no owner: what was acknowledged is not to go with a `kubectl delete` of the group. One that is
    /// there keeps its class, and its size where that is larger: neither can be changed. It grows only where it is asked to.
    pub fn volume_claim(&self, replica: &str, present: Option<&ClaimSeen>, grow: bool) -> Object {
        let storage = &self.spec.storage;
        let requested = present.and_then(|claim| claim.requested.as_ref());
        let size = requested.filter(|size| !grow || bytes(size) > bytes(&storage.size)).unwrap_or(&storage.size);
        let mut spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}});
        let class = present.map_or(&storage.storage_class_name, |claim| &claim.class);
        if let Some(class) = class {
            spec["storageClassName"] = class.as_str().into();
        }
        let mut metadata = self.metadata(&claim_name(replica), Some(replica));
        if storage.deletion_policy == VolumeDeletionPolicy::Retain {
            metadata["ownerReferences"] = json!([]);
        }
        Self::object_of(Kind::PersistentVolumeClaim, metadata, json!({"spec": spec}))
    }

    /// Each replica's `broker.conf`, without what only its pod knows (its address) and what only a secret may hold (the token).
    pub(super) fn config_map(&self, master_ip: IpAddr, external: Option<&str>) -> Object {
        let store = Path::new(DATA_DIR).join("store");
        let surroundings = Surroundings {
            electors: &self.site.elector,
            address: None,
            ports: (CLIENT_PORT, HA_PORT),
            metrics_port: HTTP_PORT,
            advertised_master: SocketAddr::new(master_ip, CLIENT_PORT),
            external_master: external,
            store: &store,
            token: None,
        };
        let files = self.plan.replicas.iter();
        let files: BTreeMap<_, _> =
            files.map(|replica| (config_key(&replica.name), render(&self.plan, replica, &surroundings))).collect();
        self.object(Kind::ConfigMap, &self.plan.name, json!({"data": files}))
    }

    /// What of the configuration brokers take while they run.
    pub fn live_settings(&self, external: Option<&str>) -> Settings {
        let mut settings = Settings::of(&self.spec.config);
        settings.0.extend(external.map(|address| ("gantryExternalMaster".to_owned(), address.to_owned())));
        settings
    }

    /// Changes with whatever of the spec a broker has to be started again for. Made from the spec alone, by named fields: a newer operator
    /// makes pods otherwise, and is no reason to start every broker again.
    pub fn spec_hash(&self) -> String {
        let spec = &self.spec;
        let needs_a_restart = |(key, _): &(&String, &String)| !LIVE_KEYS.contains(&key.as_str());
        let config: BTreeMap<_, _> = spec.config.iter().filter(needs_a_restart).collect();
        let mut matters = json!({
            "image": spec.image, "clusterName": spec.cluster_name, "flush": spec.flush, "resources": spec.resources,
            "mode": spec.replication.mode, "minInSync": self.plan.min_in_sync, "onShortage": spec.replication.on_shortage,
            "config": config, "nodeSelector": spec.placement.node_selector, "tolerations": spec.placement.tolerations,
            "topologyKey": spec.placement.spread.topology_key, "required": spec.placement.spread.required,
        });
        // A field that is younger than the hash counts where it is set: pods of before have it not.
        if let Some(name_server) = &spec.name_server {
            matters["nameServer"] = name_server.as_str().into();
        }
        format!("{:016x}", fnv1a(matters.to_string().as_bytes()))
    }
}

/// The name of a replica's volume.
pub fn claim_name(replica: &str) -> String {
    format!("data-{replica}")
}

/// Its file in the group's ConfigMap.
pub(super) fn config_key(replica: &str) -> String {
    format!("{replica}.conf")
}

/// Fowler, Noll and Vo's hash: the same in every release, which the standard library's isn't.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
