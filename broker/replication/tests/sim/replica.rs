//! A replica's process, as the broker's shell makes it: one writer that does jobs in order, a role, and three kinds of
//! connections. What is pure in the product is the product's; what is modelled here is named after its counterpart there.

mod agent;
mod core;
mod follower;
mod serve;
mod transitions;
mod writer;

use std::collections::{BTreeMap, VecDeque};

use gantry_replication::master::{Alter, Master};
use gantry_replication::memory::{Integrity, Memory};
use gantry_replication::wire::{self, DATA_PLANE_MS, Report};
use gantry_replication::{Epoch, GroupRecord, Member, Millis};

use crate::disk::Settled;
use crate::env::{Clock, Env, Event};
use crate::net::{ConnId, Msg, Node};
use crate::planted::Planted;
use agent::Agent;
use follower::Follower;
use serve::Session;
pub(crate) use writer::Job;

/// A machine's place for a replica.
pub(crate) struct Replica {
    pub(crate) node: Node,
    pub(crate) clock: Clock,
    /// Until when the process is stopped.
    pub(crate) frozen_until: u64,
    pub(crate) machine_up: bool,
    pub(crate) process: Option<Process>,
}

/// What lives as long as the process.
pub(crate) struct Process {
    pub(crate) node: Node,
    pub(crate) life: u64,
    clock: Clock,
    member: Member,
    memory: Memory,
    integrity: Integrity,
    pub(crate) role: Role,
    /// The store's mark.
    pub(crate) confirmed: u64,
    jobs: VecDeque<Job>,
    busy: bool,
    flushing: bool,
    flush_at: Millis,
    /// Cuts so far: a flush that began before a cut says nothing of what came after it.
    generation: u64,
    proof_at: Millis,
    heartbeat_at: Millis,
    alter: Option<Alter>,
    agent: Agent,
    follower: Follower,
    sessions: BTreeMap<ConnId, Session>,
}

/// What it is.
pub(crate) enum Role {
    Fenced,
    Slave { epoch: Epoch, heard_at: Option<Millis>, master: Option<Node> },
    Master(Box<MasterRole>),
}

/// What belongs to being master.
pub(crate) struct MasterRole {
    pub(crate) master: Master,
    start: u64,
    confirmed: u64,
    opening: bool,
    /// Ends of messages whose senders wait, and since when.
    acks: VecDeque<(u64, Millis)>,
    pub(crate) gate: Gate,
    /// Orders to park up to this number have been called off.
    called_off: u64,
}

/// What sends wait for: the candidate, since when, and the number of the order.
#[derive(Clone, Debug)]
pub(crate) struct Parking {
    to: Member,
    since: Millis,
    order: u64,
}

/// Whether sends pass; those that wait at it.
pub(crate) enum Gate {
    Opening(Vec<u64>, Millis),
    Open,
    Parked(Parking, Vec<u64>),
}

impl Replica {
    pub(crate) fn new(node: Node, clock: Clock) -> Self {
        Self { node, clock, frozen_until: 0, machine_up: true, process: None }
    }

    /// Starts the process over what its disk holds.
    pub(crate) fn start(&mut self, env: &mut Env) {
        self.machine_up = true;
        if self.process.is_some() {
            return;
        }
        let life = env.new_life();
        self.process = Some(Process::recover(self.node, life, self.clock, env));
        env.after(0, Event::Tick(self.node, life));
    }

    /// The process ends; with the power the whole machine does.
    pub(crate) fn crash(&mut self, power: bool, env: &mut Env) {
        if let Some(mut process) = self.process.take() {
            process.leave_half_done(env);
            env.disks[self.node].confirmed = env.rng.u64(env.disks[self.node].confirmed..=process.confirmed);
            env.end_all(self.node, !power);
        }
        if power {
            self.machine_up = false;
            let mut rng = env.rng.fork();
            let disk = &mut env.disks[self.node];
            let lost = disk.lose_power(&mut rng);
            disk.torn |= lost && !env.setup.flush_sync;
            env.disk_lost(!env.setup.flush_sync);
        }
        self.frozen_until = 0;
    }
}

impl Process {
    fn recover(node: Node, life: u64, clock: Clock, env: &mut Env) -> Self {
        let now = clock.at(env.now);
        let boot_id = Settled::InBoot(env.disks[node].boot);
        let intact = env.setup.flush_sync
            || env.is_planted(Planted::UncleanCountedIntact)
            || [boot_id, Settled::Cleanly].contains(&env.disks[node].settled);
        let disk = &mut env.disks[node];
        let member = Member::new(format!("r{node}"), disk.store);
        let mut process = Self {
            node,
            life,
            clock,
            member,
            memory: disk.memory.recovered(disk.end()).unwrap_or_else(|| disk.memory.clone()),
            integrity: Integrity::restored(intact),
            role: Role::Fenced,
            confirmed: disk.confirmed.min(disk.end()),
            jobs: VecDeque::new(),
            busy: false,
            flushing: false,
            flush_at: now,
            generation: 0,
            proof_at: now,
            heartbeat_at: 0,
            alter: None,
            agent: Agent::new(env.rng.usize(..2)),
            follower: Follower::default(),
            sessions: BTreeMap::new(),
        };
        process.remember(process.memory.clone(), process.integrity, env);
        env.note(|| {
            format!(
                "r{node} starts, life {life}: log to {}, promised {}, intact {intact}",
                env_end(&process.memory),
                process.memory.promised
            )
        });
        if env.is_planted(Planted::EpochReopened) {
            process.reopen(env);
        }
        process
    }

