//! How long sends fail, or wait, when a master crashes, freezes, or is switched over: one stock Java client over all
//! blows, on Gantry and on Apache's brokers in controller mode in the same run.

mod apache;
mod gantry;

use std::time::Duration;

use anyhow::Context;
use comfy_table::Table;

use crate::checker::{self, Circumstances, Span};
use crate::client::{Job, Library, Running};
use crate::failover::Blow;
use crate::history::Event;
use crate::quantiles::Quantiles;
use crate::{history, logs, scene, wait};

/// Acknowledgements after a blow that show that sends go on: more than a client's figures may be late by.
const GOES_ON: u64 = 500;

/// How long sends may stop: far more than they should.
const STOPPED_AT_MOST: Duration = Duration::from_mins(3);

/// What to run.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Masters that are killed (SIGKILL).
    #[arg(long, default_value_t = 50)]
    pub crashes: u32,
    /// Masters that freeze (SIGSTOP).
    #[arg(long, default_value_t = 20)]
    pub freezes: u32,
    /// Planned switchovers.
    #[arg(long, default_value_t = 20)]
    pub switchovers: u32,
    /// Messages of 1 KiB a second, from four synchronous producers.
    #[arg(long, default_value_t = 1_000)]
    pub rate: u64,
    /// Milliseconds between the client's looks at the routes; the library's own is 30,000.
    #[arg(long)]
    pub poll_ms: Option<u32>,
    /// Milliseconds that one send may take; the library's own is 3,000.
    #[arg(long)]
    pub send_timeout_ms: Option<u32>,
    /// Crashes and freezes of Apache's brokers too. For them the client looks for routes each 200 ms and waits 500 ms for an
    /// answer, if not told otherwise: with its own defaults it would take half a minute to find the new master.
    #[arg(long)]
    pub with_apache: bool,
    /// Decides when the blows fall.
    #[arg(long)]
    pub seed: Option<u64>,
}

/// A group that can be struck.
trait Cluster {
    /// As the table calls it.
    fn name(&self) -> String;

    /// For the client.
    fn nameserver(&self) -> String;

    /// Strikes the master, and says when.
    fn strike(&mut self, blow: Blow) -> anyhow::Result<i64>;

    /// Waits until another replica is master.
    fn wait_failed_over(&mut self) -> anyhow::Result<()>;

    /// Sends go on: what was struck comes back, until every replica is in sync.
    fn recover(&mut self) -> anyhow::Result<()>;
}

/// A blow that was struck.
#[derive(Clone, Copy, Debug)]
struct Struck {
    blow: Blow,
    at_us: i64,
    /// When sends had gone on for a while.
    resumed_us: i64,
    errors: u64,
}

/// What a blow did to the client.
#[derive(Clone, Copy, Debug)]
struct Measured {
    blow: Blow,
    /// From the blow to the next acknowledgement of a send that began after it.
    gap_ms: i64,
    /// The longest time without an acknowledgement, from the blow on.
    pause_ms: i64,
    /// Sends that failed at the application.
    errors: u64,
}

/// Runs all blows and returns the table.
pub fn run(options: &Options) -> anyhow::Result<String> {
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    logs::say(&format!("seed {seed}"));
    let mut table = Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header([
        "brokers",
        "blow",
        "times",
        "to next ack ms: median",
        "p99",
        "worst",
        "longest pause ms: median",
        "worst",
        "failed sends",
    ]);
    let mut ours = gantry::Gantry::start()?;
    add_rows(&mut table, &ours.name(), &measure(&mut ours, options, seed)?);
    drop(ours);
    if options.with_apache {
        let tuned = Options {
            switchovers: 0,
            poll_ms: options.poll_ms.or(Some(200)),
            send_timeout_ms: options.send_timeout_ms.or(Some(500)),
            ..options.clone()
        };
        let mut theirs = apache::Apache::start()?;
        add_rows(&mut table, &theirs.name(), &measure(&mut theirs, &tuned, seed)?);
    }
    Ok(table.to_string())
}

