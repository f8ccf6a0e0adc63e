//! Pipelined sends: so many connections with so many sends on their way each, as fast as answers come.
//!
//! The frames are made by hand and answers are only glanced at, so that two cores measure the broker and not the
//! generator. It can be pointed at any broker that speaks RocketMQ's remoting protocol.

#![expect(clippy::cast_precision_loss, reason = "figures for people, far below 2^52")]

mod catch_up;
mod costs;
mod frames;
mod sampler;
mod sender;

use std::fmt;
use std::time::Duration;

use anyhow::Context;

use crate::group::{self, Group};
use crate::{admin, wait};
pub use catch_up::{CatchUp, CaughtUp, catch_up};
pub use costs::{Costs, costs};
use sampler::Sampler;
use sender::Tally;

const MIB: u64 = 1 << 20;

/// What to run.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Broker to send to, host:port; without it a group is started.
    #[arg(long, requires = "nameserver")]
    pub broker: Option<String>,
    /// Name server where the broker's routes are, host:port.
    #[arg(long)]
    pub nameserver: Option<String>,
    /// Processes to watch, the broker's first; those of the started group without it.
    #[arg(long)]
    pub pid: Vec<u32>,
    /// Topic to send to; it is created.
    #[arg(long, default_value = "BenchTopic")]
    pub topic: String,
    /// Its queues, at most 10.
    #[arg(long, default_value_t = 4)]
    pub queues: i32,
    /// Connections that send.
    #[arg(long, default_value_t = 4)]
    pub connections: u32,
    /// Sends on their way, on each connection.
    #[arg(long, default_value_t = 64)]
    pub in_flight: u32,
    /// Bytes of a body.
    #[arg(long, default_value_t = 1024)]
    pub size: usize,
    /// Messages carry no unique key, which stock clients always give: a broker that indexes keys is spared that.
    #[arg(long)]
    pub without_keys: bool,
    /// Seconds of the measurement.
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
    /// Seconds before the measurement: a cold JVM costs three times the CPU.
    #[arg(long, default_value_t = 5)]
    pub warm_up: u64,
    /// Replicas of the started group.
    #[arg(long, default_value_t = 3)]
    pub replicas: u8,
    /// The started group flushes before it acknowledges.
    #[arg(long)]
    pub flush: bool,
    /// The started group acknowledges when the master alone has a message.
    #[arg(long)]
    pub asynchronous: bool,
}

impl Default for Options {
    /// As on a command line without arguments.
    fn default() -> Self {
        #[derive(clap::Parser)]
        struct Arguments {
            #[command(flatten)]
            options: Options,
        }
        <Arguments as clap::Parser>::parse_from(["bench"]).options
    }
}

/// What was measured.
#[derive(Debug)]
pub struct Figures {
    tally: Tally,
    seconds: f64,
    processes: Vec<sampler::Used>,
    loaded_cpu_seconds: f64,
    /// With the warm-up.
    all_acked: u64,
    /// What the log grew by for each message, where the group is known.
    log_bytes_a_message: Option<f64>,
}

/// Runs it and measures.
pub fn run(options: &Options) -> anyhow::Result<Figures> {
    let Some(broker) = &options.broker else {
        return run_on_own_group(options);
    };
    let nameserver = options.nameserver.as_deref().context("--nameserver is needed with --broker")?;
    measure(options, broker, nameserver, &options.pid)
}

fn run_on_own_group(options: &Options) -> anyhow::Result<Figures> {
    let wanted = group::Options {
        replicas: options.replicas,
        mode: if options.asynchronous { "Async" } else { "Sync" },
        min_in_sync: options.replicas.min(2),
        flush: if options.flush { "Sync" } else { "Async" },
        ..group::Options::default()
    };
    let group = Group::start(&wanted)?;
    let status = group.status()?;
    let master = status.replicas.iter().find(|replica| Some(&replica.name) == status.master.as_ref());
    // Past the forwarder of the stable address, as clients on Kubernetes reach it.
    let broker = master.and_then(|master| master.address.as_deref()).context("the master has no address")?;
    let pids = if options.pid.is_empty() { group.broker_pids()? } else { options.pid.clone() };
    let log_end = |status: &group::Status| status.replicas.iter().filter_map(|replica| replica.max_offset).max();
    let before = log_end(&status);
    let mut figures = measure(options, broker, group.nameserver(), &pids)?;
    let grown = log_end(&group.status()?).zip(before).map(|(after, before)| after.saturating_sub(before));
    figures.log_bytes_a_message = grown.map(|bytes| bytes as f64 / figures.all_acked as f64);
    Ok(figures)
}

fn measure(options: &Options, broker: &str, nameserver: &str, pids: &[u32]) -> anyhow::Result<Figures> {
    admin::create_topic(nameserver, broker, &options.topic, options.queues)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let running = sender::start(options, broker).await?;
        running.go_on(Duration::from_secs(options.warm_up)).await?;
        let warmed = running.take();
        let sampler = Sampler::start(pids);
        let own = Sampler::start(&[std::process::id()]);
        let start_us = wait::now_us();
        running.go_on(Duration::from_secs(options.seconds)).await?;
        let seconds = (wait::now_us() - start_us) as f64 / 1e6;
        let processes = sampler.finish();
        let loaded_cpu_seconds = own.finish().iter().map(|used| used.cpu_seconds).sum();
        let tally = running.stop().await?;
        let all_acked = warmed.acked() + tally.acked();
        Ok(Figures { tally, seconds, processes, loaded_cpu_seconds, log_bytes_a_message: None, all_acked })
    })
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millions = self.tally.acked() as f64 / 1e6;
        let (p50, p99) = (self.tally.quantile_ms(0.50), self.tally.quantile_ms(0.99));
        writeln!(
            f,
            "{:.0} msgs/s over {:.1} s, p50 {p50:.2} ms, p99 {p99:.2} ms, refused {}; the generator used {:.1} CPU s per million",
            self.tally.acked() as f64 / self.seconds,
            self.seconds,
            self.tally.refused(),
            self.loaded_cpu_seconds / millions
        )?;
        for used in &self.processes {
            writeln!(
                f,
                "process {}: {:.1} CPU s per million messages, RssAnon {} MiB at the end, {} MiB at most",
                used.pid,
                used.cpu_seconds / millions,
                used.rss_anon_bytes >> 20,
                used.most_rss_anon_bytes >> 20
            )?;
        }
        Ok(())
    }
}
