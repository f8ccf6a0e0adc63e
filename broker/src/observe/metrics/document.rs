//! `docs/metrics.md`, made from the tables of metrics.

use std::fmt::Write as _;

use super::page::Metric;
use super::{TABLES, process};

const HEAD: &str = "\
<!-- Made by `gantry metrics` and `gantry-operator metrics` from what each registers. Don't edit. -->

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
        // The operator's part follows, and has a test of its own.
        assert!(
            on_disk.starts_with(&(document() + "\n# Metrics of an operator\n")),
            "{} differs from the metrics; run: (cargo run -p gantry-broker -- metrics && cargo run -p gantry-operator -- metrics) > docs/metrics.md",
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

    fn repository(path: &str) -> String {
        std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)).unwrap()
    }

    #[test]
    fn every_alert_has_a_runbook_and_is_tested_to_fire_and_not_to_fire() {
        let (rules, runbooks) = (repository("charts/gantry/files/alerts.yaml"), repository("docs/runbooks.md"));
        let tests = repository("e2e/alerts/tests.yaml");
        let headings: HashSet<_> = runbooks.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        let alerts: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
        assert!(!alerts.is_empty());
        let urls: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("runbook_url: ")).collect();
        assert_eq!(urls.len(), alerts.len(), "each alert has one runbook_url");
        for (alert, url) in alerts.iter().zip(urls) {
            assert!(headings.contains(alert), "docs/runbooks.md has no section {alert}");
            assert!(url.ends_with(&format!("runbooks.md#{}", alert.to_lowercase())), "{alert}: {url}");
            let fires = tests.contains(&format!("alertname: {alert}\n"));
            let does_not = tests.contains(&format!("alertname: {alert}, exp_alerts: []"));
            assert!(fires && does_not, "e2e/alerts/tests.yaml doesn't show {alert} to fire and not to fire");
        }
    }

    #[test]
    fn alerts_are_about_metrics_that_there_are() {
        let rules = repository("charts/gantry/files/alerts.yaml");
        let known: HashSet<_> =
            TABLES.iter().flat_map(|(_, metrics)| metrics.iter().map(|metric| metric.name)).collect();
        let words = rules.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
        let named = words.filter(|word| word.starts_with("rocketmq_") || word.starts_with("gantry_"));
        // The operator's have a test there.
        let named = named.filter(|word| !word.starts_with("gantry_operator_"));
        // The anchors of runbooks are the alerts' names in small letters.
        let metrics = named.filter(|word| !rules.contains(&format!("#{word}\n")));
        let unknown: Vec<_> = metrics.filter(|name| !known.contains(name.trim_end_matches("_bucket"))).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }
}
