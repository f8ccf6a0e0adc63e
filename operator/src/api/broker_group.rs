//! `BrokerGroup` (`gantry.rs/v1alpha1`): one master and its slaves.
#![expect(
    unreachable_pub,
    reason = "the copy of a struct that KubeSchema's derive makes for itself is public inside a function"
)]

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ResourceRequirements, Toleration};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::default_cluster;
use super::status::BrokerGroupStatus;

/// Most replicas that a group may have, the master included.
pub const MAX_REPLICAS: u8 = 9;

/// Longest group name: `<name>-master` and `<name>-<ordinal>` have to stay DNS labels (63 characters) with room for a suffix.
pub const MAX_GROUP_NAME_CHARS: usize = 52;

/// Keys of `spec.config` that the operator alone sets: who a replica is, where it stores, listens and replicates.
/// The CEL rule on `spec.config` carries the same list; a test compares them.
pub const IDENTITY_KEYS: &[&str] = &[
    "brokerClusterName",
    "brokerName",
    "brokerId",
    "brokerRole",
    "brokerIP1",
    "brokerIP2",
    "listenPort",
    "haListenPort",
    "metricsPromExporterPort",
    "namesrvAddr",
    "storePathRootDir",
    "storePathCommitLog",
    "flushDiskType",
    "gantryReplica",
    "gantryPriority",
    "gantryElectors",
    "gantryToken",
    "gantryAdvertisedMaster",
    "gantryExternalMaster",
    "replicationMode",
    "minInSyncReplicas",
    "onShortage",
];

/// A group of brokers: one master and its slaves, of which one becomes master by itself when the master is lost.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gantry.rs",
    version = "v1alpha1",
    kind = "BrokerGroup",
    plural = "brokergroups",
    shortname = "bg",
    category = "gantry",
    namespaced,
    status = "BrokerGroupStatus",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.currentReplicas",
        label_selector_path = ".status.selector"
    ),
    derive = "PartialEq",
    doc = "A group of RocketMQ-compatible brokers: one master and its slaves, of which one becomes master by itself when the master is lost.",
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && self.metadata.name.size() <= 52")
        .message("metadata.name must be at most 52 of a-z, 0-9 and '-', begin with a letter and not end with '-'"),
    // Written out: to a list or a number in text the API server's estimate of costs knows no bound.
    validation = Rule::new("!has(self.spec.preferredMaster) || \
        self.spec.preferredMaster == self.metadata.name + '-0' || \
        self.spec.replicas > 1 && self.spec.preferredMaster == self.metadata.name + '-1' || \
        self.spec.replicas > 2 && self.spec.preferredMaster == self.metadata.name + '-2' || \
        self.spec.replicas > 3 && self.spec.preferredMaster == self.metadata.name + '-3' || \
        self.spec.replicas > 4 && self.spec.preferredMaster == self.metadata.name + '-4' || \
        self.spec.replicas > 5 && self.spec.preferredMaster == self.metadata.name + '-5' || \
        self.spec.replicas > 6 && self.spec.preferredMaster == self.metadata.name + '-6' || \
        self.spec.replicas > 7 && self.spec.preferredMaster == self.metadata.name + '-7' || \
        self.spec.replicas > 8 && self.spec.preferredMaster == self.metadata.name + '-8'")
        .message("spec.preferredMaster must name a replica of this group: <metadata.name>-<0..replicas-1>"),
    printcolumn(name = "MASTER", type_ = "string", json_path = ".status.master"),
    printcolumn(name = "EPOCH", type_ = "integer", json_path = ".status.record.epoch"),
    printcolumn(name = "IN-SYNC", type_ = "string", json_path = ".status.inSync"),
    printcolumn(name = "READY", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[cfg_attr(test, kube(cel))]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.replication.minInSync) || self.replication.minInSync <= self.replicas")
        .message("spec.replication.minInSync must not be above spec.replicas"),
    validation = Rule::new("quantity(self.storage.size).compareTo(quantity(oldSelf.storage.size)) >= 0")
        .message("spec.storage.size may grow, but never shrink")
)]
pub struct BrokerGroupSpec {
    /// Number of brokers: one master, the others slaves.
    #[serde(default = "three")]
    #[schemars(range(min = 1, max = 9))]
    pub replicas: u8,

