//! A `BrokerGroup` on Kubernetes: which objects it is made of. Pure: what is observed comes in as values, objects go out as JSON.
//!
//! Objects are written as JSON, as a person would in a manifest; a test reads each back by Kubernetes' own types, so that a misspelt
//! field is found.

mod conditions;
mod external;
mod fencing;
mod name_server;
mod name_server_facts;
#[cfg(test)]
mod name_server_tests;
mod network;
mod pod;
mod rollout;
mod storage;
#[cfg(test)]
mod tests;
mod volumes;
mod wishes;

use serde_json::{Map, Value, json};

use super::GroupPlan;
use crate::api::{BrokerGroup, BrokerGroupSpec};
pub use conditions::{Configured, Standing, conditions};
pub use fencing::{FENCED_ANNOTATION, Fencing};
pub use name_server::{NAME_SERVER, NAME_SERVER_LABEL, NAME_SERVER_PORT, NameServerBlueprint};
pub use name_server_facts::{ServersSeen, servers_facts};
pub use network::{MasterAt, epoch_of, master_slice, slice_name};
pub use rollout::{Observed, PodSeen, Step, Wanted, next_step};
pub use storage::claim_name;
pub use volumes::{ClaimSeen, VolumesStanding};
pub use wishes::{HIBERNATE_ANNOTATION, PAUSED_ANNOTATION, SWITCHOVER_ANNOTATION, Wishes};

/// Where a broker listens for clients.
pub const CLIENT_PORT: u16 = 10_911;
/// Where RocketMQ's clients look for a second door, two below.
pub const VIP_PORT: u16 = CLIENT_PORT - 2;
/// Where a broker listens for its peers.
pub const HA_PORT: u16 = 10_912;
/// Where a broker answers probes and shows its metrics.
pub const HTTP_PORT: u16 = 5_557;

/// Nobody: the user and group of the images.
const NOBODY: u32 = 65_532;

/// Which `BrokerGroup` an object belongs to.
pub const GROUP_LABEL: &str = "gantry.rs/group";
/// Which replica it belongs to.
pub const REPLICA_LABEL: &str = "gantry.rs/replica";
/// What of the spec a pod was made from.
pub const HASH_ANNOTATION: &str = "gantry.rs/spec-hash";
/// `app.kubernetes.io/name` of a broker.
pub const BROKER: &str = "gantry-broker";

/// What finds a group's pods, as Kubernetes writes selectors.
pub fn selector_text(group: &str) -> String {
    format!("app.kubernetes.io/name={BROKER},{GROUP_LABEL}={group}")
}

/// The kinds that groups and name servers are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "they are Kubernetes' own")]
pub enum Kind {
    Service,
    ConfigMap,
    PersistentVolumeClaim,
    PodDisruptionBudget,
    NetworkPolicy,
    Pod,
    StatefulSet,
}

impl Kind {
    /// Its API group (empty: the core's), version and plural.
    pub fn api(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Service => ("", "v1", "services"),
            Self::ConfigMap => ("", "v1", "configmaps"),
            Self::PersistentVolumeClaim => ("", "v1", "persistentvolumeclaims"),
            Self::PodDisruptionBudget => ("policy", "v1", "poddisruptionbudgets"),
            Self::NetworkPolicy => ("networking.k8s.io", "v1", "networkpolicies"),
            Self::Pod => ("", "v1", "pods"),
            Self::StatefulSet => ("apps", "v1", "statefulsets"),
        }
    }
}

/// An object as it shall be.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// All of it, as it is applied.
    pub body: Value,
}

/// What the operator was told at its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The brokers' image where a group names none.
    pub image: String,
    /// The name servers that brokers register at, where a group names none: `host:port` with `;` between them.
    pub name_servers: String,
    /// Where brokers find the elector: `host:port`.
    pub elector: String,
}

