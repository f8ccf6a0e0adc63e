//! On a real Kubernetes of one node: what the API server refuses, and two groups of one name. As root.

use gantry_e2e::kube::bad_manifests;
use gantry_e2e::kube::cluster::{self, Cluster};
use gantry_e2e::kube::follow::Status;
use gantry_e2e::kube::installation::Installation;
use gantry_e2e::kube::twins::Twins;
use gantry_e2e::logs;

const GROUP: &str = "broker-a";

/// One story, since a cluster, a chart and a group cost more to set up than what happens around them.
#[test]
#[ignore = "end to end: run e2e/test"]
fn bad_manifests_are_refused_and_a_group_of_the_same_name_elsewhere_is_another() -> anyhow::Result<()> {
    if let Some(why) = cluster::unavailable() {
        logs::say(&format!("skipped: {why}"));
        return Ok(());
    }
    let cluster = Cluster::start()?;
    let installation = Installation::install(&cluster)?;
    let mut group = installation.apply_example()?;
    let twins = Twins::apply(&installation)?;
    installation.wait_for(&mut group, "a group that is ready", Status::is_whole)?;
    logs::say(&format!("{} bad manifests were refused", bad_manifests::are_refused(&installation, GROUP)?));
    installation.or_tell(twins.one_fails_over_and_the_other_does_not())
}
