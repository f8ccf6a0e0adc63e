//! Who is master. One `Elector` a group; the shell around it carries sessions, the record's store and the clock.
//!
//! Invariants kept here:
//! - *Election*: only a member of the record's in-sync set becomes master; an unclean election is never automatic. When all members
//!   of the set are there and each was torn by a power cut, a replica outside it is taken if its log goes farther than theirs.
//! - *Epoch*: each new master's epoch is max(record, every reachable replica's promise) + 1. A record below what a replica has
//!   promised, or below a revision that this elector or a replica knows of, was restored from the past, and its set proves nothing: when
//!   every replica of the group has answered, the one that serves by the newest promise, or else has the newest log, becomes master.
//!
//! *Unknown is not down.* A master whose session is silent is replaced only when no in-sync slave hears it either; if slaves hear
//! it, it is the elector that is cut off. A process that is known dead needs no such evidence.
//!
//! All is level-triggered: after each event the whole state is looked at again, so an elector that restarts between any two
//! steps of an election goes on from what the record and the replicas say.

mod cause;
mod election;
mod facts;
mod planned;
mod seats;
#[cfg(test)]
mod tests;
mod unclean;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::master::Mode;
use crate::record::{GroupRecord, Recorded, Version};
use crate::wire::{AlterInSync, CutTail, Directive, Hello, Report, Role};
use crate::{Epoch, Member, Millis};
pub use cause::Cause;
use election::Trouble;
pub use facts::Facts;
use planned::Switchover;
use seats::Seat;

/// A session's number, given by the shell; never used twice.
pub type SessionId = u64;

/// A number by which the shell finds whom to answer.
pub type Ticket = u64;

/// The elector's settings; times in milliseconds.
#[derive(Clone, Debug)]
pub struct Config {
    /// The names of all replicas that the group should have.
    pub replicas: BTreeSet<String>,
    /// In `Async` mode a master that is not known dead is given time to fence itself before another is made.
    pub mode: Mode,
    /// A master not heard for this long is suspected.
    pub silence_ms: Millis,
    /// A slave that heard its master less than this ago hears it.
    pub hears_ms: Millis,
    /// How long slaves may take to answer a probe before the others decide.
    pub probe_ms: Millis,
    /// How long a master needs to fence itself.
    pub fence_wait_ms: Millis,
    /// Failovers on suspicion are at least this far apart.
    pub suspicion_gap_ms: Millis,
    /// Fewer in-sync members than this answering is worth waiting [`Config::gather_ms`] for more: they may be starting.
    pub min_in_sync: usize,
    /// See [`Config::min_in_sync`].
    pub gather_ms: Millis,
    /// A new master that doesn't serve after this long is given up.
    pub promote_ms: Millis,
    /// A switchover whose candidate doesn't reach the end within this time is given up.
    pub switchover_ms: Millis,
    /// A directive that shows no effect is repeated after this long.
    pub repeat_ms: Millis,
    /// The record is read again this often: another elector may have written it, or somebody may have restored a backup.
    pub reread_ms: Millis,
    /// What the platform says of the replicas at the start; see [`Event::Facts`].
    pub facts: Facts,
}

impl Config {
    /// The defaults.
    pub fn new(replicas: impl IntoIterator<Item = String>, mode: Mode, min_in_sync: usize) -> Self {
        Self {
            replicas: replicas.into_iter().collect(),
            mode,
            silence_ms: 3_000,
            hears_ms: 2_000,
            probe_ms: 300,
            fence_wait_ms: 5_000,
            suspicion_gap_ms: 60_000,
            min_in_sync,
            gather_ms: 2_000,
            promote_ms: 3_000,
            switchover_ms: 5_000,
            repeat_ms: 500,
            reread_ms: 10_000,
            facts: Facts::default(),
        }
    }
}

