//! Rounds of faults under load: kill the master, or switch over as planned, judge, and measure the gap.

use anyhow::{Context, bail};
use comfy_table::Table;

use crate::checker::{Circumstances, Verdict};
use crate::client::Library;
use crate::group::{self, Group, Status};
use crate::process::Signal;
use crate::{logs, scene, wait};

/// What is done to the master in the middle of the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Blow {
    /// SIGKILL.
    Kill,
    /// SIGSTOP, and SIGCONT once another one is master.
    Freeze,
    /// A planned switchover to an in-sync slave.
    Switchover,
}

/// How the producers send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// One after the other.
    Sync,
    /// Several on their way.
    Async,
}

impl Mode {
    /// Java fails what was on its way when a connection ends; Go lets it run into its own time-out of 3 s, so that
    /// sequential senders would measure that time-out and not the group.
    pub fn of(library: Library) -> Self {
        if library == Library::Go { Self::Async } else { Self::Sync }
    }
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The clients' library.
    pub library: Library,
    /// `sync` or `async` sends.
    pub mode: Mode,
    /// What is done to the master.
    pub blow: Blow,
    /// How often.
    pub rounds: u32,
    /// Messages of 1 KiB in each round.
    pub messages: u64,
    /// Messages a second, 0: as fast as it goes. A steady rate makes gaps comparable.
    pub rate: u64,
    /// Decides when in the load each blow falls, and on whom a switchover goes.
    pub seed: u64,
    /// The group.
    pub group: group::Options,
}

impl Plan {
    /// The defaults for a library and a blow, with a new seed, or that of `GANTRY_SEED`.
    pub fn new(library: Library, blow: Blow, rounds: u32) -> Self {
        let seed = std::env::var("GANTRY_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
        Self {
            library,
            mode: Mode::of(library),
            blow,
            rounds,
            messages: 10_000,
            rate: 2_000,
            seed,
            group: group::Options::default(),
        }
    }

    /// The command that repeats this run.
    pub fn command(&self) -> String {
        format!(
            "cargo run -p gantry-e2e --release -- failover --client {} --mode {} --blow {} --rounds {} --messages {} --rate {} --seed {}",
            self.library,
            format!("{:?}", self.mode).to_lowercase(),
            format!("{:?}", self.blow).to_lowercase(),
            self.rounds,
            self.messages,
            self.rate,
            self.seed
        )
    }
}

/// One round's result.
#[derive(Debug)]
pub struct Round {
    /// The checker's judgement.
    pub verdict: Verdict,
    /// Errors that the producing application saw.
    pub errors: u64,
    /// Who was master before and after, with epochs.
    pub masters: String,
}

impl Round {
    /// From the blow to the next acknowledged send, in milliseconds.
    pub fn gap_ms(&self) -> Option<i64> {
        Some(self.verdict.gaps.first()?.to_next_ack_us? / 1000)
    }

    /// The longest pause between acknowledgements, and when it began, from the blow on, in milliseconds.
    pub fn longest_ms(&self) -> Option<(i64, i64)> {
        let (pause, gap) = (self.verdict.longest_pause?, self.verdict.gaps.first()?);
        Some((pause.length_us / 1000, (pause.from_us - gap.fault_us) / 1000))
    }
}

/// All rounds.
#[derive(Debug)]
pub struct Report {
    /// One for each round.
    pub rounds: Vec<Round>,
}

impl Report {
    /// Median and worst time from the blow to the next acknowledged send, in milliseconds.
    pub fn gaps_ms(&self) -> Option<(i64, i64)> {
        median_and_worst(self.rounds.iter().filter_map(Round::gap_ms))
    }

    /// Median and worst of the rounds' longest pauses, in milliseconds: what counts where the old master goes on until
    /// the new one is ready.
    pub fn pauses_ms(&self) -> Option<(i64, i64)> {
        median_and_worst(self.rounds.iter().filter_map(|round| Some(round.longest_ms()?.0)))
    }

    /// A table with a line for each round.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::ASCII_MARKDOWN);
        table.set_header([
            "round",
            "masters",
            "gap ms",
            "longest pause ms",
            "acked",
            "errors",
            "copies",
            "redelivered",
        ]);
        for (index, round) in self.rounds.iter().enumerate() {
            let counts = &round.verdict.counts;
            table.add_row([
                (index + 1).to_string(),
                round.masters.clone(),
                round.gap_ms().map_or("never".into(), |ms| ms.to_string()),
                round.longest_ms().map_or("?".into(), |(ms, from)| format!("{ms} (from {from:+})")),
                counts.acked.to_string(),
                round.errors.to_string(),
                counts.resent_copies.to_string(),
                counts.redelivered.to_string(),
            ]);
        }
        let told = |figures: Option<(i64, i64)>| {
            figures.map_or("not measured".into(), |(median, worst)| format!("median {median} ms, worst {worst} ms"))
        };
        let (gaps, pauses) = (told(self.gaps_ms()), told(self.pauses_ms()));
        format!("{table}\nblow to next acknowledged send: {gaps}\nlongest pause between acknowledgements: {pauses}")
    }
}

