//! Whether a master is needed, and which.

use std::collections::BTreeSet;

use crate::elector::seats::Seat;
use crate::elector::{Action, Cause, Elector, Notice, Purpose};
use crate::master::Mode;
use crate::wire::Role;
use crate::{Epoch, GroupRecord, Member, Millis};

/// Why the record's master must be replaced, perhaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    /// The first sign.
    since: Millis,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Its process has ended, or came back as another that is not master.
    KnownDead,
    /// Its process answers but its disk or its writer doesn't.
    DataPlaneDead,
    /// Nothing is heard of it.
    Silent,
    /// The record itself is what is wrong: somebody knows of a newer one.
    PastRecord,
}

impl Kind {
    fn cause(self) -> Cause {
        match self {
            Self::KnownDead => Cause::ProcessEnded,
            Self::DataPlaneDead => Cause::DataPlane,
            Self::Silent => Cause::Silent,
            Self::PastRecord => Cause::PastRecord,
        }
    }
}

impl Elector {
    pub(super) fn elect_if_needed(&mut self, now: Millis) {
        let Some(record) = self.record().cloned() else {
            self.bootstrap();
            return;
        };
        self.trouble = match (self.trouble, self.look_at_master(&record, now)) {
            (_, None) => None,
            (Some(old), Some(new)) => Some(Trouble { since: old.since.min(new.since), kind: new.kind }),
            (None, new) => new,
        };
        if self.trouble.is_none() {
            self.told = None;
            self.seats.values_mut().for_each(|seat| (seat.probed_at, seat.answered_at) = (None, None));
        }
        match self.trouble {
            Some(trouble) if trouble.kind == Kind::PastRecord => self.recover(&record, trouble, now),
            Some(trouble) => self.replace_master(&record, trouble, now),
            None => {}
        }
    }

    /// The epoch for the next master of a group whose record is this (invariant *Epoch*).
    pub(super) fn next_epoch(&self, record: &GroupRecord) -> Epoch {
        let known = record.epoch.max(self.newest.0);
        self.reachable().map(|seat| seat.report.promised).fold(known, Epoch::max).next()
    }

    /// Whether somebody knows of a newer record than this, or of one where there is none. Of the same epoch it is the revision that tells:
    /// an older one may name members that have been let go since, and lack what was acknowledged without them.
    pub(super) fn is_past(&self, record: Option<&GroupRecord>) -> bool {
        let stands = record.map_or((Epoch(0), 0), |record| (record.epoch, record.revision));
        self.newest > stands || self.witness(stands).is_some()
    }

    fn witness(&self, stands: (Epoch, u64)) -> Option<&Seat> {
        self.reachable().find(|seat| (seat.report.promised, seat.report.revision) > stands)
    }

    fn proof_of_past(&self, record: &GroupRecord) -> String {
        let stands = (record.epoch, record.revision);
        let stood = match self.witness(stands) {
            Some(Seat { hello, report, .. }) if report.promised > record.epoch => {
                format!("{} has promised epoch {}", hello.member, report.promised)
            }
            Some(Seat { hello, report, .. }) => format!("{} knows revision {}", hello.member, report.revision),
            None => format!("epoch {}, revision {} stood there before", self.newest.0, self.newest.1),
        };
        format!(
            "the record is of epoch {}, revision {}, but {stood}: the record is from the past",
            record.epoch, record.revision
        )
    }

    /// All members of the set are there, and none is known to hold everything that it acknowledged.
    pub(super) fn is_torn(&self, record: &GroupRecord) -> bool {
        let torn = |member: &Member| self.reachable().any(|seat| seat.hello.member == *member && !seat.report.intact);
        record.in_sync.iter().all(torn)
    }

    /// The record's master is not, and can never be again, master of the record's epoch: that is opened once.
    fn is_spent(&self, record: &GroupRecord) -> bool {
        self.reachable().any(|seat| {
            let promised = seat.report.promised >= record.epoch && seat.report.role != Role::Master;
            seat.hello.member == record.master && promised
        })
    }

    /// The replicas without a session.
    fn absent(&self) -> Vec<String> {
        let is_absent = |name: &&String| self.seats.get(*name).is_none_or(|seat| seat.session.is_none());
        self.config.replicas.iter().filter(is_absent).cloned().collect()
    }

