//! A `NameServer` on Kubernetes: which objects it is made of.
//!
//! A StatefulSet, since name servers are all alike but each wants a name that stays. Two Services: one with a cluster IP for clients, which
//! leads to those that are ready; one without, for brokers, which names all of them, so that a broker that resolves it again and again follows
//! their number. A new one is not ready before brokers have had the time to find it and to tell it their topics.

use serde_json::{Value, json};

use super::{Blueprint, Kind, NOBODY, Object, Site};
use crate::api::{MAX_NAME_SERVER_NAME_CHARS, MAX_NAME_SERVERS, NameServer, NameServerSpec, Placement};

/// Where a name server listens.
pub const NAME_SERVER_PORT: u16 = 9_876;

/// Which `NameServer` an object belongs to.
pub const NAME_SERVER_LABEL: &str = "gantry.rs/name-server";
/// `app.kubernetes.io/name` of a name server.
pub const NAME_SERVER: &str = "gantry-nameserver";

/// After its start a name server is led to: brokers look for new ones every 5 s.
const LEARN_SECONDS: u32 = 10;

/// How often probes look.
const PROBE_SECONDS: u32 = 2;

/// One `NameServer`, with all that its objects are made from.
#[derive(Clone, Debug)]
pub struct NameServerBlueprint {
    name: String,
    namespace: String,
    uid: String,
    spec: NameServerSpec,
    image: String,
}

impl NameServerBlueprint {
    /// Validates one, by the same rules as the schema of the CRD. What is wrong, in a sentence that names the field.
    pub fn new(object: &NameServer, site: &Site) -> Result<Self, String> {
        let name = object.metadata.name.clone().unwrap_or_default();
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let fits = name.len() <= MAX_NAME_SERVER_NAME_CHARS
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(inner)
            && !name.ends_with('-');
        if !fits {
            return Err(format!(
                "metadata.name must be at most {MAX_NAME_SERVER_NAME_CHARS} of a-z, 0-9 and '-', begin with a letter and not end with '-'"
            ));
        }
        if !(1..=MAX_NAME_SERVERS).contains(&object.spec.replicas) {
            return Err(format!("spec.replicas: {} is not between 1 and {MAX_NAME_SERVERS}", object.spec.replicas));
        }
        Ok(Self {
            name,
            namespace: object.metadata.namespace.clone().unwrap_or_default(),
            uid: object.metadata.uid.clone().unwrap_or_default(),
            image: object.spec.image.clone().unwrap_or_else(|| site.image.clone()),
            spec: object.spec.clone(),
        })
    }

    /// All of them. The StatefulSet first: should another one have its name, nothing else is touched.
    pub fn objects(&self) -> Vec<Object> {
        vec![self.stateful_set(), self.members_service(), self.client_service(), self.disruption_budget()]
    }

    /// What clients are told.
    pub fn address(&self) -> String {
        format!("{}.{}.svc:{NAME_SERVER_PORT}", self.service(), self.namespace)
    }

    /// Each by itself.
    pub fn addresses(&self) -> Vec<String> {
        let (service, members) = (self.service(), self.members());
        let address = |ordinal| format!("{service}-{ordinal}.{members}.{}.svc:{NAME_SERVER_PORT}", self.namespace);
        (0..self.spec.replicas).map(address).collect()
    }

    /// The StatefulSet's name, and the Service's that is for clients.
    pub fn service(&self) -> String {
        format!("{}-nameserver", self.name)
    }

    fn members(&self) -> String {
        members_service(&self.name)
    }

    fn stateful_set(&self) -> Object {
        let spec = json!({
            "serviceName": self.members(),
            "replicas": self.spec.replicas,
            // They don't know each other: none has to wait for another.
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": self.selector()},
            "template": {"metadata": {"labels": self.labels()}, "spec": self.pod()},
        });
        self.object(Kind::StatefulSet, &self.service(), &spec)
    }

