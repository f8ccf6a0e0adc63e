//! The session with the elector. `broker/src/agent.rs`.

use gantry_replication::master::Alter;
use gantry_replication::wire::{AlterInSync, Directive, Hello, REPORT_INTERVAL_MS};
use gantry_replication::{Epoch, GroupRecord, Member, Millis};

use super::{Job, Process};
use crate::env::Env;
use crate::net::{ConnId, Msg, Node};
use crate::planted::Planted;
use crate::register::names;

/// How far it is with an elector.
#[derive(Debug)]
pub(super) struct Agent {
    /// Which of the electors is tried.
    elector: usize,
    conn: Option<ConnId>,
    opened: bool,
    /// A request that waits for its answer, since when; a wish with the epoch and the revision it was made on.
    waiting: Option<(Option<(Epoch, u64)>, Millis)>,
    next: Millis,
    back_off: Millis,
    /// Something is worth reporting before its time.
    pub(super) news: bool,
    /// Orders to park that have come, and those that wait until metadata are flushed.
    pub(super) orders: u64,
    flushing: Vec<(Millis, Job)>,
    /// Epoch and revision of the newest record that an elector has told of.
    pub(super) record_heard: (Epoch, u64),
    /// Only with a planted bug.
    pub(super) early_wish: Option<AlterInSync>,
}

impl Agent {
    pub(super) fn new(elector: usize) -> Self {
        Self {
            elector,
            conn: None,
            opened: false,
            waiting: None,
            next: 0,
            back_off: 0,
            news: false,
            orders: 0,
            flushing: Vec::new(),
            record_heard: (Epoch(0), 0),
            early_wish: None,
        }
    }
}

impl Process {
    /// Looks at the clock: opens a session, reports, wishes, gives up an elector that has hung.
    pub(super) fn talk(&mut self, env: &mut Env) {
        let now = self.now(env);
        let Some(conn) = self.agent.conn else {
            if now >= self.agent.next {
                self.open_session(env);
            }
            return;
        };
        if let Some((_, since)) = &self.agent.waiting {
            if now.saturating_sub(*since) > env.setup.ms(2_000) {
                env.close(conn, self.node);
                self.elector_lost(conn, env);
            }
            return;
        }
        if let Some(wish) = self.agent.early_wish.take() {
            self.agent.waiting = Some((None, now));
            env.send(conn, self.node, Msg::Alter(wish));
        } else if let Some(alter) = self.alter.take() {
            self.agent.waiting = Some((Some((alter.epoch, alter.revision)), now));
            env.note(|| {
                format!(
                    "r{} wishes over {} {:?}",
                    self.node,
                    alter.revision,
                    alter.in_sync.iter().map(|member| &member.name).collect::<Vec<_>>()
                )
            });
            let Alter { epoch, revision, in_sync } = alter;
            env.send(conn, self.node, Msg::Alter(AlterInSync { epoch, revision, in_sync }));
        } else if now >= self.agent.next || self.agent.news {
            self.agent.news = false;
            self.agent.waiting = Some((None, now));
            let report = self.report(env);
            env.send(conn, self.node, Msg::Report(report));
        }
    }

    fn open_session(&mut self, env: &mut Env) {
        let now = self.now(env);
        self.agent.elector = (self.agent.elector + 1) % env.setup.electors;
        let elector = env.setup.replicas + self.agent.elector;
        let conn = env.connect(self.node, elector);
        let hello = Hello {
            group: "g".to_owned(),
            token: String::new(),
            member: self.member.clone(),
            client_address: self.node.to_string(),
            ha_address: self.node.to_string(),
            pid: 1,
            priority: 0,
            zone: None,
            report: self.report(env),
        };
        env.note(|| format!("r{} says hello to elector {elector} by {conn}", self.node));
        env.send(conn, self.node, Msg::Hello(Box::new(hello)));
        self.agent.conn = Some(conn);
        self.agent.opened = false;
        self.agent.waiting = Some((None, now));
    }

