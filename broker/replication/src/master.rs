//! What a master may acknowledge, and whom it counts.
//!
//! Invariants kept here (the tests and the simulator judge them, `assert!` keeps them in release):
//! - *Ack*: the confirm offset passes an offset only when every member of the effective set has it in this epoch, the set has at
//!   least `min_in_sync` members, and the master is neither fenced nor deposed at that very moment.
//! - *Shrink*: a member leaves the set that is counted only after the record says so. *Grow*: a member is counted from the moment
//!   it is considered, must have acknowledged everything confirmed and everything that the log held when the epoch began
//!   (masters before may have confirmed it), and only then the record is asked to say so.
//! - *Visibility*: consumers see nothing above the confirm offset, so it never goes back in an epoch.
//!
//! One more rule follows from the first: with `onShortage: Refuse` the set is never shrunk below `min_in_sync`. Nothing could be
//! acknowledged by the smaller set anyway, and each member left out would be one fewer that may become master.

mod membership;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::{Epoch, GroupRecord, Member, Millis};
pub use membership::Alter;
use membership::Membership;

/// What an acknowledgement means (`spec.replication.mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Every in-sync replica has the message.
    Sync,
    /// The master has it; slaves follow.
    Async,
}

/// When a replica counts as "having" a message (`flushDiskType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// It is on disk (SYNC_FLUSH).
    Flushed,
    /// It is written (ASYNC_FLUSH).
    Written,
}

/// The master's settings; times in milliseconds.
#[derive(Clone, Debug)]
pub struct Config {
    /// `Sync` or `Async`.
    pub mode: Mode,
    /// What a replica must have done with a message to "have" it.
    pub durability: Durability,
    /// Fewer members than this, and nothing is acknowledged in `Sync` mode. At least 1.
    pub min_in_sync: usize,
    /// `onShortage: Degrade`: go on below `min_in_sync`, declared. Otherwise refuse.
    pub degrade: bool,
    /// Having heard neither the elector nor all in-sync slaves for this long, a master fences itself.
    pub fence_after_ms: Millis,
    /// A slave that was never caught up for this long leaves the set (`haMaxTimeSlaveNotCatchup`).
    pub lag_ms: Millis,
    /// A slave more than this many bytes behind the master's end is not in sync (`haMaxGapNotInSync`)…
    pub gap_bytes: u64,
    /// …when that lasts for this long.
    pub gap_ms: Millis,
    /// A connected slave that says nothing for this long leaves the set.
    pub silence_ms: Millis,
    /// A slave whose connection is gone for this long leaves the set.
    pub disconnected_ms: Millis,
    /// A slave may join when it is at most this far behind: far less than what makes it leave, so that it doesn't flap.
    pub join_lag_bytes: u64,
    /// A slave that doesn't reach the end within this time of being considered is let go again.
    pub join_ms: Millis,
    /// An unanswered change of the set is asked for again after this long.
    pub alter_retry_ms: Millis,
}

impl Config {
    /// The defaults for a mode, a durability and a minimum.
    pub fn new(mode: Mode, durability: Durability, min_in_sync: usize) -> Self {
        Self {
            mode,
            durability,
            min_in_sync: min_in_sync.max(1),
            degrade: false,
            fence_after_ms: 5_000,
            lag_ms: 15_000,
            gap_bytes: 256 << 20,
            gap_ms: 1_000,
            silence_ms: 2_500,
            disconnected_ms: 500,
            join_lag_bytes: 4 << 20,
            join_ms: 1_000,
            alter_retry_ms: 1_000,
        }
    }
}

/// Why nothing may be appended now. All of them pass: a client should try again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A newer master exists.
    #[error("this replica is master of epoch {mine} no more: epoch {newer} has begun")]
    Deposed {
        /// The epoch it was master of.
        mine: Epoch,
        /// The epoch it heard of.
        newer: Epoch,
    },
    /// Cut off from the elector and from its slaves.
    #[error("this master fenced itself: it heard neither the elector nor all its in-sync slaves for {silent_ms} ms")]
    Fenced {
        /// How long the elector has been silent.
        silent_ms: Millis,
    },
    /// Too few copies.
    #[error("in-sync replicas not enough: {have} of at least {need}")]
    InSyncShort {
        /// Members in sync and alive, the master included.
        have: usize,
        /// `min_in_sync`.
        need: usize,
    },
}