    /// A record from the past names a set of the past. Whoever holds the newest log of all replicas holds everything that was
    /// acknowledged, so all must be there; and a master that serves goes on, since it may be acknowledging at this moment.
    /// The others join its set as they acknowledge.
    fn recover(&mut self, record: &GroupRecord, trouble: Trouble, now: Millis) {
        let found = self.proof_of_past(record);
        let absent = self.absent();
        if !absent.is_empty() {
            return self.tell(Notice::Stuck(format!("{found}, and {} did not answer yet", absent.join(", "))));
        }
        let rank = |seat: &&Seat| {
            let serves = (seat.report.role == Role::Master).then_some(seat.report.promised);
            (serves, seat.report.last_epoch, seat.report.max_offset, seat.hello.priority)
        };
        let seats = self.reachable().filter(|seat| self.config.replicas.contains(&seat.hello.member.name));
        let Some(best) = seats.max_by_key(rank) else { return };
        let master = best.hello.member.clone();
        if self.is_fenced(best) {
            return self.tell(Notice::Stuck(format!("{found}, and {master}, which has the newest log, is fenced")));
        }
        let in_sync = BTreeSet::from([master.clone()]);
        self.elect(record, master, in_sync, trouble.kind.cause(), now.saturating_sub(trouble.since));
    }

    /// Asks for the next epoch, with this master and this set.
    pub(super) fn elect(
        &mut self,
        old: &GroupRecord,
        master: Member,
        in_sync: BTreeSet<Member>,
        cause: Cause,
        decision_ms: Millis,
    ) {
        let epoch = self.next_epoch(old);
        let notice = Notice::Elected { from: old.master.clone(), to: master.clone(), epoch, cause, decision_ms };
        let record = GroupRecord { epoch, revision: old.revision + 1, master, in_sync };
        self.compare_and_set(record, Purpose::Elect { notice });
    }

    fn reachable(&self) -> impl Iterator<Item = &Seat> {
        self.seats.values().filter(|seat| seat.session.is_some())
    }

    /// The first master: when every replica has joined and none has any history that this could contradict.
    fn bootstrap(&mut self) {
        let absent = self.absent();
        if !absent.is_empty() {
            return self.tell(Notice::Stuck(format!("the group is new and waits for {}", absent.join(", "))));
        }
        let seats: Vec<&Seat> =
            self.reachable().filter(|seat| self.config.replicas.contains(&seat.hello.member.name)).collect();
        if let Some(seat) = seats.iter().find(|seat| seat.report.promised > Epoch(0)) {
            let why = format!(
                "there is no group record, but {} has promised epoch {}: the record was lost; restore it, or name a master by hand",
                seat.hello.member, seat.report.promised
            );
            return self.tell(Notice::Stuck(why));
        }
        let filled: Vec<_> = seats.iter().filter(|seat| seat.report.max_offset > 0).collect();
        if filled.len() > 1 {
            let names: Vec<_> = filled.iter().map(|seat| seat.hello.member.to_string()).collect();
            let why = format!(
                "{} each bring a log of their own: empty all but one, or name a master by hand",
                names.join(" and ")
            );
            return self.tell(Notice::Stuck(why));
        }
        // One log that was there before is the group's log; empty ones are all alike.
        let fit = |seat: &&&Seat| !self.is_fenced(seat);
        let Some(first) = filled.first().copied().or(seats.iter().find(fit)) else {
            return self.tell(Notice::Stuck("the group is new, and each of its replicas is fenced".to_owned()));
        };
        let master = first.hello.member.clone();
        if self.is_fenced(first) {
            return self
                .tell(Notice::Stuck(format!("the group is new, and {master}, which brings its log, is fenced")));
        }
        let in_sync: BTreeSet<Member> = if filled.is_empty() {
            seats.iter().filter(fit).map(|seat| seat.hello.member.clone()).collect()
        } else {
            BTreeSet::from([master.clone()])
        };
        let notice = Notice::Started { to: master.clone(), epoch: Epoch(1) };
        self.compare_and_set(GroupRecord { epoch: Epoch(1), revision: 1, master, in_sync }, Purpose::Elect { notice });
    }

