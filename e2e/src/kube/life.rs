//! What people do to a group in its life, each by the `kubectl` that they would type.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::installation::{CLIENT, GROUP, Installation};
use crate::{process, wait};

/// Generous: two busy cores.
const WITHIN: Duration = Duration::from_mins(3);

impl Installation<'_> {
    /// `kubectl scale`.
    pub fn scale(&self, replicas: u32) -> anyhow::Result<()> {
        self.run(&["scale", &format!("brokergroup/{GROUP}"), &format!("--replicas={replicas}")])
    }

    /// `kubectl annotate`: `key=value`, or `key-` to take it away.
    pub fn annotate(&self, annotation: &str) -> anyhow::Result<()> {
        self.run(&["annotate", "brokergroup", GROUP, "--overwrite", annotation])
    }

    /// `kubectl patch --type=merge`.
    pub fn patch(&self, patch: &Value) -> anyhow::Result<()> {
        self.run(&["patch", "brokergroup", GROUP, "--type=merge", "--patch", &patch.to_string()])
    }

    /// The image of each of the group's pods, by replica.
    pub fn images(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let pods = self.list("pods")?;
        let image = |pod: &Value| (text(&pod["metadata"]["name"]), text(&pod["spec"]["containers"][0]["image"]));
        Ok(pods.iter().map(image).collect())
    }

    /// `kubectl delete pvc` of a replica, while its pod runs, and then waits until it has another one.
    pub fn replace_volume(&self, replica: &str) -> anyhow::Result<()> {
        let before = self.volumes()?;
        self.run(&["delete", "persistentvolumeclaim", &format!("data-{replica}"), "--wait=false"])?;
        let replaced = wait::until("another volume", WITHIN, || {
            let now = self.volumes()?;
            Ok(now.get(replica).filter(|uid| before.get(replica) != Some(*uid)).map(|_| ()))
        });
        self.or_tell(replaced)
    }

    /// The uid of each volume claim of the group that isn't being deleted, by replica.
    pub fn volumes(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let claims = self.list("persistentvolumeclaims")?;
        let stays = claims.iter().filter(|claim| claim["metadata"]["deletionTimestamp"].is_null());
        let named =
            |claim: &Value| (text(&claim["metadata"]["labels"]["gantry.rs/replica"]), text(&claim["metadata"]["uid"]));
        Ok(stays.map(named).collect())
    }

    /// Waits until all volume claims go with the group, or none does.
    pub fn wait_volumes_owned(&self, owned: bool) -> anyhow::Result<()> {
        let as_wanted = wait::until("the volumes' owners", WITHIN, || {
            let claims = self.list("persistentvolumeclaims")?;
            let has_owner =
                |claim: &Value| claim["metadata"]["ownerReferences"].as_array().is_some_and(|it| !it.is_empty());
            Ok((!claims.is_empty() && claims.iter().all(|claim| has_owner(claim) == owned)).then_some(()))
        });
        self.or_tell(as_wanted)
    }

    /// Waits until none of the group's objects of a kind is there.
    pub fn wait_gone(&self, kind: &str) -> anyhow::Result<()> {
        let gone = wait::until(&format!("no {kind}"), WITHIN, || Ok(self.list(kind)?.is_empty().then_some(())));
        self.or_tell(gone)
    }

    /// `kubectl delete brokergroup`.
    pub fn delete_group(&self) -> anyhow::Result<()> {
        self.run(&["delete", "brokergroup", GROUP])
    }

    /// Waits for an Event of this reason about the group; what it says.
    pub fn wait_event(&self, reason: &str) -> anyhow::Result<String> {
        let selector = format!("--field-selector=reason={reason},involvedObject.name={GROUP}");
        let told = wait::until(&format!("an Event of reason {reason}"), WITHIN, || {
            let mut events = self.kubectl(&["get", "events", &selector, "--output=jsonpath={.items[*].message}"]);
            let said = process::run(&mut events, None)?;
            Ok((!said.trim().is_empty()).then_some(said))
        });
        self.or_tell(told)
    }

    /// Keeps the history of the client that ran last in the pod for the next one there, which writes its own; the path.
    pub fn keep_history(&self) -> anyhow::Result<&'static str> {
        self.run(&["exec", CLIENT, "--", "sh", "-c", "cat /tmp/history >/tmp/sent"])?;
        Ok("/tmp/sent")
    }

    fn list(&self, kind: &str) -> anyhow::Result<Vec<Value>> {
        let ours = format!("--selector=gantry.rs/group={GROUP}");
        let json = process::run(&mut self.kubectl(&["get", kind, &ours, "--output=json"]), None)?;
        let list: Value = serde_json::from_str(&json)?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    fn run(&self, arguments: &[&str]) -> anyhow::Result<()> {
        process::run(&mut self.kubectl(arguments), None).map(drop)
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
