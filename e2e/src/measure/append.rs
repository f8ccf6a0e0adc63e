//! What appending costs.

use std::time::Instant;

use super::{BATCH, Place, append, batch, config, open, settle};
use crate::process;

/// How.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    place: Place,
    /// Messages of 1 KiB.
    #[arg(long, default_value_t = 2_000_000)]
    messages: u32,
}

pub(super) fn run(options: &Options) -> anyhow::Result<String> {
    let folder = options.place.make()?;
    let (store, mut appender) = open(config(folder.path()))?;
    let (batch, mut results) = (batch(1024), Vec::new());
    let me = std::process::id();
    let (begun, cpu_before) = (Instant::now(), process::cpu_time(me).unwrap_or_default());
    for _ in 0..options.messages / BATCH {
        append(&store, &mut appender, &batch, &mut results)?;
    }
    let written = begun.elapsed();
    settle(&store)?;
    let took = begun.elapsed();
    let cpu = process::cpu_time(me).unwrap_or_default().saturating_sub(cpu_before);
    store.close()?;
    let millions = f64::from(options.messages) / 1e6;
    Ok(format!(
        "{:.2} CPU s per million appends of 1 KiB (flusher, dispatcher and index included); {:.0} a second appended, {:.0} a second \
         flushed and dispatched",
        cpu.as_secs_f64() / millions,
        f64::from(options.messages) / written.as_secs_f64(),
        f64::from(options.messages) / took.as_secs_f64(),
    ))
}
