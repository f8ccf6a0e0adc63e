//! Judges every step by the protocol's invariants. It sees all disks and the record at once, which nobody in the protocol does.
//!
//! In `Sync` mode what a master confirms becomes the canon: from then on nothing else may ever be confirmed at those offsets, and
//! every member of the record's set has it, where `flush: Sync` on disk. The canon shrinks only when the last member that holds
//! something loses it to a power cut (`flush: Async`) or to an emptied disk: these are the losses that no protocol prevents.

use std::collections::{BTreeMap, BTreeSet};

use gantry_replication::master::Mode;
use gantry_replication::{Epoch, GroupRecord, Member, StoreId};

use crate::disk::{Entry, Settled};
use crate::env::Env;
use crate::net::Node;

/// What has been seen, and the first thing that may not be.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    pub(crate) violation: Option<String>,
    canon: Vec<Entry>,
    acked: BTreeMap<u64, Entry>,
    opened: BTreeMap<Epoch, (Node, u64)>,
    /// Epochs that a planned switchover led to.
    pub(crate) planned: BTreeSet<Epoch>,
    promised: BTreeMap<StoreId, Epoch>,
    /// The record as the last compare-and-set left it, whatever was restored since.
    true_record: Option<GroupRecord>,
    pub(crate) counts: Counts,
}

/// What a run was about.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) acked: u64,
    pub(crate) unknown: u64,
    pub(crate) refused: u64,
    pub(crate) epochs: u64,
    pub(crate) alters: u64,
    pub(crate) cuts: u64,
    pub(crate) switchovers: u64,
    pub(crate) excused: u64,
    pub(crate) faults: u64,
}

/// The replica that a member is.
pub(crate) fn node_of(member: &Member) -> Node {
    member.name[1..].parse().unwrap_or(usize::MAX)
}

impl Checker {
    pub(crate) fn fail(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    pub(crate) fn canon_end(&self) -> u64 {
        self.canon.len() as u64
    }
}

impl Env {
    fn is_sync(&self) -> bool {
        self.setup.mode == Mode::Sync
    }

    /// How much of the canon a replica's log holds.
    pub(crate) fn held(&self, node: Node) -> u64 {
        let log = &self.disks[node].log;
        log.iter().zip(&self.checker.canon).take_while(|(mine, canon)| mine == canon).count() as u64
    }

    fn is_member(&self, member: &Member) -> bool {
        self.disks.get(node_of(member)).is_some_and(|disk| disk.store == member.store_id)
    }

    /// A master moved its confirm offset from `from` to `to`.
    pub(crate) fn master_confirmed(&mut self, node: Node, epoch: Epoch, from: u64, to: u64) {
        self.trace.mix(&[2, node as u64, epoch.0, to]);
        if !self.is_sync() {
            return;
        }
        let from = from.min(self.checker.canon_end());
        for at in from..to {
            let mine = self.disks[node].log[at as usize];
            match self.checker.canon.get(at as usize) {
                None => self.checker.canon.push(mine),
                Some(canon) if *canon == mine => {}
                Some(canon) => {
                    let canon = *canon;
                    self.checker.fail(format!(
                        "Visibility: offset {at} was confirmed as {canon:?}, now r{node} confirms {mine:?}"
                    ));
                }
            }
        }
        let Some(record) = self.register.record.clone().filter(|record| record.epoch >= epoch) else { return };
        for member in &record.in_sync {
            if self.is_member(member) && !self.holds(node_of(member), from, to) {
                self.checker.fail(format!(
                    "Ack: r{node} of epoch {epoch} confirms [{from}, {to}), which {} of the set doesn't have",
                    member.name
                ));
            }
        }
    }

    /// Whether a replica has that part of the canon, as durably as asked for. One that a power cut tore is excused.
    fn holds(&self, node: Node, from: u64, to: u64) -> bool {
        let disk = &self.disks[node];
        let end = if self.setup.flush_sync { disk.flushed } else { disk.end() };
        let range = from as usize..to as usize;
        disk.torn || (end >= to && disk.log[range.clone()] == self.checker.canon[range])
    }

    /// A slave believes everything in that range confirmed.
    pub(crate) fn slave_confirmed(&mut self, node: Node, session: Epoch, from: u64, to: u64) {
        // After the disks of a whole set lost something, who still hears of a past epoch hears of what is no more.
        let newest = self.checker.opened.keys().next_back() == Some(&session);
        if !self.is_sync() || from >= to || (self.checker.counts.excused > 0 && !newest) {
            return;
        }
        let known = to.min(self.checker.canon_end());
        if (known < to && self.checker.counts.excused == 0) || (from < known && !self.holds_written(node, from, known))
        {
            self.checker.fail(format!("Visibility: slave r{node} takes [{from}, {to}) for confirmed, which it isn't"));
        }
    }

