//! Name servers, topics and consumer groups that are declared, on a real Kubernetes. As root.

use std::collections::BTreeSet;
use std::time::Duration;

use gantry_e2e::client::Outcome;
use gantry_e2e::history::{self, Event};
use gantry_e2e::kube::client;
use gantry_e2e::kube::cluster::{self, Cluster};
use gantry_e2e::kube::declared::Asked;
use gantry_e2e::kube::installation::Installation;
use gantry_e2e::scene::CLIENT_WITHIN;
use gantry_e2e::{logs, wait};

/// Generous: two busy cores.
const WITHIN: Duration = Duration::from_mins(3);

/// Two groups of one cluster, name servers of their own, and what is declared for the cluster.
const DECLARED: &str = "
apiVersion: gantry.rs/v1alpha1
kind: NameServer
metadata: {name: main}
spec: {replicas: 2}
---
apiVersion: gantry.rs/v1alpha1
kind: BrokerGroup
metadata: {name: broker-a}
spec: {replicas: 1, clusterName: shop, nameServer: main, storage: {size: 1Gi}, config: {autoCreateTopicEnable: 'false'}}
---
apiVersion: gantry.rs/v1alpha1
kind: BrokerGroup
metadata: {name: broker-b}
spec: {replicas: 1, clusterName: shop, nameServer: main, storage: {size: 1Gi}, config: {autoCreateTopicEnable: 'false'}}
---
apiVersion: gantry.rs/v1alpha1
kind: Topic
metadata: {name: orders}
spec: {name: Orders, clusterName: shop, readQueues: 4, writeQueues: 4}
---
apiVersion: gantry.rs/v1alpha1
kind: Topic
metadata: {name: scratch}
spec: {clusterName: shop, readQueues: 1, writeQueues: 1, deletionPolicy: Delete}
---
apiVersion: gantry.rs/v1alpha1
kind: ConsumerGroup
metadata: {name: billing}
spec: {name: Billing, clusterName: shop, retryMaxTimes: 5, deletionPolicy: Delete}
";

/// Whatever can't be, and what the API server says of it.
const REFUSED: [(&str, &str); 6] = [
    (
        "{kind: Topic, metadata: {name: t}, spec: {readQueues: 4, writeQueues: 8}}",
        "writeQueues must not be above readQueues",
    ),
    ("{kind: Topic, metadata: {name: a.b}, spec: {}}", "spec.name is needed"),
    ("{kind: Topic, metadata: {name: orders}, spec: {name: Other, clusterName: shop}}", "name can't be changed"),
    ("{kind: Topic, metadata: {name: t}, spec: {attributes: {a: 'b,c'}}}", "attributes: a value is"),
    ("{kind: ConsumerGroup, metadata: {name: g}, spec: {retryMaxTimes: -1}}", "spec.retryMaxTimes"),
    ("{kind: NameServer, metadata: {name: n.s}, spec: {}}", "metadata.name must be"),
];

/// One story, since a cluster, a chart and two groups cost more to set up than what happens to them.
#[test]
#[ignore = "end to end: run e2e/test"]
fn what_is_declared_is_on_every_group_and_stays_so() -> anyhow::Result<()> {
    if let Some(why) = cluster::unavailable() {
        logs::say(&format!("skipped: {why}"));
        return Ok(());
    }
    let cluster = Cluster::start()?;
    // The groups' name servers are declared: the chart brings none.
    let none = "nameServers.enabled=false,nameServers.external={main-nameserver:9876},operator.replicas=1";
    let installation = Installation::install_with(&cluster, &["--set", none])?;
    installation.apply(DECLARED)?;
    for object in ["nameserver/main", "brokergroup/broker-a", "brokergroup/broker-b"] {
        installation.wait_condition(object, "Ready")?;
    }
    for object in ["topics.gantry.rs/orders", "topics.gantry.rs/scratch", "consumergroup/billing"] {
        installation.wait_condition(object, "Synced")?;
    }
    logs::say(installation.table("nameservers,brokergroups,topics,consumergroups")?.trim());
    refuses_what_cannot_be(&installation);
    is_on_both_groups(&installation)?;
    producers_survive_the_loss_of_a_group(&installation)?;
    drift_is_put_back(&installation)?;
    brokers_follow_the_number_of_name_servers(&installation)?;
    deletion_takes_along_what_says_so(&installation)
}

fn refuses_what_cannot_be(installation: &Installation<'_>) {
    for (manifest, said) in REFUSED {
        let manifest = manifest.replacen('{', "{apiVersion: gantry.rs/v1alpha1, ", 1);
        match installation.dry_run(&manifest) {
            Ok(_) => panic!("{manifest} was taken"),
            Err(refusal) => assert!(refusal.to_string().contains(said), "{manifest}: {refusal}"),
        }
    }
}

fn both() -> BTreeSet<String> {
    ["broker-a", "broker-b"].map(str::to_owned).into()
}

fn is_on_both_groups(installation: &Installation<'_>) -> anyhow::Result<()> {
    for pod in ["broker-a-0", "broker-b-0"] {
        let broker = Asked::broker(installation, pod)?;
        assert_eq!(broker.queues("Orders")?, Some((4, 4)), "{pod}");
        let group = broker.consumer_group("Billing")?;
        assert_eq!(group.map(|group| group.retry_max_times), Some(5), "{pod}");
    }
    knows_both(installation, "main-nameserver-0")
}