/// How far one slave is.
#[derive(Clone, Debug)]
struct Slave {
    written: u64,
    flushed: u64,
    /// The last time anything came from it.
    heard: Millis,
    /// A time at or after which it is known to have lived: when that was sent to which it answered. What came when this process was
    /// stopped has lain in its sockets for nobody knows how long.
    proved: Millis,
    /// It has all that was confirmed at this time. Under load a slave is never quite at the end, so the question is not "has it
    /// everything now" but "how old is what it has": it chases `target`, the confirm offset of `target_at`.
    caught_up: Millis,
    target: u64,
    target_at: Millis,
    /// Since when it is more than `gap_bytes` behind, if it is.
    gap_since: Option<Millis>,
    /// Since when it has no connection, if it has none.
    gone_since: Option<Millis>,
}

/// A slave's standing, for tables and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlaveStanding {
    /// Which.
    pub member: Member,
    /// Its acknowledged end of log, written.
    pub written: u64,
    /// The same, flushed.
    pub flushed: u64,
    /// Whether a connection stands.
    pub connected: bool,
    /// Whether the record counts it.
    pub in_sync: bool,
}

/// A master during one epoch. Made when the epoch is opened, dropped when it steps down.
#[derive(Debug)]
pub struct Master {
    config: Config,
    me: Member,
    epoch: Epoch,
    revision: u64,
    membership: Membership,
    slaves: BTreeMap<Member, Slave>,
    written: u64,
    flushed: u64,
    confirmed: u64,
    /// The log's end when the epoch began. Masters before may have acknowledged all of it, whatever this one knows of that.
    inherited: u64,
    elector_heard: Millis,
    deposed_by: Option<Epoch>,
}

impl Master {
    /// Opens the epoch of `record`, whose master is `me`, over a log that is `written`, `flushed` and `confirmed` so far.
    pub fn open(config: Config, me: Member, record: &GroupRecord, log: LogEnds, now: Millis) -> Self {
        assert!(record.master == me && record.in_sync.contains(&me), "{me} opens an epoch that is {}'s", record.master);
        assert!(log.flushed <= log.written && log.confirmed <= log.written, "impossible log ends {log:?}");
        Self {
            membership: Membership::new(record.in_sync.clone()),
            slaves: record
                .in_sync
                .iter()
                .filter(|member| **member != me)
                .map(|member| (member.clone(), Slave::unheard(now)))
                .collect(),
            epoch: record.epoch,
            revision: record.revision,
            written: log.written,
            flushed: log.flushed,
            confirmed: log.confirmed,
            inherited: log.written,
            elector_heard: now,
            deposed_by: None,
            config,
            me,
        }
    }

    /// The epoch.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The end of what is acknowledged and visible.
    pub fn confirmed(&self) -> u64 {
        self.confirmed
    }

    /// The members that the record counts, as far as this master knows.
    pub fn in_sync(&self) -> &BTreeSet<Member> {
        self.membership.recorded()
    }

    /// The log grew: own ends. Neither goes back.
    pub fn local(&mut self, written: u64, flushed: u64) {
        self.written = self.written.max(written);
        self.flushed = self.flushed.max(flushed);
        assert!(self.flushed <= self.written, "flushed {} beyond written {}", self.flushed, self.written);
    }

    /// A slave's connection stands, in this epoch, its log (after the cut) ending at `end`, by its answer to what it was `asked` then.
    /// An end beyond the own one counts for nothing: `false`.
    pub fn connected(&mut self, member: &Member, end: u64, asked: Millis, now: Millis) -> bool {
        if end > self.written {
            return false;
        }
        let lost = end < self.confirmed && self.membership.counts(member);
        if lost {
            // It acknowledged more than it has now (a disk that lost its tail): it no longer holds all that was acknowledged.
            self.membership.suspect(member);
        }
        let slave = self.slaves.entry(member.clone()).or_insert_with(|| Slave::unheard(now));
        // Only acknowledgements count as flushed. The old figures may be of a log that is no more.
        *slave = Slave { written: end, target: self.confirmed, proved: asked, ..Slave::unheard(now) };
        true
    }