    fn holds_written(&self, node: Node, from: u64, to: u64) -> bool {
        let range = from as usize..to as usize;
        self.disks[node].log[range.clone()] == self.checker.canon[range]
    }

    /// A client was told that its message is in.
    pub(crate) fn op_acked(&mut self, node: Node, epoch: Epoch, at: u64) {
        self.checker.counts.acked += 1;
        self.judge_fence(node, epoch);
        // In `Async` mode what a master acknowledges that was replaced meanwhile is lost.
        let newest = self.checker.opened.keys().next_back() == Some(&epoch);
        if self.is_sync() || newest {
            self.checker.acked.insert(at, self.disks[node].log[at as usize]);
        }
    }

    /// In `Async` mode a master that was replaced is kept from serving by nothing but the clock, as long as it hears nobody.
    fn judge_fence(&mut self, node: Node, epoch: Epoch) {
        let Some(record) = self.checker.true_record.as_ref().filter(|record| record.epoch > epoch) else { return };
        let (newer, limit) = (record.epoch, self.setup.master().fence_after_ms);
        // Its clock may be slow.
        let silent = (self.now - self.heard_at[node]) * (1_000 - self.setup.drift) / 1_000;
        if silent > limit + 1 {
            self.checker.fail(format!(
                "Fence: r{node} of epoch {epoch} acknowledges {silent} ms after it heard anything, in epoch {newer}"
            ));
        }
    }

    /// A consumer was given this.
    pub(crate) fn consumed(&mut self, node: Node, at: u64) {
        let seen = self.disks[node].log.get(at as usize).copied();
        let canon = self.checker.canon.get(at as usize).copied();
        // An old master that was cut off shows what the disks of its successors' set have lost.
        let excused = canon.is_none() && self.checker.counts.excused > 0;
        if self.is_sync() && !excused && (seen.is_none() || seen != canon) {
            self.checker.fail(format!("Visibility: r{node} shows {seen:?} at {at}, where {canon:?} is confirmed"));
        }
    }

    /// A replica opened an epoch over its log.
    pub(crate) fn epoch_opened(&mut self, node: Node, life: u64, epoch: Epoch) {
        self.checker.counts.epochs += 1;
        self.heard_at[node] = self.now;
        self.trace.mix(&[3, node as u64, epoch.0]);
        if let Some(before) = self.checker.opened.insert(epoch, (node, life)) {
            self.checker.fail(format!(
                "Epoch: {epoch} was opened by r{} (life {}), and again by r{node} (life {life})",
                before.0, before.1
            ));
        }
        let (held, canon) = (self.held(node), self.checker.canon_end());
        // One that was elected long ago may open its epoch when a newer one has begun: nobody follows it any more.
        let newest = self.checker.true_record.as_ref().is_none_or(|record| record.epoch <= epoch);
        if self.is_sync() && newest && held < canon {
            self.checker
                .fail(format!("Election: r{node} opens epoch {epoch} with {held} of {canon} confirmed messages"));
        }
        if !self.is_sync() && newest {
            self.opened_in_async(node, epoch);
        }
    }

    /// In `Async` mode a failover may lose what the new master had not got yet; a planned switchover loses nothing.
    fn opened_in_async(&mut self, node: Node, epoch: Epoch) {
        let disk = &self.disks[node];
        let before = self.checker.acked.len();
        self.checker.acked.retain(|&at, entry| disk.log.get(at as usize) == Some(entry));
        let lost = before - self.checker.acked.len();
        if lost > 0 && self.checker.planned.contains(&epoch) && !disk.torn {
            self.checker.fail(format!("Switchover: r{node} opens epoch {epoch} without {lost} acknowledged messages"));
        }
    }

    pub(crate) fn promised(&mut self, node: Node, epoch: Epoch) {
        let promised = self.checker.promised.entry(self.disks[node].store).or_default();
        *promised = epoch.max(*promised);
    }

    /// A slave took data, or acknowledges, in a session of this epoch.
    pub(crate) fn obeyed(&mut self, node: Node, session: Epoch) {
        let promised = self.checker.promised.get(&self.disks[node].store).copied().unwrap_or_default();
        if session < promised {
            self.checker.fail(format!(
                "Promise: r{node} has promised epoch {promised}, and takes part in a session of {session}"
            ));
        }
    }

    fn is_in_sync(&self, node: Node) -> bool {
        let store = self.disks[node].store;
        let is_it = |member: &Member| node_of(member) == node && member.store_id == store;
        self.checker.true_record.as_ref().is_some_and(|record| record.in_sync.iter().any(is_it))
    }

    /// A replica is about to cut its log.
    pub(crate) fn cutting(&mut self, node: Node, to: u64) {
        let (at, disk) = (to as usize, &self.disks[node]);
        if to < disk.end() {
            self.checker.counts.cuts += 1;
        }
        if self.is_sync()
            && self.is_in_sync(node)
            && at < disk.log.len()
            && self.checker.canon.get(at) == Some(&disk.log[at])
        {
            self.checker.fail(format!("Ack: r{node} of the in-sync set cuts confirmed messages from {to} on"));
        }
    }

