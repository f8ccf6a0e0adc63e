//! `docs/metrics.md`, made from the tables of metrics.

use std::fmt::Write as _;

use super::page::Metric;
use super::{TABLES, process};

const HEAD: &str = "\
<!-- Made by `gantry metrics` from broker/src/observe/metrics. Don't edit. -->

# Metrics of a broker

At `/metrics` on `metricsPromExporterPort`, in Prometheus' text format. Every value is read when it is asked for. All but the process' own
carry RocketMQ's labels `cluster` (`brokerClusterName`), `node_type` (`broker`) and `node_id` (`brokerName`), and `replica` (`gantryReplica`).
Names that Apache RocketMQ 5 has too mean the same there.

`/livez` says whether the process moves, `/readyz` whether it is a master that serves or a slave that follows one. Both answer 200 or 503, and
say why.

A metric with a series for each topic, group or client shows `gantryMetricsMaxSeries` (20000) of them at most; how many it left out is in
`gantry_metrics_series_dropped`.
";

/// The document's text.
pub fn document() -> String {
    let mut text = HEAD.to_owned();
    for (heading, metrics) in TABLES {
        begin(&mut text, heading);
        for metric in *metrics {
            row(&mut text, metric);
        }
    }
    begin(&mut text, "The process");
    for (name, help) in process::descriptions() {
        push(&mut text, format_args!("| `{name}` | | | {} |\n", help.trim_end_matches('.')));
    }
    text
}

fn begin(text: &mut String, heading: &str) {
    push(text, format_args!("\n## {heading}\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n"));
}

fn row(text: &mut String, metric: &Metric) {
    let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
    let kind = format!("{:?}", metric.kind).to_lowercase();
    push(text, format_args!("| `{}` | {kind} | {} | {} |\n", metric.name, labels.join(", "), metric.help));
}

fn push(text: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a String can't fail.
    text.write_fmt(what).ok();
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_document_is_what_is_registered() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
        let on_disk = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            on_disk == document(),
            "{} differs from the metrics; run: cargo run -p gantry-broker -- metrics > docs/metrics.md",
            path.display()
        );
    }

    #[test]
    fn every_metric_has_a_name_of_its_own() {
        let mut seen = HashSet::new();
        for metric in TABLES.iter().flat_map(|(_, metrics)| metrics.iter()) {
            assert!(seen.insert(metric.name), "{} is registered twice", metric.name);
        }
    }
}
