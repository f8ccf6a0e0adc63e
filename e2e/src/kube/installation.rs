//! A namespace with the chart, a group and a pod for clients in it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};

use super::cluster::{CONTROL_PLANE, Cluster};
use super::follow::{Follower, Status};
use crate::{logs, process, wait};

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/gantry");
const RELEASE: &str = "gantry";
/// The tag that e2e/cluster/images gives.
const TAG: &str = "e2e";
/// The group of charts/gantry/examples.
pub(super) const GROUP: &str = "broker-a";
/// The pod that clients run in.
pub(super) const CLIENT: &str = "client";
/// Generous: two busy cores.
const WITHIN: Duration = Duration::from_mins(3);

/// The chart, installed; the namespace goes with this value.
pub struct Installation<'a> {
    cluster: &'a Cluster,
    namespace: String,
    /// A dead node's pods can't be deleted in good order.
    goes_with_cluster: bool,
}

impl<'a> Installation<'a> {
    /// `helm install` with the images under test, and a pod for clients.
    pub fn install(cluster: &'a Cluster) -> anyhow::Result<Self> {
        Self::install_with(cluster, &[])
    }

    /// The same, with values: Helm's flags.
    pub fn install_with(cluster: &'a Cluster, values: &[&str]) -> anyhow::Result<Self> {
        let namespace = format!("e2e-{}", fastrand::u32(..));
        let installation = Self { cluster, namespace, goes_with_cluster: false };
        let mut helm = installation.helm("install");
        helm.args([RELEASE, CHART, "--create-namespace", "--take-ownership", "--wait", "--timeout", "3m"]);
        for (name, repository) in [("gantry", "gantry"), ("operator", "gantry-operator")] {
            helm.args(["--set", &format!("images.{name}.repository=localhost/{repository},images.{name}.tag={TAG}")]);
        }
        helm.args(values);
        installation.or_tell(process::run(&mut helm, None))?;
        installation.apply(&client_pod())?;
        Ok(installation)
    }

    /// `kubectl apply -f charts/gantry/examples/broker-group.yaml`, and follows the group.
    pub fn apply_example(&self) -> anyhow::Result<Follower> {
        let example = Path::new(CHART).join("examples/broker-group.yaml");
        self.apply(&fs::read_to_string(&example).with_context(|| example.display().to_string())?)?;
        self.follow(GROUP)
    }

    /// Follows a group.
    pub fn follow(&self, group: &str) -> anyhow::Result<Follower> {
        Follower::start(self.kubectl(&["get", "brokergroup", group, "--watch", "--output", "json"]))
    }

    /// `kubectl apply`.
    pub fn apply(&self, manifest: &str) -> anyhow::Result<()> {
        process::run(&mut self.kubectl(&["apply", "--filename", "-"]), Some(manifest)).map(drop)
    }

    /// What the API server would say of a manifest.
    pub fn dry_run(&self, manifest: &str) -> anyhow::Result<String> {
        process::run(&mut self.kubectl(&["apply", "--dry-run=server", "--filename", "-"]), Some(manifest))
    }

    /// Waits until an object has the condition: `Ready`, or `Ready=False`.
    pub fn wait_condition(&self, object: &str, condition: &str) -> anyhow::Result<()> {
        self.wait_by_kubectl(object, &format!("condition={condition}"))
    }

    /// Waits until a field of an object (`kind/name`) has that value.
    pub fn wait_until(&self, object: &str, path: &str, value: &str) -> anyhow::Result<()> {
        self.wait_by_kubectl(object, &format!("jsonpath={{{path}}}={value}"))
    }

    fn wait_by_kubectl(&self, object: &str, wanted: &str) -> anyhow::Result<()> {
        let mut wait = self.kubectl(&["wait", object, &format!("--for={wanted}"), "--timeout=3m"]);
        self.or_tell(process::run(&mut wait, None)).map(drop)
    }

    /// `kubectl scale`, of anything.
    pub fn scale_object(&self, object: &str, replicas: u32) -> anyhow::Result<()> {
        process::run(&mut self.kubectl(&["scale", object, &format!("--replicas={replicas}")]), None).map(drop)
    }

    /// `kubectl delete`, which waits for finalizers.
    pub fn delete(&self, object: &str) -> anyhow::Result<()> {
        let mut delete = self.kubectl(&["delete", object, "--timeout=1m"]);
        self.or_tell(process::run(&mut delete, None)).map(drop)
    }

    /// What `kubectl get` shows people.
    pub fn table(&self, kinds: &str) -> anyhow::Result<String> {
        process::run(&mut self.kubectl(&["get", kinds]), None)
    }

    /// Waits until the group is as wanted; the error has the logs.
    pub fn wait_for(
        &self,
        group: &mut Follower,
        what: &str,
        wanted: impl Fn(&Status) -> bool,
    ) -> anyhow::Result<Status> {
        self.or_tell(group.wait_for(what, WITHIN, wanted))
    }

    /// `helm test`: sends and receives. What it printed.
    pub fn helm_test(&self) -> anyhow::Result<String> {
        self.or_tell(process::run(self.helm("test").args([RELEASE, "--logs", "--timeout", "3m"]), None))
    }

    /// Waits until the pod for clients runs.
    pub fn client_ready(&self) -> anyhow::Result<()> {
        let ready = ["wait", "--for=condition=Ready", "--timeout=3m", &format!("pod/{CLIENT}")];
        self.or_tell(process::run(&mut self.kubectl(&ready), None)).map(drop)
    }

    /// The name by which clients find the name servers.
    pub fn name_server(&self) -> String {
        format!("{RELEASE}-nameserver.{}.svc:9876", self.namespace)
    }

