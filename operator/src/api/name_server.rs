//! `NameServer` (`gantry.rs/v1alpha1`): a set of name servers with one address.
#![expect(
    unreachable_pub,
    reason = "the copy of a struct that KubeSchema's derive makes for itself is public inside a function"
)]

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Placement;

/// Most name servers of one object.
pub const MAX_NAME_SERVERS: u8 = 9;

/// Longest name: `<name>-nameserver-members` has to stay a DNS label with room for a suffix.
pub const MAX_NAME_SERVER_NAME_CHARS: usize = 41;

/// Name servers, at which brokers register and which tell clients who is where.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gantry.rs",
    version = "v1alpha1",
    kind = "NameServer",
    plural = "nameservers",
    shortname = "gns",
    category = "gantry",
    namespaced,
    status = "NameServerStatus",
    derive = "PartialEq",
    doc = "Name servers with one stable address: brokers register at each of them, and they tell clients which broker has which topic. A BrokerGroup names them by spec.nameServer and follows their number without a restart.",
    scale(spec_replicas_path = ".spec.replicas", status_replicas_path = ".status.replicas"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && self.metadata.name.size() <= 41")
        .message("metadata.name must be at most 41 of a-z, 0-9 and '-', begin with a letter and not end with '-'"),
    printcolumn(name = "ADDRESS", type_ = "string", json_path = ".status.address"),
    printcolumn(name = "READY", type_ = "string", json_path = ".status.ready"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[cfg_attr(test, kube(cel))]
#[serde(rename_all = "camelCase")]
pub struct NameServerSpec {
    /// Number of name servers. They are independent of each other: each knows everything that brokers tell it, and one is enough for
    /// clients. Brokers follow a change within seconds, without a restart.
    #[serde(default = "two")]
    #[schemars(range(min = 1, max = 9))]
    pub replicas: u8,

    /// Container image; the operator's own default where absent: then a newer operator starts them again, one after the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 500))]
    pub image: Option<String>,

    /// CPU and memory of each name server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,

    /// Where they may run.
    #[serde(default)]
    pub placement: Placement,
}

/// What the operator reports about a `NameServer`.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NameServerStatus {
    /// What clients are to be told: `host:port` of a Service that leads to whichever name servers are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,

    /// `host:port` of each name server by itself, for clients that take a list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,

    /// Name servers that there are.
    #[serde(default)]
    pub replicas: i32,

    /// Name servers that are ready.
    #[serde(default)]
    pub ready_replicas: i32,

    /// How many are ready, of how many: `2/2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,

    /// `Ready`, `Available` and `Progressing`, in Kubernetes' usual form.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// `metadata.generation` that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

fn two() -> u8 {
    2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_leaves_no_room_for_its_services_is_refused() {
        let complaint = |name: &str| {
            let object = NameServer::new(name, serde_json::from_str("{}").unwrap());
            object.validate_cel().map_or_else(|errors| errors.to_string(), |()| String::new())
        };
        assert_eq!(complaint("main"), "");
        let long = "a".repeat(MAX_NAME_SERVER_NAME_CHARS + 1);
        for bad in ["Main", "a.b", "a-", long.as_str()] {
            assert!(complaint(bad).contains("metadata.name must be"), "{bad}: {}", complaint(bad));
        }
    }
}
