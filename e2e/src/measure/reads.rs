//! Random reads.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::ensure;
use gantry_store::{QueueOffset, ReadLimits, Store};

use super::{Place, QUEUES, TOPIC, config, drop_caches, fill, open};

/// How.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    place: Place,
    /// GiB of log, in records of 4 KiB: less than the memory for a warm log.
    #[arg(long, default_value_t = 8)]
    gib: u64,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Readers at once.
    #[arg(long, default_value_t = 8)]
    readers: u64,
}

/// A record has this and its head.
const BODY_BYTES: usize = RECORD_BYTES as usize - 160;
const RECORD_BYTES: u64 = 4096;

pub(super) fn run(options: &Options) -> anyhow::Result<String> {
    let folder = options.place.make()?;
    let (store, mut appender) = open(config(folder.path()))?;
    fill(&store, &mut appender, options.gib << 30, BODY_BYTES)?;
    store.close()?;
    drop((store, appender));
    let mut said = String::new();
    for readers in [1, options.readers] {
        // Closed: the system keeps pages that are mapped.
        drop_caches()?;
        let (store, _appender) = open(config(folder.path()))?;
        // Most of what is read is read for the first time.
        let limit = (options.gib << 30) / RECORD_BYTES / 8 / readers;
        let cold = read(&store, readers, options.seconds, limit)?;
        store.close()?;
        writeln!(said, "{readers} readers, cold log: {cold:.0} random reads of 4 KiB a second")?;
    }
    let (store, _appender) = open(config(folder.path()))?;
    // All of it once, in order.
    let mut from = store.min_offset();
    while let gantry_store::ReadLog::Bytes { bytes, next } = store.read_log(from, 8 << 20)? {
        std::hint::black_box(bytes.iter().step_by(4096).fold(0_u8, |sum, byte| sum.wrapping_add(*byte)));
        from = next;
    }
    for readers in [1, options.readers] {
        let warm = read(&store, readers, options.seconds, u64::MAX)?;
        writeln!(said, "{readers} readers, warm log: {warm:.0} random reads of 4 KiB a second")?;
    }
    store.close()?;
    Ok(said)
}

/// Reads a second, for so many seconds or until each reader has done so many.
fn read(store: &Store, readers: u64, seconds: u64, limit: u64) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let end = begun + Duration::from_secs(seconds);
    let counts: Vec<anyhow::Result<u64>> = std::thread::scope(|scope| {
        let started: Vec<_> =
            (0..readers).map(|seed| scope.spawn(move || read_until(store, end, limit, seed))).collect();
        let panicked = |_| Err(anyhow::anyhow!("a reader panicked"));
        started.into_iter().map(|reader| reader.join().unwrap_or_else(panicked)).collect()
    });
    let reads: u64 = counts.into_iter().sum::<anyhow::Result<u64>>()?;
    Ok(reads as f64 / begun.elapsed().as_secs_f64())
}

fn read_until(store: &Store, end: Instant, limit: u64, seed: u64) -> anyhow::Result<u64> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut count = 0;
    while Instant::now() < end && count < limit {
        let queue = random.u32(0..QUEUES);
        let range = store.queue_range(TOPIC, queue);
        let offset = QueueOffset(random.u64(range.min.0..range.max.0));
        let limits = ReadLimits::new(1, usize::MAX);
        let read = store.read_queue(TOPIC, queue, offset, limits, |_| true)?;
        ensure!(read.messages.len() == 1, "queue {queue} offset {offset}: {:?}", read.status);
        // Every page of it, as a socket would.
        std::hint::black_box(read.messages[0].iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)));
        count += 1;
    }
    Ok(count)
}
