//! An elector's process: events into the pure elector, its actions out. `operator/src/elector/group.rs`.

use std::collections::BTreeMap;

use gantry_replication::elector::{Action, Cause, Elector, Event as Told, Notice, SessionId};
use gantry_replication::record::Recorded;
use gantry_replication::wire::Hello;

use crate::env::{Clock, Env, Event};
use crate::net::{ConnId, Msg, Node};
use crate::planted::Planted;
use crate::register::{Op, Outcome};

/// A place for an elector.
pub(crate) struct ElectorNode {
    pub(crate) node: Node,
    clock: Clock,
    pub(crate) frozen_until: u64,
    pub(crate) process: Option<Process>,
}

/// What lives as long as the process. A session's number is its connection's.
pub(crate) struct Process {
    pub(crate) life: u64,
    elector: Elector,
    /// The replica's name, by session.
    sessions: BTreeMap<SessionId, String>,
    /// Sessions that others have taken the place of, until their end is told.
    replaced: BTreeMap<SessionId, String>,
    wishes: BTreeMap<u64, ConnId>,
    tickets: u64,
}

impl ElectorNode {
    pub(crate) fn new(node: Node, clock: Clock) -> Self {
        Self { node, clock, frozen_until: 0, process: None }
    }

    pub(crate) fn start(&mut self, env: &mut Env) {
        if self.process.is_none() {
            let life = env.new_life();
            let elector = Elector::new(env.setup.elector(), self.clock.at(env.now));
            let (sessions, replaced, wishes) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
            self.process = Some(Process { life, elector, sessions, replaced, wishes, tickets: 0 });
            env.note(|| format!("elector {} starts", self.node));
            env.after(0, Event::Tick(self.node, life));
        }
    }

    pub(crate) fn crash(&mut self, env: &mut Env) {
        if self.process.take().is_some() {
            env.note(|| format!("elector {} dies", self.node));
            env.end_all(self.node, true);
        }
        self.frozen_until = 0;
    }

    pub(crate) fn tick(&mut self, env: &mut Env) {
        self.handle(Told::Tick, env);
        if let Some(process) = &self.process {
            let period = env.setup.ms(50).max(10);
            let wait = env.rng.u64(period / 2..=period * 3 / 2);
            env.after(wait, Event::Tick(self.node, process.life));
        }
    }

    /// The supervisor saw a replica's process end.
    pub(crate) fn died(&mut self, replica: Node, env: &mut Env) {
        self.handle(Told::Died { name: format!("r{replica}") }, env);
    }

    pub(crate) fn switchover(&mut self, to: Node, env: &mut Env) {
        let Some(process) = &mut self.process else { return };
        process.tickets += 1;
        let ticket = process.tickets;
        self.handle(Told::Switchover { to: format!("r{to}"), ticket }, env);
    }

    /// Something from the record's store.
    pub(crate) fn heard(&mut self, outcome: Outcome, env: &mut Env) {
        let Some(process) = &self.process else { return };
        let outcome = match outcome {
            Outcome::Read(mut recorded) if env.is_planted(Planted::ElectionOutsideTheSet) => {
                widen(&mut recorded, process);
                Outcome::Read(recorded)
            }
            other => other,
        };
        match outcome.into() {
            Some(told) => self.handle(told, env),
            None => env.ask_register(self.node, process.life, Op::Read),
        }
    }

    /// Something from a replica.
    pub(crate) fn take(&mut self, conn: ConnId, msg: Msg, env: &mut Env) {
        let Some(process) = &mut self.process else { return };
        match msg {
            Msg::Hello(hello) => self.joined(conn, hello, env),
            Msg::Report(report) => {
                self.handle(Told::Reported { session: conn, report }, env);
                self.reply_heard(conn, env);
            }
            Msg::Obeyed(report) => self.handle(Told::Reported { session: conn, report }, env),
            Msg::Answer(report) => self.handle(Told::Answered { session: conn, report }, env),
            Msg::Alter(mut wish) => {
                if let Some(record) = process.elector.record().filter(|_| env.is_planted(Planted::OldWishGranted)) {
                    wish.revision = record.revision;
                }
                process.tickets += 1;
                let ticket = process.tickets;
                process.wishes.insert(ticket, conn);
                self.handle(Told::Alter { session: conn, wish, ticket }, env);
            }
            Msg::Closed => {
                process.sessions.remove(&conn);
                process.replaced.remove(&conn);
                process.wishes.retain(|_, from| *from != conn);
                self.handle(Told::Left { session: conn }, env);
            }
            _ => {}
        }
    }

