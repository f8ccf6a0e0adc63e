//! Registers metrics, and keeps what is written about them.

use prometheus::core::Collector;
use prometheus::{GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, Result};

/// One metric, as it is documented.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    pub(super) labels: &'static [&'static str],
    pub(super) help: &'static str,
}

/// Each method registers a metric of its kind: name, labels, meaning.
#[derive(Default)]
pub(super) struct Registrar {
    pub(super) registry: Registry,
    pub(super) described: Vec<Described>,
}

type Labels = &'static [&'static str];

impl Registrar {
    pub(super) fn counter(&mut self, name: &'static str, labels: Labels, help: &'static str) -> Result<IntCounterVec> {
        let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.register(counter, Described { name, kind: "counter", labels, help })
    }

    pub(super) fn gauge(&mut self, name: &'static str, labels: Labels, help: &'static str) -> Result<GaugeVec> {
        let gauge = GaugeVec::new(Opts::new(name, help), labels)?;
        self.register(gauge, Described { name, kind: "gauge", labels, help })
    }

    pub(super) fn histogram(
        &mut self,
        name: &'static str,
        labels: Labels,
        buckets: &[f64],
        help: &'static str,
    ) -> Result<HistogramVec> {
        let histogram = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)?;
        self.register(histogram, Described { name, kind: "histogram", labels, help })
    }

    fn register<C: Collector + Clone + 'static>(&mut self, metric: C, described: Described) -> Result<C> {
        self.registry.register(Box::new(metric.clone()))?;
        self.described.push(described);
        Ok(metric)
    }
}