/// Wishes waiting at most. There is one master, and it has one wish at a time.
const MAX_WISHES: usize = 64;

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The answer to [`Action::Read`].
    Read(Recorded),
    /// The answer to [`Action::CompareAndSet`].
    Set(SetOutcome),
    /// A broker opened a session.
    Joined {
        /// The session.
        session: SessionId,
        /// Who.
        hello: Box<Hello>,
    },
    /// A broker reported, by itself or in answer to a directive.
    Reported {
        /// Its session.
        session: SessionId,
        /// Its state.
        report: Report,
    },
    /// A broker answered a probe: it lived when the probe reached it. A mere report may have been on its way for long.
    Answered {
        /// Its session.
        session: SessionId,
        /// Its state.
        report: Report,
    },
    /// A session ended.
    Left {
        /// Which.
        session: SessionId,
    },
    /// The process of this replica has ended: known, not guessed.
    Died {
        /// The replica.
        name: String,
    },
    /// A master wishes to change its in-sync set.
    Alter {
        /// Its session.
        session: SessionId,
        /// The wish.
        wish: AlterInSync,
        /// Whom to answer.
        ticket: Ticket,
    },
    /// Somebody asks for a planned switchover.
    Switchover {
        /// To this replica.
        to: String,
        /// Whom to answer.
        ticket: Ticket,
    },
    /// Somebody takes it on himself to lose messages: this replica shall be master, in sync or not.
    ElectUnclean {
        /// The replica.
        to: String,
        /// The epoch of the record that this is about, 0: there is no record. Another one stands there: the wish is void, so that it
        /// counts once.
        epoch: Epoch,
        /// Whom to answer.
        ticket: Ticket,
    },
    /// The platform says something else of the replicas than before.
    Facts(Facts),
    /// Time went by. To be sent at least each 100 ms.
    Tick,
}

/// What became of a compare-and-set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetOutcome {
    /// The record is written; its new version.
    Done(Version),
    /// Another version stands there; nothing was written.
    Conflict,
    /// No answer: it may have been written.
    Unknown,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Read the record.
    Read,
    /// Write the record if it still has that version.
    CompareAndSet {
        /// The version it must have.
        expected: Version,
        /// The new record.
        record: GroupRecord,
    },
    /// Send a directive.
    Direct {
        /// To this session.
        session: SessionId,
        /// What to be.
        directive: Directive,
    },
    /// Ask for a fresh report.
    Probe {
        /// This session.
        session: SessionId,
    },
    /// Answer an [`Event::Alter`].
    Answer {
        /// Its ticket.
        ticket: Ticket,
        /// The record as it stands.
        record: GroupRecord,
    },
    /// The master of this record serves: point the group's address at it.
    Publish {
        /// The record.
        record: GroupRecord,
        /// The master's own client address.
        address: String,
    },
    /// Answer an [`Event::Switchover`] or an [`Event::ElectUnclean`].
    Switched {
        /// Its ticket.
        ticket: Ticket,
        /// The epoch and for how long sends were parked, or why it did not happen.
        result: Result<SwitchoverDone, String>,
    },
    /// Something that people should know.
    Tell(Notice),
}

/// A switchover that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SwitchoverDone {
    /// The new master's epoch.
    pub epoch: Epoch,
    /// From the request to the new master's serving.
    pub pause_ms: Millis,
}

/// Something that people should know: an event on Kubernetes, a line locally. Told once when it becomes true.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Notice {
    /// The group's first master.
    #[error("first master: {to}, epoch {epoch}")]
    Started {
        /// The master.
        to: Member,
        /// Its epoch.
        epoch: Epoch,
    },
    /// A failover or switchover was decided.
    #[error("{cause}: {from} -> {to}, epoch {epoch}, decided {decision_ms} ms after the first sign")]
    Elected {
        /// The old master.
        from: Member,
        /// The new one.
        to: Member,
        /// Its epoch.
        epoch: Epoch,
        /// Why.
        cause: Cause,
        /// From the first sign to the record's being written.
        decision_ms: Millis,
    },
    /// Somebody made a replica master that may lack acknowledged messages.
    #[error("unclean election by hand: {to}, epoch {epoch}; what was acknowledged and {to} doesn't have is lost")]
    Unclean {
        /// The new master.
        to: Member,
        /// Its epoch.
        epoch: Epoch,
    },
    /// The elector can't hear the master but its slaves can.
    #[error("the elector is cut off from master {master}: {slave} still hears it, so it stays master")]
    CutOff {
        /// The master.
        master: Member,
        /// Who hears it.
        slave: String,
    },
    /// The master goes on with fewer copies than asked for.
    #[error("degraded: master {master} has {have} of at least {need} in-sync replicas and goes on all the same")]
    Degraded {
        /// The master.
        master: Member,
        /// Members of the record's in-sync set.
        have: usize,
        /// `minInSync`
        need: usize,
    },
    /// And has enough again.
    #[error("degraded no more: {have} replicas are in sync")]
    Restored {
        /// Members of the record's in-sync set.
        have: usize,
    },
    /// A replica cut what its master doesn't have.
    #[error("{member} {tail}")]
    Cut {
        /// The replica.
        member: Member,
        /// What it cut.
        tail: CutTail,
    },
    /// A master is needed and can't be had yet.
    #[error("no master can be elected: {0}")]
    Stuck(String),
}