/// One group, with all that its objects are made from.
#[derive(Clone, Debug)]
pub struct Blueprint {
    /// Validated.
    pub plan: GroupPlan,
    /// As it was written.
    pub spec: BrokerGroupSpec,
    /// Its namespace.
    pub namespace: String,
    /// The `BrokerGroup`'s own, so that its objects go with it.
    pub uid: String,
    /// Replicas kept out by hand.
    pub fencing: Fencing,
    /// See [`Site`].
    pub site: Site,
}

impl Blueprint {
    /// Validates a group.
    pub fn new(group: &BrokerGroup, site: &Site) -> Result<Self, super::Invalid> {
        Ok(Self {
            plan: GroupPlan::new(group)?,
            spec: group.spec.clone(),
            namespace: group.metadata.namespace.clone().unwrap_or_default(),
            uid: group.metadata.uid.clone().unwrap_or_default(),
            fencing: Fencing::of(group),
            site: site.clone(),
        })
    }

    /// Everything but pods and volumes. The brokers' configuration names the master Service's address, which Kubernetes gives: without it there is
    /// no configuration yet. It names the address for clients outside, too.
    pub fn objects(&self, master_service_ip: Option<std::net::IpAddr>, external: Option<&str>) -> Vec<Object> {
        let mut objects = vec![self.master_service(), self.replicas_service()];
        objects.extend(master_service_ip.map(|ip| self.config_map(ip, external)));
        objects.extend([self.disruption_budget(), self.network_policy()]);
        objects
    }

    /// The name of the group's Service that leads to its master.
    pub fn master_service_name(&self) -> String {
        format!("{}-master", self.plan.name)
    }

    /// Where the brokers register: `host:port` with `;` between them.
    fn name_servers(&self) -> String {
        match &self.spec.name_server {
            Some(name) => name_server::members_address(name, &self.namespace),
            None => self.site.name_servers.clone(),
        }
    }

    /// The name of the secret that holds its token.
    pub fn token_secret_name(&self) -> String {
        format!("{}-token", self.plan.name)
    }

    /// The secret that the group's replicas and the elector know each other by. Made once and never changed.
    pub fn token_secret(&self, token: &str) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": self.metadata(&self.token_secret_name(), None),
            "type": "Opaque",
            "stringData": {"token": token, "token.conf": format!("gantryToken={token}\n")},
        })
    }

    fn object(&self, kind: Kind, name: &str, rest: Value) -> Object {
        Self::object_of(kind, self.metadata(name, None), rest)
    }

    fn object_of(kind: Kind, metadata: Value, rest: Value) -> Object {
        let (group, version, _) = kind.api();
        let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        let name = metadata["name"].as_str().unwrap_or_default().to_owned();
        let mut body = Map::new();
        body.insert("apiVersion".to_owned(), api_version.into());
        body.insert("kind".to_owned(), format!("{kind:?}").into());
        body.insert("metadata".to_owned(), metadata);
        if let Value::Object(rest) = rest {
            body.extend(rest);
        }
        Object { kind, name, body: Value::Object(body) }
    }

    fn metadata(&self, name: &str, replica: Option<&str>) -> Value {
        json!({
            "name": name,
            "namespace": self.namespace,
            "labels": self.labels(replica),
            "ownerReferences": [{
                "apiVersion": "gantry.rs/v1alpha1", "kind": "BrokerGroup", "name": self.plan.name, "uid": self.uid,
                "controller": true, "blockOwnerDeletion": true,
            }],
        })
    }

    fn labels(&self, replica: Option<&str>) -> Value {
        let mut labels = json!({
            "app.kubernetes.io/name": BROKER,
            "app.kubernetes.io/instance": self.plan.name,
            "app.kubernetes.io/component": "broker",
            "app.kubernetes.io/part-of": "gantry",
            "app.kubernetes.io/managed-by": "gantry-operator",
            GROUP_LABEL: self.plan.name,
        });
        if let Some(replica) = replica {
            labels[REPLICA_LABEL] = replica.into();
        }
        labels
    }

    /// What finds the group's pods.
    fn selector(&self) -> Value {
        json!({"app.kubernetes.io/name": BROKER, GROUP_LABEL: self.plan.name})
    }
}
