//! `Topic` (`gantry.rs/v1alpha1`): a topic of a cluster, with its queues on every broker group.
#![expect(
    unreachable_pub,
    reason = "the copy of a struct that KubeSchema's derive makes for itself is public inside a function"
)]

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::declared::{DeclaredStatus, DeletionPolicy};
use super::default_cluster;

/// A topic with its queues on each broker group of a cluster, so that producers survive the loss of a whole group.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gantry.rs",
    version = "v1alpha1",
    kind = "Topic",
    plural = "topics",
    shortname = "gtopic",
    category = "gantry",
    namespaced,
    status = "DeclaredStatus",
    derive = "PartialEq",
    doc = "A RocketMQ topic with its queues on each BrokerGroup of a cluster in this namespace, so that producers survive the loss of a whole group. What somebody changes at the brokers is put back; what can't be is told in the condition Synced.",
    validation = Rule::new("has(self.spec.name) || self.metadata.name.matches('^[-a-z0-9]{1,127}$')")
        .message("spec.name is needed: metadata.name is no name of a topic, it has a '.' or more than 127 characters"),
    printcolumn(name = "TOPIC", type_ = "string", json_path = ".status.name"),
    printcolumn(name = "CLUSTER", type_ = "string", json_path = ".spec.clusterName"),
    printcolumn(name = "READ", type_ = "integer", json_path = ".spec.readQueues"),
    printcolumn(name = "WRITE", type_ = "integer", json_path = ".spec.writeQueues"),
    printcolumn(name = "GROUPS", type_ = "string", json_path = ".status.onGroups"),
    printcolumn(name = "READY", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "SYNCED", type_ = "string", json_path = ".status.conditions[?(@.type==\"Synced\")].status"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[cfg_attr(test, kube(cel))]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.name) == has(oldSelf.name) && (!has(self.name) || self.name == oldSelf.name)")
        .message("name can't be changed: a topic of another name is another topic"),
    validation = Rule::new("self.clusterName == oldSelf.clusterName")
        .message("clusterName can't be changed: a topic of another cluster is another topic"),
    validation = Rule::new("self.writeQueues <= self.readQueues")
        .message("writeQueues must not be above readQueues: nobody would read what is sent to the others")
)]
pub struct TopicSpec {
    /// The topic's name at the brokers, which may have characters that names of objects can't; `metadata.name` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 127), regex(pattern = r"^[%|a-zA-Z0-9_-]+$"))]
    pub name: Option<String>,

    /// The RocketMQ cluster: the topic is on every BrokerGroup of this namespace that has this `clusterName`, later ones too.
    #[serde(default = "default_cluster")]
    #[schemars(length(min = 1, max = 127), regex(pattern = r"^[%|a-zA-Z0-9_-]+$"))]
    pub cluster_name: String,

    /// Queues that consumers read, on each group. Never made fewer at a broker, since messages may be in them: the condition `Synced` tells.
    #[serde(default = "eight")]
    #[schemars(range(min = 1, max = 65536))]
    pub read_queues: i32,

    /// Queues that producers send to, on each group. To have fewer queues, have fewer of these first, and fewer to read once the others are
    /// consumed.
    #[serde(default = "eight")]
    #[schemars(range(min = 1, max = 65536))]
    pub write_queues: i32,

    /// What clients may do.
    #[serde(default)]
    pub perm: Perm,

    /// Whether the topic is meant for ordered messages: its route then stays what it was while a group is lost.
    #[serde(default)]
    pub order: bool,

    /// The topic's attributes, all of them, such as `message.type: FIFO`. `queue.type` (`SimpleCQ`, `BatchCQ`) can't be changed later.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = {"type": "string", "maxLength": 256}))]
    #[x_kube(
        validation = Rule::new("self.all(k, k.matches('^[A-Za-z][A-Za-z0-9._-]{0,126}$'))")
            .message("attributes: a key is a letter followed by letters, digits, '.', '_' or '-', at most 127 characters"),
        validation = Rule::new("self.all(k, self[k].matches('^[-A-Za-z0-9._:/]{1,256}$'))")
            .message("attributes: a value is 1 to 256 letters, digits, '.', '_', '-', ':' or '/'")
    )]
    pub attributes: BTreeMap<String, String>,

    /// What becomes of the topic, with its messages, when this object is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// What clients may do with a topic.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Perm {
    /// Send and receive; RocketMQ's 6.
    #[default]
    ReadWrite,
    /// Receive alone; RocketMQ's 4.
    ReadOnly,
    /// Send alone; RocketMQ's 2.
    WriteOnly,
}

fn eight() -> i32 {
    8
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn topic(name: &str, spec: Value) -> Topic {
        Topic::new(name, serde_json::from_value(spec).unwrap())
    }

    fn complaint(name: &str, spec: Value) -> String {
        topic(name, spec).validate_cel().map_or_else(|errors| errors.to_string(), |()| String::new())
    }

    #[test]
    fn the_rules_of_the_schema_let_good_topics_pass() {
        assert_eq!(complaint("orders", json!({})), "");
        let full = json!({
            "name": "Orders_%1|x", "clusterName": "shop", "readQueues": 16, "writeQueues": 4, "perm": "ReadOnly", "order": true,
            "attributes": {"message.type": "FIFO", "queue.type": "BatchCQ"}, "deletionPolicy": "Delete",
        });
        assert_eq!(complaint("orders.v1", full), "");
    }

    #[test]
    fn the_rules_of_the_schema_refuse_what_cannot_be() {
        for (name, spec, said) in [
            ("a.b", json!({}), "spec.name is needed"),
            ("a", json!({"readQueues": 4, "writeQueues": 8}), "writeQueues must not be above readQueues"),
            ("a", json!({"attributes": {"a b": "1"}}), "attributes: a key is"),
            ("a", json!({"attributes": {"a": "1,-queue.type"}}), "attributes: a value is"),
        ] {
            let complaint = complaint(name, spec.clone());
            assert!(complaint.contains(said), "{name} {spec}: {complaint}");
        }
    }

    #[test]
    fn what_a_topic_is_cannot_be_changed_and_how_it_is_can() {
        let old = topic("a", json!({"name": "A"}));
        let changed = |spec: Value| {
            topic("a", spec).validate_cel_update(&old).map_or_else(|errors| errors.to_string(), |()| String::new())
        };
        assert_eq!(changed(json!({"name": "A", "readQueues": 16})), "");
        for (spec, said) in [
            (json!({"name": "B"}), "name can't be changed"),
            (json!({}), "name can't be changed"),
            (json!({"name": "A", "clusterName": "other"}), "clusterName can't be changed"),
        ] {
            let complaint = changed(spec.clone());
            assert!(complaint.contains(said), "{spec}: {complaint}");
        }
    }
}
