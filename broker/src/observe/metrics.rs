//! What Prometheus fetches. Nothing is collected between two scrapes: each value is read where it is kept when somebody asks.
//!
//! Every metric is one [`Metric`] in the table of its file; `docs/metrics.md` is made from these tables.
#![expect(clippy::cast_precision_loss, reason = "Prometheus knows only f64; beyond 2^53 the last bits don't matter")]

mod clients;
mod document;
mod ha;
mod page;
mod process;
mod storage;
mod traffic;

pub use document::document;

use prometheus::TextEncoder;
use prometheus::proto::LabelPair;

use super::{Observer, Parts};
use crate::config::BrokerConfig;
use page::{Kind, Metric, Page, pair};

/// All of them, with a heading each.
const TABLES: &[(&str, &[&Metric])] = &[
    ("Replication", ha::METRICS),
    ("Storage", storage::METRICS),
    ("Clients, topics and groups", clients::METRICS),
    ("Requests and traffic", traffic::METRICS),
    ("This exporter", EXPORTER),
];

const EXPORTER: &[&Metric] = &[&DROPPED];

static DROPPED: Metric = Metric {
    name: "gantry_metrics_series_dropped",
    kind: Kind::Gauge,
    labels: &["metric"],
    help: "Series of a metric left out of this scrape, because there are more than gantryMetricsMaxSeries",
};

/// The labels of every series: RocketMQ's, and which replica it is.
pub(super) fn labels(config: &BrokerConfig) -> Vec<LabelPair> {
    vec![
        pair("cluster", &config.cluster),
        pair("node_type", "broker"),
        pair("node_id", &config.name),
        pair("replica", &config.replica),
    ]
}

/// Content type of what [`Observer::metrics`] gives.
pub(super) const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

impl Observer {
    /// All metrics in Prometheus' text format.
    pub(super) fn metrics(&self) -> prometheus::Result<String> {
        let mut page = Page::new(self.labels.clone(), self.max_series);
        storage::recovery(&mut page, &self.recovery.snapshot());
        if let Some(parts) = self.parts.get() {
            let marks = parts.core.store.watermarks();
            ha::collect(&mut page, parts, self.min_in_sync, marks);
            storage::collect(&mut page, &parts.core.store, marks);
            clients::collect(&mut page, parts);
            traffic::collect(&mut page, parts);
        }
        let dropped = page.dropped();
        page.add(&DROPPED, dropped.iter().map(|(name, count)| ([*name], *count as f64)));
        let mut families = page.finish();
        families.extend(process::collect());
        let mut text = String::with_capacity(64 << 10);
        TextEncoder::new().encode_utf8(&families, &mut text)?;
        Ok(text)
    }
}