    /// A replica says that its log holds all that it ever acknowledged. Outside the set that may be less than what is confirmed.
    pub(crate) fn claims_intact(&mut self, node: Node) {
        if !self.disks[node].torn {
            return;
        }
        let (held, canon) = (self.held(node), self.checker.canon_end());
        if self.is_sync() && self.is_in_sync(node) && held < canon {
            self.checker.fail(format!("Integrity: r{node} counts as intact with {held} of {canon} confirmed messages"));
        }
        self.disks[node].torn = false;
    }

    /// A disk lost something, or all: what nobody in the set holds any more is excused.
    pub(crate) fn disk_lost(&mut self, excused: bool) {
        let Some(record) = self.checker.true_record.clone().filter(|_| self.is_sync()) else { return };
        let members = record.in_sync.iter().filter(|member| self.is_member(member));
        let held = members.map(|member| self.held(node_of(member))).max();
        // Its only members' disks were replaced just when they were elected.
        let excused = excused || held.is_none();
        let held = held.unwrap_or(0);
        if held < self.checker.canon_end() {
            if !excused {
                let canon = self.checker.canon_end();
                self.checker
                    .fail(format!("Ack: of {canon} confirmed messages {held} are left, though all were on disk"));
            }
            self.checker.counts.excused += 1;
            self.checker.canon.truncate(held as usize);
            self.checker.acked.retain(|&at, _| at < held);
            self.note(|| format!("lost by the disks of the whole set: everything from {held} on"));
        }
    }

    /// Whether no disk of the set is left: then only people can help.
    pub(crate) fn is_beyond_help(&self) -> bool {
        self.register.record.as_ref().is_some_and(|record| !record.in_sync.iter().any(|member| self.is_member(member)))
    }

    /// A compare-and-set went through.
    pub(crate) fn record_changed(&mut self, before: Option<&GroupRecord>) {
        let Some(after) = self.register.record.clone() else { return };
        if let Some(before) = before {
            if after.epoch == before.epoch {
                self.checker.counts.alters += 1;
                self.set_altered(before, &after);
            } else if self.is_true(before)
                && !self.is_torn(before)
                && (!before.in_sync.contains(&after.master) || !after.in_sync.is_subset(&before.in_sync))
            {
                self.checker.fail(format!(
                    "Election: {} with {:?} follow a record of {:?}",
                    after.master, after.in_sync, before.in_sync
                ));
            } else if after.epoch < before.epoch {
                self.checker.fail(format!("Epoch: {} follows {}", after.epoch, before.epoch));
            }
        }
        let elected = before.is_some_and(|before| before.epoch < after.epoch && self.is_torn(before));
        self.checker.true_record = Some(after);
        if elected {
            // Whatever the elector could choose from.
            self.disk_lost(true);
        }
    }

    /// Whether each of the set was torn by a power cut, as it knows itself, or has no disk any more.
    fn is_torn(&self, record: &GroupRecord) -> bool {
        let mut members = record.in_sync.iter().filter(|member| self.is_member(member));
        members.all(|member| {
            let disk = &self.disks[node_of(member)];
            !self.setup.flush_sync && disk.settled != Settled::InBoot(disk.boot)
        })
    }

    /// Whether that record was not restored from the past.
    fn is_true(&self, record: &GroupRecord) -> bool {
        let age = |record: &GroupRecord| (record.epoch, record.revision);
        self.checker.true_record.as_ref().is_none_or(|newest| age(newest) <= age(record))
    }

    fn set_altered(&mut self, before: &GroupRecord, after: &GroupRecord) {
        let canon = self.checker.canon_end();
        for member in after.in_sync.difference(&before.in_sync) {
            if self.is_sync() && self.is_member(member) && !self.holds(node_of(member), 0, canon) {
                self.checker
                    .fail(format!("Grow: {} joins the set without all {canon} confirmed messages", member.name));
            }
        }
        if after.master != before.master {
            self.checker.fail(format!("Epoch: {} was {}'s, and now {}'s", after.epoch, before.master, after.master));
        }
    }

    /// The end of a run: everything acknowledged is in this log.
    pub(crate) fn judge_final_log(&mut self, node: Node) {
        if self.is_beyond_help() {
            return;
        }
        let log = &self.disks[node].log;
        let lost = self.checker.acked.iter().find(|(at, entry)| log.get(**at as usize) != Some(*entry));
        if let Some((at, entry)) = lost.map(|(at, entry)| (*at, *entry)) {
            self.checker.fail(format!("Ack: {entry:?}, acknowledged at {at}, is not in r{node}'s log"));
        }
    }
}
