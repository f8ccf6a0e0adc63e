//! A disk of 64 MiB that fills up under load: producers are told so, consumers go on, and when there is room again so does
//! everything else, by itself. As root: a disk of one's own is mounted.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use gantry_e2e::broker::Broker;
use gantry_e2e::checker::{self, Circumstances};
use gantry_e2e::history::Event;
use gantry_e2e::load::{self, Load};
use gantry_e2e::loop_disk::{self, LoopDisk};
use gantry_e2e::wire::{Kept, Outgoing, Sent, Wire};
use gantry_e2e::{logs, process, wait};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use tokio::runtime::Runtime;

const TOPIC: &str = "Full";
const QUEUES: u32 = 4;
const DISK_BYTES: u64 = 64 << 20;
const BALLAST_BYTES: u64 = 32 << 20;
const PATIENCE: Duration = Duration::from_mins(2);

/// What lets the disk be full.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Limit {
    /// `diskSpaceWarningLevelRatio`, at its default.
    WarningLevel,
    /// No room for the next segment.
    Segment,
    /// Somebody takes the last block, under load: consume queues, checkpoint and snapshots find no room, either.
    LastBlock,
}

struct Scene {
    runtime: Runtime,
    broker: Broker,
    disk: LoopDisk,
    events: Vec<Event>,
}

fn run(limit: Limit) -> anyhow::Result<()> {
    if let Some(why) = loop_disk::unavailable() {
        logs::say(&format!("skipped: {why}"));
        return Ok(());
    }
    let disk = LoopDisk::new(DISK_BYTES)?;
    let ballast = Filler::new(&disk.path());
    ballast.take(BALLAST_BYTES)?;
    let (segment, ratio) = match limit {
        Limit::WarningLevel => ("1048576", "90"),
        Limit::Segment | Limit::LastBlock => ("4194304", "100"),
    };
    let settings = [
        ("mappedFileSizeCommitLog", segment),
        ("diskSpaceWarningLevelRatio", ratio),
        ("flushConsumerOffsetInterval", "200"),
        ("cleanResourceInterval", "20"),
    ];
    let mut broker = Broker::new(disk.beside(), &disk.path().join("store"), &settings);
    broker.start()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut scene = Scene { runtime, broker, disk, events: Vec::new() };

    let refused = scene.load_until_refused("first", limit == Limit::LastBlock)?;
    logs::say(&format!("refused with: {refused}"));
    let known = "14 service not available now. It may be caused by one of the following reasons: the broker's disk is full [CL:";
    ensure!(refused.starts_with(known), "{refused}");
    let why =
        if limit == Limit::WarningLevel { "(above diskSpaceWarningLevelRatio)" } else { "it needs 4194304 bytes" };
    ensure!(refused.contains(why), "{refused}");
    if limit != Limit::LastBlock {
        ensure!(scene.missing()?.is_empty(), "what was acknowledged is served while the disk is full");
    }
    ensure!(scene.broker.pid().is_some_and(process::is_alive), "the broker ended: {}", scene.broker.said());

    ballast.free()?;
    scene.wait_accepts()?;
    wait::until("everything acknowledged", PATIENCE, || Ok(scene.missing()?.is_empty().then_some(())))?;
    scene.broker.kill()?;
    scene.broker.start()?;
    scene.wait_accepts()?;
    scene.judge()?;
    let ended = scene.broker.stop()?;
    ensure!(ended.success(), "the broker ended with {ended}: {}", scene.broker.said());
    scene.disk.unmount()
}

