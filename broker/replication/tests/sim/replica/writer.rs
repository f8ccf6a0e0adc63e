//! The writer: everything that changes the log or the role, one job after the other. `broker/src/core/writer.rs`.

use gantry_replication::handshake::Welcome;
use gantry_replication::memory::Integrity;
use gantry_replication::{Epoch, GroupRecord, Member};

use super::{Gate, Parking, Process, Role};
use crate::disk::Entry;
use crate::env::{Env, Event};
use crate::net::{ConnId, Node, Piece};
use crate::planted::Planted;

/// What the writer is given to do.
#[derive(Clone, Debug)]
pub(crate) enum Job {
    Sends(Vec<u64>),
    Raw(ConnId, Piece),
    /// Look where the log stands, with nothing on its way into it, and say hello.
    Survey(ConnId),
    Align(ConnId, Box<Welcome>),
    /// With the elector's connection, to answer.
    BecomeMaster(ConnId, GroupRecord),
    BecomeSlave(ConnId, GroupRecord, Option<Node>),
    Heartbeat,
    Open(Epoch),
    /// By the order of that number.
    Park(Epoch, Member, u64),
    /// All orders up to that number are called off.
    Unpark(Epoch, u64),
}

impl Process {
    pub(crate) fn push(&mut self, job: Job, env: &mut Env) {
        self.jobs.push_back(job);
        self.begin_job(env);
    }

    fn begin_job(&mut self, env: &mut Env) {
        let Some(job) = self.jobs.front().filter(|_| !self.busy) else { return };
        // The file of promise and epochs is synced; the log is only written.
        let synced = matches!(job, Job::Align(..) | Job::BecomeMaster(..) | Job::BecomeSlave(..));
        let wait = env.disk_time(self.node, if synced { 5 } else { 1 });
        self.busy = true;
        env.after(wait, Event::JobDone(self.node, self.life));
    }

    pub(crate) fn job_done(&mut self, env: &mut Env) {
        self.busy = false;
        if let Some(job) = self.jobs.pop_front() {
            self.carry_out(job, env);
        }
        self.begin_job(env);
    }

    fn carry_out(&mut self, job: Job, env: &mut Env) {
        match job {
            Job::Sends(ops) => self.append_sends(ops, env),
            Job::Raw(conn, piece) => {
                let appended = self.append_raw(piece, env);
                self.appended(conn, appended.is_some(), env);
            }
            Job::Survey(conn) => self.say_hello(conn, env),
            Job::Align(conn, welcome) => {
                let aligned = self.align(&welcome, env);
                self.aligned(conn, aligned.is_some(), env);
            }
            Job::BecomeMaster(conn, record) => {
                if self.become_master(&record, env) {
                    self.tell_done(conn, env);
                }
            }
            Job::BecomeSlave(conn, record, master) => {
                if self.become_slave(&record, master, env) {
                    self.tell_done(conn, env);
                }
            }
            Job::Heartbeat => self.prove(env),
            Job::Park(epoch, to, order) => self.park(epoch, to, order, env),
            Job::Open(epoch) => self.open_gate(epoch, |gate| matches!(gate, Gate::Opening(..)), env),
            Job::Unpark(epoch, order) => self.unpark(epoch, order, env),
        }
    }

    fn append_sends(&mut self, ops: Vec<u64>, env: &mut Env) {
        let now = self.now(env);
        let patience = env.setup.ms(3_000);
        let role = match &mut self.role {
            Role::Master(role) => match role.master.may_append(now) {
                Ok(()) if !role.gate.is_overdue(now, patience) => role,
                _refused => return env.checker.counts.refused += ops.len() as u64,
            },
            Role::Fenced | Role::Slave { .. } => return env.checker.counts.refused += ops.len() as u64,
        };
        if let Gate::Opening(waiting, _) | Gate::Parked(_, waiting) = &mut role.gate {
            waiting.extend(ops);
            return;
        }
        let epoch = role.master.epoch().0;
        let log = &mut env.disks[self.node].log;
        for op in ops {
            log.push(Entry { epoch, author: self.life, op });
            role.acks.push_back((log.len() as u64, now));
        }
        self.grown(env);
    }

    pub(super) fn grown(&mut self, env: &mut Env) {
        let (written, flushed) = (env.disks[self.node].end(), env.disks[self.node].flushed);
        self.settle(env, |master, _now| master.local(written, flushed));
        self.begin_flush(env);
        self.pump_all(env);
    }