impl Notice {
    /// The epoch of the election that it tells of.
    pub fn epoch(&self) -> Option<Epoch> {
        match self {
            Self::Started { epoch, .. } | Self::Elected { epoch, .. } | Self::Unclean { epoch, .. } => Some(*epoch),
            _ => None,
        }
    }

    /// Whether a new master was made because the old one is lost, so that nothing that waits for the old one is worth waiting.
    pub fn is_failover(&self) -> bool {
        match self {
            Self::Elected { cause, .. } => *cause != Cause::Switchover,
            Self::Unclean { .. } => true,
            _ => false,
        }
    }
}

/// Why a compare-and-set is under way.
#[derive(Clone, Debug)]
enum Purpose {
    Elect { notice: Notice },
    ElectUnclean { notice: Notice, ticket: Ticket },
    Alter { ticket: Ticket },
}

/// The elector of one group.
#[derive(Debug)]
pub struct Elector {
    config: Config,
    /// The record as last read or written by this elector; none while it is unknown.
    recorded: Option<Recorded>,
    /// Epoch and revision of the newest record that this elector has read or written: an older one is from the past.
    newest: (Epoch, u64),
    reading: bool,
    /// When the record was read last.
    read_at: Millis,
    /// What is being read may be older than what was written meanwhile.
    read_is_old: bool,
    writing: Option<(GroupRecord, Purpose)>,
    seats: BTreeMap<String, Seat>,
    wishes: VecDeque<(SessionId, AlterInSync, Ticket)>,
    trouble: Option<Trouble>,
    switchover: Option<Switchover>,
    last_suspicion: Option<Millis>,
    /// When the present record was written by this elector, and its master's session then: that has [`Config::promote_ms`] to serve.
    promoting: Option<(Millis, Option<SessionId>)>,
    published: Option<Epoch>,
    told: Option<Notice>,
    /// The master was last seen to be so.
    degraded: bool,
    started: Millis,
    actions: Vec<Action>,
}

impl Elector {
    /// An elector that knows nothing yet; it starts by reading the record.
    pub fn new(config: Config, now: Millis) -> Self {
        Self {
            config,
            recorded: None,
            newest: (Epoch(0), 0),
            reading: false,
            read_at: now,
            read_is_old: false,
            writing: None,
            seats: BTreeMap::new(),
            wishes: VecDeque::new(),
            trouble: None,
            switchover: None,
            last_suspicion: None,
            promoting: None,
            published: None,
            told: None,
            degraded: false,
            started: now,
            actions: Vec::new(),
        }
    }

    /// The record as this elector knows it.
    pub fn record(&self) -> Option<&GroupRecord> {
        self.recorded.as_ref()?.record.as_ref()
    }

    /// The last report of a replica and when it came, if its session stands.
    pub fn report(&self, name: &str) -> Option<(&Report, Millis)> {
        let seat = self.seats.get(name)?;
        seat.session.map(|_| (&seat.report, seat.heard_at))
    }

    /// What a replica said of itself when it last joined.
    pub fn hello(&self, name: &str) -> Option<&Hello> {
        self.seats.get(name).map(|seat| &seat.hello)
    }

    /// The epoch whose master is known to serve, if it is the record's.
    pub fn serving(&self) -> Option<Epoch> {
        self.record().map(|record| record.epoch).filter(|epoch| self.published == Some(*epoch))
    }

    /// Takes an event in and gives what follows from it.
    pub fn handle(&mut self, now: Millis, event: Event) -> Vec<Action> {
        match event {
            Event::Read(recorded) => self.read(recorded, now),
            Event::Set(outcome) => self.set(outcome, now),
            Event::Joined { session, hello } => self.joined(session, *hello, now),
            Event::Reported { session, report } => self.reported(session, report, false, now),
            Event::Answered { session, report } => self.reported(session, report, true, now),
            Event::Left { session } => self.left(session, now),
            Event::Died { name } => {
                if let Some(seat) = self.seats.get_mut(&name) {
                    seat.died(now);
                }
            }
            Event::Alter { session, wish, ticket } => {
                // Beyond the bound a wish stays unanswered, and its master asks again.
                if self.wishes.len() < MAX_WISHES {
                    self.wishes.push_back((session, wish, ticket));
                }
            }
            Event::Switchover { to, ticket } => self.begin_switchover(&to, ticket, now),
            Event::ElectUnclean { to, epoch, ticket } => self.elect_unclean(&to, epoch, ticket),
            Event::Facts(facts) => self.config.facts = facts,
            Event::Tick => {}
        }
        self.evaluate(now);
        std::mem::take(&mut self.actions)
    }