impl Scene {
    /// Producers send until each is refused; what they were told. `to_the_brim`: the rest of the disk is taken meanwhile.
    fn load_until_refused(&mut self, name: &str, to_the_brim: bool) -> anyhow::Result<String> {
        let plan =
            load::Plan { name: name.into(), topic: TOPIC.into(), queues: QUEUES, producers: 16, pause: Duration::ZERO };
        let load = self.runtime.block_on(async { Load::start(self.broker.address(), &plan) });
        if to_the_brim {
            wait::until("some acknowledged", PATIENCE, || Ok((load.acked() > 1_000).then_some(())))?;
            Filler::new(&self.disk.path()).take(u64::MAX)?;
        }
        // They end by themselves, each with its first refusal.
        let events = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, load.refused()).await });
        let events = events.context("the disk never became full")??;
        let refused = events.iter().find_map(|event| match event {
            Event::End { status, .. } if status != "OK" => Some(status.clone()),
            _ => None,
        });
        self.events.extend(events);
        refused.context("nobody was refused")
    }

    /// Ids that were acknowledged, and aren't served.
    fn missing(&self) -> anyhow::Result<BTreeSet<String>> {
        let kept: BTreeSet<_> = self.kept()?.iter().filter_map(|kept| kept.properties.get("KEYS").cloned()).collect();
        let acked = self.events.iter().filter_map(|event| match event {
            Event::End { id, status, .. } if status == "OK" => Some(id.clone()),
            _ => None,
        });
        Ok(acked.filter(|id| !kept.contains(id)).collect())
    }

    fn kept(&self) -> anyhow::Result<Vec<Kept>> {
        let wire = Wire::new(self.broker.address());
        self.runtime.block_on(async {
            let mut all = Vec::new();
            for queue in 0..QUEUES.cast_signed() {
                all.extend(wire.drain(TOPIC, queue, 0).await?);
            }
            Ok(all)
        })
    }

    /// Until a send is taken again, in a topic that nobody counts.
    fn wait_accepts(&self) -> anyhow::Result<()> {
        let wire = Wire::new(self.broker.address());
        wait::until("a send that is taken", PATIENCE, || {
            let sent = self.runtime.block_on(wire.send("Probe", 0, &Outgoing::default()))?;
            Ok(matches!(sent, Sent::Ok(_)).then_some(()))
        })
    }

    /// Acknowledged messages are there, refused ones are not.
    fn judge(&mut self) -> anyhow::Result<()> {
        let mut events = std::mem::take(&mut self.events);
        let refused: BTreeSet<String> = events
            .iter()
            .filter_map(|event| match event {
                Event::End { id, status, .. } if status.starts_with("14 ") => Some(id.clone()),
                _ => None,
            })
            .collect();
        let kept = self.kept()?;
        let half = kept.iter().filter_map(|kept| kept.properties.get("KEYS")).find(|id| refused.contains(*id));
        ensure!(half.is_none(), "{half:?} was refused, and is there");
        events.extend(kept.iter().map(|kept| load::delivery(TOPIC, kept)));
        events.sort_by_key(Event::at_us);
        let verdict = checker::check(&events, &Circumstances { drained: true, ..Circumstances::default() });
        ensure!(verdict.is_clean(), "{verdict}");
        Ok(())
    }
}

/// A file that takes room.
struct Filler(PathBuf);

impl Filler {
    fn new(disk: &Path) -> Self {
        Self(disk.join("filler"))
    }

    /// So many bytes more, or all there are.
    fn take(&self, bytes: u64) -> anyhow::Result<()> {
        let file = File::options().create(true).append(true).open(&self.0).context("making the filler")?;
        let (mut taken, mut step) = (file.metadata()?.len(), bytes.min(DISK_BYTES));
        let end = taken.saturating_add(bytes);
        while step >= 1024 && taken < end {
            match fallocate(&file, FallocateFlags::empty(), taken, step) {
                Ok(()) => taken += step,
                Err(Errno::NOSPC) => step /= 2,
                Err(error) => return Err(error).context("filling the disk"),
            }
        }
        Ok(())
    }

    fn free(&self) -> anyhow::Result<()> {
        fs::remove_file(&self.0).context("removing the filler")
    }
}

#[test]
#[ignore = "end to end: run e2e/test"]
fn above_its_warning_level_the_disk_counts_as_full_until_there_is_room() -> anyhow::Result<()> {
    run(Limit::WarningLevel)
}

#[test]
#[ignore = "end to end: run e2e/test"]
fn with_no_room_for_a_segment_producers_are_refused_until_there_is() -> anyhow::Result<()> {
    run(Limit::Segment)
}

#[test]
#[ignore = "end to end: run e2e/test"]
fn a_disk_without_one_free_block_neither_ends_the_broker_nor_loses_anything() -> anyhow::Result<()> {
    run(Limit::LastBlock)
}
