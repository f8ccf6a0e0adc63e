//! The in-sync set as the master knows it: what the record says, what is being asked for, and who is counted meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Epoch, Member, Millis};

/// A request to the elector: make the set this. Answered with the record as it stands afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alter {
    /// The epoch of the master that asks; in any other the request is void.
    pub epoch: Epoch,
    /// The record that the master goes by; over any other the request is void, too.
    pub revision: u64,
    /// The whole set wanted.
    pub in_sync: BTreeSet<Member>,
}

#[derive(Debug)]
pub(super) struct Membership {
    recorded: BTreeSet<Member>,
    /// Slaves that may join soon, with the time since when they are counted: counting them is what makes the rule *Grow* hold.
    considered: BTreeMap<Member, Millis>,
    /// Slaves that were let go, or left because they couldn't keep up: not considered again at once.
    rests: BTreeMap<Member, Rest>,
    /// Recorded members that are to leave because they can't keep up.
    slow: BTreeSet<Member>,
    /// When a recorded member joined, if this master saw it.
    joined: BTreeMap<Member, Millis>,
    /// Members asked for in a request whose fate is not known. They may already be in the record, so they are counted.
    unresolved: BTreeSet<Member>,
    /// Recorded members that were seen to lack what they had acknowledged.
    suspects: BTreeSet<Member>,
    /// Since when the last request waits for a record that settles it.
    outstanding: Option<Millis>,
}

/// Considering a slave makes producers wait for it. One that fails again and again is considered less and less often.
#[derive(Clone, Copy, Debug)]
struct Rest {
    until: Millis,
    length_ms: Millis,
}

/// The first rest of a member that couldn't keep up.
const FIRST_REST_MS: Millis = 1_000;
/// The longest rest.
const MAX_REST_MS: Millis = 10_000;
/// A member that kept up for this long begins anew with the shortest rest.
const STEADY_MS: Millis = 60_000;

impl Membership {
    pub(super) fn new(recorded: BTreeSet<Member>) -> Self {
        Self {
            recorded,
            considered: BTreeMap::new(),
            rests: BTreeMap::new(),
            slow: BTreeSet::new(),
            joined: BTreeMap::new(),
            unresolved: BTreeSet::new(),
            suspects: BTreeSet::new(),
            outstanding: None,
        }
    }

    pub(super) fn recorded(&self) -> &BTreeSet<Member> {
        &self.recorded
    }

    pub(super) fn counts(&self, member: &Member) -> bool {
        self.recorded.contains(member)
    }

    pub(super) fn considered(&self) -> impl Iterator<Item = &Member> {
        self.considered.keys()
    }

    /// All that must have a message before it is acknowledged.
    pub(super) fn effective(&self) -> impl Iterator<Item = &Member> {
        self.recorded.iter().chain(self.considered.keys()).chain(&self.unresolved)
    }

    pub(super) fn suspect(&mut self, member: &Member) {
        self.suspects.insert(member.clone());
    }

    pub(super) fn is_suspect(&self, member: &Member) -> bool {
        self.suspects.contains(member)
    }

    /// A member that can't keep up is about to leave.
    pub(super) fn too_slow(&mut self, member: &Member) {
        self.slow.insert(member.clone());
    }

    /// `member` is fit to join, or is not.
    pub(super) fn consider(&mut self, member: &Member, fit: bool, now: Millis, patience_ms: Millis) {
        if self.recorded.contains(member) {
            self.considered.remove(member);
            return;
        }
        if let Some(&since) = self.considered.get(member) {
            if !fit || now.saturating_sub(since) > patience_ms {
                self.considered.remove(member);
                self.rest(member, now, patience_ms);
            }
            return;
        }
        let rested = self.rests.get(member).is_none_or(|rest| now > rest.until);
        if fit && rested {
            self.considered.insert(member.clone(), now);
        }
    }

    fn rest(&mut self, member: &Member, now: Millis, first_ms: Millis) {
        let length_ms = self.rests.get(member).map_or(first_ms, |rest| (rest.length_ms * 2).min(MAX_REST_MS));
        self.rests.insert(member.clone(), Rest { until: now + length_ms, length_ms });
    }

    /// The next request, if the set should be another and none is under way.
    pub(super) fn propose(
        &mut self,
        (epoch, revision): (Epoch, u64),
        leaving: &BTreeSet<Member>,
        joined: &BTreeSet<Member>,
        now: Millis,
        retry_ms: Millis,
    ) -> Option<Alter> {
        if self.outstanding.is_some_and(|since| now.saturating_sub(since) < retry_ms) {
            return None;
        }
        let wanted: BTreeSet<Member> = self.recorded.difference(leaving).chain(joined).cloned().collect();
        // A request whose fate is unknown is repeated until a record settles it, even when nothing is wanted any more.
        if wanted == self.recorded && self.outstanding.is_none() {
            return None;
        }
        // All of them, those too that are recorded now: nobody is let go on the word of a record that isn't known yet.
        self.unresolved.extend(wanted.iter().cloned());
        self.outstanding = Some(now);
        Some(Alter { epoch, revision, in_sync: wanted })
    }

    /// The record was written. The caller has seen to it that this is newer than what was known: so it settles every request that
    /// there was. Each was made on an older record, and is granted only over that very one.
    pub(super) fn heard(&mut self, in_sync: &BTreeSet<Member>, now: Millis) {
        for member in in_sync.difference(&self.recorded) {
            self.joined.insert(member.clone(), now);
        }
        let left: Vec<Member> = self.recorded.difference(in_sync).cloned().collect();
        for member in left {
            let steady = self.joined.remove(&member).is_none_or(|since| now.saturating_sub(since) >= STEADY_MS);
            if steady {
                self.rests.remove(&member);
            }
            if self.slow.remove(&member) {
                self.rest(&member, now, FIRST_REST_MS);
            }
        }
        self.slow.clear();
        self.outstanding = None;
        self.unresolved.clear();
        self.recorded.clone_from(in_sync);
        self.considered.retain(|member, _| !in_sync.contains(member));
        self.suspects.retain(|member| in_sync.contains(member));
    }
}
