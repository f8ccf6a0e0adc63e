//! A replica's pod.

use serde_json::{Value, json};

use super::storage::{DATA_DIR, claim_name, config_key};
use super::{Blueprint, CLIENT_PORT, HA_PORT, HASH_ANNOTATION, HTTP_PORT, Kind, NOBODY, Object, VIP_PORT};
use crate::api::Spread;

/// A master that is told to end first waits, at most so long, until the operator has switched over to a slave. It takes a fraction of that,
/// unless the operator itself is just being replaced.
const HAND_OVER_SECONDS: u32 = 15;

/// For flushing what is in memory, after that.
const STOP_SECONDS: u32 = 60;

/// A recovery may take so long before the kubelet gives the process up: a day, for logs of terabytes whose indexes are lost. It is the
/// startup probe that allows it; the liveness probe looks only after it.
const RECOVERY_SECONDS: u32 = 86_400;

/// How often probes look.
const PROBE_SECONDS: u32 = 2;

impl Blueprint {
    /// The pod of a replica.
    pub fn pod(&self, replica: &str) -> Object {
        let mut metadata = self.metadata(replica, Some(replica));
        metadata["annotations"] = json!({HASH_ANNOTATION: self.spec_hash()});
        let placement = &self.spec.placement;
        let nobody = json!({
            "runAsNonRoot": true, "runAsUser": NOBODY, "runAsGroup": NOBODY, "fsGroup": NOBODY,
            "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": {"type": "RuntimeDefault"},
        });
        let mut spec = json!({
            "hostname": replica,
            "subdomain": self.plan.name,
            // It asks nothing of the API, and finds everything by DNS.
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": HAND_OVER_SECONDS + STOP_SECONDS,
            "securityContext": nobody,
            "topologySpreadConstraints": placement.spread.over_also_zones(&json!({"matchLabels": self.selector()})),
            "containers": [self.container()],
            "volumes": self.volumes(replica),
        });
        if !placement.node_selector.is_empty() {
            spec["nodeSelector"] = json!(placement.node_selector);
        }
        if !placement.tolerations.is_empty() {
            spec["tolerations"] = json!(placement.tolerations);
        }
        Self::object_of(Kind::Pod, metadata, json!({"spec": spec}))
    }

    fn container(&self) -> Value {
        let probe = |path: &str, seconds: u32| {
            json!({
                "httpGet": {"path": path, "port": "http"}, "periodSeconds": PROBE_SECONDS, "timeoutSeconds": PROBE_SECONDS,
                "failureThreshold": seconds / PROBE_SECONDS,
            })
        };
        let port = |name: &str, port: u16| json!({"name": name, "containerPort": port, "protocol": "TCP"});
        let mut container = json!({
            "name": "broker",
            "image": self.spec.image.as_ref().unwrap_or(&self.site.image),
            "imagePullPolicy": "IfNotPresent",
            "args": [
                "broker", "-c", "/etc/gantry/broker.conf", "-c", "/etc/gantry-token/token.conf", "--set",
                "brokerIP1=$(POD_IP)", "-n", self.name_servers(),
            ],
            "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
            "ports": [
                port("broker", CLIENT_PORT), port("broker-vip", VIP_PORT), port("ha", HA_PORT), port("http", HTTP_PORT),
            ],
            "startupProbe": probe("/livez", RECOVERY_SECONDS),
            "livenessProbe": probe("/livez", 30),
            "readinessProbe": probe("/readyz", PROBE_SECONDS),
            "lifecycle": {"preStop": {"exec": {"command": [
                "/usr/local/bin/gantry", "hand-over", "--port", HTTP_PORT.to_string(),
                "--within", HAND_OVER_SECONDS.to_string(),
            ]}}},
            "securityContext": {
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": [
                {"name": "data", "mountPath": DATA_DIR},
                {"name": "tmp", "mountPath": "/tmp"},
                {"name": "config", "mountPath": "/etc/gantry", "readOnly": true},
                {"name": "token", "mountPath": "/etc/gantry-token", "readOnly": true},
            ],
        });
        if let Some(resources) = &self.spec.resources {
            container["resources"] = json!(resources);
        }
        container
    }

    fn volumes(&self, replica: &str) -> Value {
        json!([
            {"name": "data", "persistentVolumeClaim": {"claimName": claim_name(replica)}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
            {"name": "config", "configMap": {
                "name": self.plan.name, "items": [{"key": config_key(replica), "path": "broker.conf"}],
            }},
            {"name": "token", "secret": {
                "secretName": self.token_secret_name(), "items": [{"key": "token.conf", "path": "token.conf"}],
            }},
        ])
    }
}

impl Spread {
    /// Over what it names, and over zones where there are any.
    pub(super) fn over_also_zones(&self, selector: &Value) -> Value {
        let over = |key: &str, required: bool| {
            json!({
                "maxSkew": 1, "topologyKey": key, "labelSelector": selector,
                "whenUnsatisfiable": if required { "DoNotSchedule" } else { "ScheduleAnyway" },
            })
        };
        let zone = "topology.kubernetes.io/zone";
        let mut constraints = vec![over(&self.topology_key, self.required)];
        if self.topology_key != zone {
            constraints.push(over(zone, false));
        }
        Value::Array(constraints)
    }
}