    fn joined(&mut self, conn: ConnId, hello: Box<Hello>, env: &mut Env) {
        let Some(process) = &mut self.process else { return };
        let name = hello.member.name.clone();
        let (old, others) = std::mem::take(&mut process.sessions).into_iter().partition(|(_, other)| *other == name);
        process.sessions = others;
        for &conn in old.keys() {
            // What came by it already is still taken, and that it has ended is heard after all that.
            let late = env.rng.u64(..=env.setup.max_delay_ms);
            env.after(late, Event::SessionEnds { node: self.node, life: process.life, conn });
        }
        process.replaced.extend(old);
        process.sessions.insert(conn, name);
        self.handle(Told::Joined { session: conn, hello }, env);
        self.reply_heard(conn, env);
    }

    /// A session that another has taken the place of is over.
    pub(crate) fn session_ends(&mut self, conn: ConnId, env: &mut Env) {
        let Some(process) = &mut self.process else { return };
        env.close(conn, self.node);
        let Some(name) = process.replaced.remove(&conn) else { return };
        let present = process.sessions.iter().find(|(_, other)| **other == name).map(|(&present, _)| present);
        let session = present.filter(|_| env.is_planted(Planted::OldSessionEndsNew)).unwrap_or(conn);
        process.wishes.retain(|_, from| *from != conn);
        self.handle(Told::Left { session }, env);
    }

    fn reply_heard(&self, conn: ConnId, env: &mut Env) {
        if let Some(process) = &self.process {
            env.send(conn, self.node, Msg::Heard(process.elector.record().cloned()));
        }
    }

    fn handle(&mut self, told: Told, env: &mut Env) {
        let now = self.clock.at(env.now);
        let Some(process) = &mut self.process else { return };
        for action in process.elector.handle(now, told) {
            self.carry_out(action, env);
            // Between any two of its steps it may die.
            if env.faulty && env.dies_between_steps() {
                self.crash(env);
                let wait = env.rng.u64(..env.setup.ms(3_000));
                env.after(wait, Event::Start(self.node));
                return;
            }
        }
    }

    fn carry_out(&mut self, action: Action, env: &mut Env) {
        let Some(process) = &mut self.process else { return };
        let life = process.life;
        match action {
            Action::Read => env.ask_register(self.node, life, Op::Read),
            Action::CompareAndSet { expected, record } => {
                env.ask_register(self.node, life, Op::CompareAndSet(expected, record));
            }
            Action::Direct { session, directive } => env.send(session, self.node, Msg::Directive(directive)),
            Action::Probe { session } => env.send(session, self.node, Msg::Probe),
            Action::Answer { ticket, record } => {
                if let Some(conn) = process.wishes.remove(&ticket) {
                    env.send(conn, self.node, Msg::Altered(record));
                }
            }
            Action::Publish { address, .. } => env.published = address.parse().ok(),
            Action::Switched { result, .. } => {
                env.note(|| format!("switchover: {result:?}"));
                env.checker.counts.switchovers += u64::from(result.is_ok());
            }
            Action::Tell(notice) => {
                env.note(|| format!("elector {}: {notice}", self.node));
                if let Notice::Elected { epoch, cause: Cause::Switchover, .. } = notice {
                    env.checker.planned.insert(epoch);
                }
            }
        }
    }
}

/// The planted bug: whoever is known counts as a member of the set.
fn widen(recorded: &mut Recorded, process: &Process) {
    if let Some(record) = &mut recorded.record {
        let known = process.sessions.values().filter_map(|name| process.elector.hello(name));
        record.in_sync.extend(known.map(|hello| hello.member.clone()));
    }
}
