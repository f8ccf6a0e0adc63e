//! The planned switchover: park sends at the master, let the candidate reach the end, then the same steps as in an election.

use crate::elector::{Action, Cause, Elector, SwitchoverDone, Ticket};
use crate::wire::{Directive, Role};
use crate::{GroupRecord, Member, Millis};

#[derive(Debug)]
pub(super) struct Switchover {
    from: Member,
    to: Member,
    ticket: Ticket,
    since: Millis,
    /// When the record named the candidate, once it does.
    decided: Option<Millis>,
    patience_ms: Millis,
}

impl Switchover {
    /// The old master is told to follow only after the new one serves, so that whoever it sends away finds a master. Not for ever.
    pub(super) fn holds_back(&self, now: Millis) -> Option<&str> {
        (now.saturating_sub(self.since) <= self.patience_ms).then_some(self.from.name.as_str())
    }
}

impl Elector {
    pub(super) fn begin_switchover(&mut self, to: &str, ticket: Ticket, now: Millis) {
        let checked = self.check_switchover(to).and_then(|(record, to)| {
            let left = self.seats.get(&record.master.name).is_some_and(|seat| seat.report.drained);
            if !left {
                return Ok((record, to));
            }
            // Of a switchover that nobody could call off. What it drained for, and how long it will wait yet, isn't known here.
            self.unpark(&record);
            Err(format!(
                "{} was still parked for an earlier switchover; its sends pass again: try again",
                record.master.name
            ))
        });
        match checked {
            Err(why) => self.actions.push(Action::Switched { ticket, result: Err(why) }),
            Ok((record, to)) => {
                self.park(&record, &to);
                let patience_ms = 2 * self.config.switchover_ms;
                self.switchover =
                    Some(Switchover { from: record.master, to, ticket, since: now, decided: None, patience_ms });
            }
        }
    }

    fn check_switchover(&self, to: &str) -> Result<(GroupRecord, Member), String> {
        let record = self.record().cloned().ok_or("the group has no master yet")?;
        if self.switchover.is_some() {
            return Err("another switchover is under way".to_owned());
        }
        if self.serving().is_none() || self.trouble.is_some() {
            return Err(format!("master {} of epoch {} is not serving", record.master.name, record.epoch));
        }
        if record.master.name == to {
            return Err(format!("{to} is the master already"));
        }
        if !self.config.replicas.contains(to) {
            let known: Vec<_> = self.config.replicas.iter().map(String::as_str).collect();
            return Err(format!("there is no replica {to}; this group has {}", known.join(", ")));
        }
        if self.config.facts.fenced.contains(to) {
            return Err(format!("{to} is fenced: unfence it first"));
        }
        let seat = self.seats.get(to).filter(|seat| seat.session.is_some());
        let member = seat.map(|seat| seat.hello.member.clone()).ok_or(format!("{to} is not connected"))?;
        if !record.in_sync.contains(&member) {
            return Err(format!("{to} is not in sync: it would lose acknowledged messages"));
        }
        Ok((record, member))
    }

    fn park(&mut self, record: &GroupRecord, to: &Member) {
        if let Some(session) = self.seats.get(&record.master.name).and_then(|seat| seat.session) {
            let directive = Directive::Park { epoch: record.epoch, to: to.clone() };
            self.actions.push(Action::Direct { session, directive });
        }
    }

    /// Writes the record once the master is drained; gives up when that takes too long.
    pub(super) fn advance_switchover(&mut self, now: Millis) {
        let Some(switchover) = &self.switchover else { return };
        let (from, to, since) = (switchover.from.clone(), switchover.to.clone(), switchover.since);
        let overdue = now.saturating_sub(since) > 2 * self.config.switchover_ms;
        let Some(record) = self.record().cloned() else { return };
        if switchover.decided.is_some() && record.master == to {
            if overdue {
                self.end_switchover(Err(format!("{to} was made master but does not serve")));
            }
            return;
        }
        // Decided, but the record doesn't say so: it could not be written. It is tried again until time is up.
        if record.master != from || !record.in_sync.contains(&to) {
            self.unpark(&record);
            self.end_switchover(Err("the group changed meanwhile".to_owned()));
            return;
        }
        let master = self.seats.get(&from.name);
        let drained = master
            .is_some_and(|seat| seat.session.is_some() && seat.report.drained && seat.report.role == Role::Master);
        // The master may go by what the candidate acknowledged before a crash of its machine took that away.
        let ready = self
            .seats
            .get(&to.name)
            .is_some_and(|seat| seat.session.is_some() && seat.hello.member == to && seat.report.intact);
        if drained && ready {
            if let Some(switchover) = &mut self.switchover {
                switchover.decided = Some(now);
            }
            let in_sync = record.in_sync.clone();
            self.elect(&record, to, in_sync, Cause::Switchover, now.saturating_sub(since));
        } else if now.saturating_sub(since) > self.config.switchover_ms {
            self.unpark(&record);
            self.end_switchover(Err(format!(
                "{to} did not reach the master's end within {} ms",
                self.config.switchover_ms
            )));
        }
    }

    fn unpark(&mut self, record: &GroupRecord) {
        if let Some(session) = self.seats.get(&record.master.name).and_then(|seat| seat.session) {
            self.actions.push(Action::Direct { session, directive: Directive::Unpark { epoch: record.epoch } });
        }
    }

    /// The record's master serves: if that was the aim, it is reached.
    pub(super) fn finish_switchover(&mut self, record: &GroupRecord, now: Millis) {
        let Some(switchover) = &self.switchover else { return };
        let done = SwitchoverDone { epoch: record.epoch, pause_ms: now.saturating_sub(switchover.since) };
        if switchover.to == record.master {
            self.end_switchover(Ok(done));
        } else {
            self.end_switchover(Err(format!("{} became master instead", record.master)));
        }
    }

    fn end_switchover(&mut self, result: Result<SwitchoverDone, String>) {
        if let Some(switchover) = self.switchover.take() {
            self.actions.push(Action::Switched { ticket: switchover.ticket, result });
        }
    }
}
