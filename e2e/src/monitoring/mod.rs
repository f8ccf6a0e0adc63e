//! Debian's Prometheus and Alertmanager beside a group in its laboratory, under the chart's alert rules with their times cut short
//! ([`rules`]). What rings is heard by a webhook.

pub mod dashboard;
pub mod rules;
mod servers;
mod targets;
mod webhook;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Deserialize;

pub use webhook::Ring;

use crate::group::Group;
use crate::lab::Node;
use crate::{logs, process, wait};
use rules::Rules;
use servers::{Alertmanager, Prometheus};
use targets::Discovery;
use webhook::Webhook;

/// How long an alert may take to ring, and to be over. Generous: two busy cores.
const PATIENCE: Duration = Duration::from_mins(2);

/// Everything is where the operator is.
const NODE: Node = Node::Hub;

/// It tells of the disk below all replicas, which other programs use too: what a fault rings is to be told without it.
const OF_THE_MACHINE: &str = "RocketMQ_FsyncSlow";

/// What watches a group; dropped, it is gone.
pub struct Monitoring<'a> {
    // In the order in which they are dropped.
    prometheus: Prometheus,
    _alertmanager: Alertmanager,
    _discovery: Discovery,
    webhook: Webhook,
    _group: &'a Group,
}

/// Why there can be none here: for tests that are skipped then, and say so.
pub fn unavailable() -> Option<String> {
    crate::lab::unavailable().or_else(|| process::cant_use_as_root(&["prometheus", "prometheus-alertmanager"]))
}

/// A series' value at one time.
#[derive(Debug, Deserialize)]
pub struct Sample {
    /// What tells it from others.
    pub metric: BTreeMap<String, String>,
    /// When, and what.
    value: (f64, String),
}

impl Sample {
    /// Its number.
    pub fn number(&self) -> anyhow::Result<f64> {
        self.value.1.parse().with_context(|| format!("{self:?}"))
    }
}

impl<'a> Monitoring<'a> {
    /// Watches a group that is over network namespaces, and waits until all of its brokers are seen.
    pub fn start(group: &'a Group) -> anyhow::Result<Self> {
        group.lab().context("Prometheus runs in a namespace")?;
        let folder = group.folder().join("monitoring");
        std::fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
        std::fs::write(folder.join("rules.yml"), Rules::of_chart()?.hastened()?.text()?)
            .context("writing the rules")?;
        let discovery = Discovery::start(group, folder.join("targets.json"))?;
        let webhook = Webhook::start(NODE)?;
        let alertmanager = Alertmanager::start(NODE, &folder, &webhook.url())?;
        let prometheus = Prometheus::start(NODE, &folder, &alertmanager.address)?;
        let monitoring =
            Self { prometheus, _alertmanager: alertmanager, _discovery: discovery, webhook, _group: group };
        let replicas = f64::from(group.replicas());
        monitoring.wait_until("all brokers scraped", "sum(up)", |seen| matches!(seen, [up] if *up >= replicas))?;
        Ok(monitoring)
    }

    /// What an expression gives now.
    pub fn query(&self, expr: &str) -> anyhow::Result<Vec<Sample>> {
        let mut answer = self.prometheus.ask("query", &[("query", expr)])?;
        serde_json::from_value(answer["result"].take()).with_context(|| format!("the answer to {expr}"))
    }

    /// Waits until an expression's numbers are as wanted.
    pub fn wait_until(&self, what: &str, expr: &str, wanted: impl Fn(&[f64]) -> bool) -> anyhow::Result<()> {
        let mut last = Vec::new();
        wait::until(what, PATIENCE, || {
            last = self.query(expr)?.iter().map(Sample::number).collect::<anyhow::Result<_>>()?;
            Ok(wanted(&last).then_some(()))
        })
        .with_context(|| format!("{expr} was {last:?} at last"))
    }

    /// Waits until an alert rings after a fault.
    pub fn wait_ring(&self, alert: &str, fault: Instant) -> anyhow::Result<Ring> {
        let rings = |ring: &Ring| ring.firing && ring.at >= fault && ring.alert() == alert;
        wait::until(&format!("{alert} to ring"), PATIENCE, || Ok(self.webhook.heard().into_iter().find(rings)))
            .with_context(|| format!("heard so far: {:#?}", self.webhook.heard()))
    }

    /// Waits until all that rang is over, and nothing is about to ring.
    pub fn wait_quiet(&self) -> anyhow::Result<()> {
        let about_to = format!("ALERTS{{alertname!=\"{OF_THE_MACHINE}\"}}");
        self.wait_until("no alert", &about_to, <[f64]>::is_empty)?;
        wait::until("all alerts resolved", PATIENCE, || Ok(self.ringing().is_empty().then_some(())))
            .with_context(|| format!("these ring: {:?}", self.ringing()))
    }

    /// Alerts that ring now.
    fn ringing(&self) -> BTreeSet<BTreeMap<String, String>> {
        let mut ringing = BTreeSet::new();
        for ring in self.webhook.heard().into_iter().filter(|ring| ring.alert() != OF_THE_MACHINE) {
            if ring.firing {
                ringing.insert(ring.labels);
            } else {
                ringing.remove(&ring.labels);
            }
        }
        ringing
    }

    /// What a fault rang, now that all is over.
    pub fn episode(&self, name: &'static str, fault: Instant, heal: Instant) -> Episode {
        let heard: Vec<Ring> = self.webhook.heard().into_iter().filter(|ring| ring.at >= fault).collect();
        let alerts = heard.iter().enumerate().filter(|(_, ring)| ring.firing).map(|(index, ring)| {
            let over = heard[index..].iter().find(|other| !other.firing && other.labels == ring.labels);
            Alarm {
                name: ring.alert().to_owned(),
                severity: ring.labels.get("severity").cloned().unwrap_or_default(),
                of: ring.labels.get("slaveId").or(ring.labels.get("reason")).cloned(),
                rang: ring.at - fault,
                over: over.map(|over| over.at.saturating_duration_since(heal)),
            }
        });
        Episode { name, alerts: alerts.collect() }
    }
}

/// What one fault rang.
#[derive(Debug)]
pub struct Episode {
    name: &'static str,
    alerts: Vec<Alarm>,
}

/// One alert, from its ring to its end.
#[derive(Debug)]
struct Alarm {
    name: String,
    severity: String,
    of: Option<String>,
    /// After the fault.
    rang: Duration,
    /// After the heal.
    over: Option<Duration>,
}

impl Episode {
    /// Which alerts rang, but for those on the machine below.
    pub fn rang(&self) -> BTreeSet<&str> {
        self.alerts.iter().map(|alarm| alarm.name.as_str()).filter(|name| *name != OF_THE_MACHINE).collect()
    }

    /// Tells it at the terminal.
    pub fn tell(&self) {
        logs::say(&self.to_string());
    }
}

impl fmt::Display for Episode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.name)?;
        for alarm in &self.alerts {
            write!(f, "\n  {}", alarm.name)?;
            if let Some(of) = &alarm.of {
                write!(f, " of {of}")?;
            }
            write!(f, " ({}) rang after {:.1} s", alarm.severity, alarm.rang.as_secs_f64())?;
            match alarm.over {
                Some(over) => write!(f, ", resolved {:.1} s after the heal", over.as_secs_f64())?,
                None => write!(f, ", rings on")?,
            }
        }
        Ok(())
    }
}
