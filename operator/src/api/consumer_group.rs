//! `ConsumerGroup` (`gantry.rs/v1alpha1`): what a consumer group may do, at every broker group of a cluster.
#![expect(
    unreachable_pub,
    reason = "the copy of a struct that KubeSchema's derive makes for itself is public inside a function"
)]
#![expect(clippy::struct_excessive_bools, reason = "RocketMQ's own shape, and the copies that derives make of it")]

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::declared::{DeclaredStatus, DeletionPolicy};
use super::default_cluster;

/// A consumer group's settings at each broker group of a cluster. Defaults are RocketMQ's.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gantry.rs",
    version = "v1alpha1",
    kind = "ConsumerGroup",
    plural = "consumergroups",
    shortname = "gcg",
    category = "gantry",
    namespaced,
    status = "DeclaredStatus",
    derive = "PartialEq",
    doc = "A RocketMQ consumer group (subscription group) with the same settings at each BrokerGroup of a cluster in this namespace. What somebody changes at the brokers is put back.",
    validation = Rule::new("has(self.spec.name) || self.metadata.name.matches('^[-a-z0-9]{1,120}$')")
        .message("spec.name is needed: metadata.name is no name of a consumer group, it has a '.' or more than 120 characters"),
    printcolumn(name = "GROUP", type_ = "string", json_path = ".status.name"),
    printcolumn(name = "CLUSTER", type_ = "string", json_path = ".spec.clusterName"),
    printcolumn(name = "ENABLED", type_ = "boolean", json_path = ".spec.consumeEnable"),
    printcolumn(name = "RETRIES", type_ = "integer", json_path = ".spec.retryMaxTimes"),
    printcolumn(name = "GROUPS", type_ = "string", json_path = ".status.onGroups"),
    printcolumn(name = "READY", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "SYNCED", type_ = "string", json_path = ".status.conditions[?(@.type==\"Synced\")].status"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[cfg_attr(test, kube(cel))]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.name) == has(oldSelf.name) && (!has(self.name) || self.name == oldSelf.name)")
        .message("name can't be changed: a consumer group of another name is another consumer group"),
    validation = Rule::new("self.clusterName == oldSelf.clusterName")
        .message("clusterName can't be changed: a consumer group of another cluster is another consumer group")
)]
pub struct ConsumerGroupSpec {
    /// The group's name at the brokers, which may have characters that names of objects can't; `metadata.name` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 120), regex(pattern = r"^[%|a-zA-Z0-9_-]+$"))]
    pub name: Option<String>,

    /// The RocketMQ cluster: the settings are at every BrokerGroup of this namespace that has this `clusterName`, later ones too.
    #[serde(default = "default_cluster")]
    #[schemars(length(min = 1, max = 127), regex(pattern = r"^[%|a-zA-Z0-9_-]+$"))]
    pub cluster_name: String,

    /// Whether it may consume.
    #[serde(default = "yes")]
    pub consume_enable: bool,

    /// Whether it may begin at a queue's oldest message.
    #[serde(default = "yes")]
    pub consume_from_min_enable: bool,

    /// Whether its members may consume by broadcasting, each of them everything.
    #[serde(default = "yes")]
    pub consume_broadcast_enable: bool,

    /// Whether it consumes in order (POP).
    #[serde(default)]
    pub consume_message_orderly: bool,

    /// Queues of its retry topic; 0 switches retries off.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1024))]
    pub retry_queue_nums: i32,

    /// Deliveries after the first one, before a message goes to the dead letter queue.
    #[serde(default = "sixteen")]
    #[schemars(range(min = 0, max = 10000))]
    pub retry_max_times: i32,

    /// Minutes after which a push consumer gives a message back.
    #[serde(default = "fifteen")]
    #[schemars(range(min = 1, max = 1440))]
    pub consume_timeout_minute: i32,

    /// The broker id to read from; 0 is the master.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1000))]
    pub broker_id: i64,

    /// The broker id to read from when the group lags far behind.
    #[serde(default = "one_id")]
    #[schemars(range(min = 0, max = 1000))]
    pub which_broker_when_consume_slowly: i64,

    /// Whether members are told at once when others come and go.
    #[serde(default = "yes")]
    pub notify_consumer_ids_changed_enable: bool,

    /// What becomes of the group, with its consumer offsets, when this object is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

fn yes() -> bool {
    true
}

fn one() -> i32 {
    1
}

fn one_id() -> i64 {
    1
}

fn fifteen() -> i32 {
    15
}

fn sixteen() -> i32 {
    16
}

#[cfg(test)]
mod tests {
    use gantry_remoting::body::subscription_group::SubscriptionGroupConfig;
    use serde_json::{Value, json};

    use super::*;

    fn group(name: &str, spec: Value) -> ConsumerGroup {
        ConsumerGroup::new(name, serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn the_defaults_are_rocketmqs() {
        let (spec, rocketmq) = (group("g", json!({})).spec, SubscriptionGroupConfig::default());
        let (spec, rocketmq) = (serde_json::to_value(spec).unwrap(), serde_json::to_value(rocketmq).unwrap());
        let shared = spec.as_object().unwrap().iter().filter(|(key, _)| rocketmq.get(key).is_some());
        let shared: Vec<_> = shared.map(|(key, value)| assert_eq!(*value, rocketmq[key], "{key}")).collect();
        assert_eq!(shared.len(), 10, "{spec}");
    }

    #[test]
    fn the_rules_of_the_schema_refuse_what_cannot_be() {
        let told = |result: Result<(), kube::core::cel::ValidationErrors>| {
            result.map_or_else(|errors| errors.to_string(), |()| String::new())
        };
        let old = group("g", json!({"name": "G"}));
        assert_eq!(told(old.validate_cel()), "");
        assert!(told(group("a.b", json!({})).validate_cel()).contains("spec.name is needed"));
        for (spec, said) in [
            (json!({"name": "H"}), "name can't be changed"),
            (json!({"name": "G", "clusterName": "x"}), "clusterName can't be changed"),
        ] {
            assert!(told(group("g", spec.clone()).validate_cel_update(&old)).contains(said), "{spec}");
        }
        assert_eq!(told(group("g", json!({"name": "G", "retryMaxTimes": 3})).validate_cel_update(&old)), "");
    }
}
