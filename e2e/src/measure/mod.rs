//! Figures of the store, for people: `gantry-e2e store …`. Nothing is asserted.
//!
//! All but [`flush`] use the store's own interface in this process, so that it is the store that is measured.

#![expect(clippy::cast_precision_loss, reason = "figures for people, far below 2^52")]

mod append;
mod delete;
mod flush;
mod reads;
mod recovery;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use gantry_store::{
    Append, Appender, Config, Dispatched, Events, Flush, NewMessage, PhysicalOffset, Store, StoreFailure,
};

use crate::{logs, wait};

const TOPIC: &str = "Measured";
const QUEUES: u32 = 4;
const BATCH: u32 = 32;

/// What to measure.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Measure {
    /// Acknowledged messages a second of a real broker with SYNC_FLUSH, by the number of producers.
    Flush(flush::Options),
    /// CPU seconds for a million messages appended, flushed in the background and dispatched.
    Append(append::Options),
    /// Seconds from opening a store to its being open, for each GiB of log: after a kill, and after the checkpoint was lost.
    Recovery(recovery::Options),
    /// Random reads of 4 KiB a second, from a cold and a warm page cache.
    Reads(reads::Options),
    /// How long deleting takes under load, and what producers see of it.
    Delete(delete::Options),
}

/// Measures, and says what.
pub fn run(measure: &Measure) -> anyhow::Result<String> {
    match measure {
        Measure::Flush(options) => flush::run(options),
        Measure::Append(options) => append::run(options),
        Measure::Recovery(options) => recovery::run(options),
        Measure::Reads(options) => reads::run(options),
        Measure::Delete(options) => delete::run(options),
    }
}

/// Where the store is made. It is removed afterwards.
#[derive(Clone, Debug, clap::Args)]
struct Place {
    /// A folder on the disk to measure; a folder of its own is made there.
    #[arg(long, default_value = "/var/tmp")]
    dir: PathBuf,
}

impl Place {
    fn make(&self) -> anyhow::Result<tempfile::TempDir> {
        tempfile::TempDir::with_prefix_in("gantry-measure-", &self.dir).with_context(|| self.dir.display().to_string())
    }
}

/// Nobody listens.
struct Quiet;

impl Events for Quiet {
    fn flushed(&self, _: PhysicalOffset) {}
    fn dispatched(&self, _: &[Dispatched]) {}
    fn failed(&self, failure: &Arc<StoreFailure>) {
        logs::say(&failure.to_string());
    }
}

fn config(root: &Path) -> Config {
    Config { flush: Flush::Async { interval_ms: 500 }, ..Config::new(root) }
}

fn open(config: Config) -> anyhow::Result<(Store, Appender)> {
    Ok(gantry_store::open(config, Arc::new(Quiet))?)
}

/// Messages of so many bytes of body, to append at once.
fn batch(body_bytes: usize) -> Vec<Append> {
    (0..BATCH).map(|number| message(number % QUEUES, body_bytes).into()).collect()
}

fn message(queue_id: u32, body_bytes: usize) -> NewMessage {
    NewMessage {
        topic: TOPIC.into(),
        queue_id,
        flag: 0,
        sys_flag: 0,
        born_timestamp_ms: 0,
        born_host: ([127, 0, 0, 1], 1234).into(),
        store_host: ([127, 0, 0, 1], 10911).into(),
        reconsume_times: 0,
        prepared_offset: 0,
        body: vec![b'x'; body_bytes].into(),
        properties: bytes::Bytes::from_static(b"UNIQ_KEY\x017F0000010A2B18B4AAC20000\x02TAGS\x01A\x02"),
    }
}

/// Appends a batch, which must succeed, and confirms it.
fn append(store: &Store, appender: &mut Appender, batch: &[Append], results: &mut Vec<Appended>) -> anyhow::Result<()> {
    results.clear();
    appender.append(batch, results);
    for result in results.drain(..) {
        store.confirm(result?.end);
    }
    Ok(())
}

type Appended = Result<gantry_store::Appended, gantry_store::AppendError>;

/// Appends until the log has so many bytes; all of it is flushed and dispatched then.
fn fill(store: &Store, appender: &mut Appender, bytes: u64, body_bytes: usize) -> anyhow::Result<()> {
    let (batch, mut results) = (batch(body_bytes), Vec::new());
    while store.watermarks().written.0 < bytes {
        append(store, appender, &batch, &mut results)?;
    }
    settle(store)
}

fn settle(store: &Store) -> anyhow::Result<()> {
    wait::until("flush and dispatch", std::time::Duration::from_mins(10), || {
        ensure!(store.failure().is_none(), "the store has failed");
        let marks = store.watermarks();
        Ok((marks.flushed == marks.written && marks.dispatched == marks.written).then_some(()))
    })
}

/// Empties the page cache: as root.
fn drop_caches() -> anyhow::Result<()> {
    rustix::fs::sync();
    std::fs::write("/proc/sys/vm/drop_caches", "3").context("emptying the page cache needs root")
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}
