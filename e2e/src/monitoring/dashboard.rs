//! The chart's dashboard, as far as it asks Prometheus.

use std::time::SystemTime;

use anyhow::{Context, bail};
use serde_json::Value;

use super::Monitoring;
use super::rules::repository;

/// What a dashboard asks.
#[derive(Debug)]
pub enum Question {
    /// For the values of one of its variables.
    Values {
        /// The variable.
        of: String,
        /// Their label…
        label: String,
        /// …in these series.
        series: String,
    },
    /// For what a panel shows.
    Panel {
        /// Its title.
        of: String,
        /// The query.
        expr: String,
        /// Only how it is now; or else over the time that is looked at.
        instant: bool,
    },
}

/// All questions of the chart's dashboard, with the values of its variables in their places.
pub fn questions(variables: &[(&str, &str)]) -> anyhow::Result<Vec<Question>> {
    let path = repository("charts/gantry/files/dashboard.json");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let dashboard: Value = serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut found = Vec::new();
    for variable in list(&dashboard["templating"]["list"]).iter().filter(|variable| variable["type"] == "query") {
        found.push(values(variable, variables)?);
    }
    for annotation in list(&dashboard["annotations"]["list"]) {
        found.push(panel(&annotation["name"], &annotation, variables)?);
    }
    let panels = list(&dashboard["panels"]);
    let inside = panels.iter().flat_map(|row| list(&row["panels"]));
    for its in panels.iter().cloned().chain(inside) {
        for target in list(&its["targets"]) {
            found.push(panel(&its["title"], &target, variables)?);
        }
    }
    Ok(found)
}

/// `label_values(SERIES, LABEL)`
fn values(variable: &Value, variables: &[(&str, &str)]) -> anyhow::Result<Question> {
    let query =
        variable["query"]["query"].as_str().with_context(|| format!("a variable without a query: {variable}"))?;
    let inside = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
    let (series, label) = inside
        .and_then(|inside| inside.rsplit_once(", "))
        .with_context(|| format!("{query:?} is not label_values(SERIES, LABEL)"))?;
    Ok(Question::Values {
        of: variable["name"].as_str().unwrap_or_default().to_owned(),
        label: label.to_owned(),
        series: filled_in(series, variables)?,
    })
}

fn panel(of: &Value, target: &Value, variables: &[(&str, &str)]) -> anyhow::Result<Question> {
    let of = of.as_str().with_context(|| format!("nothing says what this is: {target}"))?.to_owned();
    let expr = target["expr"].as_str().with_context(|| format!("{of} asks nothing"))?;
    let expr = filled_in(expr, variables).with_context(|| of.clone())?;
    Ok(Question::Panel { of, expr, instant: target["instant"] == true })
}

fn filled_in(text: &str, variables: &[(&str, &str)]) -> anyhow::Result<String> {
    let mut text = text.to_owned();
    for (name, value) in variables {
        text = text.replace(&format!("${name}"), value);
    }
    if text.contains('$') {
        bail!("a variable of {text:?} isn't known");
    }
    Ok(text)
}

impl Question {
    /// Whether Prometheus has an answer with at least one number, of the time since `from`.
    pub fn is_answered(&self, monitoring: &Monitoring<'_>, from: SystemTime) -> anyhow::Result<bool> {
        let prometheus = &monitoring.prometheus;
        match self {
            Self::Values { label, series, .. } => {
                let found = prometheus.ask(&format!("label/{label}/values"), &[("match[]", series)])?;
                Ok(found.as_array().is_some_and(|values| !values.is_empty()))
            }
            Self::Panel { expr, instant: true, .. } => {
                let found = prometheus.ask("query", &[("query", expr)])?;
                Ok(series(&found).any(|its| is_number(&its["value"])))
            }
            Self::Panel { expr, instant: false, .. } => {
                let (from, to) = (seconds(from)?, seconds(SystemTime::now())?);
                let found =
                    prometheus.ask("query_range", &[("query", expr), ("start", &from), ("end", &to), ("step", "1")])?;
                Ok(series(&found).any(|its| its["values"].as_array().is_some_and(|all| all.iter().any(is_number))))
            }
        }
    }
}

fn series(answer: &Value) -> impl Iterator<Item = &Value> {
    answer["result"].as_array().into_iter().flatten()
}

/// `[TIME, "VALUE"]`
fn is_number(value: &Value) -> bool {
    value[1].as_str().and_then(|text| text.parse::<f64>().ok()).is_some_and(f64::is_finite)
}

fn seconds(time: SystemTime) -> anyhow::Result<String> {
    Ok(time.duration_since(SystemTime::UNIX_EPOCH)?.as_secs_f64().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_filled_in_and_none_is_forgotten() {
        let all = [("group", "a"), ("namespace", "n"), ("cluster", "c"), ("__rate_interval", "1m")];
        let found = questions(&all).unwrap();
        assert!(found.iter().filter(|question| matches!(question, Question::Values { .. })).count() == 3, "{found:#?}");
        assert!(found.len() > 50, "{found:#?}");
        assert!(questions(&all[1..]).is_err(), "the group isn't known");
    }
}
