//! One scrape, as it is put together.

use gantry_store::HistogramSnapshot;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric as Sample, MetricFamily, MetricType};

/// What a value means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// One metric, as it is registered and documented.
#[derive(Debug)]
pub(super) struct Metric {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// Besides those that all have.
    pub(super) labels: &'static [&'static str],
    pub(super) help: &'static str,
}

pub(super) struct Page {
    common: Vec<LabelPair>,
    /// Of each metric.
    max_series: usize,
    dropped: Vec<(&'static str, usize)>,
    families: Vec<MetricFamily>,
}

impl Page {
    pub(super) fn new(common: Vec<LabelPair>, max_series: usize) -> Self {
        Self { common, max_series, dropped: Vec::new(), families: Vec::new() }
    }

    /// A metric without labels of its own.
    pub(super) fn one(&mut self, metric: &Metric, value: f64) {
        self.add(metric, [([""; 0], value)]);
    }

    /// A metric's series, each with the values of its labels; at most as many as are allowed, the rest is counted.
    pub(super) fn add<L: AsRef<str>, const N: usize>(
        &mut self,
        metric: &Metric,
        series: impl IntoIterator<Item = ([L; N], f64)>,
    ) {
        assert_eq!(N, metric.labels.len(), "{} has other labels", metric.name);
        let mut series = series.into_iter();
        let samples = series.by_ref().take(self.max_series).map(|(labels, value)| {
            let mut sample = Sample::from_label(self.labels(metric, &labels));
            set(&mut sample, metric, value);
            sample
        });
        let samples: Vec<_> = samples.collect();
        let left = series.count();
        if left > 0 {
            self.dropped.push((metric.name, left));
        }
        self.push(metric, samples);
    }

    /// A histogram; what was observed is divided by `unit`.
    pub(super) fn histogram(&mut self, metric: &Metric, seen: &HistogramSnapshot, unit: f64) {
        self.histograms(metric, [([""; 0], seen.clone())], unit);
    }

    /// A metric's histograms, each with the values of its labels; as many as make the series that are allowed, the rest is counted.
    pub(super) fn histograms<L: AsRef<str>, const N: usize>(
        &mut self,
        metric: &Metric,
        histograms: impl IntoIterator<Item = ([L; N], HistogramSnapshot)>,
        unit: f64,
    ) {
        assert_eq!(N, metric.labels.len(), "{} has other labels", metric.name);
        let (mut samples, mut series, mut left) = (Vec::new(), 0, 0);
        for (labels, seen) in histograms {
            // Its buckets, the one without a bound, sum and count.
            let needs = seen.buckets.len() + 3;
            if series + needs > self.max_series && series > 0 {
                left += needs;
                continue;
            }
            series += needs;
            let mut sample = Sample::from_label(self.labels(metric, &labels));
            sample.set_histogram(filled(&seen, unit));
            samples.push(sample);
        }
        if left > 0 {
            self.dropped.push((metric.name, left));
        }
        self.push(metric, samples);
    }

    /// Metrics with more series than are allowed, and how many more.
    pub(super) fn dropped(&self) -> Vec<(&'static str, usize)> {
        self.dropped.clone()
    }

    pub(super) fn finish(self) -> Vec<MetricFamily> {
        self.families
    }

    fn labels<L: AsRef<str>>(&self, metric: &Metric, values: &[L]) -> Vec<LabelPair> {
        let mut labels = Vec::with_capacity(self.common.len() + values.len());
        labels.extend_from_slice(&self.common);
        labels.extend(metric.labels.iter().zip(values).map(|(name, value)| pair(name, value.as_ref())));
        labels
    }

    /// A metric without a series isn't shown: the encoder refuses it.
    fn push(&mut self, metric: &Metric, samples: Vec<Sample>) {
        if samples.is_empty() {
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(metric.name.to_owned());
        family.set_help(metric.help.to_owned());
        family.set_field_type(match metric.kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
            Kind::Histogram => MetricType::HISTOGRAM,
        });
        family.set_metric(samples);
        self.families.push(family);
    }
}

fn filled(seen: &HistogramSnapshot, unit: f64) -> Histogram {
    let mut total = 0;
    let buckets = seen.buckets.iter().map(|(bound, count)| {
        total += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound as f64 / unit);
        bucket.set_cumulative_count(total);
        bucket
    });
    let buckets: Vec<_> = buckets.collect();
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets);
    histogram.set_sample_count(total + seen.above);
    histogram.set_sample_sum(seen.sum as f64 / unit);
    histogram
}

/// A label.
pub(super) fn pair(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

fn set(sample: &mut Sample, metric: &Metric, value: f64) {
    match metric.kind {
        Kind::Counter => {
            let mut counter = Counter::default();
            counter.set_value(value);
            sample.set_counter(counter);
        }
        Kind::Gauge => {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            sample.set_gauge(gauge);
        }
        Kind::Histogram => unreachable!("{} is a histogram: Page::histogram is its way", metric.name),
    }
}