    fn look_at_master(&self, record: &GroupRecord, now: Millis) -> Option<Trouble> {
        let silent_since = |since: Millis| {
            (now.saturating_sub(since) > self.config.silence_ms).then_some(Trouble { since, kind: Kind::Silent })
        };
        if self.is_past(Some(record)) {
            return Some(Trouble { since: now, kind: Kind::PastRecord });
        }
        let Some(seat) = self.seats.get(&record.master.name) else { return silent_since(self.started) };
        if let Some(since) = seat.died_at {
            return Some(Trouble { since, kind: Kind::KnownDead });
        }
        if let Some(since) = seat.left_at {
            return Some(Trouble { since, kind: Kind::Silent });
        }
        if seat.hello.member != record.master {
            return Some(Trouble { since: seat.heard_at, kind: Kind::KnownDead });
        }
        if seat.report.promised < record.epoch {
            if seat.lost_since_elected(self.promoting) {
                return Some(Trouble { since: seat.joined_at, kind: Kind::KnownDead });
            }
            // It hasn't accepted its election yet; it is being told.
            let since = self.promoting.map_or(seat.joined_at, |(since, _)| since.max(seat.joined_at));
            let overdue = now.saturating_sub(since) > self.config.promote_ms;
            return overdue.then_some(Trouble { since, kind: Kind::Silent });
        }
        if seat.report.role != Role::Master {
            // It accepted the epoch, and is not (any more) its master: another process over the same store. Only a new epoch
            // may write again, since an epoch's bytes come from one master's life.
            let opening = self.promoting.is_some_and(|(since, session)| {
                session == seat.session && now.saturating_sub(since) <= self.config.promote_ms
            });
            return (!opening).then_some(Trouble { since: seat.heard_at, kind: Kind::KnownDead });
        }
        if !seat.report.data_plane_alive {
            return Some(Trouble { since: seat.heard_at, kind: Kind::DataPlaneDead });
        }
        silent_since(seat.heard_at)
    }

    fn replace_master(&mut self, record: &GroupRecord, trouble: Trouble, now: Millis) {
        if let Some(wait) = self.must_wait(trouble, now) {
            return self.tell(Notice::Stuck(wait));
        }
        self.probe(record, trouble.since, now);
        let electors: Vec<&Seat> = self.in_sync_slaves(record).collect();
        let (answered, pending): (Vec<&Seat>, Vec<&Seat>) =
            electors.into_iter().partition(|seat| seat.answered_at.is_some_and(|at| at >= trouble.since));
        let patient =
            pending.iter().any(|seat| seat.probed_at.is_some_and(|at| now.saturating_sub(at) < self.config.probe_ms));
        if patient {
            return;
        }
        if trouble.kind == Kind::Silent {
            let hears = |seat: &&&Seat| seat.report.master_heard_ms_ago.is_some_and(|ago| ago < self.config.hears_ms);
            if let Some(seat) = answered.iter().find(hears) {
                let notice = Notice::CutOff { master: record.master.clone(), slave: seat.hello.member.name.clone() };
                return self.tell(notice);
            }
        }
        let gathering = now.saturating_sub(trouble.since) < self.config.gather_ms;
        if gathering && answered.len() < self.config.min_in_sync.min(record.in_sync.len()) {
            return;
        }
        if gathering && self.is_torn(record) && !self.absent().is_empty() {
            // A replica outside the set may hold what the set has lost.
            return;
        }
        match self.choose(record, &answered) {
            Err(why) => self.tell(Notice::Stuck(why)),
            Ok((master, in_sync)) => {
                if trouble.kind != Kind::KnownDead {
                    self.last_suspicion = Some(now);
                }
                self.elect(record, master, in_sync, trouble.kind.cause(), now.saturating_sub(trouble.since));
            }
        }
    }

    /// Suspicion has to be patient where certainty needn't.
    fn must_wait(&self, trouble: Trouble, now: Millis) -> Option<String> {
        if trouble.kind == Kind::KnownDead {
            return None;
        }
        if self.last_suspicion.is_some_and(|last| now.saturating_sub(last) < self.config.suspicion_gap_ms) {
            return Some(format!(
                "the last failover on suspicion was less than {} s ago",
                self.config.suspicion_gap_ms / 1_000
            ));
        }
        let fencing = self.config.mode == Mode::Async && now.saturating_sub(trouble.since) < self.config.fence_wait_ms;
        fencing.then(|| "in Async mode the old master is first given the time to fence itself".to_owned())
    }

