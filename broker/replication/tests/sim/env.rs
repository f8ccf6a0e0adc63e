//! What all nodes share: the virtual clock, the queue of what is to happen, the net, the disks, the record, and who watches.

use std::collections::BTreeMap;

use fastrand::Rng;

use crate::checker::Checker;
use crate::disk::Disk;
use crate::net::{ConnId, Net, Node};
use crate::planted::Planted;
use crate::register::{Op, Outcome, Register};
use crate::setup::Setup;
use crate::trace::Trace;

/// Something that is to happen. A process's own events carry its life: another life doesn't get them.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Tick(Node, u64),
    Deliver(ConnId, usize),
    JobDone(Node, u64),
    FlushDone {
        node: Node,
        life: u64,
        to: u64,
        generation: u64,
    },
    ToRegister {
        node: Node,
        life: u64,
        op: Op,
    },
    FromRegister {
        node: Node,
        life: u64,
        outcome: Outcome,
    },
    /// An elector closed a session that another has taken the place of, and its shell hears of that end.
    SessionEnds {
        node: Node,
        life: u64,
        conn: ConnId,
    },
    ClientSends,
    ConsumerReads,
    Fault,
    Start(Node),
}

/// See the module.
pub(crate) struct Env {
    pub(crate) setup: Setup,
    pub(crate) planted: Planted,
    pub(crate) now: u64,
    sequence: u64,
    queue: BTreeMap<(u64, u64), Event>,
    pub(crate) rng: Rng,
    pub(crate) net: Net,
    pub(crate) disks: Vec<Disk>,
    /// Until when each disk is slow.
    pub(crate) slow: Vec<u64>,
    pub(crate) register: Register,
    pub(crate) checker: Checker,
    pub(crate) trace: Trace,
    pub(crate) lives: u64,
    pub(crate) ops: u64,
    /// The replica that the group's address leads to.
    pub(crate) published: Option<Node>,
    pub(crate) faulty: bool,
    /// When the latest of what reached each replica was sent.
    pub(crate) heard_at: Vec<u64>,
}

impl Env {
    pub(crate) fn new(setup: Setup, planted: Planted, rng: Rng, trace: Trace) -> Self {
        let replicas = setup.replicas;
        let mut env = Self {
            setup,
            planted,
            now: 0,
            sequence: 0,
            queue: BTreeMap::new(),
            rng,
            net: Net::default(),
            disks: Vec::new(),
            slow: vec![0; replicas],
            register: Register::default(),
            checker: Checker::default(),
            trace,
            lives: 0,
            ops: 0,
            published: None,
            faulty: true,
            heard_at: vec![0; replicas],
        };
        for _replica in 0..replicas {
            let disk = Disk::empty(env.new_store(), 1);
            env.disks.push(disk);
        }
        env
    }

    pub(crate) fn new_store(&mut self) -> gantry_replication::StoreId {
        gantry_replication::StoreId(self.rng.u64(1..))
    }

    pub(crate) fn at(&mut self, when: u64, event: Event) {
        self.sequence += 1;
        self.queue.insert((when.max(self.now), self.sequence), event);
    }

    pub(crate) fn after(&mut self, wait: u64, event: Event) {
        self.at(self.now + wait, event);
    }

    /// The next thing to happen, and the clock set to it.
    pub(crate) fn next(&mut self) -> Option<Event> {
        let ((when, _), event) = self.queue.pop_first()?;
        self.now = when;
        Some(event)
    }

    pub(crate) fn new_life(&mut self) -> u64 {
        self.lives += 1;
        self.lives
    }

    /// How long this disk takes for something that takes up to `usual_ms`.
    pub(crate) fn disk_time(&mut self, node: Node, usual_ms: u64) -> u64 {
        let slow = self.now < self.slow[node];
        if slow { self.rng.u64(..self.setup.ms(4_000)) } else { self.rng.u64(..=usual_ms) }
    }

    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        self.trace.line(self.now, line);
    }

    pub(crate) fn is_planted(&self, bug: Planted) -> bool {
        self.planted == bug
    }
}

/// A clock that was started at some time and runs at a rate of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    offset: u64,
    /// Thousandths.
    rate: u64,
}

impl Clock {
    pub(crate) fn draw(rng: &mut Rng, drift: u64) -> Self {
        Self { offset: rng.u64(..1_000_000), rate: rng.u64(1_000 - drift..=1_000 + drift) }
    }

    pub(crate) fn at(self, now: u64) -> u64 {
        self.offset + now * self.rate / 1_000
    }
}
