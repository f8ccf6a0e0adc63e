//! What a replica is, with what belongs to being it.

use gantry_replication::master::{Durability, Master, Mode};
use gantry_replication::{Epoch, Member, Millis};

use super::Limits;
use super::acks::{Acks, Waiting};
use crate::services::seam::{SendFailure, Submission};

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
    durability: Durability,
    pub(super) acks: Acks,
    /// The confirm offset as it was last told to the store.
    pub(super) confirmed: u64,
    pub(super) gate: Gate,
}

/// Whether sends pass.
pub(super) enum Gate {
    /// The epoch is open, but what the log held at its beginning is not all confirmed and visible yet: topics and offsets
    /// may be in it. Sends wait, for a moment.
    Opening(Vec<Submission>),
    /// They pass.
    Open,
    /// A switchover to this member is being prepared: sends wait for its end.
    Parked(Member, Vec<Submission>),
}

impl Gate {
    /// Those who wait at it.
    pub(super) fn waiting(&mut self) -> Option<&mut Vec<Submission>> {
        match self {
            Self::Opening(sends) | Self::Parked(_, sends) => Some(sends),
            Self::Open => None,
        }
    }
}

impl MasterRole {
    pub(super) fn new(master: Master, mode: Mode, durability: Durability) -> Self {
        let confirmed = master.confirmed();
        Self { master, mode, durability, acks: Acks::default(), confirmed, gate: Gate::Opening(Vec::new()) }
    }

    /// Moves the confirm offset, and gives what can be answered.
    pub(super) fn settle(&mut self, now: Millis, limits: Limits) -> Vec<Waiting> {
        let mut done = Vec::new();
        self.confirmed = self.master.confirm(now);
        self.acks.take_confirmed(self.confirmed, &mut done);
        if self.mode == Mode::Sync {
            self.acks.take_overdue(now, limits.slave_timeout_ms, SendFailure::FlushSlaveTimeout, &mut done);
        } else if self.durability == Durability::Flushed {
            self.acks.take_overdue(now, limits.sync_flush_timeout_ms, SendFailure::FlushDiskTimeout, &mut done);
        }
        done
    }

    /// Parked, and everything is confirmed and on the candidate.
    pub(super) fn is_drained(&self) -> bool {
        matches!(&self.gate, Gate::Parked(to, _) if self.acks.is_empty() && self.master.is_drained_to(to))
    }
}