fn add_rows(table: &mut Table, name: &str, measured: &[Measured]) {
    for blow in [Blow::Kill, Blow::Freeze, Blow::Switchover] {
        let own: Vec<_> = measured.iter().filter(|measured| measured.blow == blow).collect();
        let gaps = Quantiles::of(own.iter().map(|measured| measured.gap_ms));
        let pauses = Quantiles::of(own.iter().map(|measured| measured.pause_ms));
        if gaps.is_empty() {
            continue;
        }
        table.add_row([
            name.to_owned(),
            format!("{blow:?}").to_lowercase(),
            own.len().to_string(),
            gaps.median().to_string(),
            gaps.share(0.99).to_string(),
            gaps.worst().to_string(),
            pauses.median().to_string(),
            pauses.worst().to_string(),
            own.iter().map(|measured| measured.errors).sum::<u64>().to_string(),
        ]);
    }
}

fn start_load(nameserver: &str, options: &Options) -> anyhow::Result<Running> {
    let mut job = Job::new(Library::Java5, Vec::new(), "load", nameserver, "FailoverTimes")?
        .with("rate", options.rate)
        .with("give-up", STOPPED_AT_MOST.as_secs());
    if let Some(poll_ms) = options.poll_ms {
        job = job.with("poll-ms", poll_ms);
    }
    if let Some(timeout_ms) = options.send_timeout_ms {
        job = job.with("send-timeout-ms", timeout_ms);
    }
    job.until_told().start()
}

fn measure(cluster: &mut impl Cluster, options: &Options, seed: u64) -> anyhow::Result<Vec<Measured>> {
    let mut load = start_load(&cluster.nameserver(), options)?;
    load.wait_acked(GOES_ON, scene::CLIENT_WITHIN)?;
    let mut random = fastrand::Rng::with_seed(seed);
    let counts =
        [(Blow::Switchover, options.switchovers), (Blow::Kill, options.crashes), (Blow::Freeze, options.freezes)];
    let blows = counts.into_iter().flat_map(|(blow, times)| std::iter::repeat_n(blow, times as usize));
    let mut struck = Vec::new();
    for (index, blow) in blows.enumerate() {
        // Not always at the same place between two heartbeats.
        std::thread::sleep(Duration::from_millis(random.u64(0..1_000)));
        let one = strike(cluster, &mut load, blow).with_context(|| format!("{}, {blow:?} {index}", cluster.name()))?;
        logs::say(&format!("{}: {blow:?}, {} failed sends", cluster.name(), one.errors));
        struck.push(one);
    }
    load.tell_end();
    judge(&history::read(&[load.finish(scene::CLIENT_WITHIN)?.history()])?, &struck)
}

fn judge(events: &[Event], struck: &[Struck]) -> anyhow::Result<Vec<Measured>> {
    let spans = struck.iter().map(|one| Span { from_us: one.at_us, to_us: one.resumed_us }).collect();
    let faults_us = struck.iter().map(|one| one.at_us).collect();
    let verdict = checker::check(events, &Circumstances { faults_us, spans, ..Circumstances::default() });
    let mut measured = Vec::new();
    for ((one, gap), window) in struck.iter().zip(&verdict.gaps).zip(&verdict.windows) {
        let gap_us = gap.to_next_ack_us.context("nothing was acknowledged after a blow")?;
        let pause_ms = window.longest_pause_us / 1000;
        measured.push(Measured { blow: one.blow, gap_ms: gap_us / 1000, pause_ms, errors: one.errors });
    }
    Ok(measured)
}

/// Strikes, and waits until all is well again.
fn strike(cluster: &mut impl Cluster, load: &mut Running, blow: Blow) -> anyhow::Result<Struck> {
    let before = load.progress();
    let at_us = cluster.strike(blow)?;
    cluster.wait_failed_over()?;
    load.wait_acked(load.progress().acked + GOES_ON, STOPPED_AT_MOST)?;
    let resumed_us = wait::now_us();
    cluster.recover()?;
    Ok(Struck { blow, at_us, resumed_us, errors: load.progress().errors - before.errors })
}