    /// Something from the elector.
    pub(super) fn ordered(&mut self, conn: ConnId, msg: Msg, env: &mut Env) {
        if self.agent.conn != Some(conn) {
            return;
        }
        let now = self.now(env);
        match msg {
            Msg::Heard(record) => {
                if !self.agent.opened {
                    // A wish made to an elector that is gone is void; the master makes it again.
                    (self.agent.opened, self.alter) = (true, None);
                }
                let asked = self.asked(env);
                self.agent.next = now + env.setup.ms(REPORT_INTERVAL_MS);
                if let Some(record) = record {
                    self.heard_of(&record);
                    self.settle(env, |master, now| master.recorded(&record, asked, now));
                }
            }
            Msg::Altered(record) => {
                let asked = self.asked(env);
                env.note(|| format!("r{} hears of its wish: {} {:?}", self.node, record.revision, names(&record)));
                self.heard_of(&record);
                self.settle(env, |master, now| master.recorded(&record, asked, now));
            }
            Msg::Probe => {
                let report = self.report(env);
                env.send(conn, self.node, Msg::Answer(report));
            }
            Msg::Directive(directive) => self.obey(conn, directive, env),
            _ => {}
        }
    }

    fn heard_of(&mut self, record: &GroupRecord) {
        self.agent.record_heard = self.agent.record_heard.max((record.epoch, record.revision));
    }

    /// When that was asked to which the answer has come.
    fn asked(&mut self, env: &Env) -> Millis {
        let now = self.now(env);
        let asked = self.agent.waiting.take().map_or(now, |(_, since)| since);
        if env.is_planted(Planted::AnswerCountsWhenItComes) { now } else { asked }
    }

    fn obey(&mut self, conn: ConnId, directive: Directive, env: &mut Env) {
        match directive {
            Directive::Master { record } => self.push(Job::BecomeMaster(conn, record), env),
            Directive::Slave { record, ha_address } => {
                let master: Option<Node> = ha_address.and_then(|address| address.parse().ok());
                self.push(Job::BecomeSlave(conn, record, master), env);
            }
            Directive::Park { epoch, to } => {
                self.agent.orders += 1;
                let job = Job::Park(epoch, to, self.agent.orders);
                // Metadata are flushed first, and that may take its time.
                let wait = if env.rng.u32(..4) == 0 { env.rng.u64(..env.setup.ms(8_000)) } else { 0 };
                if wait == 0 {
                    self.push(job, env);
                } else {
                    self.agent.flushing.push((self.now(env) + wait, job));
                }
                self.tell_done(conn, env);
            }
            Directive::Unpark { epoch } => {
                self.push(Job::Unpark(epoch, self.agent.orders), env);
                self.tell_done(conn, env);
            }
        }
    }

    /// Orders to park whose metadata are flushed by now.
    pub(super) fn park_flushed(&mut self, env: &mut Env) {
        let now = self.now(env);
        for (_, job) in self.agent.flushing.extract_if(.., |(due, _)| *due <= now).collect::<Vec<_>>() {
            self.push(job, env);
        }
    }

    pub(super) fn tell_done(&self, conn: ConnId, env: &mut Env) {
        let report = self.report(env);
        env.send(conn, self.node, Msg::Obeyed(report));
    }

    /// The session is gone: after a while the next elector is tried. What was asked stays open.
    pub(super) fn elector_lost(&mut self, conn: ConnId, env: &mut Env) {
        if self.agent.conn != Some(conn) {
            return;
        }
        env.note(|| format!("r{} lost its session {conn}", self.node));
        let now = self.now(env);
        if let Some((Some((epoch, revision)), _)) = self.agent.waiting.take()
            && env.is_planted(Planted::LostAnswerIsNo)
        {
            self.settle(env, |master, now| {
                let in_sync = master.in_sync().clone();
                let record = GroupRecord { epoch, revision: revision + 1, master: master_of(master), in_sync };
                master.recorded(&record, now, now);
            });
        }
        self.agent.conn = None;
        self.agent.back_off =
            if self.agent.opened { 20 } else { (self.agent.back_off * 2).clamp(20, env.setup.ms(1_000).max(20)) };
        self.agent.next = now + env.rng.u64(self.agent.back_off / 2..=self.agent.back_off);
    }
}

fn master_of(master: &gantry_replication::master::Master) -> Member {
    master.in_sync().iter().next().cloned().unwrap_or_else(|| Member::new("nobody", gantry_replication::StoreId(0)))
}
