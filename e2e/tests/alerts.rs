//! Alerts that ring when they should, and only then: real Prometheus and Alertmanager, real brokers under a stock client's load, real
//! faults.

use std::time::{Instant, SystemTime};

use anyhow::Context as _;
use gantry_e2e::checker::{Circumstances, Span};
use gantry_e2e::client::{Library, Running};
use gantry_e2e::group::{Group, Options, PATIENCE, replica_name};
use gantry_e2e::lab::Lab;
use gantry_e2e::monitoring::rules::{HASTE, Rules};
use gantry_e2e::monitoring::{self, Episode, Monitoring, dashboard};
use gantry_e2e::process::Signal;
use gantry_e2e::scene::{self, CLIENT_WITHIN};
use gantry_e2e::{logs, wait};

/// Messages of 1 KiB a second.
const RATE: u64 = 1_000;

/// Less than an eighth of that.
const SLOW_KBITS: u32 = 1_000;

/// Less than what the producers have under way when acknowledgements wait: a slave that is in sync holds them back, and they would never
/// leave it behind. This one is let go after a second.
const SOON_OUT_OF_SYNC_BYTES: u64 = 128 << 10;

/// A replica's disk, in a sparse file.
const DISK_BYTES: u64 = 4 << 30;

/// Acknowledgements after which sends count as going on.
const GOES_ON: u64 = 100;

#[test]
#[ignore = "end to end: run e2e/test"]
fn alerts_ring_for_what_they_say_and_for_nothing_else() -> anyhow::Result<()> {
    if let Some(why) = monitoring::unavailable() {
        logs::say(&format!("skipped: {why}"));
        return Ok(());
    }
    let config = [("haMaxGapNotInSync".to_owned(), SOON_OUT_OF_SYNC_BYTES.to_string())].into();
    let options = Options { config, ..Options::default() };
    let group = Group::start_in(Lab::new(usize::from(options.replicas))?, &options, DISK_BYTES)?;
    let monitoring = Monitoring::start(&group)?;
    let watched_since = SystemTime::now();
    let mut load = scene::job(&group, Library::Java5, "pair", "Alerts")?
        .with("group", "alerts")
        .with("mode", "async")
        .with("rate", RATE)
        .with("give-up", 180)
        .until_told()
        .start()?;
    load.wait_acked(GOES_ON, CLIENT_WITHIN)?;
    logs::say(&format!("times of the rules are cut to a {HASTE}th"));

    let mut spans = Vec::new();
    for fault in [a_slaves_link_is_slow, the_master_is_killed, two_of_three_replicas_are_gone] {
        let from_us = wait::now_us();
        fault(&group, &monitoring, &mut load)?.tell();
        spans.push(Span { from_us, to_us: wait::now_us() });
    }
    the_dashboard_has_an_answer_to_each_question(&monitoring, watched_since)?;
    tell_cost_of_scrapes(&monitoring)?;

    load.tell_end();
    let outcome = load.finish(CLIENT_WITHIN)?;
    let faults_us = spans.iter().map(|span| span.from_us).collect();
    scene::judge(&[&outcome], &Circumstances { faults_us, spans, ..scene::drained() }).map(|_| ())
}

/// Producers are quicker than a slave's link.
fn a_slaves_link_is_slow(group: &Group, monitoring: &Monitoring<'_>, _: &mut Running) -> anyhow::Result<Episode> {
    let (whole, hastened) = (Rules::of_chart()?, Rules::of_chart()?.hastened()?);
    let delay = "RocketMQ_HASyncDelay";
    assert_eq!(whole.alert(delay)?.expr, hastened.alert(delay)?.expr, "the expression itself is what is tried");

    let slave = slaves(group)?[0];
    let fault = Instant::now();
    group.lab()?.slow(slave, SLOW_KBITS)?;
    let ring = monitoring.wait_ring(delay, fault)?;
    logs::say(&ring.annotations["description"]);
    assert_eq!(ring.labels["slaveId"], replica_name(slave));
    assert_eq!((ring.labels["severity"].as_str(), ring.labels["namespace"].as_str()), ("critical", "shop"));
    let heal = Instant::now();
    group.lab()?.unslow(slave)?;
    monitoring.wait_quiet()?;
    let episode = monitoring.episode("a slave's link carries less than producers write", fault, heal);
    assert!(episode.rang().is_subset(&[delay, "RocketMQ_HALagGrowing"].into()), "{episode}");
    Ok(episode)
}

