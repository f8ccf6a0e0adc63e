//! Real power loss: a broker on a disk of its own, the power cut under load at random times, and what is there afterwards.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tokio::runtime::Runtime;

use crate::broker::Broker;
use crate::checker::{self, Circumstances};
use crate::history::Event;
use crate::load::{self, Load};
use crate::loop_disk::{LoopDisk, PowerLoss};
use crate::wait;
use crate::wire::{Kept, Wire};

const DISK_BYTES: u64 = 1 << 30;
const TOPIC: &str = "Power";
const QUEUES: u32 = 4;
/// From a sync's end in a broker to the time that its client gives the acknowledgement, on a busy machine. Whoever acknowledges later
/// than this after the power went does so against failed syncs.
const LAST_WORD_US: i64 = 500_000;
/// A disk is replaced after so many rounds.
const ROUNDS_OF_A_DISK: u32 = 10;
/// Small segments: a round fills several.
const SETTINGS: [(&str, &str); 3] =
    [("mappedFileSizeCommitLog", "1048576"), ("mappedFileSizeConsumeQueue", "20000"), ("diskMaxUsedSpaceRatio", "95")];

/// What the broker promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// `SYNC_FLUSH`: nothing acknowledged is lost.
    Everything,
    /// `ASYNC_FLUSH`: what was acknowledged longer than this before the loss is there, and all that is there is a beginning.
    OlderThan(Duration),
}

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Power losses.
    pub rounds: u32,
    /// What is held against the broker.
    pub promise: Promise,
    /// Chooses the times.
    pub seed: u64,
}

/// What happened in one round.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// How the power went.
    pub how: PowerLoss,
    /// Messages acknowledged before.
    pub acked: u64,
    /// Of these, lost. Only with [`Promise::OlderThan`].
    pub lost: u64,
    /// How long before the loss the oldest lost one was acknowledged.
    pub oldest_lost: Duration,
    /// From the broker's start to its serving again.
    pub start: Duration,
}

/// What happened.
#[derive(Debug)]
pub struct Report {
    /// One after the other.
    pub rounds: Vec<Round>,
}

/// Runs the rounds and judges each; a broken promise is an error that names the seed.
pub fn run(plan: &Plan) -> anyhow::Result<Report> {
    let mut random = fastrand::Rng::with_seed(plan.seed);
    let mut rounds = Vec::new();
    while rounds.len() < plan.rounds as usize {
        let left = plan.rounds - rounds.len() as u32;
        let mut life = Life::new(plan.promise)?;
        for _ in 0..left.min(ROUNDS_OF_A_DISK) {
            let number = rounds.len();
            let round = life.round(number, &mut random);
            rounds.push(round.with_context(|| format!("round {number}, seed {}", plan.seed))?);
        }
        life.finish().with_context(|| format!("seed {}", plan.seed))?;
    }
    Ok(Report { rounds })
}

/// One disk, and the broker on it.
struct Life {
    promise: Promise,
    runtime: Runtime,
    broker: Broker,
    disk: LoopDisk,
    events: Vec<Event>,
    faults_us: Vec<i64>,
}

impl Life {
    fn new(promise: Promise) -> anyhow::Result<Self> {
        let disk = LoopDisk::new(DISK_BYTES)?;
        let flush = if promise == Promise::Everything { "SYNC_FLUSH" } else { "ASYNC_FLUSH" };
        let settings: Vec<_> = SETTINGS.into_iter().chain([("flushDiskType", flush)]).collect();
        let mut broker = Broker::new(disk.beside(), &disk.path().join("store"), &settings);
        broker.start()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(Self { promise, runtime, broker, disk, events: Vec::new(), faults_us: Vec::new() })
    }