    /// The same of a `NameServer`.
    pub fn name_server_of(&self, name: &str) -> String {
        format!("{name}-nameserver.{}.svc:9876", self.namespace)
    }

    /// Kubernetes' own name for a pod: another pod of the same name has another.
    pub fn pod_uid(&self, pod: &str) -> anyhow::Result<String> {
        self.get(&["pod", pod], ".metadata.uid")
    }

    /// SIGKILL to a replica's process. When it had been sent, in the histories' microseconds: until then the process may acknowledge.
    pub fn kill(&self, replica: &str) -> anyhow::Result<i64> {
        self.cluster.kill_container(&self.node_of(replica)?, &self.container(replica)?)?;
        Ok(wait::now_us())
    }

    /// The id of a pod's container: one that was started again has another.
    pub fn container(&self, pod: &str) -> anyhow::Result<String> {
        self.get(&["pod", pod], ".status.containerStatuses[0].containerID")
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The cluster that it is on.
    pub fn cluster(&self) -> &Cluster {
        self.cluster
    }

    /// `kubectl delete pod`. When.
    pub fn delete_pod(&self, replica: &str) -> anyhow::Result<i64> {
        let at_us = wait::now_us();
        process::run(&mut self.kubectl(&["delete", "pod", replica, "--wait=false"]), None)?;
        Ok(at_us)
    }

    /// The address that the slice of the group's master Service leads to.
    pub fn master_address(&self) -> anyhow::Result<String> {
        self.get(&["endpointslice", &format!("{GROUP}-master")], ".endpoints[*].addresses[*]")
    }

    /// A pod's address.
    pub fn pod_address(&self, replica: &str) -> anyhow::Result<String> {
        self.get(&["pod", replica], ".status.podIP")
    }

    /// The group's preferred master, or none any more.
    pub fn prefer(&self, replica: Option<&str>) -> anyhow::Result<()> {
        let patch = json!({"spec": {"preferredMaster": replica}}).to_string();
        let mut kubectl = self.kubectl(&["patch", "brokergroup", GROUP, "--type=merge", "--patch", &patch]);
        process::run(&mut kubectl, None).map(drop)
    }

    /// The pod of the operator that leads.
    pub fn leading_operator(&self) -> anyhow::Result<String> {
        self.get(&["lease", "gantry-operator"], ".spec.holderIdentity")
    }

    /// Waits until the operator has all of its pods.
    pub fn operators_ready(&self) -> anyhow::Result<()> {
        let mut rollout = self.kubectl(&["rollout", "status", "deployment/gantry-operator", "--timeout=3m"]);
        self.or_tell(process::run(&mut rollout, None)).map(drop)
    }

    /// Leaves all as it is when this value goes: the cluster, which goes too, has lost a node.
    pub fn goes_with_cluster(&mut self) {
        self.goes_with_cluster = true;
    }

    /// The node that a pod runs on.
    pub fn node_of(&self, pod: &str) -> anyhow::Result<String> {
        self.get(&["pod", pod], ".spec.nodeName")
    }

    /// A field, by its JSONPath.
    pub fn get(&self, what: &[&str], path: &str) -> anyhow::Result<String> {
        let mut get = self.kubectl(&["get"]);
        process::run(get.args(what).args(["--output", &format!("jsonpath={{{path}}}")]), None)
    }

    /// `kubectl`, in this namespace.
    pub fn kubectl(&self, arguments: &[&str]) -> Command {
        let mut command = self.cluster.kubectl();
        command.args(["--namespace", &self.namespace]).args(arguments);
        command
    }

    fn helm(&self, command: &str) -> Command {
        let mut helm = self.cluster.helm();
        helm.args([command, "--namespace", &self.namespace]);
        helm
    }

    /// After a failure, what people would look at.
    pub fn or_tell<T>(&self, result: anyhow::Result<T>) -> anyhow::Result<T> {
        if result.is_err() {
            let logs = ["logs", "--prefix", "--tail=30", "--selector", "app.kubernetes.io/name"];
            for what in
                [&["get", "gantry,pods", "--output=wide"][..], &["get", "events"], &["describe", "gantry"], &logs]
            {
                let told = process::run(&mut self.kubectl(what), None).unwrap_or_else(|error| format!("{error:#}"));
                logs::say(&format!("--- kubectl {}\n{told}", what.join(" ")));
            }
        }
        result
    }
}

impl Drop for Installation<'_> {
    /// The group first: its finalizers and owners are dealt with by who is still there.
    fn drop(&mut self) {
        if self.goes_with_cluster {
            return;
        }
        // What waits for the operator goes while it is there.
        let declared = ["delete", "topics.gantry.rs,consumergroups", "--all", "--timeout=1m"];
        let declared = process::run(&mut self.kubectl(&declared), None);
        let uninstall = process::run(self.helm("uninstall").args([RELEASE, "--ignore-not-found"]), None);
        let delete = process::run(&mut self.kubectl(&["delete", "namespace", &self.namespace, "--timeout=3m"]), None);
        for result in [declared, uninstall, delete] {
            if let Err(error) = result {
                logs::say(&format!("namespace {} may have stayed: {error:#}", self.namespace));
            }
        }
    }
}

fn client_pod() -> String {
    let container = json!({
        "name": "client", "image": format!("localhost/gantry-e2e-client:{TAG}"), "imagePullPolicy": "IfNotPresent",
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    });
    let pod: Value = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": CLIENT},
        "spec": {
            // Faults are of other nodes.
            "nodeSelector": {"kubernetes.io/hostname": CONTROL_PLANE},
            "containers": [container], "volumes": [{"name": "tmp", "emptyDir": {}}],
            "terminationGracePeriodSeconds": 0,
        },
    });
    pod.to_string()
}
