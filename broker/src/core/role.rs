//! What a replica is, with what belongs to being it.

use gantry_replication::master::{Master, Mode};
use gantry_replication::{Epoch, Member, Millis};

use super::Limits;
use super::acks::{Acks, Waiting};
use crate::services::seam::{SendFailure, Submission};

/// Why sends are refused by a master whose gate doesn't open.
pub(super) const OPENING: &str = "it waits until its in-sync slaves have all that its log held when it became master";

pub(super) enum Role {
    /// Starts so, until the elector says otherwise.
    Fenced,
    Slave(SlaveRole),
    Master(Box<MasterRole>),
}

#[derive(Clone, Copy)]
pub(super) struct SlaveRole {
    pub(super) epoch: Epoch,
    /// When the master was last heard, while there is a connection.
    pub(super) heard_at: Option<Millis>,
}

pub(super) struct MasterRole {
    pub(super) master: Master,
    mode: Mode,
    pub(super) acks: Acks,
    /// The confirm offset as it was last told to the store.
    pub(super) confirmed: u64,
    pub(super) gate: Gate,
    /// Orders to park up to this number have been called off, whether they were carried out by then or not.
    pub(super) called_off: u64,
}

/// Whether sends pass.
pub(super) enum Gate {
    /// The epoch is open, but what the log held at its beginning is not all confirmed and visible yet: topics and offsets
    /// may be in it. Sends wait, for a moment.
    Opening(Vec<Submission>, Millis),
    /// They pass.
    Open,
    /// A switchover is being prepared: sends wait for its end.
    Parked(Parking, Vec<Submission>),
}

/// What sends wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parking {
    /// The candidate.
    pub(super) to: Member,
    pub(super) since: Millis,
    /// The number of the order to park ([`super::Core::number_order`]).
    pub(super) order: u64,
}

impl Gate {
    /// Sends wait for a switchover, from now on. One that is being prepared already gives way to this: nobody may have been able to
    /// say that it was given up, and what was asked for it (whom to wait for, and how long) says nothing of the new one. `false`: the
    /// epoch has only begun, and nothing passes anyway.
    pub(super) fn park(&mut self, parking: Parking) -> bool {
        let waiting = match self {
            Self::Opening(..) => return false,
            Self::Open => Vec::new(),
            Self::Parked(_, sends) => std::mem::take(sends),
        };
        *self = Self::Parked(parking, waiting);
        true
    }

    /// Those who wait at it.
    pub(super) fn waiting(&mut self) -> Option<&mut Vec<Submission>> {
        match self {
            Self::Opening(sends, _) | Self::Parked(_, sends) => Some(sends),
            Self::Open => None,
        }
    }

    /// What the log held at the epoch's beginning takes too long to be confirmed: nobody is let wait for that any more.
    pub(super) fn is_overdue(&self, now: Millis, limits: Limits) -> bool {
        matches!(self, Self::Opening(_, since) if now.saturating_sub(*since) > limits.slave_timeout_ms)
    }
}

impl MasterRole {
    pub(super) fn new(master: Master, mode: Mode, now: Millis) -> Self {
        let confirmed = master.confirmed();
        Self { master, mode, acks: Acks::default(), confirmed, gate: Gate::Opening(Vec::new(), now), called_off: 0 }
    }

    /// Moves the confirm offset, and gives what can be answered.
    pub(super) fn settle(&mut self, now: Millis, limits: Limits) -> Vec<Waiting> {
        let mut done = Vec::new();
        self.confirmed = self.master.confirm(now);
        self.acks.take_confirmed(self.confirmed, &mut done);
        if self.mode == Mode::Sync {
            self.acks.take_overdue(now, limits.slave_timeout_ms, SendFailure::FlushSlaveTimeout, &mut done);
        } else {
            self.acks.take_overdue(now, limits.sync_flush_timeout_ms, SendFailure::FlushDiskTimeout, &mut done);
        }
        done
    }

    /// Parked by that order, and everything is confirmed and on the candidate.
    pub(super) fn is_drained(&self, order: u64) -> bool {
        let drained = |parking: &Parking| self.acks.is_empty() && self.master.is_drained_to(&parking.to);
        matches!(&self.gate, Gate::Parked(parking, _) if parking.order == order && drained(parking))
    }
}

#[cfg(test)]
mod tests {
    use gantry_replication::StoreId;

    use super::*;

    #[test]
    fn a_second_switchover_takes_the_place_of_one_that_nobody_could_call_off() {
        let (first, second) = (Member::new("r1", StoreId(1)), Member::new("r2", StoreId(2)));
        let mut gate = Gate::Open;
        assert!(gate.park(Parking { to: first, since: 100, order: 1 }));
        let parking = Parking { to: second, since: 12_000, order: 3 };
        assert!(gate.park(parking.clone()));
        assert!(matches!(gate, Gate::Parked(now, _) if now == parking), "it waits for r2, and not since long ago");
    }

    #[test]
    fn an_epoch_that_only_begins_is_not_parked() {
        let mut gate = Gate::Opening(Vec::new(), 0);
        assert!(!gate.park(Parking { to: Member::new("r1", StoreId(1)), since: 5, order: 1 }));
        assert!(matches!(gate, Gate::Opening(..)));
    }
}
