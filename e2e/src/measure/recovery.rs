//! How long opening takes.

use std::fmt::Write as _;
use std::time::Instant;

use super::{Place, append, batch, config, drop_caches, fill, gib, open};

/// How.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    place: Place,
    /// GiB of log, in messages of 1 KiB.
    #[arg(long, default_value_t = 4)]
    gib: u64,
    /// Also from a cold page cache: as root.
    #[arg(long)]
    cold: bool,
}

pub(super) fn run(options: &Options) -> anyhow::Result<String> {
    let folder = options.place.make()?;
    let (store, mut appender) = open(config(folder.path()))?;
    fill(&store, &mut appender, options.gib << 30, 1024)?;
    // Under way when it is killed.
    let (batch, mut results) = (batch(1024), Vec::new());
    for _ in 0..1000 {
        append(&store, &mut appender, &batch, &mut results)?;
    }
    let bytes = store.watermarks().written.0;
    drop((store, appender));

    let mut said = String::new();
    let mut measure = |what: &str| -> anyhow::Result<()> {
        let begun = Instant::now();
        let opened = open(config(folder.path()))?;
        let seconds = begun.elapsed().as_secs_f64();
        writeln!(said, "{what}: open after {seconds:.3} s, {:.3} s per GiB of log", seconds / gib(bytes))?;
        // As killed again.
        drop(opened);
        Ok(())
    };
    measure("killed")?;
    let checkpoint = folder.path().join("checkpoint");
    std::fs::remove_file(&checkpoint)?;
    measure("killed and the checkpoint lost")?;
    if options.cold {
        drop_caches()?;
        measure("killed, cold page cache")?;
        std::fs::remove_file(&checkpoint)?;
        drop_caches()?;
        measure("killed and the checkpoint lost, cold page cache")?;
    }
    Ok(said)
}