    /// A slave's connection ended.
    pub fn disconnected(&mut self, member: &Member, now: Millis) {
        if let Some(slave) = self.slaves.get_mut(member) {
            slave.gone_since.get_or_insert(now);
        }
    }

    /// A cumulative acknowledgement, with the time of this master's that the slave `echo`es: when what it had heard last was sent. One of
    /// another epoch, from nobody known, beyond the own end, or from the future counts for nothing: `false`, and the connection it came
    /// by deserves to be closed.
    #[must_use]
    pub fn acked(
        &mut self,
        member: &Member,
        epoch: Epoch,
        written: u64,
        flushed: u64,
        echo: Millis,
        now: Millis,
    ) -> bool {
        if epoch != self.epoch || written > self.written || flushed > written || echo > now.max(1) {
            return false;
        }
        let Some(slave) = self.slaves.get_mut(member) else { return false };
        slave.written = slave.written.max(written);
        slave.flushed = slave.flushed.max(flushed);
        slave.heard = now;
        slave.proved = slave.proved.max(echo);
        if slave.has(self.config.durability) >= slave.target {
            slave.caught_up = slave.target_at;
            (slave.target, slave.target_at) = (self.confirmed, now);
        }
        true
    }

    /// The elector was heard, and this is the record it held when it answered what was `asked` then: a report, or an [`Alter`]. How
    /// long the answer was under way nobody knows, so it proves nothing of any later time.
    pub fn recorded(&mut self, record: &GroupRecord, asked: Millis, now: Millis) {
        if record.epoch > self.epoch {
            self.deposed_by = self.deposed_by.max(Some(record.epoch));
        } else if record.epoch == self.epoch {
            self.elector_heard = self.elector_heard.max(asked);
            if record.revision > self.revision {
                self.revision = record.revision;
                self.membership.heard(&record.in_sync, now);
            }
        }
    }

    /// Any sign that `epoch` has begun: above the own one it deposes this master for good.
    pub fn heard_of(&mut self, epoch: Epoch) {
        if epoch > self.epoch {
            self.deposed_by = self.deposed_by.max(Some(epoch));
        }
    }

    /// Moves the confirm offset as far as the invariant *Ack* lets it, and returns it. To be called just before acknowledging.
    pub fn confirm(&mut self, now: Millis) -> u64 {
        if self.deposed_by.is_some() || self.fenced(now).is_some() || self.is_short() {
            return self.confirmed;
        }
        let durability = self.config.durability;
        let own = if durability == Durability::Flushed { self.flushed } else { self.written };
        let everywhere = match self.config.mode {
            Mode::Async => own,
            Mode::Sync => self
                .membership
                .effective()
                .filter(|member| **member != self.me)
                .map(|member| self.slaves.get(member).map_or(0, |slave| slave.has(durability)))
                .fold(own, u64::min),
        };
        assert!(everywhere <= self.written, "confirm offset {everywhere} beyond the log's end {}", self.written);
        self.confirmed = self.confirmed.max(everywhere);
        self.confirmed
    }

    /// How many members of the record's set have not failed, this one included. The set itself is not shrunk below the minimum, so
    /// that this tells a shortage where its size doesn't.
    pub fn alive_in_sync(&self, now: Millis) -> usize {
        self.membership.recorded().iter().filter(|member| self.is_alive(member, now)).count()
    }

    /// May something be appended now?
    pub fn may_append(&self, now: Millis) -> Result<(), Refusal> {
        self.may_serve(now)?;
        if self.config.mode == Mode::Sync && !self.config.degrade {
            let have = self.alive_in_sync(now);
            if have < self.config.min_in_sync {
                return Err(Refusal::InSyncShort { have, need: self.config.min_in_sync });
            }
        }
        Ok(())
    }