fn median_and_worst(values: impl Iterator<Item = i64>) -> Option<(i64, i64)> {
    let mut values: Vec<i64> = values.collect();
    values.sort_unstable();
    Some((*values.get(values.len() / 2)?, *values.last()?))
}

/// Runs all rounds on one group. A violation, an unfinished client, or a group that doesn't become whole again is an
/// error, which names seed and command.
pub fn run(plan: &Plan) -> anyhow::Result<Report> {
    logs::say(&format!("seed {}: {}", plan.seed, plan.command()));
    run_rounds(plan).with_context(|| format!("seed {}, to repeat: {}", plan.seed, plan.command()))
}

fn run_rounds(plan: &Plan) -> anyhow::Result<Report> {
    let mut random = fastrand::Rng::with_seed(plan.seed);
    let group = Group::start(&plan.group)?;
    let mut rounds = Vec::new();
    for number in 1..=plan.rounds {
        let round = run_round(plan, &group, number, &mut random)
            .inspect_err(|_| logs::tell_tails(group.folder()))
            .with_context(|| format!("round {number} of {}", plan.rounds))?;
        logs::say(&format!("round {number}: {} gap {:?} ms, {}", round.masters, round.gap_ms(), round.verdict));
        rounds.push(round);
    }
    Ok(Report { rounds })
}

/// A round has a topic of its own, so that its history is whole.
fn run_round(plan: &Plan, group: &Group, number: u32, random: &mut fastrand::Rng) -> anyhow::Result<Round> {
    let before = group.wait_whole()?;
    let topic = format!("Failover{number}");
    let mut pair = scene::job(group, plan.library, "pair", &topic)?
        .with("group", format!("failover-{number}"))
        .with("name", format!("r{number}"))
        .with("messages", plan.messages)
        .with("rate", plan.rate)
        .with("mode", format!("{:?}", plan.mode).to_lowercase())
        .start()?;
    let at = random.u64(plan.messages / 5..plan.messages / 2);
    pair.wait_acked(at, scene::CLIENT_WITHIN)?;
    let (blow_us, after) = strike(plan.blow, group, &before, random)?;
    let outcome = pair.finish(scene::CLIENT_WITHIN)?;
    let whole = group.wait_whole()?;
    if whole.epoch != after.epoch {
        logs::say(&format!("the epoch went on from {:?} to {:?} after the blow", after.epoch, whole.epoch));
    }
    let circumstances = Circumstances { faults_us: vec![blow_us], ..scene::drained() };
    let verdict = scene::judge(&[&outcome], &circumstances)?;
    if verdict.gaps.iter().any(|gap| gap.to_next_ack_us.is_none()) {
        bail!("nothing was acknowledged after the blow: the load was over too early\n{verdict}");
    }
    let name = |status: &Status| format!("{}@{}", status.master.as_deref().unwrap_or("?"), status.epoch.unwrap_or(0));
    let masters = format!("{} -> {}", name(&before), name(&after));
    Ok(Round { verdict, errors: outcome.progress.errors, masters })
}

/// Does it and waits for the next master; returns when it was done, and the status with that master.
fn strike(blow: Blow, group: &Group, before: &Status, random: &mut fastrand::Rng) -> anyhow::Result<(i64, Status)> {
    let master = before.master.as_deref().context("there is no master to strike")?;
    let passed_on =
        |status: &Status| status.epoch > before.epoch && status.master.as_deref().is_some_and(|now| now != master);
    match blow {
        Blow::Kill => {
            let at_us = group.signal(master, Signal::KILL)?;
            Ok((at_us, group.wait_for("another master after the kill", passed_on)?))
        }
        Blow::Freeze => {
            let at_us = group.signal(master, Signal::STOP)?;
            let after = group.wait_for("another master after the freeze", passed_on);
            // Whatever happened: a stopped process would stay behind.
            group.signal(master, Signal::CONT)?;
            Ok((at_us, after?))
        }
        Blow::Switchover => {
            let slaves: Vec<&String> = before.in_sync_slaves().collect();
            let to = slaves.get(random.usize(..slaves.len().max(1))).context("there is no slave in sync")?;
            let at_us = wait::now_us();
            let said = group.switchover(to)?;
            logs::say(said.trim());
            let after =
                group.wait_for("the master that was asked for", |status| status.master.as_ref() == Some(*to))?;
            Ok((at_us, after))
        }
    }
}
