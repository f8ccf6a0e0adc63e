//! What a replica must remember besides its log, and what may become of it. Each method gives the next state; the shell makes that
//! durable before anything that depends on it is done or said.

use crate::epochs::{EpochTable, OutOfOrder};
use crate::promise::{Promise, Stale};
use crate::{Epoch, GroupRecord, Member};

/// A replica's promise and its log's epochs: they change together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The highest epoch accepted (invariant *Promise*).
    pub promised: Epoch,
    /// Which epoch wrote which bytes.
    pub epochs: EpochTable,
}

/// Why an epoch can't be opened by this replica.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotOpen {
    /// The record contradicts itself.
    #[error("this can't be a record: {0}")]
    Flawed(&'static str),
    /// Another replica is meant, or this one's store has been replaced.
    #[error("the record names {named} master; this is {me}")]
    Another {
        /// The record's master.
        named: Member,
        /// This replica.
        me: Member,
    },
    /// An older epoch.
    #[error(transparent)]
    Stale(#[from] Stale),
    /// It had its chance: an epoch's bytes have one author.
    #[error("epoch {0} was promised before: an epoch is opened once, by one life of one master")]
    Promised(Epoch),
    /// The log is older than its own table.
    #[error(transparent)]
    OutOfOrder(#[from] OutOfOrder),
}

/// Why a piece of the log can't be what comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotEnter {
    /// It begins in the middle of an epoch that this log doesn't know.
    #[error("a piece at {from} is of epoch {epoch}, which began at {start}: the handshake should have told")]
    Midway {
        /// Where the piece begins.
        from: u64,
        /// Its epoch.
        epoch: Epoch,
        /// Where that began.
        start: u64,
    },
    /// It is of an epoch before the log's last.
    #[error(transparent)]
    OutOfOrder(#[from] OutOfOrder),
}

impl Memory {
    /// Opens the record's epoch as its master, over a log of `[oldest, end)` (invariant *Epoch*: only once).
    pub fn opening(&self, me: &Member, record: &GroupRecord, oldest: u64, end: u64) -> Result<Self, CannotOpen> {
        if let Some(flaw) = record.flaw() {
            return Err(CannotOpen::Flawed(flaw));
        }
        if record.master != *me {
            return Err(CannotOpen::Another { named: record.master.clone(), me: me.clone() });
        }
        if !Promise::restored(self.promised).check(record.epoch)? {
            return Err(CannotOpen::Promised(record.epoch));
        }
        let mut epochs = self.epochs.clone();
        // A log from before there were epochs is, whole, of the first one.
        let start = if epochs.last().is_none() { oldest } else { end };
        epochs.open(record.epoch, start)?;
        Ok(Self { promised: record.epoch, epochs })
    }

    /// Promises `epoch`; nothing if that was done before.
    pub fn promising(&self, epoch: Epoch) -> Result<Option<Self>, Stale> {
        let news = Promise::restored(self.promised).check(epoch)?;
        Ok(news.then(|| Self { promised: epoch, epochs: self.epochs.clone() }))
    }

    /// The log was cut to a prefix of the master's, and ends at `end`: so far its table is the master's.
    pub fn aligned(&self, masters: &EpochTable, end: u64) -> Self {
        Self { promised: self.promised, epochs: masters.prefix(end) }
    }

    /// A piece of the master's log begins at `from`, written in that epoch, which began there; nothing if the table knows it.
    pub fn entering(&self, (epoch, start): (Epoch, u64), from: u64) -> Result<Option<Self>, CannotEnter> {
        if self.epochs.last().is_some_and(|last| last.epoch == epoch) {
            return Ok(None);
        }
        if start != from {
            return Err(CannotEnter::Midway { from, epoch, start });
        }
        let mut epochs = self.epochs.clone();
        epochs.open(epoch, start)?;
        Ok(Some(Self { promised: self.promised, epochs }))
    }

    /// The log of a crashed replica ends at `end`: epochs that began beyond it were lost with it. Nothing if there is none.
    pub fn recovered(&self, end: u64) -> Option<Self> {
        let mut epochs = self.epochs.clone();
        epochs.cut(end + 1);
        (epochs != self.epochs).then_some(Self { promised: self.promised, epochs })
    }
}

/// Whether a log holds all that its replica ever acknowledged. After the machine's crash without SYNC_FLUSH it may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Integrity {
    /// It does.
    Intact,
    /// It may not.
    Lacking,
    /// It may not before it ends at this offset: where the master's log ended when this replica took up with it, above all
    /// that had been acknowledged by then.
    Regaining(u64),
}

impl Integrity {
    /// As it was found at the start.
    pub fn restored(intact: bool) -> Self {
        if intact { Self::Intact } else { Self::Lacking }
    }

    /// Whether it is known to hold everything.
    pub fn is_intact(self) -> bool {
        self == Self::Intact
    }

    /// The log became a prefix of a master's that ends at `masters_end`, and ends at `end` itself.
    pub fn aligned(self, end: u64, masters_end: u64) -> Self {
        if self.is_intact() { self } else { Self::Regaining(masters_end).grew(end) }
    }

    /// The log ends at `end` now.
    pub fn grew(self, end: u64) -> Self {
        match self {
            Self::Regaining(at) if end >= at => Self::Intact,
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::StoreId;

    fn me() -> Member {
        Member::new("r0", StoreId(1))
    }

    fn record(epoch: u64) -> GroupRecord {
        GroupRecord { epoch: Epoch(epoch), revision: 1, master: me(), in_sync: BTreeSet::from([me()]) }
    }

    fn memory(promised: u64, lines: &[(u64, u64)]) -> Memory {
        let mut epochs = EpochTable::default();
        for &(epoch, start) in lines {
            epochs.open(Epoch(epoch), start).unwrap();
        }
        Memory { promised: Epoch(promised), epochs }
    }

    #[test]
    fn an_epoch_is_opened_at_the_logs_end_and_never_twice() {
        let opened = memory(1, &[(1, 0)]).opening(&me(), &record(2), 0, 70).unwrap();
        assert_eq!(opened, memory(2, &[(1, 0), (2, 70)]));
        assert_eq!(opened.opening(&me(), &record(2), 0, 70), Err(CannotOpen::Promised(Epoch(2))));
        assert!(matches!(opened.opening(&me(), &record(1), 0, 70), Err(CannotOpen::Stale(_))));
        let other = Member::new("r0", StoreId(2));
        assert!(matches!(memory(1, &[]).opening(&other, &record(2), 0, 0), Err(CannotOpen::Another { .. })));
    }

    #[test]
    fn a_log_older_than_epochs_is_whole_of_the_first() {
        assert_eq!(memory(0, &[]).opening(&me(), &record(1), 30, 70).unwrap(), memory(1, &[(1, 30)]));
    }

    #[test]
    fn a_slave_takes_over_the_masters_table_as_far_as_its_log_goes() {
        let old_master = memory(3, &[(1, 0), (2, 100)]);
        let masters = memory(3, &[(1, 0), (3, 80), (4, 120)]).epochs;
        assert_eq!(old_master.aligned(&masters, 80), memory(3, &[(1, 0), (3, 80)]));
        let stranger = memory(9, &[(5, 0), (7, 60)]);
        assert_eq!(
            stranger.aligned(&masters, 100),
            memory(9, &[(1, 0), (3, 80)]),
            "taken anew, nothing of its own is left"
        );
    }

    #[test]
    fn a_piece_of_a_new_epoch_must_begin_where_that_epoch_does() {
        let slave = memory(3, &[(1, 0)]);
        assert_eq!(slave.entering((Epoch(1), 0), 50), Ok(None));
        assert_eq!(slave.entering((Epoch(3), 60), 60), Ok(Some(memory(3, &[(1, 0), (3, 60)]))));
        let midway = CannotEnter::Midway { from: 70, epoch: Epoch(3), start: 60 };
        assert_eq!(slave.entering((Epoch(3), 60), 70), Err(midway));
    }

    #[test]
    fn epochs_beyond_a_torn_logs_end_are_forgotten() {
        let torn = memory(3, &[(1, 0), (2, 100), (3, 150)]);
        assert_eq!(torn.recovered(100), Some(memory(3, &[(1, 0), (2, 100)])));
        assert_eq!(torn.recovered(150), None, "an epoch may be empty");
    }

    #[test]
    fn a_torn_log_counts_as_intact_only_when_it_has_come_as_far_as_its_master_was() {
        let torn = Integrity::restored(false).aligned(60, 100);
        assert!(!torn.is_intact() && !torn.grew(99).is_intact());
        assert!(!Integrity::Lacking.grew(1_000).is_intact(), "it follows nobody yet");
        assert!(torn.grew(100).is_intact());
        let again = torn.aligned(80, 120);
        assert!(!again.grew(100).is_intact(), "another handshake, another mark");
        assert!(Integrity::Intact.aligned(60, 100).is_intact(), "merely behind");
    }
}