    fn round(&mut self, number: usize, random: &mut fastrand::Rng) -> anyhow::Result<Round> {
        let sync = self.promise == Promise::Everything;
        let plan = load::Plan {
            name: format!("r{number}"),
            topic: TOPIC.into(),
            queues: QUEUES,
            producers: 16,
            // Without flushing there is no bound but this to what one sync has to write.
            pause: if sync { Duration::ZERO } else { Duration::from_millis(20) },
        };
        let load = self.runtime.block_on(async { Load::start(self.broker.address(), &plan) });
        wait::until("an acknowledged message", Duration::from_mins(1), || Ok((load.acked() > 0).then_some(())))?;
        let longer = if let Promise::OlderThan(window) = self.promise { window } else { Duration::ZERO };
        // The fault's time, which nothing announces.
        std::thread::sleep(longer + Duration::from_millis(random.u64(100..1500)));

        let how = if random.u8(0..4) == 0 { PowerLoss::AfterJournal } else { PowerLoss::AtOnce };
        let fault_us = self.disk.lose_power(how)?;
        let lost_us = wait::now_us();
        self.faults_us.push(fault_us);
        if random.bool() {
            self.ends_by_itself()?;
        } else {
            self.broker.kill()?;
        }
        let events = self.runtime.block_on(load.finish())?;
        self.disk.unmount()?;
        self.disk.mount()?;
        let begun = Instant::now();
        self.broker.start()?;
        let start = begun.elapsed();
        let kept = self.kept(0)?;
        let events = without_last_words(events, &kept, fault_us..lost_us + LAST_WORD_US);
        let (acked, lost) = self.judge(&events, &kept, fault_us)?;
        self.events.extend(events);
        let oldest_lost =
            lost.iter().map(|ended_us| Duration::from_micros((fault_us - ended_us).max(0).cast_unsigned()));
        Ok(Round { how, acked, lost: lost.len() as u64, oldest_lost: oldest_lost.max().unwrap_or_default(), start })
    }

    /// A broker whose disk is gone stops, and says which file it was.
    fn ends_by_itself(&mut self) -> anyhow::Result<()> {
        let ended = self.broker.wait_end()?;
        let said = self.broker.said();
        ensure!(!ended.success(), "the broker lost its disk and ended with {ended}: {said}");
        let store = self.disk.path().join("store").display().to_string();
        let clear = said.lines().any(|line| line.contains(&store) && line.contains("which is final"));
        ensure!(clear, "the broker ended and didn't say why: {said}");
        Ok(())
    }

    /// Everything that is in the topic.
    fn kept(&self, from: i64) -> anyhow::Result<Vec<Kept>> {
        let wire = Wire::new(self.broker.address());
        self.runtime.block_on(async {
            let mut all = Vec::new();
            for queue in 0..QUEUES.cast_signed() {
                all.extend(wire.drain(TOPIC, queue, from).await?);
            }
            Ok(all)
        })
    }

    /// Holds a round's acknowledgements against what is kept: how many there were, and when those ended that are lost.
    fn judge(&self, events: &[Event], kept: &[Kept], fault_us: i64) -> anyhow::Result<(u64, Vec<i64>)> {
        let there: HashMap<(i32, i64), &Kept> = kept.iter().map(|kept| ((kept.queue, kept.offset), kept)).collect();
        let (mut acked, mut lost) = (0, Vec::new());
        for event in events {
            let Event::End { id, status, queue: Some(queue), offset: Some(offset), t, .. } = event else { continue };
            ensure!(status == "OK", "{id}: {status} with a place");
            acked += 1;
            match there.get(&(*queue, *offset)) {
                Some(kept) if kept.body == load::body_of(id) => {}
                Some(kept) => bail!("queue {queue} offset {offset} holds {:?}, not {id}", kept.properties.get("KEYS")),
                None => match self.promise {
                    Promise::OlderThan(window) if *t > fault_us - window.as_micros() as i64 => lost.push(*t),
                    _ => bail!("{id} was acknowledged {} us before the power loss, and is lost", fault_us - t),
                },
            }
        }
        ensure!(acked > 0, "nothing was acknowledged");
        Ok((acked, lost))
    }

