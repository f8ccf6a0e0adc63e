//! The table epoch → start offset that each replica keeps beside its log, and the cut that two tables imply.
//!
//! An epoch's bytes are written by one master only. So where two logs have the same (epoch, start), they are the same up to
//! the shorter of the two ends of that epoch: everything a replica has beyond it is its own divergent tail.

use serde::{Deserialize, Serialize};

use crate::Epoch;

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochStart {
    /// The epoch.
    pub epoch: Epoch,
    /// The physical offset of its first byte.
    pub start: u64,
}

/// Epochs and starts, both never descending; an epoch may be empty (the next starts where it does).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<EpochStart>", into = "Vec<EpochStart>")]
pub struct EpochTable(Vec<EpochStart>);

/// A table whose lines are out of order.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "epoch table out of order: epoch {epoch} from offset {start} can't follow epoch {last_epoch} from offset {last_start}"
)]
pub struct OutOfOrder {
    epoch: Epoch,
    start: u64,
    last_epoch: Epoch,
    last_start: u64,
}

/// Where a replica's log stops being its master's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Keep everything below this offset, cut the rest, go on from there.
    At(u64),
    /// The whole log must be taken anew: nothing is shared, or nothing that the master still has or the replica still had.
    Anew {
        /// What the replica has below this is the master's own past; what it has from here on is its own.
        shared: u64,
    },
}

/// Where a log begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Its oldest byte.
    pub begin: u64,
    /// Its end; never below `begin`.
    pub end: u64,
}

impl EpochTable {
    /// The newest epoch written, if any.
    pub fn last(&self) -> Option<EpochStart> {
        self.0.last().copied()
    }

    /// The lines, oldest first.
    pub fn entries(&self) -> &[EpochStart] {
        &self.0
    }

    /// Opens `epoch` at `start`. The same line again changes nothing.
    pub fn open(&mut self, epoch: Epoch, start: u64) -> Result<(), OutOfOrder> {
        if let Some(last) = self.0.last().copied() {
            if (last.epoch, last.start) == (epoch, start) {
                return Ok(());
            }
            if epoch <= last.epoch || start < last.start {
                return Err(OutOfOrder { epoch, start, last_epoch: last.epoch, last_start: last.start });
            }
        }
        self.0.push(EpochStart { epoch, start });
        Ok(())
    }

    /// The log was cut at `end`: epochs that started at or beyond it were never written as far as this log goes.
    pub fn cut(&mut self, end: u64) {
        self.0.retain(|entry| entry.start < end);
    }

    /// The epoch of the byte at `offset`, for a log that starts at or below it.
    pub fn epoch_at(&self, offset: u64) -> Option<EpochStart> {
        self.0.iter().rev().find(|entry| entry.start <= offset).copied()
    }

    /// Where `epoch` ends in a log of this table that ends at `log_end`.
    fn end_of(&self, index: usize, log_end: u64) -> u64 {
        self.0.get(index + 1).map_or(log_end, |next| next.start).min(log_end)
    }

    /// Where a replica with `self` and this log must be cut to follow a master with that table and log.
    pub fn cut_against(&self, mine: Extent, master: &Self, theirs: Extent) -> Cut {
        for (index, entry) in self.0.iter().enumerate().rev() {
            let Some(at) = master.0.iter().position(|other| other == entry) else { continue };
            let shared = self.end_of(index, mine.end).min(master.end_of(at, theirs.end));
            let there = shared >= theirs.begin && shared >= mine.begin;
            return if there { Cut::At(shared) } else { Cut::Anew { shared: shared.max(mine.begin) } };
        }
        Cut::Anew { shared: mine.begin }
    }

    /// The table of a log that is a prefix, ending at `end`, of the log that this table is of.
    pub fn prefix(&self, end: u64) -> Self {
        Self(self.0.iter().copied().filter(|entry| entry.start <= end).collect())
    }
}

impl TryFrom<Vec<EpochStart>> for EpochTable {
    type Error = OutOfOrder;

    fn try_from(entries: Vec<EpochStart>) -> Result<Self, OutOfOrder> {
        let mut table = Self::default();
        for entry in entries {
            table.open(entry.epoch, entry.start)?;
        }
        Ok(table)
    }
}

