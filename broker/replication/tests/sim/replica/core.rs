//! Acknowledgements, flushes, and what waits for them. `broker/src/core.rs`.

use gantry_replication::Millis;
use gantry_replication::master::Master;

use super::{Gate, Job, Process, Role};
use crate::env::{Env, Event};
use crate::planted::Planted;

impl Process {
    /// Lets `change` act on the master, then acknowledges what may be.
    pub(super) fn settle(&mut self, env: &mut Env, change: impl FnOnce(&mut Master, Millis)) {
        let now = self.now(env);
        let Role::Master(role) = &mut self.role else { return };
        change(&mut role.master, now);
        let epoch = role.master.epoch();
        let before = role.confirmed;
        role.confirmed = role.master.confirm(now);
        if env.is_planted(Planted::AckBeforeTheSet) {
            role.confirmed = env.disks[self.node].end();
        }
        if role.confirmed > before {
            env.master_confirmed(self.node, epoch, before, role.confirmed);
            self.confirmed = self.confirmed.max(role.confirmed);
        }
        while let Some(&(end, _)) = role.acks.front().filter(|(end, _)| *end <= role.confirmed) {
            role.acks.pop_front();
            env.op_acked(self.node, epoch, end - 1);
        }
        let patience = env.setup.ms(3_000);
        while role.acks.front().is_some_and(|&(_, since)| now.saturating_sub(since) > patience) {
            role.acks.pop_front();
            env.checker.counts.unknown += 1;
        }
        if role.confirmed >= role.start && matches!(role.gate, Gate::Opening(..)) && !role.opening {
            role.opening = true;
            self.push(Job::Open(epoch), env);
        }
        if self.confirmed > before {
            self.pump_all(env);
        }
    }

    pub(super) fn end_waiting(&mut self, env: &mut Env) {
        let now = self.now(env);
        let Role::Master(role) = &mut self.role else { return };
        if role.gate.is_overdue(now, env.setup.ms(3_000))
            && let Gate::Opening(waiting, _) = &mut role.gate
        {
            env.checker.counts.refused += waiting.drain(..).count() as u64;
        }
        if let Gate::Parked(parking, _) = &role.gate
            && now.saturating_sub(parking.since) > env.setup.ms(15_000)
        {
            let job = Job::Unpark(role.master.epoch(), parking.order);
            self.push(job, env);
        }
    }

    pub(super) fn heartbeat_record(&mut self, env: &mut Env) {
        let now = self.now(env);
        let due = matches!(self.role, Role::Master(_))
            && now.saturating_sub(self.proof_at) >= env.setup.ms(1_500)
            && now.saturating_sub(self.heartbeat_at) >= env.setup.ms(500);
        if due {
            self.heartbeat_at = now;
            self.push(Job::Heartbeat, env);
        }
    }

    pub(super) fn begin_flush(&mut self, env: &mut Env) {
        let now = self.now(env);
        let (end, flushed) = (env.disks[self.node].end(), env.disks[self.node].flushed);
        if self.flushing || flushed >= end || (!env.setup.flush_sync && now < self.flush_at) {
            return;
        }
        self.flushing = true;
        let wait = 1 + env.disk_time(self.node, 3);
        let flushed = Event::FlushDone { node: self.node, life: self.life, to: end, generation: self.generation };
        env.after(wait, flushed);
    }

    pub(crate) fn flush_done(&mut self, to: u64, generation: u64, env: &mut Env) {
        self.flushing = false;
        let now = self.now(env);
        self.flush_at = now + env.setup.ms(500);
        if generation == self.generation {
            env.disks[self.node].flush(to);
            self.proof_at = now;
            let (written, flushed) = (env.disks[self.node].end(), env.disks[self.node].flushed);
            self.settle(env, |master, _now| master.local(written, flushed));
            self.acknowledge(env);
        }
        self.begin_flush(env);
    }

    /// A consumer reads here, if it may: some of what is visible.
    pub(crate) fn show(&self, env: &mut Env) {
        let Role::Master(role) = &self.role else { return };
        if matches!(role.gate, Gate::Opening(..)) || role.master.may_serve(self.now(env)).is_err() {
            return;
        }
        let above = env.is_planted(Planted::VisibilityAboveConfirm);
        let visible = if above { env.disks[self.node].end() } else { self.confirmed };
        if visible > 0 {
            env.consumed(self.node, visible - 1);
            let any = env.rng.u64(..visible);
            env.consumed(self.node, any);
        }
    }
}

impl Gate {
    pub(super) fn is_overdue(&self, now: Millis, patience: Millis) -> bool {
        matches!(self, Self::Opening(_, since) if now.saturating_sub(*since) > patience)
    }
}
