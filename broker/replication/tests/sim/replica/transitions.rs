//! Changes of role and what they do to the log. `broker/src/core/transitions.rs`.

use std::collections::VecDeque;

use gantry_replication::GroupRecord;
use gantry_replication::handshake::Welcome;
use gantry_replication::master::{LogEnds, Master};
use gantry_replication::memory::Integrity;

use super::{Gate, MasterRole, Process, Role};
use crate::env::Env;
use crate::net::Node;
use crate::planted::Planted;

impl Process {
    pub(super) fn regain(&mut self, env: &mut Env) {
        let now = self.integrity.grew(env.disks[self.node].end());
        if now != self.integrity {
            self.remember(self.memory.clone(), now, env);
        }
    }

    pub(super) fn align(&mut self, welcome: &Welcome, env: &mut Env) -> Option<()> {
        if !self.in_session(welcome.epoch, env) {
            return None;
        }
        let cut = if welcome.anew.is_some() { 0 } else { welcome.cut };
        if cut > env.disks[self.node].end() {
            return None;
        }
        self.truncate(cut, env);
        let end = env.disks[self.node].end();
        let memory = self.memory.aligned(&welcome.epochs, end);
        let early = env.is_planted(Planted::IntactOnceAligned);
        let integrity = if early { Integrity::Intact } else { self.integrity.aligned(end, welcome.end) };
        self.remember(memory, integrity, env);
        Some(())
    }

    pub(super) fn truncate(&mut self, to: u64, env: &mut Env) {
        if env.is_planted(Planted::TailKept) {
            return;
        }
        env.cutting(self.node, to);
        let durably = !env.is_planted(Planted::TruncationNotDurable);
        if to < env.disks[self.node].end() {
            env.disks[self.node].truncate(to, durably);
            self.generation += 1;
            self.confirmed = self.confirmed.min(to);
        }
    }

    pub(super) fn become_master(&mut self, record: &GroupRecord, env: &mut Env) -> bool {
        if matches!(&self.role, Role::Master(role) if role.master.epoch() == record.epoch) {
            return true;
        }
        let end = env.disks[self.node].end();
        let Ok(memory) = self.memory.opening(&self.member, record, 0, end) else { return false };
        env.epoch_opened(self.node, self.life, record.epoch);
        self.remember(memory, Integrity::Intact, env);
        self.enter_as_master(record, env);
        true
    }

    fn enter_as_master(&mut self, record: &GroupRecord, env: &mut Env) {
        let now = self.now(env);
        let end = env.disks[self.node].end();
        let ends = LogEnds { written: end, flushed: env.disks[self.node].flushed, confirmed: self.confirmed };
        env.note(|| format!("r{} opens epoch {} at {end}, confirmed {}", self.node, record.epoch, ends.confirmed));
        let role = MasterRole {
            master: Master::open(env.setup.master(), record.master.clone(), record, ends, now),
            start: end,
            confirmed: self.confirmed,
            opening: false,
            acks: VecDeque::new(),
            gate: Gate::Opening(Vec::new(), now),
            called_off: 0,
        };
        let before = std::mem::replace(&mut self.role, Role::Master(Box::new(role)));
        step_down(before, env);
        self.proof_at = now;
        self.standing_changed(env);
        self.grown(env);
    }

    pub(super) fn become_slave(&mut self, record: &GroupRecord, master: Option<Node>, env: &mut Env) -> bool {
        match self.memory.promising(record.epoch) {
            Err(_stale) => return false,
            Ok(Some(memory)) => self.remember(memory, self.integrity, env),
            Ok(None) => {}
        }
        let (heard_at, same) = match &self.role {
            Role::Master(role) if role.master.epoch() == record.epoch => return false,
            Role::Slave { epoch, heard_at, master: known } if *epoch == record.epoch => (*heard_at, *known == master),
            _ => (None, false),
        };
        let slave = Role::Slave { epoch: record.epoch, heard_at, master };
        let before = std::mem::replace(&mut self.role, slave);
        self.proof_at = self.now(env);
        step_down(before, env);
        if !same {
            env.note(|| format!("r{} is slave of epoch {}, master {master:?}", self.node, record.epoch));
            self.standing_changed(env);
        }
        true
    }

    /// The planted bug: a restarted master takes its old seat again.
    pub(super) fn reopen(&mut self, env: &mut Env) {
        let record = env.register.record.clone();
        if let Some(record) = record.filter(|it| it.master == self.member && it.epoch == self.memory.promised) {
            env.epoch_opened(self.node, self.life, record.epoch);
            self.enter_as_master(&record, env);
        }
    }
}

/// Whoever waits for an acknowledgement of a master that was will not get it.
fn step_down(before: Role, env: &mut Env) {
    if let Role::Master(role) = before {
        let role = *role;
        env.checker.counts.unknown += role.acks.len() as u64;
        if let Gate::Opening(waiting, _) | Gate::Parked(_, waiting) = role.gate {
            env.checker.counts.refused += waiting.len() as u64;
        }
    }
}