    /// Makes promise and epochs durable, then knows them.
    fn remember(&mut self, memory: Memory, integrity: Integrity, env: &mut Env) {
        self.save(&memory, integrity, env);
        env.promised(self.node, memory.promised);
        if integrity.is_intact() && !self.integrity.is_intact() {
            env.claims_intact(self.node);
        }
        self.memory = memory;
        self.integrity = integrity;
    }

    fn save(&self, memory: &Memory, integrity: Integrity, env: &mut Env) {
        let forgetful = env.is_planted(Planted::PromiseNotPersisted);
        let disk = &mut env.disks[self.node];
        let promised = if forgetful { disk.memory.promised } else { memory.promised };
        disk.memory = Memory { promised, epochs: memory.epochs.clone() };
        if integrity.is_intact() {
            disk.settled = Settled::InBoot(disk.boot);
        }
    }

    pub(crate) fn now(&self, env: &Env) -> Millis {
        self.clock.at(env.now)
    }

    /// How it is, as it tells the elector.
    pub(crate) fn report(&self, env: &Env) -> Report {
        let now = self.now(env);
        let disk = &env.disks[self.node];
        let (role, master_heard_ms_ago, drained) = match &self.role {
            Role::Fenced => (wire::Role::Fenced, None, false),
            Role::Slave { heard_at, .. } => (wire::Role::Slave, heard_at.map(|at| now.saturating_sub(at)), false),
            Role::Master(role) => {
                let early = env.is_planted(Planted::DrainedTooEarly) && matches!(role.gate, Gate::Parked(..));
                (wire::Role::Master, None, early || role.is_drained(self.agent.orders))
            }
        };
        let promised = self.memory.promised;
        let (epoch_heard, revision_heard) = self.agent.record_heard;
        Report {
            role,
            promised,
            revision: if epoch_heard == promised { revision_heard } else { 0 },
            last_epoch: self.memory.epochs.last().map_or(Epoch(0), |last| last.epoch),
            min_offset: 0,
            max_offset: disk.end(),
            flushed_offset: disk.flushed,
            confirm_offset: self.confirmed,
            master_heard_ms_ago,
            drained,
            data_plane_alive: now.saturating_sub(self.proof_at) < env.setup.ms(DATA_PLANE_MS),
            intact: self.integrity.is_intact(),
            degraded: false,
            last_cut: None,
            settings: None,
        }
    }

    /// Time went by: everything in the broker that waits for a clock.
    pub(crate) fn tick(&mut self, env: &mut Env) {
        let now = self.now(env);
        let mut alter = None;
        self.settle(env, |master, now| alter = master.tick(now));
        if let Some(alter) = alter {
            if env.is_planted(Planted::ShrinkWithoutCompareAndSet) {
                self.settle(env, |master, now| {
                    let record = wished(master, &alter);
                    master.recorded(&record, now, now);
                });
            }
            self.alter.get_or_insert(alter);
        }
        self.end_waiting(env);
        self.park_flushed(env);
        self.heartbeat_record(env);
        self.begin_flush(env);
        self.talk(env);
        self.follow(env);
        self.keep_sessions(env);
        let period = env.setup.ms(50).max(10);
        let wait = env.rng.u64(period / 2..=period * 3 / 2);
        env.trace.mix(&[4, self.node as u64, now]);
        env.after(wait, Event::Tick(self.node, self.life));
    }

    /// Something came by a connection.
    pub(crate) fn take(&mut self, conn: ConnId, msg: Msg, env: &mut Env) {
        match msg {
            Msg::HaHello { .. } | Msg::HaAck { .. } => self.serve(conn, msg, env),
            Msg::HaWelcome(_) | Msg::HaAppend(_) | Msg::HaHeartbeat { .. } | Msg::HaFenced => {
                self.followed(conn, msg, env);
            }
            Msg::Closed => {
                self.session_ended(conn, env);
                self.master_lost(conn, env);
                self.elector_lost(conn, env);
            }
            other => self.ordered(conn, other, env),
        }
    }

    /// It serves as master of `record`, sends pass, and it follows nobody.
    pub(crate) fn serves(&self, record: &GroupRecord) -> bool {
        matches!(&self.role, Role::Master(role)
            if role.master.epoch() == record.epoch && self.member == record.master && matches!(role.gate, Gate::Open))
    }

    /// For people who ask why a group doesn't come together.
    pub(crate) fn describe(&self, env: &Env) -> String {
        let slaves = match &self.role {
            Role::Master(role) => format!("{:?}", role.master.slaves()),
            Role::Fenced | Role::Slave { .. } => String::new(),
        };
        let Self { node, memory, follower, agent, alter, .. } = self;
        let now = self.now(env);
        format!("r{node} at {now}: {memory:?} {follower:?} {agent:?} {alter:?} {slaves}")
    }

    pub(crate) fn member(&self) -> &Member {
        &self.member
    }
}

impl MasterRole {
    fn is_drained(&self, order: u64) -> bool {
        let drained = |parking: &Parking| self.acks.is_empty() && self.master.is_drained_to(&parking.to);
        matches!(&self.gate, Gate::Parked(parking, _) if parking.order == order && drained(parking))
    }
}

/// The record that would grant a wish.
fn wished(master: &Master, alter: &Alter) -> GroupRecord {
    let me = master.in_sync().iter().next().cloned();
    let fallback = Member::new("nobody", gantry_replication::StoreId(0));
    GroupRecord {
        epoch: master.epoch(),
        revision: alter.revision + 1,
        master: me.unwrap_or(fallback),
        in_sync: alter.in_sync.clone(),
    }
}

fn env_end(memory: &Memory) -> u64 {
    memory.epochs.last().map_or(0, |last| last.start)
}
