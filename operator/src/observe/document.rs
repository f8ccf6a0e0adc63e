//! The operator's part of `docs/metrics.md`, made from what is registered.

use std::fmt::Write as _;

use super::metrics::{DEFAULT_MAX_GROUPS, Metrics};

const HEAD: &str = "
# Metrics of an operator

At `/metrics` on `--http-listen` (port 8080) of each `gantry-operator run`, beside `/livez` and `/readyz`. What it decides and reconciles is the
leading operator's to tell; the others show that they don't lead. `group` is `<namespace>/<name>` of the `BrokerGroup`, as in the operator's log.
";

/// The document's text.
pub fn document() -> prometheus::Result<String> {
    let mut text = HEAD.to_owned();
    push(
        &mut text,
        format_args!(
            "So many groups have series of their own: `--metrics-max-groups` ({DEFAULT_MAX_GROUPS}). Beside these there are the process' own, \
             as for a broker.\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n"
        ),
    );
    for metric in &Metrics::new(DEFAULT_MAX_GROUPS)?.described {
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let (name, kind, help) = (metric.name, metric.kind, metric.help);
        push(&mut text, format_args!("| `{name}` | {kind} | {} | {help} |\n", labels.join(", ")));
    }
    Ok(text)
}

fn push(text: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a String can't fail.
    text.write_fmt(what).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_what_is_registered() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
        let on_disk = std::fs::read_to_string(&path).unwrap();
        assert!(
            on_disk.ends_with(&document().unwrap()),
            "{} differs from the metrics; run: (cargo run -p gantry-broker -- metrics && cargo run -p gantry-operator -- metrics) > docs/metrics.md",
            path.display()
        );
    }

    #[test]
    fn alerts_on_the_operator_are_about_metrics_that_there_are() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/gantry/files/alerts.yaml");
        let rules = std::fs::read_to_string(path).unwrap();
        let metrics = Metrics::new(1).unwrap();
        let words = rules.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let named: Vec<_> = words.filter(|word| word.starts_with("gantry_operator_")).collect();
        assert!(!named.is_empty());
        let is_known = |name: &&str| metrics.described.iter().any(|metric| metric.name == *name);
        let unknown: Vec<_> = named.into_iter().filter(|name| !is_known(name)).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }
}
