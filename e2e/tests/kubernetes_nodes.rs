//! On a real Kubernetes of three nodes: the master's node is cut off, drained and lost, under a stock client's load. As root.

use anyhow::{Context as _, bail};
use gantry_e2e::checker::Circumstances;
use gantry_e2e::client::Running;
use gantry_e2e::kube::client;
use gantry_e2e::kube::cluster::{self, Cluster};
use gantry_e2e::kube::follow::{Follower, Status};
use gantry_e2e::kube::installation::Installation;
use gantry_e2e::scene::{self, CLIENT_WITHIN};
use gantry_e2e::{logs, process, wait};
use serde_json::{Value, json};

/// The nodes that faults are of. Operators run there, too, and the client where the control plane is.
const WORKERS: [&str; 2] = ["kubenode-2", "kubenode-3"];
const REPLICAS: [&str; 3] = ["broker-a-0", "broker-a-1", "broker-a-2"];

struct Scene<'a> {
    cluster: &'a Cluster,
    installation: Installation<'a>,
    group: Follower,
    pair: Running,
    acts: Vec<Act>,
}

/// What happened to a master's node.
struct Act {
    what: &'static str,
    at_us: i64,
    masters: String,
    failed_sends: u64,
}

/// One story, since a cluster and a group cost more to set up than what happens to them. The lost node comes last.
#[test]
#[ignore = "end to end: run e2e/test"]
fn a_master_whose_node_is_cut_off_drained_or_lost_is_replaced_and_its_clients_lose_nothing() -> anyhow::Result<()> {
    if let Some(why) = cluster::unavailable() {
        logs::say(&format!("skipped: {why}"));
        return Ok(());
    }
    let cluster = Cluster::of_nodes(3)?;
    let affinity = format!("operator.affinity={}", one_a_worker());
    let installation = Installation::install_with(&cluster, &["--set-json", &affinity])?;
    let mut group = installation.apply_example()?;
    installation.wait_for(&mut group, "a group that is ready", Status::is_whole)?;
    installation.client_ready()?;
    let mut pair = client::job(&installation, "pair", "Kubernetes")?.with("rate", 500).until_told().start()?;
    pair.wait_acked(500, CLIENT_WITHIN)?;
    let mut scene = Scene { cluster: &cluster, installation, group, pair, acts: Vec::new() };
    scene.cut_off()?;
    scene.drain()?;
    scene.lose_with_the_operator()?;
    scene.judge()
}

/// Where operators may run: one on each worker.
fn one_a_worker() -> Value {
    let hostname = "kubernetes.io/hostname";
    let workers = json!([{"matchExpressions": [{"key": hostname, "operator": "In", "values": WORKERS}]}]);
    let operators = json!({"matchLabels": {"app.kubernetes.io/name": "gantry-operator"}});
    json!({
        "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": workers}},
        "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"labelSelector": operators, "topologyKey": hostname},
        ]},
    })
}