    /// In-sync members with a session, the troubled master's new incarnation included: its log counts like any other's. Not who is fenced:
    /// that is as if it didn't answer.
    fn in_sync_slaves(&self, record: &GroupRecord) -> impl Iterator<Item = &Seat> {
        let is_serving_master = |seat: &Seat| seat.hello.member == record.master && seat.report.role == Role::Master;
        let fit = move |seat: &&Seat| record.in_sync.contains(&seat.hello.member) && !is_serving_master(seat);
        self.reachable().filter(fit).filter(|seat| !self.is_fenced(seat))
    }

    /// Asks those whose word is older than the trouble.
    fn probe(&mut self, record: &GroupRecord, since: Millis, now: Millis) {
        for seat in self.seats.values_mut() {
            let fresh = |at: Millis| at >= since && now.saturating_sub(at) <= self.config.probe_ms;
            let stale = !seat.answered_at.is_some_and(fresh);
            let due = seat.probed_at.is_none_or(|at| now.saturating_sub(at) >= self.config.probe_ms);
            if let (Some(session), true, true) = (seat.session, stale, due)
                && record.in_sync.contains(&seat.hello.member)
            {
                seat.probed_at.get_or_insert(now);
                self.actions.push(Action::Probe { session });
            }
        }
    }

    /// The next master and the members that are in sync with it, out of those in-sync members that answered.
    fn choose(&self, record: &GroupRecord, answered: &[&Seat]) -> Result<(Member, BTreeSet<Member>), String> {
        let names =
            |members: &mut dyn Iterator<Item = &Member>| members.map(|m| m.name.clone()).collect::<Vec<_>>().join(", ");
        if answered.is_empty() {
            let is_fenced = |member: &&Member| self.config.facts.fenced.contains(&member.name);
            let fenced = names(&mut record.in_sync.iter().filter(is_fenced));
            let silent = names(&mut record.in_sync.iter());
            let hint = if fenced.is_empty() { String::new() } else { format!("; {fenced} may when it is unfenced") };
            return Err(format!(
                "none of the in-sync members ({silent}) answers, and no other has every acknowledged message{hint}"
            ));
        }
        let mut fit: Vec<&Seat> = answered.iter().copied().filter(|seat| seat.report.intact).collect();
        if fit.is_empty() {
            // Each may lack what it acknowledged, but hardly the same: the longest log of all of them is the best there is.
            let missing =
                record.in_sync.iter().filter(|member| !answered.iter().any(|seat| seat.hello.member == **member));
            let missing = names(&mut missing.into_iter());
            if !missing.is_empty() {
                return Err(format!(
                    "every in-sync member that answers lost unflushed data in a crash; waiting for {missing}"
                ));
            }
            // Nor is a replica outside the set worse for that: one that was down, with its disk whole, may hold what they all lost.
            let log = |seat: &&Seat| (seat.report.last_epoch, seat.report.max_offset);
            let outside = self.reachable().filter(|seat| !record.in_sync.contains(&seat.hello.member));
            let known = outside.filter(|seat| self.config.replicas.contains(&seat.hello.member.name));
            let known: Vec<_> = known.filter(|seat| !self.is_fenced(seat)).collect();
            if let Some(more) = known.into_iter().rev().max_by_key(log)
                && answered.iter().all(|seat| log(seat) < log(&more))
            {
                // The set's own master could acknowledge without it, so it must have no epoch left to do so in.
                if !self.is_spent(record) {
                    return Err(format!("{} has to give up epoch {} first", record.master, record.epoch));
                }
                let master = more.hello.member.clone();
                return Ok((master.clone(), BTreeSet::from([master])));
            }
            fit = answered.to_vec();
        }
        let old_zone = self.zone_of(&record.master.name);
        let rank = |seat: &&Seat| {
            let elsewhere = self.zone_of(&seat.hello.member.name) != old_zone;
            (seat.report.last_epoch, seat.report.max_offset, seat.hello.priority, elsewhere)
        };
        // Among equals the first by name, so that the choice can be foretold.
        let best = fit.iter().copied().rev().max_by_key(rank).ok_or("nobody is fit")?;
        Ok((best.hello.member.clone(), fit.iter().map(|seat| seat.hello.member.clone()).collect()))
    }
}