    /// Name of the RocketMQ cluster that the group belongs to.
    #[serde(default = "default_cluster")]
    #[schemars(length(min = 1, max = 127), regex(pattern = r"^[%|a-zA-Z0-9_-]+$"))]
    pub cluster_name: String,

    /// The NameServer of this namespace at which the brokers register, each of its members; where absent, those that the operator was told
    /// at its start. Local groups ignore it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 41), regex(pattern = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub name_server: Option<String>,

    /// Container image of the brokers; the operator's own default where absent. Local groups ignore it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^[^ \t\r\n]+$"))]
    pub image: Option<String>,

    /// When a message counts as acknowledged, and what happens with too few replicas.
    #[serde(default)]
    pub replication: Replication,

    /// Whether an acknowledged message is on disk (`Sync`) or in the page cache (`Async`) of each replica it is on.
    #[serde(default)]
    pub flush: FlushMode,

    /// The volume of each replica. Local groups ignore it: they store in their state directory.
    #[serde(default)]
    pub storage: Storage,

    /// CPU and memory of each broker. Local groups ignore it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,

    /// The replica that shall be master while it is in sync; the group switches over to it by itself, as planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub preferred_master: Option<String>,

    /// Where the replicas may run. Local groups ignore it.
    #[serde(default)]
    pub placement: Placement,

    /// An address for clients outside the cluster, which name servers tell them at their port for those. Local groups ignore it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_access: Option<ExternalAccess>,

    /// Further broker keys (`broker.conf`), written last so that they win. Keys that give a replica its identity, its
    /// addresses, or its part in replication are refused. What a broker can change while it runs applies at once, see the condition
    /// `Configured`; for any other key the replicas are started again, one by one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 256))]
    #[x_kube(
        validation = Rule::new("self.all(k, k.matches('^[A-Za-z][A-Za-z0-9._-]{0,126}$'))")
            .message("spec.config: a key is a letter followed by letters, digits, '.', '_' or '-', at most 127 characters"),
        validation = Rule::new("self.all(k, !(k in ['brokerClusterName', 'brokerName', 'brokerId', 'brokerRole', 'brokerIP1', 'brokerIP2', 'listenPort', 'haListenPort', 'metricsPromExporterPort', 'namesrvAddr', 'storePathRootDir', 'storePathCommitLog', 'flushDiskType', 'gantryReplica', 'gantryPriority', 'gantryElectors', 'gantryToken', 'gantryAdvertisedMaster', 'gantryExternalMaster', 'replicationMode', 'minInSyncReplicas', 'onShortage']))")
            .message("spec.config must not set what the operator sets: identity, addresses, store path, flush or replication of a broker")
    )]
    pub config: BTreeMap<String, String>,
}

/// When a message counts as acknowledged.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Replication {
    /// `Sync`: acknowledged when every in-sync replica has it. `Async`: acknowledged when the master has it.
    #[serde(default)]
    pub mode: ReplicationMode,

    /// Replicas that must be in sync, the master included, for the group to be whole. Where absent 2, or 1 for groups
    /// of one or two replicas: the loss of one replica then never stops a group that had more than one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 9))]
    pub min_in_sync: Option<u8>,

    /// What happens when fewer than `minInSync` replicas are in sync.
    #[serde(default)]
    pub on_shortage: OnShortage,
}

/// When a message counts as acknowledged.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplicationMode {
    /// When every in-sync replica has it.
    #[default]
    Sync,
    /// When the master has it.
    Async,
}

/// What a group does when fewer replicas are in sync than asked for.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnShortage {
    /// Sends are refused with a retryable code.
    #[default]
    Refuse,
    /// Sends go on with fewer copies; the condition `Degraded` says so.
    Degrade,
}

/// Where an acknowledged message is on each replica that has it.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FlushMode {
    /// In the page cache, on disk within half a second.
    #[default]
    Async,
    /// On disk.
    Sync,
}

/// How clients outside the cluster reach the group's master.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExternalAccess {
    /// How the master's Service is opened to the outside.
    #[serde(rename = "type")]
    pub type_: ExternalType,

    /// Annotations of that Service, for whoever provides load balancers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,

    /// The name or address that clients outside are told, in place of the load balancer's or a node's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$"))]
    pub host: Option<String>,

    /// From where clients may come by a load balancer, as `192.0.2.0/24`; from everywhere where empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub source_ranges: Vec<String>,
}