    /// May consumers be served now?
    pub fn may_serve(&self, now: Millis) -> Result<(), Refusal> {
        if let Some(newer) = self.deposed_by {
            return Err(Refusal::Deposed { mine: self.epoch, newer });
        }
        self.fenced(now).map_or(Ok(()), |silent_ms| Err(Refusal::Fenced { silent_ms }))
    }

    /// Fewer copies than asked for, and going on all the same: by `onShortage: Degrade`, or because in `Async` mode nothing waits for
    /// copies.
    pub fn degraded(&self) -> bool {
        let goes_on = self.config.degrade || self.config.mode == Mode::Async;
        goes_on && self.membership.recorded().len() < self.config.min_in_sync
    }

    /// From where on slaves need the log: those that are connected or in sync. None: nobody needs anything.
    pub fn needed_from(&self) -> Option<u64> {
        let needs = |(member, slave): (&Member, &Slave)| {
            (slave.gone_since.is_none() || self.membership.counts(member)).then_some(slave.written)
        };
        self.slaves.iter().filter_map(needs).min()
    }

    /// How far the slowest slave is that is in sync and connected. None: nobody to wait for.
    pub fn slowest_in_sync(&self) -> Option<u64> {
        let standing = self.others().filter_map(|member| self.slaves.get(member));
        standing.filter(|slave| slave.gone_since.is_none()).map(|slave| slave.written).min()
    }

    /// The newer epoch that ended this master's reign, if one has.
    pub fn deposed_by(&self) -> Option<Epoch> {
        self.deposed_by
    }

    /// Nothing is on its way any more, and `member` has it all: the moment for a planned switchover.
    pub fn is_drained_to(&self, member: &Member) -> bool {
        let Some(slave) = self.slaves.get(member) else { return false };
        slave.gone_since.is_none() && slave.written == self.written && self.confirmed == self.written
    }

    /// Looks at the clock: a change of the set to be asked for, if one is due.
    pub fn tick(&mut self, now: Millis) -> Option<Alter> {
        if self.deposed_by.is_some() {
            return None;
        }
        self.measure_gaps(now);
        self.consider_joins(now);
        let leaving = self.leaving(now);
        for member in &leaving {
            if self.is_slow(member, now) {
                self.membership.too_slow(member);
            }
        }
        let joined = self.joined();
        self.membership.propose((self.epoch, self.revision), &leaving, &joined, now, self.config.alter_retry_ms)
    }

    /// The slaves' standings, by name.
    pub fn slaves(&self) -> Vec<SlaveStanding> {
        self.slaves
            .iter()
            .map(|(member, slave)| SlaveStanding {
                member: member.clone(),
                written: slave.written,
                flushed: slave.flushed,
                connected: slave.gone_since.is_none(),
                in_sync: self.membership.counts(member),
            })
            .collect()
    }

    fn is_short(&self) -> bool {
        self.config.mode == Mode::Sync
            && !self.config.degrade
            && self.membership.recorded().len() < self.config.min_in_sync
    }

    /// For how long the elector has been silent, if that and the slaves' silence fence this master.
    fn fenced(&self, now: Millis) -> Option<Millis> {
        let silent = now.saturating_sub(self.elector_heard);
        let heard_all = || {
            let fresh = |slave: &Slave| now.saturating_sub(slave.proved) <= self.config.fence_after_ms;
            // Who was asked for may be in the record by now, and may be made master as soon as this one is silent.
            let mut counted = self.membership.effective().filter(|member| **member != self.me);
            counted.all(|member| self.slaves.get(member).is_some_and(fresh))
        };
        (silent > self.config.fence_after_ms && !heard_all()).then_some(silent)
    }

    /// The recorded members but the master itself.
    fn others(&self) -> impl Iterator<Item = &Member> {
        self.membership.recorded().iter().filter(|member| **member != self.me)
    }

    fn is_alive(&self, member: &Member, now: Millis) -> bool {
        *member == self.me || self.slaves.get(member).is_some_and(|slave| self.failure_of(slave, now).is_none())
    }

    /// Since when a slave has failed to be in sync, if it fails now.
    fn failure_of(&self, slave: &Slave, now: Millis) -> Option<Millis> {
        self.absence_of(slave, now).or_else(|| self.lag_of(slave, now))
    }

