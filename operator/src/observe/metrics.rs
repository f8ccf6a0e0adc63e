//! All metrics of an operator.

use std::future::Future;
use std::time::{Duration, Instant};

use gantry_replication::Epoch;
use gantry_replication::elector::Notice;
use parking_lot::Mutex;
use prometheus::process_collector::ProcessCollector;
use prometheus::{GaugeVec, HistogramVec, IntCounterVec, Registry, Result, TextEncoder};

use super::groups::Groups;
use super::registrar::{Described, Registrar};
use super::work::{Known, Work};

/// Groups with series of their own, unless told otherwise.
pub const DEFAULT_MAX_GROUPS: usize = 1000;

/// Reconciles read and apply a dozen objects; a switchover may take seconds, and what takes a minute is ended.
const RECONCILE_SECONDS: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

type Source = Box<dyn Fn() -> Vec<Known> + Send + Sync>;

/// What there is to see of an operator.
pub struct Metrics {
    registry: Registry,
    pub(super) described: Vec<Described>,
    leads: GaugeVec,
    known: GaugeVec,
    left_out: GaugeVec,
    reconciles: IntCounterVec,
    errors: IntCounterVec,
    duration: HistogramVec,
    in_progress: GaugeVec,
    oldest: GaugeVec,
    waiting: GaugeVec,
    groups: Mutex<Groups>,
    work: Mutex<Work>,
    /// Where the groups that there are can be read.
    sources: Mutex<Vec<Source>>,
}

impl Metrics {
    /// Of an operator that has done nothing yet. More groups than `max_groups` have no series of their own.
    pub fn new(max_groups: usize) -> Result<Self> {
        let mut registrar = Registrar::default();
        let leads =
            registrar.gauge("gantry_operator_leads", &[], "1 if this operator leads, 0 if it waits until it may")?;
        let known = registrar.gauge("gantry_operator_groups", &[], "Groups that the leading operator keeps")?;
        let groups = Groups::new(&mut registrar, max_groups)?;
        let left_out = registrar.gauge(
            "gantry_operator_groups_left_out",
            &[],
            "Groups without series of their own, because there are more than --metrics-max-groups",
        )?;
        let reconciles = registrar.counter(
            "gantry_operator_reconciles_total",
            &["result"],
            "Reconciles that have ended: ok, error, or hung when they were ended because they took too long",
        )?;
        let errors = registrar.counter(
            "gantry_operator_errors_total",
            &["part", "kind"],
            "What failed, to be tried again: part reconcile, record, master_service, elector_service, event or pods; kind timeout, hung, unreachable, conflict, forbidden, not_found, invalid, throttled, server, refused, trouble …",
        )?;
        let duration = registrar.histogram(
            "gantry_operator_reconcile_duration_seconds",
            &["result"],
            RECONCILE_SECONDS,
            "How long reconciles took",
        )?;
        let in_progress =
            registrar.gauge("gantry_operator_reconciles_in_progress", &[], "Reconciles that are under way")?;
        let oldest = registrar.gauge(
            "gantry_operator_reconcile_oldest_in_progress_seconds",
            &[],
            "Age of the oldest reconcile that is under way: one that hangs is seen before it ends. 0: there is none",
        )?;
        let waiting = registrar.gauge(
            "gantry_operator_workqueue_depth",
            &[],
            "Groups that are new, changed or due to be looked at again, and whose reconcile has not begun",
        )?;
        registrar.registry.register(Box::new(ProcessCollector::for_self()))?;
        let Registrar { registry, described } = registrar;
        for result in ["ok", "error", "hung"] {
            // From 0 on: an increase is only seen of what was there before.
            reconciles.with_label_values(&[result]);
        }
        let (groups, work, sources) = (Mutex::new(groups), Mutex::default(), Mutex::default());
        Ok(Self {
            registry,
            described,
            leads,
            known,
            left_out,
            reconciles,
            errors,
            duration,
            in_progress,
            oldest,
            waiting,
            groups,
            work,
            sources,
        })
    }

