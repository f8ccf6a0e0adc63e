//! What waiting for the slaves costs: `Async` and `Sync` at equal producers, turn by turn.

use comfy_table::Table;

use super::{Figures, MIB, Options, run};
use crate::logs;

/// What to run.
#[derive(Clone, Debug, clap::Args)]
pub struct Costs {
    /// How often each mode is measured; the table has the medians.
    #[arg(long, default_value_t = 3)]
    pub times: u32,
    /// The rest, as for bench.
    #[command(flatten)]
    pub options: Options,
}

/// Measures and returns the table.
pub fn costs(costs: &Costs) -> anyhow::Result<String> {
    let mut measured: [Vec<Row>; 2] = [Vec::new(), Vec::new()];
    for _ in 0..costs.times.max(1) {
        for (rows, asynchronous) in measured.iter_mut().zip([true, false]) {
            let figures = run(&Options { asynchronous, broker: None, ..costs.options.clone() })?;
            logs::say(&format!("{}: {figures}", if asynchronous { "Async" } else { "Sync" }));
            rows.push(Row::of(&figures));
        }
    }
    let [asynchronous, synchronous] = measured.map(|rows| Row::median(&rows));
    let mut table = Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header(["mode", "sends/s", "p50 ms", "p99 ms", "CPU s per M, all brokers", "log MiB/s to each slave"]);
    for (name, row) in [("Async", &asynchronous), ("Sync", &synchronous)] {
        table.add_row([
            name.to_owned(),
            format!("{:.0}", row.rate),
            format!("{:.2}", row.p50_ms),
            format!("{:.2}", row.p99_ms),
            format!("{:.1}", row.cpu),
            format!("{:.1}", row.mib),
        ]);
    }
    let less = |sync: f64, other: f64| 100.0 * (1.0 - sync / other);
    Ok(format!(
        "{table}\nSync sends {:.0} % less than Async and takes {:.0} % more CPU a message",
        less(synchronous.rate, asynchronous.rate),
        -less(synchronous.cpu, asynchronous.cpu)
    ))
}

#[derive(Clone, Copy, Debug)]
struct Row {
    rate: f64,
    p50_ms: f64,
    p99_ms: f64,
    cpu: f64,
    mib: f64,
}

impl Row {
    fn of(figures: &Figures) -> Self {
        let (acked, rate) = (figures.tally.acked() as f64, figures.tally.acked() as f64 / figures.seconds);
        Self {
            rate,
            p50_ms: figures.tally.quantile_ms(0.5),
            p99_ms: figures.tally.quantile_ms(0.99),
            cpu: figures.processes.iter().map(|used| used.cpu_seconds).sum::<f64>() / acked * 1e6,
            mib: rate * figures.log_bytes_a_message.unwrap_or(0.0) / MIB as f64,
        }
    }

    fn median(rows: &[Self]) -> Self {
        let middle = |figure: fn(&Self) -> f64| {
            let mut values: Vec<f64> = rows.iter().map(figure).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        Self {
            rate: middle(|row| row.rate),
            p50_ms: middle(|row| row.p50_ms),
            p99_ms: middle(|row| row.p99_ms),
            cpu: middle(|row| row.cpu),
            mib: middle(|row| row.mib),
        }
    }
}
