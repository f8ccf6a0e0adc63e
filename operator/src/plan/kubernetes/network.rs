//! How a group is reached: its Services, the slice behind the master's, and who may come in.

use std::net::IpAddr;

use gantry_replication::Epoch;
use serde_json::{Value, json};

use super::{Blueprint, CLIENT_PORT, HA_PORT, HTTP_PORT, Kind, Object, VIP_PORT};

/// Of which epoch a slice's master is: an elder never overwrites a younger.
const EPOCH_ANNOTATION: &str = "gantry.rs/epoch";

impl Blueprint {
    /// The group's stable master address. It has no selector: no selector can follow an election at once, the slice behind it is written
    /// by whoever knows the master.
    pub(super) fn master_service(&self) -> Object {
        let (annotations, mut spec) = self.external_parts();
        spec["ports"] = service_ports();
        let mut service = self.object(Kind::Service, &self.master_service_name(), json!({"spec": spec}));
        if !annotations.is_empty() {
            service.body["metadata"]["annotations"] = json!(annotations);
        }
        service
    }

    /// The replicas by name. Their addresses are published before they are ready: they have to find each other for that.
    pub(super) fn replicas_service(&self) -> Object {
        let mut ports = service_ports();
        if let Value::Array(ports) = &mut ports {
            ports.push(json!({"name": "ha", "port": HA_PORT, "targetPort": HA_PORT, "protocol": "TCP"}));
        }
        let spec = json!({
            "clusterIP": "None", "publishNotReadyAddresses": true, "selector": self.selector(), "ports": ports,
        });
        self.object(Kind::Service, &self.plan.name, json!({"spec": spec}))
    }

    /// A drain of nodes takes one replica after the other, and waits until the last one is back. A replica that doesn't work may always go.
    ///
    /// Said as a number of pods that stay: of those that may go Kubernetes makes a number only where it is told how many there should be.
    pub(super) fn disruption_budget(&self) -> Object {
        let spec = json!({
            "minAvailable": self.plan.replicas.len().saturating_sub(1), "unhealthyPodEvictionPolicy": "AlwaysAllow", "selector": {"matchLabels": self.selector()},
        });
        self.object(Kind::PodDisruptionBudget, &self.plan.name, json!({"spec": spec}))
    }

    /// Clients may come from everywhere, and so may probes and whoever collects metrics; peers only from the group.
    pub(super) fn network_policy(&self) -> Object {
        let port = |port: u16| json!({"protocol": "TCP", "port": port});
        let spec = json!({
            "podSelector": {"matchLabels": self.selector()},
            "policyTypes": ["Ingress"],
            "ingress": [
                {"ports": [port(CLIENT_PORT), port(VIP_PORT), port(HTTP_PORT)]},
                {"ports": [port(HA_PORT)], "from": [{"podSelector": {"matchLabels": self.selector()}}]},
            ],
        });
        self.object(Kind::NetworkPolicy, &self.plan.name, json!({"spec": spec}))
    }
}

fn service_ports() -> Value {
    json!([
        {"name": "broker", "port": CLIENT_PORT, "targetPort": CLIENT_PORT, "protocol": "TCP"},
        {"name": "broker-vip", "port": VIP_PORT, "targetPort": VIP_PORT, "protocol": "TCP"},
    ])
}

/// The master that a slice shall lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MasterAt {
    /// Its epoch.
    pub epoch: Epoch,
    /// Its name.
    pub replica: String,
    /// Its pod's address.
    pub ip: IpAddr,
}

/// The name of the slice behind a group's master Service.
pub fn slice_name(group: &str) -> String {
    format!("{group}-master")
}

/// The slice behind a group's master Service. `owner` is the `BrokerGroup`'s uid; `version` the one that it replaces, if there is one.
pub fn master_slice(namespace: &str, group: &str, owner: &str, master: &MasterAt, version: Option<&str>) -> Value {
    let family = if master.ip.is_ipv4() { "IPv4" } else { "IPv6" };
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": slice_name(group),
            "namespace": namespace,
            "resourceVersion": version,
            "labels": {
                "kubernetes.io/service-name": format!("{group}-master"),
                "endpointslice.kubernetes.io/managed-by": "gantry-operator",
                super::GROUP_LABEL: group,
            },
            "annotations": {EPOCH_ANNOTATION: master.epoch.0.to_string()},
            "ownerReferences": [{
                "apiVersion": "gantry.rs/v1alpha1", "kind": "BrokerGroup", "name": group, "uid": owner,
                "controller": true, "blockOwnerDeletion": false,
            }],
        },
        "addressType": family,
        "ports": [
            {"name": "broker", "port": CLIENT_PORT, "protocol": "TCP"},
            {"name": "broker-vip", "port": VIP_PORT, "protocol": "TCP"},
        ],
        "endpoints": [{
            "addresses": [master.ip.to_string()],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "targetRef": {"kind": "Pod", "namespace": namespace, "name": master.replica},
        }],
    })
}

/// Of which epoch the slice's master is, and where; 0 where it doesn't say.
pub fn epoch_of(slice: &k8s_openapi::api::discovery::v1::EndpointSlice) -> (Epoch, Option<&str>) {
    let annotations = slice.metadata.annotations.as_ref();
    let epoch = annotations.and_then(|all| all.get(EPOCH_ANNOTATION)).and_then(|epoch| epoch.parse().ok());
    let address = slice.endpoints.first().and_then(|endpoint| endpoint.addresses.first());
    (Epoch(epoch.unwrap_or(0)), address.map(String::as_str))
}
