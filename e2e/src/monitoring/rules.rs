//! The chart's alert rules, and the same on a clock that runs faster.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// By how much `for` and the windows in brackets are cut short: a minute becomes five seconds, in which a busy machine still replaces a
/// lost master.
pub const HASTE: u64 = 12;

/// A Prometheus rule file.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    groups: Vec<RuleGroup>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RuleGroup {
    name: String,
    rules: Vec<Rule>,
}

/// One rule of either kind.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What an alert is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alert: Option<String>,
    /// What a recorded series is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record: Option<String>,
    /// What is looked at.
    pub expr: String,
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    lasting: Option<String>,
    /// Added to the alert.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// For whoever is on call.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Where the repository has a file.
pub(super) fn repository(path: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", path].iter().collect()
}

impl Rules {
    /// The chart's.
    pub fn of_chart() -> anyhow::Result<Self> {
        let path = repository("charts/gantry/files/alerts.yaml");
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        serde_norway::from_str(&text).with_context(|| format!("reading {}", path.display()))
    }

    /// All rules.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.groups.iter().flat_map(|group| &group.rules)
    }

    /// An alert's rule.
    pub fn alert(&self, name: &str) -> anyhow::Result<&Rule> {
        self.iter()
            .find(|rule| rule.alert.as_deref() == Some(name))
            .with_context(|| format!("there is no alert {name}"))
    }

    /// The same, but that everything that takes time takes a share of it: `for`, and windows. Nothing else of an expression changes.
    pub fn hastened(mut self) -> anyhow::Result<Self> {
        for rule in self.groups.iter_mut().flat_map(|group| &mut group.rules) {
            let name = rule.alert.as_ref().or(rule.record.as_ref()).cloned().unwrap_or_default();
            rule.expr = hasten_windows(&rule.expr).with_context(|| format!("the windows of {name}"))?;
            rule.lasting = rule.lasting.as_deref().map(hasten).transpose().with_context(|| format!("for of {name}"))?;
        }
        Ok(self)
    }

    /// As Prometheus reads it: JSON is YAML.
    pub(super) fn text(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string_pretty(self)?)
    }
}

/// What stands in brackets in an expression of our rules is a window and nothing else.
fn hasten_windows(expr: &str) -> anyhow::Result<String> {
    let mut parts = expr.split('[');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (window, after) = part.split_once(']').context("a bracket stays open")?;
        text += &["[", &hasten(window)?, "]", after].concat();
    }
    Ok(text)
}

/// A duration of one unit, as `10m`.
fn hasten(duration: &str) -> anyhow::Result<String> {
    let units = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    let parsed = units.iter().find_map(|(unit, ms)| Some(duration.strip_suffix(unit)?.parse::<u64>().ok()? * ms));
    let ms = parsed.with_context(|| format!("{duration:?} is no duration of one unit"))?;
    Ok(format!("{}ms", ms / HASTE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn read(path: &str) -> String {
        std::fs::read_to_string(repository(path)).unwrap()
    }

    fn alerts() -> Vec<Rule> {
        Rules::of_chart().unwrap().iter().filter(|rule| rule.alert.is_some()).cloned().collect()
    }

    #[test]
    fn only_times_are_cut_short() {
        assert_eq!(hasten("5m").unwrap(), "25000ms");
        assert_eq!(hasten("0m").unwrap(), "0ms");
        assert!(hasten("1h30m").is_err() && hasten("5").is_err());
        let whole = "rate(a{x=\"y\"}[5m]) > 0.5 and predict_linear(b[1h], 4 * 3600) > 1";
        let short = "rate(a{x=\"y\"}[25000ms]) > 0.5 and predict_linear(b[300000ms], 4 * 3600) > 1";
        assert_eq!(hasten_windows(whole).unwrap(), short);
        assert!(hasten_windows("rate(a[5m").is_err());
        let (whole, short) = (Rules::of_chart().unwrap(), Rules::of_chart().unwrap().hastened().unwrap());
        for (whole, short) in whole.iter().zip(short.iter()) {
            let outside = |expr: &str| -> Vec<String> {
                expr.split('[').map(|part| part.rsplit(']').next().unwrap_or_default().to_owned()).collect()
            };
            assert_eq!(outside(&whole.expr), outside(&short.expr));
            assert_eq!((&whole.labels, &whole.annotations), (&short.labels, &short.annotations));
        }
    }

    #[test]
    fn every_alert_is_tested_as_one_that_rings_and_as_one_that_does_not() {
        let tests: Value = serde_norway::from_str(&read("e2e/alerts/tests.yaml")).unwrap();
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let cases: Vec<Value> = list(&tests["tests"]).iter().flat_map(|test| list(&test["alert_rule_test"])).collect();
        for rule in alerts() {
            let of_rule = || cases.iter().filter(|case| case["alertname"].as_str() == rule.alert.as_deref());
            let rings = |case: &&Value| !list(&case["exp_alerts"]).is_empty();
            assert!(of_rule().any(|case| rings(&case)), "no test makes {:?} ring", rule.alert);
            assert!(of_rule().any(|case| !rings(&case)), "no test keeps {:?} from ringing", rule.alert);
        }
    }

    #[test]
    fn every_alert_tells_whoever_is_on_call_how_bad_it_is_and_what_to_do() {
        let runbooks = read("docs/runbooks.md");
        let sections: Vec<&str> = runbooks.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        let alerts = alerts();
        for rule in &alerts {
            let name = rule.alert.as_deref().unwrap();
            assert!(matches!(rule.labels["severity"].as_str(), "critical" | "warning" | "info"), "{name}");
            assert!(rule.annotations["description"].len() > rule.annotations["summary"].len(), "{name}");
            let (_, anchor) = rule.annotations["runbook_url"].split_once("/docs/runbooks.md#").expect(name);
            assert_eq!(anchor, name.to_lowercase());
            assert!(sections.contains(&name), "docs/runbooks.md has no section {name}");
        }
        let stray: Vec<_> =
            sections.iter().filter(|name| !alerts.iter().any(|rule| rule.alert.as_deref() == Some(**name))).collect();
        assert!(stray.is_empty(), "sections of docs/runbooks.md without an alert: {stray:?}");
    }
}
