//! What the rounds showed, by kind of fault.

use std::collections::BTreeMap;

use comfy_table::Table;

use super::{Report, Round, Schedule};
use crate::quantiles::Quantiles;

pub(super) fn of(report: &Report) -> String {
    let mut kinds: BTreeMap<String, Vec<&Round>> = BTreeMap::new();
    for round in &report.rounds {
        let kind = match &round.schedule.faults[..] {
            [fault] => fault.to_string(),
            _ => "two at once".to_owned(),
        };
        kinds.entry(kind).or_default().push(round);
    }
    let mut table = Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header([
        "fault",
        "rounds",
        "failovers",
        "unavailable ms: median",
        "p99",
        "worst",
        "in sync after ms: median",
        "worst",
        "acked",
        "lost",
    ]);
    for (kind, rounds) in &kinds {
        table.add_row(row(kind, rounds));
    }
    table.add_row(row("all", &report.rounds.iter().collect::<Vec<_>>()));
    format!(
        "{table}\n{} acknowledgements: one master an epoch, each message where it was said to be; logs the same over {} bytes",
        report.attributed, report.compared_bytes
    )
}

fn row(kind: &str, rounds: &[&Round]) -> Vec<String> {
    let pauses = Quantiles::of(rounds.iter().map(|round| round.window.longest_pause_us / 1000));
    let whole = Quantiles::of(rounds.iter().map(|round| round.whole_after.as_millis() as i64));
    let sum = |figure: fn(&Round) -> u64| rounds.iter().map(|round| figure(round)).sum::<u64>().to_string();
    vec![
        kind.to_owned(),
        rounds.len().to_string(),
        sum(|round| round.failovers),
        pauses.median().to_string(),
        pauses.share(0.99).to_string(),
        pauses.worst().to_string(),
        whole.median().to_string(),
        whole.worst().to_string(),
        sum(|round| round.window.acked),
        sum(|round| round.window.lost),
    ]
}

/// A round's faults in words.
pub(super) fn words(schedule: &Schedule) -> String {
    let faults: Vec<_> = schedule.faults.iter().map(|fault| format!("{fault} ({:?})", fault.target)).collect();
    let apart = if faults.len() > 1 { format!(", {} ms apart", schedule.apart.as_millis()) } else { String::new() };
    format!("{}{apart}, for {} ms", faults.join(" + "), schedule.hold.as_millis())
}