/// How a Service is opened to the outside.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExternalType {
    /// By a load balancer of the cluster's provider.
    LoadBalancer,
    /// By a port of every node.
    NodePort,
}

/// The volume of each replica.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// Size of each replica's volume, a Kubernetes quantity such as `100Gi`. It may grow later, where the storage class lets volumes grow.
    /// A volume that is larger already stays so.
    #[serde(default = "twenty_gibibytes")]
    #[schemars(regex(pattern = r"^[1-9][0-9]*(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?$"), length(max = 20))]
    pub size: String,

    /// Storage class of new volumes; the cluster's default class where absent. A volume that is there keeps its class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub storage_class_name: Option<String>,

    /// What becomes of the volumes, and of all messages on them, when the group is deleted.
    #[serde(default)]
    pub deletion_policy: VolumeDeletionPolicy,
}

/// What becomes of volumes when their group is deleted.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum VolumeDeletionPolicy {
    /// They stay: deleting them is up to people.
    #[default]
    Retain,
    /// They are deleted with it.
    Delete,
}

/// Where the replicas may run.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,

    /// Taints of nodes that the replicas tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tolerations: Vec<Toleration>,

    /// What the replicas are spread over.
    #[serde(default)]
    pub spread: Spread,
}

/// How the replicas of a group keep apart from each other.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spread {
    /// Node label whose values the replicas are spread over: nodes by default, `topology.kubernetes.io/zone` for zones.
    #[serde(default = "hostname")]
    #[schemars(
        length(max = 317),
        regex(pattern = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")
    )]
    pub topology_key: String,

    /// Whether two replicas may share a value of `topologyKey` when there is no other place (`false`), or wait (`true`).
    #[serde(default)]
    pub required: bool,
}

impl Default for Storage {
    fn default() -> Self {
        Self { size: twenty_gibibytes(), storage_class_name: None, deletion_policy: VolumeDeletionPolicy::default() }
    }
}

impl Default for Spread {
    fn default() -> Self {
        Self { topology_key: hostname(), required: false }
    }
}

fn three() -> u8 {
    3
}

fn twenty_gibibytes() -> String {
    "20Gi".to_owned()
}

fn hostname() -> String {
    "kubernetes.io/hostname".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(name: &str, spec: serde_json::Value) -> BrokerGroup {
        BrokerGroup::new(name, serde_json::from_value(spec).unwrap())
    }

    fn complaint(name: &str, spec: serde_json::Value) -> String {
        match group(name, spec).validate_cel() {
            Ok(()) => String::new(),
            Err(errors) => errors.to_string(),
        }
    }

    #[test]
    fn the_rules_of_the_schema_let_good_groups_pass() {
        assert_eq!(complaint("broker-a", serde_json::json!({})), "");
        let full = serde_json::json!({
            "replicas": 5, "replication": {"minInSync": 5}, "preferredMaster": "broker-a-4", "config": {"maxMessageSize": "1"}
        });
        assert_eq!(complaint("broker-a", full), "");
    }

    #[test]
    fn the_rules_of_the_schema_refuse_what_cannot_be() {
        let json = |text: &str| serde_json::from_str(text).unwrap();
        let cases = [
            ("broker-a", r#"{"replicas": 3, "replication": {"minInSync": 4}}"#, "must not be above spec.replicas"),
            ("broker-a", r#"{"preferredMaster": "broker-a-3"}"#, "must name a replica of this group"),
            ("broker-a", r#"{"preferredMaster": "broker-b-1"}"#, "must name a replica of this group"),
            ("broker-a", r#"{"config": {"brokerId": "1"}}"#, "spec.config must not set what the operator sets"),
            ("broker-a", r#"{"config": {"a b": "1"}}"#, "spec.config: a key is"),
            ("Broker", "{}", "metadata.name must be"),
            ("a-", "{}", "metadata.name must be"),
        ];
        for (name, spec, said) in cases {
            let complaint = complaint(name, json(spec));
            assert!(complaint.contains(said), "{name} {spec}: {complaint}");
        }
        let long = "a".repeat(MAX_GROUP_NAME_CHARS + 1);
        assert!(complaint(&long, json("{}")).contains("metadata.name must be"));
    }
}
