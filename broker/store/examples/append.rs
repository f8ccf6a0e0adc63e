//! How fast one thread appends: 1 KiB messages in batches of 32, with the flusher and the dispatcher behind it.
//!
//! `cargo run --release -p gantry-store --example append -- DIRECTORY [messages] [sync]`

use std::sync::Arc;
use std::time::{Duration, Instant};

use gantry_store::{Append, Config, Dispatched, Events, Flush, NewMessage, PhysicalOffset, StoreFailure, open};

struct Quiet;

impl Events for Quiet {
    fn flushed(&self, _: PhysicalOffset) {}
    fn dispatched(&self, _: &[Dispatched]) {}
    fn failed(&self, _: &Arc<StoreFailure>) {}
}

#[expect(clippy::print_stdout, reason = "the example's answer")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let directory = arguments.first().ok_or("which directory?")?;
    let messages: u32 = arguments.get(1).map_or(Ok(2_000_000), |count| count.parse())?;
    let flush = if arguments.get(2).is_some() { Flush::Sync } else { Flush::Async { interval_ms: 500 } };
    let (store, mut appender) = open(Config { flush, ..Config::new(directory) }, Arc::new(Quiet))?;

    let batch: Vec<Append> = (0..32).map(|queue| message(queue % 4).into()).collect();
    let mut results = Vec::with_capacity(batch.len());
    let (begun, cpu_begun) = (Instant::now(), thread_cpu()?);
    for _ in 0..messages as usize / batch.len() {
        results.clear();
        appender.append(&batch, &mut results);
        let last = results.drain(..).next_back().ok_or("no result")??;
        store.confirm(last.end);
    }
    let rate = |took: Duration| f64::from(messages) / took.as_secs_f64();
    let cpu = thread_cpu()?.saturating_sub(cpu_begun);
    println!("{:.0} messages/s appended, {:.0} a second of the appender's CPU", rate(begun.elapsed()), rate(cpu));
    while store.watermarks().dispatched < store.watermarks().written {
        std::thread::yield_now();
    }
    println!("{:.0} messages/s dispatched", rate(begun.elapsed()));
    store.close()?;
    Ok(())
}

/// What this thread has used of a CPU.
fn thread_cpu() -> Result<Duration, Box<dyn std::error::Error>> {
    let schedule = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(Duration::from_nanos(schedule.split(' ').next().ok_or("no schedstat")?.parse()?))
}

fn message(queue_id: u32) -> NewMessage {
    NewMessage {
        topic: "BenchmarkTest".into(),
        queue_id,
        flag: 0,
        sys_flag: 0,
        born_timestamp_ms: 0,
        born_host: ([127, 0, 0, 1], 1234).into(),
        store_host: ([127, 0, 0, 1], 10911).into(),
        reconsume_times: 0,
        prepared_offset: 0,
        body: vec![b'x'; 1024].into(),
        properties: bytes::Bytes::from_static(b"UNIQ_KEY\x017F0000010A2B18B4AAC20000\x02WAIT\x01true\x02TAGS\x01A\x02"),
    }
}