    fn pod(&self) -> Value {
        let Placement { node_selector, tolerations, spread } = &self.spec.placement;
        let selector = json!({"matchLabels": self.selector()});
        let mut pod = json!({
            // It asks nothing of the API.
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": NOBODY, "runAsGroup": NOBODY, "seccompProfile": {"type": "RuntimeDefault"},
            },
            "topologySpreadConstraints": spread.over_also_zones(&selector),
            "containers": [self.container()],
        });
        if !node_selector.is_empty() {
            pod["nodeSelector"] = json!(node_selector);
        }
        if !tolerations.is_empty() {
            pod["tolerations"] = json!(tolerations);
        }
        pod
    }

    fn container(&self) -> Value {
        let tcp = json!({"port": "nameserver"});
        let mut container = json!({
            "name": "nameserver",
            "image": self.image,
            "imagePullPolicy": "IfNotPresent",
            "args": ["nameserver", "--listen", format!("0.0.0.0:{NAME_SERVER_PORT}")],
            "ports": [{"name": "nameserver", "containerPort": NAME_SERVER_PORT, "protocol": "TCP"}],
            "livenessProbe": {"tcpSocket": tcp, "periodSeconds": 10, "failureThreshold": 3},
            "readinessProbe": {
                "tcpSocket": tcp, "initialDelaySeconds": LEARN_SECONDS, "periodSeconds": PROBE_SECONDS, "failureThreshold": 1,
            },
            "securityContext": {
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
            },
        });
        if let Some(resources) = &self.spec.resources {
            container["resources"] = json!(resources);
        }
        container
    }

    fn client_service(&self) -> Object {
        let spec = json!({"type": "ClusterIP", "selector": self.selector(), "ports": [Self::port()]});
        self.object(Kind::Service, &self.service(), &spec)
    }

    /// Brokers register at a name server as soon as it runs, so that it knows routes before clients are led to it.
    fn members_service(&self) -> Object {
        let spec = json!({
            "clusterIP": "None", "publishNotReadyAddresses": true, "selector": self.selector(), "ports": [Self::port()],
        });
        self.object(Kind::Service, &self.members(), &spec)
    }

    fn port() -> Value {
        json!({"name": "nameserver", "port": NAME_SERVER_PORT, "targetPort": "nameserver", "protocol": "TCP"})
    }

    /// A drain of nodes takes one after the other.
    fn disruption_budget(&self) -> Object {
        let spec = json!({
            "maxUnavailable": 1, "unhealthyPodEvictionPolicy": "AlwaysAllow", "selector": {"matchLabels": self.selector()},
        });
        self.object(Kind::PodDisruptionBudget, &self.service(), &spec)
    }

    fn object(&self, kind: Kind, name: &str, spec: &Value) -> Object {
        let metadata = json!({
            "name": name,
            "namespace": self.namespace,
            "labels": self.labels(),
            "ownerReferences": [{
                "apiVersion": "gantry.rs/v1alpha1", "kind": "NameServer", "name": self.name, "uid": self.uid,
                "controller": true, "blockOwnerDeletion": true,
            }],
        });
        Blueprint::object_of(kind, metadata, json!({"spec": spec}))
    }

    fn labels(&self) -> Value {
        json!({
            "app.kubernetes.io/name": NAME_SERVER,
            "app.kubernetes.io/instance": self.name,
            "app.kubernetes.io/component": "nameserver",
            "app.kubernetes.io/part-of": "gantry",
            "app.kubernetes.io/managed-by": "gantry-operator",
            NAME_SERVER_LABEL: self.name,
        })
    }

    fn selector(&self) -> Value {
        json!({"app.kubernetes.io/name": NAME_SERVER, NAME_SERVER_LABEL: self.name})
    }
}

/// Where brokers register that are to register at all members of a `NameServer`.
pub(super) fn members_address(name_server: &str, namespace: &str) -> String {
    format!("{}.{namespace}.svc:{NAME_SERVER_PORT}", members_service(name_server))
}

fn members_service(name_server: &str) -> String {
    format!("{name_server}-nameserver-members")
}