    fn read(&mut self, recorded: Recorded, now: Millis) {
        self.reading = false;
        self.read_at = now;
        if std::mem::take(&mut self.read_is_old) && self.recorded.is_some() {
            return;
        }
        self.know(recorded);
    }

    fn know(&mut self, recorded: Recorded) {
        if let Some(record) = &recorded.record {
            self.newest = self.newest.max((record.epoch, record.revision));
        }
        self.recorded = Some(recorded);
    }

    fn set(&mut self, outcome: SetOutcome, now: Millis) {
        let Some((record, purpose)) = self.writing.take() else { return };
        let SetOutcome::Done(version) = outcome else {
            // Read again; whatever was wanted is decided anew from what stands there.
            self.recorded = None;
            if let Purpose::ElectUnclean { ticket, .. } = purpose {
                let result = Err("the record could not be written; look at the status before trying again".to_owned());
                self.actions.push(Action::Switched { ticket, result });
            }
            return;
        };
        self.know(Recorded { record: Some(record.clone()), version });
        match purpose {
            Purpose::Alter { ticket } => {
                self.wishes.pop_front();
                self.actions.push(Action::Answer { ticket, record });
            }
            Purpose::Elect { notice } => self.elected(&record, notice, now),
            Purpose::ElectUnclean { notice, ticket } => {
                let done = SwitchoverDone { epoch: record.epoch, pause_ms: 0 };
                self.actions.push(Action::Switched { ticket, result: Ok(done) });
                self.elected(&record, notice, now);
            }
        }
    }

    fn elected(&mut self, record: &GroupRecord, notice: Notice, now: Millis) {
        self.trouble = None;
        let session = self.seats.get(&record.master.name).and_then(|seat| seat.session);
        self.promoting = Some((now, session));
        self.told = None;
        self.actions.push(Action::Tell(notice));
    }

    fn joined(&mut self, session: SessionId, hello: Hello, now: Millis) {
        let name = hello.member.name.clone();
        let seat = Seat::taken(session, hello, now, self.seats.get(&name));
        self.seats.insert(name.clone(), seat);
        self.tell_cut(&name);
    }

    /// What a replica cut is told once.
    fn tell_cut(&mut self, name: &str) {
        let Some(seat) = self.seats.get_mut(name) else { return };
        if let Some(tail) = seat.news_of_cut() {
            let member = seat.hello.member.clone();
            self.actions.push(Action::Tell(Notice::Cut { member, tail }));
        }
    }

    fn tell_degraded(&mut self) {
        let Some(record) = self.record() else { return };
        let Some(seat) = self.seats.get(&record.master.name) else { return };
        if self.serving().is_none() || seat.hello.member != record.master || seat.report.degraded == self.degraded {
            return;
        }
        let (master, have, need) = (record.master.clone(), record.in_sync.len(), self.config.min_in_sync);
        self.degraded = seat.report.degraded;
        let notice = if self.degraded { Notice::Degraded { master, have, need } } else { Notice::Restored { have } };
        self.actions.push(Action::Tell(notice));
    }

    fn reported(&mut self, session: SessionId, report: Report, probed: bool, now: Millis) {
        let Some(seat) = self.seat_of(session) else { return };
        if probed {
            seat.answered(report, now);
        } else {
            seat.reported(report, now);
        }
        let name = seat.hello.member.name.clone();
        self.tell_cut(&name);
    }

    fn left(&mut self, session: SessionId, now: Millis) {
        if let Some(seat) = self.seat_of(session) {
            seat.left(now);
        }
    }

    /// The replica whose session this is. Nobody's any more: another has taken its place, or its process is known dead, and what still
    /// comes by it says nothing of now.
    fn seat_of(&mut self, session: SessionId) -> Option<&mut Seat> {
        self.seats.values_mut().find(|seat| seat.session == Some(session))
    }

    /// Looks at everything and does what is due.
    fn evaluate(&mut self, now: Millis) {
        if self.recorded.is_none() {
            if !self.reading {
                self.reading = true;
                self.actions.push(Action::Read);
            }
            return;
        }
        if self.writing.is_none() && self.reads_again(now) {
            return;
        }
        if self.writing.is_none() {
            self.grant_wishes();
        }
        if self.writing.is_none() {
            self.elect_if_needed(now);
        }
        if self.writing.is_none() {
            self.advance_switchover(now);
        }
        self.direct(now);
    }

    /// The record is looked at every so often. Who knows of a newer one is a reason to look at once, and to decide nothing before:
    /// another elector has written since this one read, or the record was restored from the past.
    fn reads_again(&mut self, now: Millis) -> bool {
        let behind = self.is_past(self.record());
        let due = if behind { self.config.repeat_ms } else { self.config.reread_ms };
        if !self.reading && now.saturating_sub(self.read_at) >= due {
            self.reading = true;
            self.actions.push(Action::Read);
        }
        self.reading && behind
    }