    fn prove(&mut self, env: &mut Env) {
        let now = self.now(env);
        let Role::Master(role) = &self.role else { return };
        if role.master.may_serve(now).is_ok() {
            let epoch = role.master.epoch().0;
            env.disks[self.node].log.push(Entry { epoch, author: self.life, op: 0 });
            self.grown(env);
        }
    }

    /// Is this replica still the slave of that session's master?
    pub(super) fn in_session(&self, session: Epoch, env: &Env) -> bool {
        match &self.role {
            Role::Slave { epoch, .. } => *epoch == session || env.is_planted(Planted::OldSessionAccepted),
            Role::Fenced | Role::Master(_) => false,
        }
    }

    fn append_raw(&mut self, piece: Piece, env: &mut Env) -> Option<()> {
        if !self.in_session(piece.session, env) {
            return None;
        }
        env.obeyed(self.node, piece.session);
        if !piece.entries.is_empty() {
            if let Some(memory) = self.memory.entering(piece.written_in, piece.from).ok()? {
                self.remember(memory, self.integrity, env);
            }
            if piece.from != env.disks[self.node].end() {
                return None;
            }
            env.disks[self.node].log.extend(piece.entries);
            self.regain(env);
            self.begin_flush(env);
        }
        let confirm = piece.confirm.min(env.disks[self.node].end());
        if confirm > self.confirmed {
            env.slave_confirmed(self.node, piece.session, self.confirmed, confirm);
            self.confirmed = confirm;
        }
        Some(())
    }

    fn park(&mut self, epoch: Epoch, to: Member, order: u64, env: &mut Env) {
        env.note(|| format!("r{} is to park for {to}", self.node));
        let now = self.now(env);
        if let Role::Master(role) = &mut self.role
            && role.master.epoch() == epoch
            && order > role.called_off
        {
            let waiting = match &mut role.gate {
                Gate::Opening(..) => return,
                Gate::Open => Vec::new(),
                Gate::Parked(_, waiting) => std::mem::take(waiting),
            };
            role.gate = Gate::Parked(Parking { to, since: now, order }, waiting);
        }
    }

    fn unpark(&mut self, epoch: Epoch, order: u64, env: &mut Env) {
        if let Role::Master(role) = &mut self.role
            && role.master.epoch() == epoch
        {
            role.called_off = role.called_off.max(order);
        }
        self.open_gate(epoch, |gate| matches!(gate, Gate::Parked(parking, _) if parking.order <= order), env);
    }

    fn open_gate(&mut self, epoch: Epoch, ends: impl FnOnce(&Gate) -> bool, env: &mut Env) {
        let gate = match &mut self.role {
            Role::Master(role) if role.master.epoch() == epoch && ends(&role.gate) => {
                std::mem::replace(&mut role.gate, Gate::Open)
            }
            _ => return,
        };
        if let Gate::Opening(waiting, _) | Gate::Parked(_, waiting) = gate {
            env.note(|| format!("r{}: {} sends pass", self.node, waiting.len()));
            self.append_sends(waiting, env);
        }
    }

    /// The process dies in the middle of a job: what the job makes durable first may be there, and nothing else of it.
    pub(super) fn leave_half_done(&mut self, env: &mut Env) {
        let job = self.jobs.front().filter(|_| self.busy).cloned();
        let Some(job) = job.filter(|_| env.rng.bool()) else { return };
        let end = env.disks[self.node].end();
        let half = match &job {
            Job::BecomeMaster(_, record) => {
                self.memory.opening(&self.member, record, 0, end).ok().map(|memory| (memory, Integrity::Intact))
            }
            Job::BecomeSlave(_, record, _) => {
                self.memory.promising(record.epoch).ok().flatten().map(|memory| (memory, self.integrity))
            }
            Job::Raw(_, piece) if self.in_session(piece.session, env) && !piece.entries.is_empty() => {
                let entered = self.memory.entering(piece.written_in, piece.from).ok().flatten();
                entered.map(|memory| (memory, self.integrity))
            }
            Job::Align(_, welcome) if self.in_session(welcome.epoch, env) => {
                let cut = if welcome.anew.is_some() { 0 } else { welcome.cut };
                if cut <= end {
                    self.truncate(cut, env);
                }
                None
            }
            _ => None,
        };
        if let Some((memory, integrity)) = half {
            self.save(&memory, integrity, env);
        }
    }
}