/// It is replaced at once, and comes back as a slave: nobody has to be woken.
fn the_master_is_killed(group: &Group, monitoring: &Monitoring<'_>, load: &mut Running) -> anyhow::Result<Episode> {
    let before = group.wait_settled(PATIENCE)?;
    let master = before.master.context("a settled group has a master")?;
    let fault = Instant::now();
    group.signal(&master, Signal::KILL)?;
    let ring = monitoring.wait_ring("RocketMQ_MasterChanged", fault)?;
    assert_eq!(ring.labels["severity"], "info");
    let after = group.wait_for("another master with every replica in sync", |status| {
        status.is_settled() && status.epoch > before.epoch
    })?;
    assert_ne!(after.master, Some(master), "the killed one stays master");
    let acked = load.progress().acked;
    load.wait_acked(acked + GOES_ON, CLIENT_WITHIN)?;
    // What would ring for the same reason has its time until then, and what is about to ring is waited for.
    monitoring.wait_quiet()?;
    let episode = monitoring.episode("the master is killed (resolved: after the kill)", fault, fault);
    assert_eq!(episode.rang(), ["RocketMQ_MasterChanged"].into(), "{episode}");
    Ok(episode)
}

/// Sends are refused, with one copy left.
fn two_of_three_replicas_are_gone(
    group: &Group,
    monitoring: &Monitoring<'_>,
    load: &mut Running,
) -> anyhow::Result<Episode> {
    let gone = slaves(group)?;
    for slave in &gone {
        group.take_down(*slave)?;
    }
    let fault = Instant::now();
    let expected =
        ["RocketMQ_InSyncBelowMinimum", "RocketMQ_SingleCopy", "RocketMQ_SlaveDisconnected", "RocketMQ_SendsRefused"];
    for alert in expected {
        monitoring.wait_ring(alert, fault)?;
    }
    let heal = Instant::now();
    for slave in &gone {
        group.let_start(*slave)?;
    }
    group.wait_settled(PATIENCE)?;
    let acked = load.progress().acked;
    load.wait_acked(acked + GOES_ON, CLIENT_WITHIN)?;
    monitoring.wait_quiet()?;
    let episode = monitoring.episode("two of three replicas are gone", fault, heal);
    assert_eq!(episode.rang(), expected.into(), "{episode}");
    Ok(episode)
}

/// Ordinals of the slaves of a settled group.
fn slaves(group: &Group) -> anyhow::Result<Vec<usize>> {
    let status = group.wait_settled(PATIENCE)?;
    Ok((0..status.replicas.len()).filter(|ordinal| status.master != Some(replica_name(*ordinal))).collect())
}

fn the_dashboard_has_an_answer_to_each_question(monitoring: &Monitoring<'_>, since: SystemTime) -> anyhow::Result<()> {
    let variables =
        [("namespace", "shop"), ("cluster", "DefaultCluster"), ("group", "broker-a"), ("__rate_interval", "10s")];
    let questions = dashboard::questions(&variables)?;
    let mut unanswered = Vec::new();
    for question in &questions {
        if !question.is_answered(monitoring, since)? {
            unanswered.push(question);
        }
    }
    assert!(unanswered.is_empty(), "the dashboard would stay empty here: {unanswered:#?}");
    logs::say(&format!("the dashboard asks {} questions, and all are answered", questions.len()));
    Ok(())
}

fn tell_cost_of_scrapes(monitoring: &Monitoring<'_>) -> anyhow::Result<()> {
    let number = |expr: &str| -> anyhow::Result<f64> {
        monitoring.query(expr)?.first().map_or(Ok(f64::NAN), monitoring::Sample::number)
    };
    logs::say(&format!(
        "a scrape of a broker: {:.1} ms at the median, {:.1} ms at most, {} samples",
        number("1000 * quantile(0.5, scrape_duration_seconds)")?,
        number("1000 * max(scrape_duration_seconds)")?,
        number("max(scrape_samples_scraped)")?,
    ));
    Ok(())
}
