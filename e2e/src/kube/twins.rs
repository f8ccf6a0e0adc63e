//! Two groups of one name, in two namespaces.

use std::time::Duration;

use anyhow::{Context, bail};

use super::cluster::CONTROL_PLANE;
use super::follow::Status;
use super::installation::Installation;
use crate::{logs, process, wait};

const NAME: &str = "twin";
/// Generous: two busy cores.
const WITHIN: Duration = Duration::from_mins(3);

/// They go with this value.
pub struct Twins<'a> {
    installation: &'a Installation<'a>,
    namespaces: [String; 2],
}

impl<'a> Twins<'a> {
    /// Of one replica each.
    pub fn apply(installation: &'a Installation<'a>) -> anyhow::Result<Self> {
        let namespaces = ["one", "two"].map(|which| format!("{}-{which}", installation.namespace()));
        let twins = Self { installation, namespaces };
        for namespace in &twins.namespaces {
            let manifest = format!(
                "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n---\n\
                 apiVersion: gantry.rs/v1alpha1\nkind: BrokerGroup\nmetadata: {{name: {NAME}, namespace: {namespace}}}\n\
                 spec: {{replicas: 1, clusterName: Twins, storage: {{size: 1Gi}}}}\n"
            );
            let mut apply = installation.cluster().kubectl();
            process::run(apply.args(["apply", "--filename", "-"]), Some(&manifest))?;
        }
        Ok(twins)
    }

    fn get(&self, namespace: &str, what: &[&str], path: &str) -> anyhow::Result<String> {
        let mut get = self.installation.cluster().kubectl();
        get.args(["--namespace", namespace, "get"]).args(what).args(["--output", path]);
        process::run(&mut get, None)
    }

    fn status(&self, namespace: &str) -> anyhow::Result<Status> {
        let group = self.get(namespace, &["brokergroup", NAME], "json")?;
        Ok(Status::of(&serde_json::from_str(&group)?))
    }

    fn ready(&self, namespace: &str, after: u64) -> anyhow::Result<Status> {
        wait::until("a twin that is ready", WITHIN, || {
            let status = self.status(namespace)?;
            if status.is_whole() && status.epoch > after {
                return Ok(Some(status));
            }
            bail!("{namespace} is {status:?}")
        })
    }

    /// The process of the one is killed: its next one is master of the next epoch, and nothing becomes of the other.
    pub fn one_fails_over_and_the_other_does_not(&self) -> anyhow::Result<()> {
        let [one, two] = &self.namespaces;
        let (before, other) = (self.ready(one, 0)?, self.ready(two, 0)?);
        let path = "jsonpath={.status.containerStatuses[0].containerID}";
        let pod = before.master.as_deref().context("a whole group has no master")?;
        let container = self.get(one, &["pod", pod], path)?;
        self.installation.cluster().kill_container(CONTROL_PLANE, &container)?;
        let after = self.ready(one, before.epoch)?;
        let now = self.ready(two, 0)?;
        if (now.epoch, &now.master) != (other.epoch, &other.master) {
            bail!("the twin that nothing was done to was {other:?} and is {now:?}");
        }
        logs::say(&format!("of two groups of one name, one is in epoch {}, the other in {}", after.epoch, now.epoch));
        Ok(())
    }
}

impl Drop for Twins<'_> {
    fn drop(&mut self) {
        let mut delete = self.installation.cluster().kubectl();
        delete.args(["delete", "namespace", "--ignore-not-found", "--wait=false"]).args(&self.namespaces);
        if let Err(error) = process::run(&mut delete, None) {
            logs::say(&format!("namespaces {:?} may have stayed: {error:#}", self.namespaces));
        }
    }
}
