//! Rounds of faults on a group over network namespaces, under the load of a stock client.
//!
//! Each round strikes one or two replicas, heals, and waits until every replica is in sync and sends are acknowledged
//! again. The load goes on over several rounds, which share a history. The history's checker judges it; then the
//! acknowledgements are held against the replicas' epochs ([`masters`]), the logs against each other, and each
//! acknowledgement against the record that lies in them where it says ([`logs`]).

mod fault;
mod logs;
mod masters;
mod strike;
mod table;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};

pub use fault::{Fault, KINDS, Kind, Schedule, Target, schedules};

use crate::checker::{Circumstances, Span, Window};
use crate::client::{Library, Running};
use crate::failover::Mode;
use crate::group::{Group, Options};
use crate::lab::Lab;
use crate::{history, scene, wait};
use strike::Strikes;

/// How long a group may take from the heal until every replica is in sync.
const WHOLE_WITHIN: Duration = Duration::from_mins(1);

/// Acknowledgements after which sends count as going on.
const GOES_ON: u64 = 20;

/// A replica's disk. It is sparse: only what is written takes place.
const DISK_BYTES: u64 = 4 << 30;

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The clients' library.
    pub library: Library,
    /// How many rounds.
    pub rounds: u32,
    /// Decides all faults, their targets and times.
    pub seed: u64,
    /// Messages of 1 KiB a second.
    pub rate: u64,
    /// Rounds that share a client and its history.
    pub rounds_a_history: u32,
}

impl Plan {
    /// The defaults.
    pub fn new(library: Library, rounds: u32, seed: u64) -> Self {
        Self { library, rounds, seed, rate: 200, rounds_a_history: 10 }
    }

    /// The command that repeats this run.
    pub fn command(&self) -> String {
        format!(
            "gantry-e2e chaos --client {} --rounds {} --seed {} --rate {}",
            self.library, self.rounds, self.seed, self.rate
        )
    }
}

/// One round's result.
#[derive(Clone, Debug)]
pub struct Round {
    /// What was done.
    pub schedule: Schedule,
    /// What the clients saw from the first fault until all was well again.
    pub window: Window,
    /// From the heal until every replica was in sync.
    pub whole_after: Duration,
    /// How often the master changed.
    pub failovers: u64,
}

/// All rounds.
#[derive(Debug)]
pub struct Report {
    /// In their order.
    pub rounds: Vec<Round>,
    /// Acknowledgements that were attributed to an epoch and a replica.
    pub attributed: usize,
    /// Bytes of the log that were the same on all replicas at the end.
    pub compared_bytes: u64,
}

impl Report {
    /// A line for each kind of fault.
    pub fn table(&self) -> String {
        table::of(self)
    }
}

/// A round before its history is judged.
struct Struck {
    schedule: Schedule,
    span: Span,
    whole_after: Duration,
    failovers: u64,
}

/// Runs all rounds on one group. Whatever is held against it is an error, with the rounds that it may be of.
pub fn run(plan: &Plan) -> anyhow::Result<Report> {
    crate::logs::say(&format!("seed {}: {}", plan.seed, plan.command()));
    let options = Options { suspicion_gap: Some(5), config: small_segments(), ..Options::default() };
    let lab = Lab::new(usize::from(options.replicas))?;
    let group = Group::start_in(lab, &options, DISK_BYTES)?;
    let mut report = Report { rounds: Vec::new(), attributed: 0, compared_bytes: 0 };
    let schedules = schedules(plan.seed, plan.rounds);
    for (number, batch) in schedules.chunks(plan.rounds_a_history.max(1) as usize).enumerate() {
        run_batch(plan, &group, number, batch, &mut report)
            .inspect_err(|_| crate::logs::tell_tails(group.folder()))
            .with_context(|| format!("seed {}, to repeat: {}", plan.seed, plan.command()))?;
    }
    Ok(report)
}

/// So that a full disk is felt soon, and that many segments begin and end under faults.
fn small_segments() -> std::collections::BTreeMap<String, String> {
    let keys = [("mappedFileSizeCommitLog", 1 << 20), ("maxMessageSize", 256 << 10)];
    keys.map(|(key, value): (_, u64)| (key.to_owned(), value.to_string())).into()
}

