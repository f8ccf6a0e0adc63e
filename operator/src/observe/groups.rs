//! Series that name a group: of so many groups at most, and none of a group that is gone.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use gantry_replication::Epoch;
use gantry_replication::elector::Notice;
use k8s_openapi::jiff::Timestamp;
use prometheus::{GaugeVec, HistogramVec, IntCounterVec, Result};

use super::registrar::Registrar;

/// Failovers take milliseconds after a known death, seconds on suspicion.
const ELECTION_SECONDS: &[f64] = &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 7.5, 10.0, 15.0, 30.0, 60.0];

/// A group that has been seen and not yet decided about.
const UNDECIDED: &str = "none";

pub(super) struct Groups {
    max: usize,
    shown: BTreeMap<String, Shown>,
    decisions: GaugeVec,
    elections: IntCounterVec,
    election_seconds: HistogramVec,
    last_elections: GaugeVec,
    switchovers: IntCounterVec,
}

/// The values of labels that a group's series have.
#[derive(Default)]
struct Shown {
    decision: Option<&'static str>,
    causes: Vec<&'static str>,
    last_cause: Option<&'static str>,
    /// Decided, and not serving yet.
    pending: Option<Pending>,
}

#[derive(Clone, Copy)]
struct Pending {
    epoch: Epoch,
    cause: &'static str,
    since: Instant,
}

impl Groups {
    pub(super) fn new(registrar: &mut Registrar, max: usize) -> Result<Self> {
        Ok(Self {
            max,
            shown: BTreeMap::new(),
            decisions: registrar.gauge(
                "gantry_operator_last_decision_timestamp_seconds",
                &["group", "decision"],
                "When the leading operator last decided about a group, and what: create, delete, switchover, wait, settled, invalid, unreadable; none since it first saw it",
            )?,
            elections: registrar.counter(
                "gantry_operator_elections_total",
                &["group", "cause"],
                "Masters elected, by why: first, process_ended, data_plane, silent, past_record, switchover, unclean",
            )?,
            election_seconds: registrar.histogram(
                "gantry_operator_election_duration_seconds",
                &["group", "cause"],
                ELECTION_SECONDS,
                "From the first sign that a master is lost, or from the wish for a switchover, to the new master's serving. Of a first or unclean one: from the decision",
            )?,
            last_elections: registrar.gauge(
                "gantry_operator_last_election_timestamp_seconds",
                &["group", "cause"],
                "When this operator last elected a master for a group, and why",
            )?,
            switchovers: registrar.counter(
                "gantry_operator_switchovers_total",
                &["group", "result"],
                "Planned switchovers that this operator asked for, by what became of them: done, failed",
            )?,
        })
    }

    /// How many groups have series.
    pub(super) fn shown(&self) -> usize {
        self.shown.len()
    }

    pub(super) fn decided(&mut self, id: &str, decision: &'static str) {
        let decisions = self.decisions.clone();
        let Some(shown) = self.admit(id) else { return };
        if let Some(old) = shown.decision.replace(decision).filter(|old| *old != decision) {
            gone(decisions.remove_label_values(&[id, old]));
        }
        decisions.with_label_values(&[id, decision]).set(unix_now());
    }

    /// This group exists: from now on it is missed when nothing is decided about it.
    pub(super) fn seen(&mut self, id: &str) {
        if self.shown.get(id).is_none_or(|shown| shown.decision.is_none()) {
            self.decided(id, UNDECIDED);
        }
    }

    pub(super) fn noticed(&mut self, id: &str, notice: &Notice, now: Instant) {
        let (epoch, cause, ago) = match notice {
            Notice::Started { epoch, .. } => (*epoch, "first", 0),
            Notice::Unclean { epoch, .. } => (*epoch, "unclean", 0),
            Notice::Elected { epoch, cause, decision_ms, .. } => (*epoch, cause.label(), *decision_ms),
            _ => return,
        };
        let (elections, last) = (self.elections.clone(), self.last_elections.clone());
        let Some(shown) = self.admit(id) else { return };
        let since = now.checked_sub(Duration::from_millis(ago)).unwrap_or(now);
        shown.pending = Some(Pending { epoch, cause, since });
        if !shown.causes.contains(&cause) {
            shown.causes.push(cause);
        }
        if let Some(old) = shown.last_cause.replace(cause).filter(|old| *old != cause) {
            gone(last.remove_label_values(&[id, old]));
        }
        last.with_label_values(&[id, cause]).set(unix_now());
        elections.with_label_values(&[id, cause]).inc();
    }

    pub(super) fn serving(&mut self, id: &str, epoch: Epoch, now: Instant) {
        let Some(shown) = self.shown.get_mut(id) else { return };
        if let Some(done) = shown.pending.take_if(|pending| pending.epoch == epoch) {
            let took = now.saturating_duration_since(done.since).as_secs_f64();
            self.election_seconds.with_label_values(&[id, done.cause]).observe(took);
        }
    }

    pub(super) fn switched(&mut self, id: &str, result: &'static str) {
        if self.admit(id).is_some() {
            self.switchovers.with_label_values(&[id, result]).inc();
        }
    }

    pub(super) fn forget(&mut self, id: &str) {
        let Some(shown) = self.shown.remove(id) else { return };
        if let Some(decision) = shown.decision {
            gone(self.decisions.remove_label_values(&[id, decision]));
        }
        if let Some(cause) = shown.last_cause {
            gone(self.last_elections.remove_label_values(&[id, cause]));
        }
        for cause in shown.causes {
            gone(self.elections.remove_label_values(&[id, cause]));
            gone(self.election_seconds.remove_label_values(&[id, cause]));
        }
        for result in ["done", "failed"] {
            gone(self.switchovers.remove_label_values(&[id, result]));
        }
    }

    /// Another operator decides now: what was decided here says nothing of today. What was counted stays.
    pub(super) fn forget_decisions(&mut self) {
        self.decisions.reset();
        for shown in self.shown.values_mut() {
            (shown.decision, shown.pending) = (None, None);
        }
    }

    fn admit(&mut self, id: &str) -> Option<&mut Shown> {
        if !self.shown.contains_key(id) && self.shown.len() >= self.max {
            return None;
        }
        Some(self.shown.entry(id.to_owned()).or_default())
    }
}

/// A series that never came to be can't be removed, and needn't.
fn gone(removed: Result<()>) {
    removed.ok();
}

fn unix_now() -> f64 {
    Timestamp::now().as_duration().as_secs_f64()
}