    /// At the disk's end the whole history is judged, where nothing may be lost; and the broker stops.
    fn finish(mut self) -> anyhow::Result<()> {
        if self.promise == Promise::Everything {
            let kept = self.kept(0)?;
            let mut events = std::mem::take(&mut self.events);
            events.extend(kept.iter().map(|kept| load::delivery(TOPIC, kept)));
            events.sort_by_key(Event::at_us);
            let circumstances =
                Circumstances { drained: true, faults_us: self.faults_us.clone(), ..Circumstances::default() };
            let verdict = checker::check(&events, &circumstances);
            ensure!(verdict.is_clean(), "{verdict}");
        }
        let ended = self.broker.stop()?;
        ensure!(ended.success(), "the broker ended with {ended}: {}", self.broker.said());
        self.disk.unmount()
    }
}

/// What was acknowledged while the call that cuts the power went on, and isn't there, counts as unanswered: no disk without power
/// answers, but ext4 does while it shuts down. A program that did nothing but write 3,000 bytes and `fdatasync`, over extents allocated
/// ahead as the store's are, on 310 such disks (Linux 6.18): 19 calls that returned success during the shutdown call, or up to 0.2 ms
/// after it, were of data that was gone; 41,000 that returned before it began were all there; and over extents that had been
/// written once, none was lost.
fn without_last_words(events: Vec<Event>, kept: &[Kept], cut_us: Range<i64>) -> Vec<Event> {
    let there: HashSet<(i32, i64)> = kept.iter().map(|kept| (kept.queue, kept.offset)).collect();
    let counts = |event: &Event| match event {
        Event::End { queue: Some(queue), offset: Some(offset), t, .. } => {
            !cut_us.contains(t) || there.contains(&(*queue, *offset))
        }
        _ => true,
    };
    events.into_iter().filter(counts).collect()
}

/// `SYNC_FLUSH`: the system says that the disk failed at one `fdatasync`, seen by `strace`, and so it did: nothing of
/// that sync is there after a power loss. The broker stops, having acknowledged nothing of it.
pub fn failing_sync(seed: u64) -> anyhow::Result<Round> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut life = Life::new(Promise::Everything)?;
    life.broker.kill()?;
    // Counted for each thread: more than one needs for a start.
    let inject = format!("inject=fdatasync:error=EIO:when={}", random.u32(15..60));
    let tool = ["strace", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", &inject];
    life.broker.start_under(&tool)?;
    let plan =
        load::Plan { name: "eio".into(), topic: TOPIC.into(), queues: QUEUES, producers: 16, pause: Duration::ZERO };
    let load = life.runtime.block_on(async { Load::start(life.broker.address(), &plan) });
    life.ends_by_itself().with_context(|| format!("seed {seed}, {inject}"))?;
    let said = life.broker.said();
    let named = said.lines().any(|line| line.contains("fdatasync of ") && line.contains("os error 5"));
    ensure!(named, "seed {seed}: the broker didn't say which call failed and how: {said}");
    let events = life.runtime.block_on(load.finish())?;
    let fault_us = life.disk.lose_power(PowerLoss::AtOnce)?;
    life.disk.unmount()?;
    life.disk.mount()?;
    let begun = Instant::now();
    life.broker.start()?;
    let start = begun.elapsed();
    let kept = life.kept(0)?;
    let (acked, _none) = life.judge(&events, &kept, fault_us).with_context(|| format!("seed {seed}, {inject}"))?;
    life.events = events;
    life.finish().with_context(|| format!("seed {seed}"))?;
    Ok(Round { how: PowerLoss::AtOnce, acked, lost: 0, oldest_lost: Duration::ZERO, start })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, round) in self.rounds.iter().enumerate() {
            writeln!(
                f,
                "round {number}: {:?}, {} acknowledged, {} lost (the oldest {} ms before), served again after {} ms",
                round.how,
                round.acked,
                round.lost,
                round.oldest_lost.as_millis(),
                round.start.as_millis()
            )?;
        }
        let acked: u64 = self.rounds.iter().map(|round| round.acked).sum();
        let lost: u64 = self.rounds.iter().map(|round| round.lost).sum();
        write!(f, "{} power losses, {acked} acknowledged, {lost} lost", self.rounds.len())
    }
}
