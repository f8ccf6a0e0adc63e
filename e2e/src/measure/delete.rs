//! Deleting under load.

use std::time::{Duration, Instant};

use gantry_store::{Append, Appender, Config, DeleteWhen, Retention, Store};

use super::{Place, append, batch, config, fill, gib, open};
use crate::quantiles::Quantiles;

/// How.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    place: Place,
    /// GiB to delete, a segment each.
    #[arg(long, default_value_t = 10)]
    gib: u64,
    /// Seconds of load before the deletion.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Batches of 32 KiB appended in a second.
    #[arg(long, default_value_t = 1000)]
    rate: u64,
}

pub(super) fn run(options: &Options) -> anyhow::Result<String> {
    let folder = options.place.make()?;
    let retention = Retention {
        reserved: Duration::ZERO,
        // Never by itself: only when it is asked for.
        delete_when: DeleteWhen::at(24),
        max_used_percent: 100,
        forcibly: false,
        files_a_round: options.gib as usize,
        ..Retention::default()
    };
    let (store, mut appender) = open(Config { retention, ..config(folder.path()) })?;
    fill(&store, &mut appender, options.gib << 30, 1024)?;
    let mut load = Load { batch: batch(1024), pause: Duration::from_secs(1) / options.rate.max(1) as u32 };

    let end = Instant::now() + Duration::from_secs(options.seconds);
    let before = load.run(&store, &mut appender, |_| Instant::now() >= end)?;
    let (oldest, begun) = (store.min_offset(), Instant::now());
    let wanted = store.disk().deleted_segments + options.gib;
    store.release(store.watermarks().dispatched);
    store.delete_expired();
    let deadline = begun + Duration::from_mins(10);
    let during =
        load.run(&store, &mut appender, |store| store.disk().deleted_segments >= wanted || Instant::now() > deadline)?;
    let took = begun.elapsed();
    let deleted = store.min_offset() - oldest;
    store.close()?;
    let line = |what: &str, latencies: &Quantiles| {
        format!(
            "{what}: {} appends of 32 KiB, median {} us, p99 {} us, worst {} us",
            latencies.len(),
            latencies.median(),
            latencies.share(0.99),
            latencies.worst()
        )
    };
    Ok(format!(
        "{:.1} GiB deleted in {:.2} s under load\n{}\n{}",
        gib(deleted),
        took.as_secs_f64(),
        line("before", &before),
        line("meanwhile", &during)
    ))
}

/// Batches at a fixed rate.
struct Load {
    batch: Vec<Append>,
    pause: Duration,
}

impl Load {
    /// Latencies of the batches in microseconds.
    fn run(
        &mut self,
        store: &Store,
        appender: &mut Appender,
        is_over: impl Fn(&Store) -> bool,
    ) -> anyhow::Result<Quantiles> {
        let (mut latencies, mut results) = (Vec::new(), Vec::new());
        let mut next = Instant::now();
        while !is_over(store) {
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            let due = next;
            next += self.pause;
            append(store, appender, &self.batch, &mut results)?;
            // From when it was due: a batch that waits for the one before it is late, too.
            latencies.push(due.elapsed().as_micros() as i64);
        }
        Ok(Quantiles::of(latencies))
    }
}