    /// All of them, in Prometheus' text format.
    pub(crate) fn text(&self, leads: bool) -> Result<String> {
        let known = if leads { self.sources.lock().iter().flat_map(|groups| groups()).collect() } else { Vec::new() };
        let left_out = {
            let mut groups = self.groups.lock();
            for (id, _) in &known {
                groups.seen(id);
            }
            known.len().saturating_sub(groups.shown())
        };
        let (in_progress, oldest, waiting) = {
            let (work, now) = (self.work.lock(), Instant::now());
            (work.in_progress(), work.oldest(now), work.waiting(&known, now))
        };
        let set = |gauge: &GaugeVec, value: f64| gauge.with_label_values::<&str>(&[]).set(value);
        set(&self.leads, f64::from(u8::from(leads)));
        set(&self.known, count(known.len()));
        set(&self.left_out, count(left_out));
        set(&self.in_progress, count(in_progress));
        set(&self.oldest, oldest.as_secs_f64());
        set(&self.waiting, count(waiting));
        let mut text = String::with_capacity(16 << 10);
        TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text)?;
        Ok(text)
    }

    /// Leads no more, or anew: what an earlier leadership had to do says nothing of now.
    pub(crate) fn forget_leadership(&self) {
        self.sources.lock().clear();
        self.work.lock().clear();
        self.groups.lock().forget_decisions();
    }

    /// The groups that there are, whenever somebody asks.
    pub(crate) fn follow(&self, groups: impl Fn() -> Vec<Known> + Send + Sync + 'static) {
        self.sources.lock().push(Box::new(groups));
    }

    /// The group is gone.
    pub(crate) fn forget(&self, id: &str) {
        self.work.lock().forget(id);
        self.groups.lock().forget(id);
    }

    /// What is to be done about a group.
    pub(crate) fn decided(&self, id: &str, decision: &'static str) {
        self.groups.lock().decided(id, decision);
    }

    /// Something failed and is tried again.
    pub(crate) fn failed(&self, part: &str, kind: &str) {
        self.errors.with_label_values(&[part, kind]).inc();
    }

    /// A switchover came to its end.
    pub(crate) fn switched<T, E>(&self, id: &str, result: &std::result::Result<T, E>) {
        self.groups.lock().switched(id, if result.is_ok() { "done" } else { "failed" });
    }

    pub(super) fn noticed(&self, id: &str, notice: &Notice) {
        self.groups.lock().noticed(id, notice, Instant::now());
    }

    pub(super) fn serving(&self, id: &str, epoch: Epoch) {
        self.groups.lock().serving(id, epoch, Instant::now());
    }

    /// A reconcile from its beginning to its end, which says after how long the next one is due; `describe` says so, and its kind, of an error.
    pub(crate) async fn watch<E>(
        &self,
        (id, generation): (&str, i64),
        describe: impl Fn(&E) -> (&'static str, Duration),
        reconcile: impl Future<Output = std::result::Result<Duration, E>>,
    ) -> std::result::Result<Duration, E> {
        let running = Running::begin(self, id, generation);
        let outcome = reconcile.await;
        let (result, again) = match &outcome {
            Ok(again) => ("ok", *again),
            Err(error) => {
                let (kind, again) = describe(error);
                self.failed("reconcile", kind);
                (if kind == HUNG { HUNG } else { "error" }, again)
            }
        };
        running.end(result, again);
        outcome
    }
}

/// The kind of a reconcile that was ended because it took too long.
pub(crate) const HUNG: &str = "hung";

/// Under way until it is dropped: whoever ceases to lead drops all of them.
struct Running<'a> {
    metrics: &'a Metrics,
    id: &'a str,
    began: Instant,
    again: Option<Instant>,
}

impl<'a> Running<'a> {
    fn begin(metrics: &'a Metrics, id: &'a str, generation: i64) -> Self {
        let began = Instant::now();
        metrics.work.lock().began(id, generation, began);
        Self { metrics, id, began, again: None }
    }

    fn end(mut self, result: &str, again: Duration) {
        self.again = Instant::now().checked_add(again);
        self.metrics.reconciles.with_label_values(&[result]).inc();
        self.metrics.duration.with_label_values(&[result]).observe(self.began.elapsed().as_secs_f64());
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.metrics.work.lock().ended(self.id, self.again);
    }
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus knows only f64; there are no 2^53 groups")]
fn count(things: usize) -> f64 {
    things as f64
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