impl Scene<'_> {
    fn cut_off(&mut self) -> anyhow::Result<()> {
        let (node, old) = self.master_away_from_the_operator()?;
        let act = self.begin("cut off");
        self.cluster.cut(&node)?;
        let act = Act { at_us: wait::now_us(), ..act };
        self.end(act, &old)?;
        self.fences_itself(&node, &old)?;
        self.cluster.heal(&node)?;
        let healed = self.installation.wait_for(&mut self.group, "a whole group after the cut", Status::is_whole)?;
        assert_ne!(healed.master.as_deref(), Some(&*old), "the old master follows");
        Ok(())
    }

    /// A master that nobody hears stops by itself. It is asked on its own node.
    fn fences_itself(&self, node: &str, master: &str) -> anyhow::Result<()> {
        let address = self.installation.pod_address(master)?;
        let ask = r#"exec 3<>"/dev/tcp/$1/5557"; printf 'GET /readyz HTTP/1.1\r\nHost: broker\r\n\r\n' >&3; cat <&3"#;
        wait::until("a master that fenced itself", CLIENT_WITHIN, || {
            let mut probe = self.cluster.on_node(node);
            let said = process::run(probe.args(["bash", "-c", ask, "probe", &address]), None)?;
            if said.contains("fenced itself") { Ok(Some(())) } else { bail!("{master} says {said}") }
        })
    }

    /// Cordoned first, as careful people do: the master leaves before anything is evicted. And drained at once.
    fn drain(&mut self) -> anyhow::Result<()> {
        for (what, cordoned_before) in [("cordoned, and then drained", true), ("drained", false)] {
            let (node, old) = self.master_away_from_the_operator()?;
            self.budget_allows(1)?;
            let act = self.begin(what);
            if cordoned_before {
                process::run(self.cluster.kubectl().args(["cordon", &node]), None)?;
                self.another_master(&old)?;
            }
            let mut drain = self.cluster.kubectl();
            drain.args(["drain", &node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=2m"]);
            self.installation.or_tell(process::run(&mut drain, None))?;
            self.end(act, &old)?;
            self.budget_allows(0)?;
            process::run(self.cluster.kubectl().args(["uncordon", &node]), None)?;
            self.installation.wait_for(&mut self.group, "a whole group after the drain", Status::is_whole)?;
        }
        Ok(())
    }

    /// How many more pods a drain may take.
    fn budget_allows(&self, pods: u32) -> anyhow::Result<()> {
        let budget = "poddisruptionbudget/broker-a";
        self.installation.wait_until(budget, ".status.disruptionsAllowed", &pods.to_string())
    }

    /// The operator's own node is the master's.
    fn lose_with_the_operator(&mut self) -> anyhow::Result<()> {
        // One had no other node to go to during the drain.
        self.installation.operators_ready()?;
        let node = self.installation.node_of(&self.installation.leading_operator()?)?;
        let old = self.make_master_on(&node)?;
        let act = self.begin("lost, with the leading operator");
        self.installation.goes_with_cluster();
        self.cluster.kill_node(&node)?;
        let act = Act { at_us: wait::now_us(), ..act };
        self.end(act, &old)
    }

    /// The node that the master is on then, and the master.
    fn master_away_from_the_operator(&mut self) -> anyhow::Result<(String, String)> {
        let leader = self.installation.node_of(&self.installation.leading_operator()?)?;
        let node = WORKERS.into_iter().find(|node| *node != leader).context("the operator is on all nodes")?;
        Ok((node.to_owned(), self.make_master_on(node)?))
    }

    fn make_master_on(&mut self, node: &str) -> anyhow::Result<String> {
        let Self { installation, group, .. } = self;
        installation.wait_for(group, "a whole group", Status::is_whole)?;
        let mut wanted = None;
        for replica in REPLICAS {
            if installation.node_of(replica)? == node {
                wanted = Some(replica.to_owned());
            }
        }
        let wanted = wanted.with_context(|| format!("no replica is on {node}"))?;
        installation.prefer(Some(&wanted))?;
        installation.wait_for(group, "the master where it shall be", |status| {
            status.is_whole() && status.master.as_deref() == Some(&*wanted)
        })?;
        installation.prefer(None)?;
        let acked = self.pair.progress().acked;
        self.installation.or_tell(self.pair.wait_acked(acked + 100, CLIENT_WITHIN))?;
        Ok(wanted)
    }

    fn begin(&self, what: &'static str) -> Act {
        Act { what, at_us: wait::now_us(), masters: String::new(), failed_sends: self.pair.progress().errors }
    }

    /// Another master, and sends that it acknowledges.
    fn end(&mut self, mut act: Act, old: &str) -> anyhow::Result<()> {
        let after = self.another_master(old)?;
        let Self { installation, pair, .. } = self;
        let acked = pair.progress().acked;
        installation.or_tell(pair.wait_acked(acked + 500, CLIENT_WITHIN))?;
        let new = after.master.unwrap_or_default();
        act.masters = format!("{old} -> {new} epoch {} ({})", after.epoch, after.failover_cause.unwrap_or_default());
        act.failed_sends = pair.progress().errors - act.failed_sends;
        logs::say(&format!("{}: {}, {} failed sends", act.what, act.masters, act.failed_sends));
        self.acts.push(act);
        Ok(())
    }

    fn another_master(&mut self, old: &str) -> anyhow::Result<Status> {
        let is_another = |status: &Status| status.master.as_deref().is_some_and(|master| master != old);
        self.installation.wait_for(&mut self.group, "another master", is_another)
    }

    fn judge(mut self) -> anyhow::Result<()> {
        self.pair.tell_end();
        let outcome = self.installation.or_tell(self.pair.finish(CLIENT_WITHIN))?;
        client::fetch_history(&self.installation, &outcome)?;
        let faults_us = self.acts.iter().map(|act| act.at_us).collect();
        let verdict = scene::judge(&[&outcome], &Circumstances { faults_us, ..scene::drained() })?;
        for (act, gap) in self.acts.iter().zip(&verdict.gaps) {
            let Act { what, masters, failed_sends, .. } = act;
            let gap = gap.to_next_ack_us.map_or("never".to_owned(), |gap_us| format!("{} ms", gap_us / 1000));
            logs::say(&format!(
                "the master's node {what}: {masters}, next acknowledged send after {gap}, {failed_sends} sends failed at the application"
            ));
        }
        logs::say(&verdict.to_string());
        assert!(verdict.gaps.iter().all(|gap| gap.to_next_ack_us.is_some()), "a fault came after the last send");
        Ok(())
    }
}