fn run_batch(plan: &Plan, group: &Group, number: usize, batch: &[Schedule], report: &mut Report) -> anyhow::Result<()> {
    let mut load = scene::job(group, plan.library, "pair", &format!("Chaos{number}"))?
        .with("group", format!("chaos-{number}"))
        .with("name", format!("h{number}"))
        .with("mode", format!("{:?}", Mode::of(plan.library)).to_lowercase())
        .with("rate", plan.rate)
        .with("give-up", 180)
        .until_told()
        .start()?;
    load.wait_acked(GOES_ON, scene::CLIENT_WITHIN)?;
    let mut struck = Vec::new();
    for schedule in batch {
        let index = report.rounds.len() + struck.len() + 1;
        let round = run_round(group, &mut load, schedule)
            .with_context(|| format!("round {index}: {}", table::words(schedule)))?;
        crate::logs::say(&format!(
            "round {index}: {}; {} ms in all, in sync {} ms after the heal, {} failovers",
            table::words(schedule),
            (round.span.to_us - round.span.from_us) / 1000,
            round.whole_after.as_millis(),
            round.failovers
        ));
        struck.push(round);
    }
    load.tell_end();
    let outcome = load.finish(scene::CLIENT_WITHIN)?;
    let told: Vec<_> = struck.iter().map(|round| table::words(&round.schedule)).collect();
    judge(group, &outcome, struck, report).with_context(|| format!("after rounds of {}", told.join(" | ")))
}

fn run_round(group: &Group, load: &mut Running, schedule: &Schedule) -> anyhow::Result<Struck> {
    let before = group.wait_for("every replica in sync", crate::group::Status::is_settled)?;
    let mut strikes = Strikes::new(group)?;
    let struck = strike_all(&mut strikes, schedule);
    // Healed in any case: a group that is stopped and cut can't even be looked at.
    let healed = strikes.heal();
    let from_us = struck?;
    healed?;
    let healed_us = wait::now_us();
    let after = group.wait_settled(WHOLE_WITHIN).context("after the heal")?;
    let whole_after = Duration::from_micros((wait::now_us() - healed_us).max(0) as u64);
    let acked = load.progress().acked;
    load.wait_acked(acked + GOES_ON, scene::CLIENT_WITHIN)?;
    let failovers = after.epoch.unwrap_or(0).saturating_sub(before.epoch.unwrap_or(0));
    let span = Span { from_us, to_us: wait::now_us() };
    Ok(Struck { schedule: schedule.clone(), span, whole_after, failovers })
}

/// Returns when the first fault was.
fn strike_all(strikes: &mut Strikes, schedule: &Schedule) -> anyhow::Result<i64> {
    let mut first_us = None;
    for (index, fault) in schedule.faults.iter().enumerate() {
        if index > 0 {
            std::thread::sleep(schedule.apart);
        }
        let at_us = strikes.strike(*fault).with_context(|| format!("striking: {fault}"))?;
        first_us.get_or_insert(at_us);
    }
    std::thread::sleep(schedule.hold);
    first_us.context("a round without a fault")
}

fn judge(
    group: &Group,
    outcome: &crate::client::Outcome,
    struck: Vec<Struck>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let spans: Vec<Span> = struck.iter().map(|round| round.span).collect();
    let faults_us = spans.iter().map(|span| span.from_us).collect();
    let circumstances = Circumstances { faults_us, spans, ..scene::drained() };
    let verdict = scene::judge(&[outcome], &circumstances)?;
    for (round, window) in struck.into_iter().zip(&verdict.windows) {
        let Struck { schedule, whole_after, failovers, .. } = round;
        report.rounds.push(Round { schedule, window: *window, whole_after, failovers });
    }
    let stores: Vec<PathBuf> = (0..usize::from(group.replicas())).map(|ordinal| group.store(ordinal)).collect();
    let epochs = same_epochs(group, &stores)?;
    let events = history::read(&[outcome.history()])?;
    let acked = masters::judge(&events, &epochs)?;
    let last = acked.iter().map(|(_, offset)| *offset).max().unwrap_or(0);
    let common = logs::compare(&stores, confirmed_beyond(group, last)?)?;
    acked.iter().try_for_each(|(id, offset)| common.check_message(*offset, id))?;
    report.attributed += acked.len();
    report.compared_bytes = common.bytes();
    Ok(())
}

/// The table of epochs, which all replicas agree on once they are in sync.
fn same_epochs(group: &Group, stores: &[PathBuf]) -> anyhow::Result<Vec<masters::EpochStart>> {
    group.wait_settled(WHOLE_WITHIN)?;
    let mut tables = stores.iter().map(|store| masters::epochs(store)).collect::<anyhow::Result<Vec<_>>>()?;
    if tables.windows(2).any(|pair| pair[0] != pair[1]) {
        bail!("the replicas' epochs differ: {tables:?}");
    }
    Ok(tables.swap_remove(0))
}

/// Up to where all replicas know everything confirmed: beyond `offset`, where the last acknowledged message lies. What
/// they report is a little old.
fn confirmed_beyond(group: &Group, offset: u64) -> anyhow::Result<u64> {
    let confirmed =
        |status: &crate::group::Status| status.replicas.iter().map(|its| its.confirm_offset).min().flatten();
    let wanted = |status: &crate::group::Status| confirmed(status).is_some_and(|end| end as u64 > offset);
    let status = group.wait_for("everything acknowledged confirmed on all replicas", wanted)?;
    confirmed(&status).map(|end| end as u64).context("a replica doesn't tell its confirm offset")
}
