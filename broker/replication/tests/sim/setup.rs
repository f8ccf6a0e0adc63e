//! What a seed stands for: the group, its settings, and which faults it will meet.

use fastrand::Rng;
use gantry_replication::master::{self, Durability, Mode};
use gantry_replication::{Millis, elector};

/// Everything about a run that is decided before it starts.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own, drawn by itself")]
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) replicas: usize,
    pub(crate) electors: usize,
    pub(crate) mode: Mode,
    /// `flush: Sync`.
    pub(crate) flush_sync: bool,
    pub(crate) min_in_sync: usize,
    pub(crate) degrade: bool,
    /// All of the product's times are divided by this, so that a run sees as much in less virtual time.
    pub(crate) haste: u64,
    /// Faults happen until then.
    pub(crate) fault_ms: Millis,
    /// About how often a client sends.
    pub(crate) load_ms: Millis,
    /// About how often a fault happens.
    pub(crate) fault_every_ms: Millis,
    /// The longest delay of a message on its way.
    pub(crate) max_delay_ms: Millis,
    /// Which faults, each with its weight.
    pub(crate) faults: Vec<(Fault, u32)>,
    /// Clocks run up to this many thousandths too fast or too slow.
    pub(crate) drift: u64,
    /// When all is well again somebody restores an earlier record.
    pub(crate) old_record: bool,
    /// The elector learns that a replica's process died.
    pub(crate) supervised: bool,
}

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The process is killed; the machine lives on.
    Kill,
    /// The machine is gone, with all that was not flushed.
    PowerLoss,
    /// All machines at once.
    Blackout,
    /// The process stops, and goes on later with what it believed before.
    Freeze,
    /// The disk is slow for a while.
    SlowDisk,
    /// A sync fails, which is final: the process dies.
    FailedSync,
    /// An empty disk in the place of the old one.
    NewDisk,
    /// Nothing passes from one node to another, for a while; the way back is open.
    OneWay,
    /// Nothing passes either way between two nodes.
    Partition,
    /// A node is cut off from all others.
    Isolate,
    /// A connection is reset.
    Reset,
    /// The elector dies, and another is started later.
    ElectorDeath,
    /// The elector freezes.
    ElectorFreeze,
    /// The elector can't reach the record.
    RecordAway,
    /// Answers of the record's store get lost for a while.
    RecordLossy,
    /// Not a fault: a planned switchover.
    Switchover,
}

const ALL: [(Fault, u32); 16] = [
    (Fault::Kill, 10),
    (Fault::PowerLoss, 6),
    (Fault::Blackout, 1),
    (Fault::Freeze, 8),
    (Fault::SlowDisk, 4),
    (Fault::FailedSync, 2),
    (Fault::NewDisk, 3),
    (Fault::OneWay, 8),
    (Fault::Partition, 8),
    (Fault::Isolate, 4),
    (Fault::Reset, 10),
    (Fault::ElectorDeath, 5),
    (Fault::ElectorFreeze, 3),
    (Fault::RecordAway, 3),
    (Fault::RecordLossy, 4),
    (Fault::Switchover, 8),
];

impl Setup {
    /// The setup that a seed stands for, drawn from its generator.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let replicas = [1, 2, 3, 3, 3, 3, 5][rng.usize(..7)];
        let haste = if rng.u32(..10) > 0 { 5 } else { 1 };
        // Most seeds know some faults only: rare combinations come up more often when others are silent.
        let faults: Vec<_> = ALL.into_iter().filter(|_| rng.bool()).collect();
        Self {
            replicas,
            electors: 1 + usize::from(rng.u32(..5) == 0),
            mode: if rng.u32(..6) == 0 { Mode::Async } else { Mode::Sync },
            flush_sync: rng.bool(),
            min_in_sync: 1 + rng.usize(..replicas.min(2)),
            degrade: rng.u32(..4) == 0,
            haste,
            fault_ms: rng.u64(10_000..30_000) / haste,
            load_ms: [10, 20, 50][rng.usize(..3)],
            fault_every_ms: [100, 300, 800][rng.usize(..3)],
            max_delay_ms: [2, 5, 30, 150][rng.usize(..4)],
            faults,
            drift: [0, 0, 5, 50][rng.usize(..4)],
            old_record: rng.u32(..4) == 0,
            supervised: rng.bool(),
        }
    }

    /// One of the product's times, as this run has it.
    pub(crate) fn ms(&self, product_ms: Millis) -> Millis {
        (product_ms / self.haste).max(1)
    }

    pub(crate) fn durability(&self) -> Durability {
        if self.flush_sync { Durability::Flushed } else { Durability::Written }
    }

    pub(crate) fn master(&self) -> master::Config {
        let default = master::Config::new(self.mode, self.durability(), self.min_in_sync);
        master::Config {
            degrade: self.degrade,
            fence_after_ms: self.ms(default.fence_after_ms),
            lag_ms: self.ms(default.lag_ms),
            gap_bytes: 100,
            gap_ms: self.ms(default.gap_ms),
            silence_ms: self.ms(default.silence_ms),
            disconnected_ms: self.ms(default.disconnected_ms),
            join_lag_bytes: 40,
            join_ms: self.ms(default.join_ms),
            alter_retry_ms: self.ms(default.alter_retry_ms),
            ..default
        }
    }

    pub(crate) fn elector(&self) -> elector::Config {
        let names = (0..self.replicas).map(|n| format!("r{n}"));
        let default = elector::Config::new(names, self.mode, self.min_in_sync);
        elector::Config {
            silence_ms: self.ms(default.silence_ms),
            hears_ms: self.ms(default.hears_ms),
            probe_ms: self.ms(default.probe_ms),
            fence_wait_ms: self.ms(default.fence_wait_ms),
            suspicion_gap_ms: self.ms(default.suspicion_gap_ms),
            gather_ms: self.ms(default.gather_ms),
            promote_ms: self.ms(default.promote_ms),
            switchover_ms: self.ms(default.switchover_ms),
            repeat_ms: self.ms(default.repeat_ms),
            reread_ms: self.ms(default.reread_ms),
            ..default
        }
    }
}