fn knows_both(installation: &Installation<'_>, pod: &str) -> anyhow::Result<()> {
    let name_server = Asked::name_server(installation, pod)?;
    wait::until(&format!("{pod} knows both groups"), WITHIN, || {
        Ok((name_server.groups_of("Orders")? == both()).then_some(()))
    })
}

/// A stock client: its library sends by the other group what one group doesn't take.
fn producers_survive_the_loss_of_a_group(installation: &Installation<'_>) -> anyhow::Result<()> {
    installation.client_ready()?;
    let address = installation.name_server_of("main");
    let job = client::job_at(installation, &address, "pair", "Orders")?.with("create", false).with("group", "Billing");
    let mut pair = job.with("rate", 200).until_told().start()?;
    installation.or_tell(pair.wait_acked(200, CLIENT_WITHIN))?;
    let lost = installation.pod_uid("broker-b-0")?;
    let at_us = installation.delete_pod("broker-b-0")?;
    let acked = pair.progress().acked;
    installation.or_tell(pair.wait_acked(acked + 400, CLIENT_WITHIN))?;
    wait::until("another pod of broker-b", WITHIN, || {
        Ok(installation.pod_uid("broker-b-0").is_ok_and(|uid| uid != lost).then_some(()))
    })?;
    installation.wait_condition("brokergroup/broker-b", "Ready")?;
    let acked = pair.progress().acked;
    installation.or_tell(pair.wait_acked(acked + 200, CLIENT_WITHIN))?;
    pair.tell_end();
    let outcome = installation.or_tell(pair.finish(CLIENT_WITHIN))?;
    client::fetch_history(installation, &outcome)?;
    everything_acknowledged_arrived(&outcome, at_us)
}

/// Histories name a queue by topic and number, which two groups have both: so each message is judged, and not its place.
fn everything_acknowledged_arrived(outcome: &Outcome, lost_us: i64) -> anyhow::Result<()> {
    assert!(outcome.is_complete(), "{outcome}");
    let events = history::read(&[outcome.history()])?;
    let (mut begun, mut acked, mut arrived) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut next_us = i64::MAX;
    for event in &events {
        match event {
            Event::Start { id, .. } => drop(begun.insert(id)),
            Event::End { id, status, t, .. } if status == "OK" => {
                acked.insert(id);
                next_us = if *t >= lost_us { next_us.min(*t) } else { next_us };
            }
            Event::Recv(delivery) => {
                assert!(delivery.intact, "{delivery:?}");
                arrived.insert(&delivery.id);
            }
            _ => {}
        }
    }
    let lost: Vec<_> = acked.difference(&arrived).collect();
    assert!(lost.is_empty(), "acknowledged and never received: {lost:?}");
    let foreign: Vec<_> = arrived.difference(&begun).collect();
    assert!(foreign.is_empty(), "received and never sent: {foreign:?}");
    logs::say(&format!(
        "a whole group lost: next acknowledged send after {} ms, {} sends failed, {} acknowledged and all of them received",
        (next_us - lost_us) / 1000,
        outcome.progress.errors,
        acked.len()
    ));
    Ok(())
}

fn drift_is_put_back(installation: &Installation<'_>) -> anyhow::Result<()> {
    let broker = Asked::broker(installation, "broker-a-0")?;
    broker.set_queues("Orders", 2)?;
    wait::until("the queues that are declared", WITHIN, || {
        Ok((broker.queues("Orders")? == Some((4, 4))).then_some(()))
    })?;
    broker.set_queues("Orders", 6)?;
    installation.wait_condition("topics.gantry.rs/orders", "Synced=False")?;
    assert_eq!(broker.queues("Orders")?, Some((6, 4)), "queues to read are never made fewer");
    logs::say(installation.table("topics")?.trim());
    broker.set_queues("Orders", 4)?;
    installation.wait_condition("topics.gantry.rs/orders", "Synced")
}

fn brokers_follow_the_number_of_name_servers(installation: &Installation<'_>) -> anyhow::Result<()> {
    let pods = ["broker-a-0", "broker-b-0"];
    let before = pods.map(|pod| installation.container(pod).ok());
    installation.scale_object("nameserver/main", 3)?;
    installation.wait_until("nameserver/main", ".status.ready", "3/3")?;
    knows_both(installation, "main-nameserver-2")?;
    assert_eq!(pods.map(|pod| installation.container(pod).ok()), before, "a broker was started again");
    assert!(before.iter().all(Option::is_some), "{before:?}");
    Ok(())
}

fn deletion_takes_along_what_says_so(installation: &Installation<'_>) -> anyhow::Result<()> {
    for object in ["topics.gantry.rs/orders", "topics.gantry.rs/scratch", "consumergroup/billing"] {
        installation.delete(object)?;
    }
    for pod in ["broker-a-0", "broker-b-0"] {
        let broker = Asked::broker(installation, pod)?;
        assert_eq!(broker.queues("Orders")?, Some((4, 4)), "{pod}: it is retained");
        assert_eq!(broker.queues("scratch")?, None, "{pod}");
        assert!(broker.consumer_group("Billing")?.is_none(), "{pod}");
    }
    Ok(())
}
