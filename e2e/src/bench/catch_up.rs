//! What an empty slave that fetches the whole log costs the producers.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::runtime::Runtime;

use super::sender::{self, Sending, Tally};
use super::{MIB, Options};
use crate::group::{self, Group, Status, replica_name};
use crate::{admin, logs};

/// How long the slave may take.
const CAUGHT_UP_WITHIN: Duration = Duration::from_hours(1);

/// How long the set may take to leave out a slave that is gone.
const SHRUNK_WITHIN: Duration = Duration::from_secs(1);

/// What to run.
#[derive(Clone, Debug, clap::Args)]
pub struct CatchUp {
    /// MiB of the log before the slave is emptied. Each of the replicas takes as much of the disk.
    #[arg(long, default_value_t = 10_240)]
    pub mib: u64,
    /// Seconds of sending before and after.
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
    /// Connections that send meanwhile.
    #[arg(long, default_value_t = 1)]
    pub connections: u32,
    /// Sends on their way, on each connection.
    #[arg(long, default_value_t = 1)]
    pub in_flight: u32,
    /// The group flushes before it acknowledges.
    #[arg(long)]
    pub flush: bool,
}

/// What was measured.
#[derive(Debug)]
pub struct CaughtUp {
    bytes: u64,
    took: Duration,
    before: Phase,
    during: Phase,
    after: Phase,
}

#[derive(Debug)]
struct Phase {
    tally: Tally,
    seconds: f64,
}

const TOPIC: &str = "CatchUp";

/// Fills a log, empties a slave's store, and watches it come back under a load.
pub fn catch_up(options: &CatchUp) -> anyhow::Result<CaughtUp> {
    let flush = if options.flush { "Sync" } else { "Async" };
    let group = Group::start(&group::Options { gates: true, flush, ..group::Options::default() })?;
    let broker = master_address(&group.status()?)?;
    admin::create_topic(group.nameserver(), &broker, TOPIC, 4)?;
    // The generator has a thread of its own: this one waits for processes.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    fill(&runtime, &group, options, &broker)?;
    group.wait_settled(CAUGHT_UP_WITHIN)?;
    let load = sending(options.connections, options.in_flight, 1024);
    let load = runtime.block_on(sender::start(&load, &broker))?;
    let quiet = Duration::from_secs(options.seconds);
    let before = phase(&load, || runtime.block_on(load.go_on(quiet)))?;
    let slave = take_a_slave_down(&group)?;
    let bytes = log_end(&group.status()?)?;
    let mut took = Duration::ZERO;
    let during = phase(&load, || {
        let began = Instant::now();
        group.let_start(slave)?;
        group.wait_settled(CAUGHT_UP_WITHIN)?;
        took = began.elapsed();
        Ok(())
    })?;
    let after = phase(&load, || runtime.block_on(load.go_on(quiet)))?;
    runtime.block_on(load.stop())?;
    Ok(CaughtUp { bytes, took, before, during, after })
}

fn fill(runtime: &Runtime, group: &Group, options: &CatchUp, broker: &str) -> anyhow::Result<()> {
    let load = runtime.block_on(sender::start(&sending(4, 32, 4096), broker))?;
    let mut told = 0;
    loop {
        runtime.block_on(load.go_on(Duration::from_millis(200)))?;
        let mib = log_end(&group.status()?)? / MIB;
        if mib >= told + 1024 {
            logs::say(&format!("{mib} of {} MiB are filled", options.mib));
            told = mib;
        }
        if mib >= options.mib {
            break runtime.block_on(load.stop()).map(|_| ());
        }
    }
}

/// Kills a slave, empties its store, and waits until the master goes on without it: that pause is another matter.
fn take_a_slave_down(group: &Group) -> anyhow::Result<usize> {
    let status = group.status()?;
    let all = 0..status.replicas.len();
    let slave = all.into_iter().find(|ordinal| Some(replica_name(*ordinal)) != status.master);
    let slave = slave.context("the group has no slave")?;
    group.take_down(slave)?;
    let store = group.store(slave);
    std::fs::remove_dir_all(&store).with_context(|| format!("removing {}", store.display()))?;
    group.wait_for("an in-sync set without the slave", |status| !status.in_sync.contains(&replica_name(slave)))?;
    std::thread::sleep(SHRUNK_WITHIN);
    Ok(slave)
}

fn phase(load: &Sending, mut meanwhile: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Phase> {
    load.take();
    let began = Instant::now();
    meanwhile()?;
    let (tally, seconds) = (load.take(), began.elapsed().as_secs_f64());
    if tally.acked() == 0 {
        bail!("nothing was acknowledged for {seconds:.1} s");
    }
    Ok(Phase { tally, seconds })
}

fn sending(connections: u32, in_flight: u32, size: usize) -> Options {
    Options {
        broker: None,
        nameserver: None,
        pid: Vec::new(),
        topic: TOPIC.to_owned(),
        queues: 4,
        connections,
        in_flight,
        size,
        without_keys: false,
        seconds: 0,
        warm_up: 0,
        replicas: 3,
        flush: false,
        asynchronous: false,
    }
}

fn master(status: &Status) -> anyhow::Result<&group::Replica> {
    let master = status.replicas.iter().find(|replica| Some(&replica.name) == status.master.as_ref());
    master.with_context(|| format!("there is no master: {status:?}"))
}

fn master_address(status: &Status) -> anyhow::Result<String> {
    master(status)?.address.clone().context("the master has no address")
}

fn log_end(status: &Status) -> anyhow::Result<u64> {
    Ok(master(status)?.max_offset.context("the master tells no log end")? as u64)
}

impl fmt::Display for CaughtUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mib, seconds) = (self.bytes as f64 / MIB as f64, self.took.as_secs_f64());
        writeln!(f, "an empty slave was in sync after {seconds:.1} s: {mib:.0} MiB, {:.1} MiB/s", mib / seconds)?;
        for (name, phase) in [("before", &self.before), ("during", &self.during), ("after", &self.after)] {
            let quantile = |share| phase.tally.quantile_ms(share);
            writeln!(
                f,
                "{name}: {:.0} sends/s over {:.1} s, p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, worst {:.1} ms, refused {}",
                phase.tally.acked() as f64 / phase.seconds,
                phase.seconds,
                quantile(0.5),
                quantile(0.99),
                quantile(0.999),
                quantile(1.0),
                phase.tally.refused()
            )?;
        }
        Ok(())
    }
}
