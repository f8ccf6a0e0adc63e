//! What goes wrong, and when everything goes right again.

use gantry_replication::GroupRecord;

use crate::checker::node_of;
use crate::disk::Disk;
use crate::env::{Env, Event};
use crate::net::Node;
use crate::register::names;
use crate::setup::Fault;
use crate::world::World;

impl Env {
    /// Whether an elector dies between two of its steps.
    pub(crate) fn dies_between_steps(&mut self) -> bool {
        let deadly = self.setup.faults.iter().any(|(fault, _)| *fault == Fault::ElectorDeath);
        deadly && self.rng.u32(..200) == 0
    }
}

impl World {
    /// The next fault, if the time of faults is not over.
    pub(crate) fn fault(&mut self) {
        if !self.env.faulty {
            return;
        }
        let total: u32 = self.env.setup.faults.iter().map(|(_, weight)| weight).sum();
        if total > 0 {
            let mut point = self.env.rng.u32(..total);
            let faults = self.env.setup.faults.clone();
            let drawn = faults.into_iter().find(|(_, weight)| {
                let hit = point < *weight;
                point = point.saturating_sub(*weight);
                hit
            });
            if let Some((fault, _)) = drawn {
                self.env.checker.counts.faults += 1;
                self.env.trace.mix(&[6, fault as u64]);
                self.happen(fault);
            }
        }
        let wait = self.env.rng.u64(1..=2 * self.env.setup.fault_every_ms);
        self.env.after(wait, Event::Fault);
    }

    fn happen(&mut self, fault: Fault) {
        let node = self.env.rng.usize(..self.replicas.len());
        let elector = self.env.rng.usize(..self.electors.len());
        let product_ms = if self.env.rng.bool() { 2_000 } else { 12_000 };
        let longest = self.env.setup.ms(product_ms);
        let while_ms = self.env.rng.u64(1..=longest);
        let until = self.env.now + while_ms;
        self.env.note(|| format!("FAULT {fault:?}: r{node} or elector {elector}, {while_ms} ms"));
        match fault {
            Fault::Kill | Fault::FailedSync => self.kill(node, while_ms),
            Fault::PowerLoss => self.lose_power(node, while_ms),
            Fault::Blackout => (0..self.replicas.len()).for_each(|node| self.lose_power(node, while_ms)),
            Fault::Freeze => self.replicas[node].frozen_until = until,
            Fault::SlowDisk => self.env.slow[node] = until,
            Fault::NewDisk => self.replace_disk(node, while_ms),
            Fault::OneWay | Fault::Partition => self.partition(fault == Fault::Partition, until),
            Fault::Isolate => self.isolate(node, until),
            Fault::Reset => self.reset(),
            Fault::ElectorDeath => {
                self.electors[elector].crash(&mut self.env);
                self.env.at(until, Event::Start(self.replicas.len() + elector));
            }
            Fault::ElectorFreeze => self.electors[elector].frozen_until = until,
            Fault::RecordAway => self.env.register.away_until = until,
            Fault::RecordLossy => self.env.register.lossy_until = until,
            Fault::Switchover => self.electors[elector].switchover(node, &mut self.env),
        }
    }

    fn kill(&mut self, node: Node, down_ms: u64) {
        if self.replicas[node].process.is_some() {
            self.replicas[node].crash(false, &mut self.env);
            self.tell_death(node);
            self.env.after(down_ms, Event::Start(node));
        }
    }

    fn lose_power(&mut self, node: Node, down_ms: u64) {
        if self.replicas[node].machine_up {
            self.replicas[node].crash(true, &mut self.env);
            self.env.after(down_ms, Event::Start(node));
        }
    }

    /// The supervisor tells the elector before it starts the process again.
    fn tell_death(&mut self, node: Node) {
        if self.env.setup.supervised {
            let now = self.env.now;
            for elector in self.electors.iter_mut().filter(|elector| elector.frozen_until <= now) {
                elector.died(node, &mut self.env);
            }
        }
    }

    /// Not the last disk of the in-sync set that can be relied on: what then to do is for people to decide.
    fn replace_disk(&mut self, node: Node, down_ms: u64) {
        let Some(record) = self.env.register.record.clone() else { return };
        let sound = |other: Node| other != node && !self.env.disks[other].torn && self.env.setup.flush_sync;
        let others = record.in_sync.iter().filter(|member| {
            let other = node_of(member);
            sound(other) && self.env.disks[other].store == member.store_id
        });
        if others.count() == 0 {
            return;
        }
        self.replicas[node].crash(false, &mut self.env);
        let disk = Disk::empty(self.env.new_store(), self.env.disks[node].boot);
        self.env.disks[node] = disk;
        self.env.disk_lost(true);
        self.tell_death(node);
        self.env.after(down_ms, Event::Start(node));
    }

    fn partition(&mut self, both_ways: bool, until: u64) {
        let nodes = self.replicas.len() + self.electors.len();
        let (a, b) = (self.env.rng.usize(..nodes), self.env.rng.usize(..nodes));
        self.env.net.cut(a, b, until);
        if both_ways {
            self.env.net.cut(b, a, until);
        }
    }

    fn isolate(&mut self, node: Node, until: u64) {
        for other in (0..self.replicas.len() + self.electors.len()).filter(|other| *other != node) {
            self.env.net.cut(node, other, until);
            self.env.net.cut(other, node, until);
        }
    }

    fn reset(&mut self) {
        let open: Vec<_> = self.env.net.ids().collect();
        if let Some(conn) = self.env.rng.choice(open) {
            self.env.reset(conn);
        }
    }

    /// A backup is played back over a group that is well; perhaps everything is started anew with it. `false`: there is none.
    pub(crate) fn restore_old_record(&mut self) -> bool {
        let Some(present) = self.env.register.record.clone() else { return false };
        let age = |record: &GroupRecord| (record.epoch, record.revision);
        let past: Vec<_> = self.env.register.past.iter().filter(|old| age(old) < age(&present)).cloned().collect();
        let Some(old) = self.env.rng.choice(past) else { return false };
        self.env.note(|| format!("record restored: {} {} {} {:?}", old.epoch, old.revision, old.master, names(&old)));
        // Revisions are in nobody's memory but processes': where all of them go, nobody would know.
        let promised = old.epoch < present.epoch;
        self.env.register.restore(old);
        if self.env.rng.bool() {
            self.electors[0].crash(&mut self.env);
            self.electors[0].start(&mut self.env);
        }
        for node in 0..self.replicas.len() {
            if self.env.rng.u32(..3) == 0 {
                self.kill(node, 100);
                if !promised {
                    break;
                }
            }
        }
        true
    }

    /// All faults end: ways are open, disks quick, everybody runs, and one elector is left.
    pub(crate) fn make_peace(&mut self) {
        self.env.note(|| "PEACE".to_owned());
        self.env.faulty = false;
        self.env.net.heal();
        self.env.slow.fill(0);
        (self.env.register.away_until, self.env.register.lossy_until) = (0, 0);
        for elector in self.electors.iter_mut().skip(1) {
            elector.crash(&mut self.env);
        }
        self.electors[0].frozen_until = 0;
        self.electors[0].start(&mut self.env);
        for replica in &mut self.replicas {
            replica.frozen_until = 0;
            replica.start(&mut self.env);
        }
    }
}