    fn compare_and_set(&mut self, record: GroupRecord, purpose: Purpose) {
        assert_eq!(record.flaw(), None, "an elector must not write {record:?}");
        let Some(recorded) = &self.recorded else { return };
        if let (Purpose::Elect { .. }, Some(old)) = (&purpose, &recorded.record) {
            assert!(
                old.in_sync.contains(&record.master) || self.is_past(Some(old)) || self.is_torn(old),
                "invariant Election: {} is not in {:?}",
                record.master,
                old.in_sync
            );
            assert!(record.epoch > old.epoch, "invariant Epoch: {} after {}", record.epoch, old.epoch);
        }
        self.actions.push(Action::CompareAndSet { expected: recorded.version.clone(), record: record.clone() });
        self.writing = Some((record, purpose));
        self.read_is_old = self.reading;
    }

    /// Masters' wishes, one compare-and-set at a time. One that changes nothing is written all the same: its answer tells the master
    /// that no earlier wish will be granted any more, and an earlier one may be on its way to the record still, written by an
    /// elector that is no more or whose answer was lost. Only a write that goes before it makes it void.
    fn grant_wishes(&mut self) {
        while let Some((session, wish, ticket)) = self.wishes.front().cloned() {
            let Some(record) = self.record().cloned() else {
                self.wishes.pop_front();
                continue;
            };
            let from_master = self.seat_of(session).is_some_and(|seat| seat.hello.member == record.master);
            let sound = wish.in_sync.contains(&record.master)
                && wish.in_sync.iter().all(|member| self.config.replicas.contains(&member.name));
            // Made on the record that stands: another would be changed as its master never decided, behind its back.
            if from_master && (wish.epoch, wish.revision) == (record.epoch, record.revision) {
                let in_sync = if sound { wish.in_sync } else { record.in_sync };
                let record = GroupRecord { in_sync, revision: record.revision + 1, ..record };
                self.compare_and_set(record, Purpose::Alter { ticket });
                return;
            }
            self.wishes.pop_front();
            self.actions.push(Action::Answer { ticket, record });
        }
    }

    fn tell(&mut self, notice: Notice) {
        if self.told.as_ref() != Some(&notice) {
            self.told = Some(notice.clone());
            self.actions.push(Action::Tell(notice));
        }
    }

    /// Tells every replica what it should be, as long as it isn't.
    fn direct(&mut self, now: Millis) {
        let Some(record) = self.record().cloned() else { return };
        if self.is_past(Some(&record)) {
            // Nobody takes up again what is past.
            return;
        }
        self.publish_if_serving(&record, now);
        self.tell_degraded();
        let master = self.seats.get(&record.master.name).filter(|seat| seat.hello.member == record.master);
        let ha_address = master.map(|seat| seat.hello.ha_address.clone());
        let held = self.switchover.as_ref().and_then(|switchover| switchover.holds_back(now)).map(str::to_owned);
        for (name, seat) in &mut self.seats {
            let Some(session) = seat.session else { continue };
            let directive = if seat.hello.member == record.master {
                if seat.report.promised >= record.epoch {
                    continue;
                }
                if seat.lost_since_elected(self.promoting) {
                    // It gives up the epoch by promising it unopened; then somebody else can be elected, whoever that is.
                    Directive::Slave { record: record.clone(), ha_address: None }
                } else {
                    Directive::Master { record: record.clone() }
                }
            } else {
                if held.as_ref() == Some(name) {
                    continue;
                }
                // Who is fenced follows nobody, so that its master leaves it out soon.
                let fenced = self.config.facts.fenced.contains(name);
                Directive::Slave { record: record.clone(), ha_address: ha_address.clone().filter(|_| !fenced) }
            };
            if seat.needs(&directive, now, self.config.repeat_ms) {
                self.actions.push(Action::Direct { session, directive });
            }
        }
    }

    fn publish_if_serving(&mut self, record: &GroupRecord, now: Millis) {
        let Some(seat) = self.seats.get(&record.master.name) else { return };
        let serves = seat.session.is_some()
            && seat.hello.member == record.master
            && seat.report.role == Role::Master
            && seat.report.promised == record.epoch;
        if serves && self.published != Some(record.epoch) {
            self.published = Some(record.epoch);
            self.promoting = None;
            self.told = None;
            let address = seat.hello.client_address.clone();
            self.actions.push(Action::Publish { record: record.clone(), address });
            self.finish_switchover(record, now);
        }
    }
}