    fn absence_of(&self, slave: &Slave, now: Millis) -> Option<Millis> {
        let gone = slave.gone_since.and_then(|since| over(since, self.config.disconnected_ms, now));
        gone.or_else(|| over(slave.heard, self.config.silence_ms, now))
    }

    fn lag_of(&self, slave: &Slave, now: Millis) -> Option<Millis> {
        let far = slave.gap_since.and_then(|since| over(since, self.config.gap_ms, now));
        far.or_else(|| over(slave.caught_up, self.config.lag_ms, now))
    }

    /// There, but not able to keep up.
    fn is_slow(&self, member: &Member, now: Millis) -> bool {
        let slow = |slave: &Slave| self.absence_of(slave, now).is_none() && self.lag_of(slave, now).is_some();
        self.slaves.get(member).is_some_and(slow)
    }

    fn measure_gaps(&mut self, now: Millis) {
        let (end, durability, limit) = (self.written, self.config.durability, self.config.gap_bytes);
        for slave in self.slaves.values_mut() {
            let far = end.saturating_sub(slave.has(durability)) > limit;
            slave.gap_since = far.then(|| slave.gap_since.unwrap_or(now));
        }
    }

    /// Members to leave the set, never more than the minimum allows; those that failed first leave first.
    fn leaving(&self, now: Millis) -> BTreeSet<Member> {
        let mut failed: Vec<(Millis, &Member)> = self
            .others()
            .filter_map(|member| {
                let since = self.slaves.get(member).map_or(Some(0), |slave| self.failure_of(slave, now));
                if self.membership.is_suspect(member) { Some((0, member)) } else { since.map(|since| (since, member)) }
            })
            .collect();
        failed.sort();
        let keep = if self.config.degrade || self.config.mode == Mode::Async { 1 } else { self.config.min_in_sync };
        let spare = self.membership.recorded().len().saturating_sub(keep);
        // A suspect lacks acknowledged messages: it must go even if that leaves too few.
        let must = failed.iter().filter(|(_, member)| self.membership.is_suspect(member)).count();
        failed.into_iter().take(spare.max(must)).map(|(_, member)| member.clone()).collect()
    }

    fn consider_joins(&mut self, now: Millis) {
        let entry = self.entry_mark();
        for (member, slave) in &self.slaves {
            let lag = entry.saturating_sub(slave.has(self.config.durability));
            let fit = slave.gone_since.is_none()
                && now.saturating_sub(slave.heard) <= self.config.silence_ms
                && lag <= self.config.join_lag_bytes;
            self.membership.consider(member, fit, now, self.config.join_ms);
        }
    }

    /// What a slave must have before it joins: everything that may have been acknowledged, in this epoch or before it.
    fn entry_mark(&self) -> u64 {
        self.confirmed.max(self.inherited)
    }

    /// Those considered that have acknowledged all that may have been acknowledged to anybody.
    fn joined(&self) -> BTreeSet<Member> {
        let entry = self.entry_mark();
        let has_all =
            |member: &&Member| self.slaves.get(*member).is_some_and(|slave| slave.has(self.config.durability) >= entry);
        self.membership.considered().filter(has_all).cloned().collect()
    }
}

/// `since`, if that is longer ago than `limit`.
fn over(since: Millis, limit: Millis, now: Millis) -> Option<Millis> {
    (now.saturating_sub(since) > limit).then_some(since)
}

/// The ends of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEnds {
    /// End of what is written.
    pub written: u64,
    /// End of what is on disk; never above `written`.
    pub flushed: u64,
    /// End of what is confirmed; never above `written`.
    pub confirmed: u64,
}

impl Slave {
    /// A member of the set from which nothing came yet: it gets the usual time to show up.
    fn unheard(now: Millis) -> Self {
        Self {
            written: 0,
            flushed: 0,
            heard: now,
            proved: now,
            caught_up: now,
            target: 0,
            target_at: now,
            gap_since: None,
            gone_since: None,
        }
    }

    fn has(&self, durability: Durability) -> u64 {
        match durability {
            Durability::Flushed => self.flushed,
            Durability::Written => self.written,
        }
    }
}