impl From<EpochTable> for Vec<EpochStart> {
    fn from(table: EpochTable) -> Self {
        table.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table(lines: &[(u64, u64)]) -> EpochTable {
        let lines: Vec<_> = lines.iter().map(|&(epoch, start)| EpochStart { epoch: Epoch(epoch), start }).collect();
        lines.try_into().unwrap()
    }

    fn log(begin: u64, end: u64) -> Extent {
        Extent { begin, end }
    }

    #[test]
    fn a_slave_that_is_merely_behind_keeps_all_it_has() {
        let master = table(&[(1, 0), (2, 100)]);
        assert_eq!(table(&[(1, 0)]).cut_against(log(0, 60), &master, log(0, 300)), Cut::At(60));
        assert_eq!(table(&[(1, 0), (2, 100)]).cut_against(log(0, 250), &master, log(0, 300)), Cut::At(250));
    }

    #[test]
    fn an_old_master_is_cut_where_the_new_epoch_began() {
        let old_master = table(&[(1, 0)]);
        let new_master = table(&[(1, 0), (2, 100)]);
        assert_eq!(old_master.cut_against(log(0, 140), &new_master, log(0, 300)), Cut::At(100));
    }

    #[test]
    fn a_master_that_nobody_followed_is_cut_back_to_the_last_shared_epoch() {
        let lonely = table(&[(1, 0), (2, 100)]);
        let master = table(&[(1, 0), (3, 80)]);
        assert_eq!(lonely.cut_against(log(0, 140), &master, log(0, 300)), Cut::At(80));
    }

    #[test]
    fn logs_with_nothing_in_common_or_nothing_left_in_common_are_taken_anew() {
        let anew = |shared| Cut::Anew { shared };
        assert_eq!(table(&[(2, 0)]).cut_against(log(0, 10), &table(&[(3, 0)]), log(0, 50)), anew(0));
        assert_eq!(table(&[]).cut_against(log(0, 0), &table(&[(3, 0)]), log(0, 50)), anew(0));
        // Merely too far behind: none of what it has is its own.
        assert_eq!(table(&[(1, 0)]).cut_against(log(0, 10), &table(&[(1, 0)]), log(40, 50)), anew(10));
        // Its log begins above what is shared: all of it is its own.
        let late = table(&[(1, 0), (2, 30)]);
        assert_eq!(late.cut_against(log(60, 90), &table(&[(1, 0), (3, 20)]), log(0, 50)), anew(60));
    }

    #[test]
    fn a_prefix_knows_the_epochs_that_begin_up_to_its_end() {
        let whole = table(&[(1, 0), (2, 100), (4, 100), (5, 200)]);
        assert_eq!(whole.prefix(100), table(&[(1, 0), (2, 100), (4, 100)]));
        assert_eq!(whole.prefix(99), table(&[(1, 0)]));
    }

    #[test]
    fn a_table_that_goes_back_is_refused() {
        let mut table = table(&[(3, 50)]);
        assert!(table.open(Epoch(2), 60).is_err());
        assert!(table.open(Epoch(4), 40).is_err());
        assert!(table.open(Epoch(3), 60).is_err());
        assert_eq!(table.open(Epoch(3), 50), Ok(()));
        assert_eq!(table.open(Epoch(4), 50), Ok(()), "an epoch may be empty");
    }

    proptest! {
        /// Two logs that grew from one by different masters: what is kept is exactly what they share, byte by byte
        /// (each byte is the epoch that wrote it), wherever the tables agree.
        #[test]
        fn what_survives_the_cut_is_the_masters(
            shared in prop::collection::vec(1u64..20, 1..5),
            mine in prop::collection::vec(0u64..20, 0..4),
            theirs in prop::collection::vec(0u64..20, 0..4),
            keep in 0u64..40,
        ) {
            let (mut trunk, mut base) = (Vec::new(), EpochTable::default());
            for (index, len) in shared.iter().enumerate() {
                base.open(Epoch(index as u64 + 1), trunk.len() as u64).unwrap();
                trunk.extend(std::iter::repeat_n(index as u64 + 1, *len as usize));
            }
            let grow = |from: u64, step: u64, lens: &[u64], keep: usize| {
                let (mut log, mut table) = (trunk[..keep.min(trunk.len()).max(1)].to_vec(), base.clone());
                table.cut(log.len() as u64);
                for (index, len) in lens.iter().enumerate() {
                    let epoch = from + index as u64 * step;
                    table.open(Epoch(epoch), log.len() as u64).unwrap();
                    log.extend(std::iter::repeat_n(epoch, *len as usize));
                }
                (log, table)
            };
            let (replica, replica_table) = grow(100, 2, &mine, usize::MAX);
            let (master, master_table) = grow(101, 2, &theirs, keep as usize);
            match replica_table.cut_against(log(0, replica.len() as u64), &master_table, log(0, master.len() as u64)) {
                Cut::At(at) => {
                    let at = at as usize;
                    prop_assert_eq!(&replica[..at], &master[..at]);
                    let same = replica.iter().zip(&master).take_while(|(a, b)| a == b).count();
                    prop_assert_eq!(at, same, "no shared byte is given up");
                }
                Cut::Anew { .. } => prop_assert!(false, "they share the first epoch"),
            }
        }
    }
}
