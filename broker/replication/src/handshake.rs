//! How a slave takes up with its master: the slave tells what its log looks like, the master where it must be cut.

use serde::{Deserialize, Serialize};

use crate::Epoch;
use crate::epochs::{Cut, EpochTable, Extent};
use crate::promise::{Promise, Stale};

/// A slave, as its hello describes it.
#[derive(Clone, Copy, Debug)]
pub struct SlaveLog<'a> {
    /// The highest epoch it accepted.
    pub promised: Epoch,
    /// Its log's epochs.
    pub epochs: &'a EpochTable,
    /// Where it begins and ends.
    pub extent: Extent,
}

/// The master's log at the moment of the hello.
#[derive(Clone, Copy, Debug)]
pub struct MasterLog<'a> {
    /// The epoch it is master of.
    pub epoch: Epoch,
    /// Its log's epochs, the last of them its own.
    pub epochs: &'a EpochTable,
    /// The oldest byte retained, and the end of what is written.
    pub extent: Extent,
}

/// The master takes the slave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Welcome {
    /// The master's epoch.
    pub epoch: Epoch,
    /// The master's table; the slave's becomes the same as far as its log goes.
    pub epochs: EpochTable,
    /// The slave keeps what lies below, and gets what follows.
    pub cut: u64,
    /// The slave's log begins anew at `cut`, the master's oldest byte: what they share, if anything, one of them has no more. What
    /// the slave has from here on is its own.
    pub anew: Option<u64>,
    /// The end of the master's log at this moment. Whoever has come this far holds all that was acknowledged until now.
    pub end: u64,
}

/// What the slave must do to follow. A slave that promised a newer epoch isn't taken: it would refuse all the same.
pub fn welcome(master: MasterLog<'_>, slave: SlaveLog<'_>) -> Result<Welcome, Stale> {
    Promise::restored(slave.promised).check(master.epoch)?;
    if slave.extent.begin == slave.extent.end {
        // With an empty log come the metadata, which it may never have got.
        let (epoch, epochs, end) = (master.epoch, master.epochs.clone(), master.extent.end);
        return Ok(Welcome { epoch, epochs, cut: master.extent.begin, anew: Some(slave.extent.begin), end });
    }
    let (cut, anew) = match slave.epochs.cut_against(slave.extent, master.epochs, master.extent) {
        Cut::At(cut) => (cut, None),
        Cut::Anew { shared } => (master.extent.begin, Some(shared)),
    };
    Ok(Welcome { epoch: master.epoch, epochs: master.epochs.clone(), cut, anew, end: master.extent.end })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(lines: &[(u64, u64)]) -> EpochTable {
        let mut table = EpochTable::default();
        for &(epoch, start) in lines {
            table.open(Epoch(epoch), start).unwrap();
        }
        table
    }

    #[test]
    fn a_slave_hears_where_to_cut_and_how_far_the_master_is() {
        let (mine, theirs) = (table(&[(1, 0), (3, 80)]), table(&[(1, 0), (2, 100)]));
        let master = MasterLog { epoch: Epoch(3), epochs: &mine, extent: Extent { begin: 0, end: 200 } };
        let welcome =
            welcome(master, SlaveLog { promised: Epoch(3), epochs: &theirs, extent: Extent { begin: 0, end: 140 } })
                .unwrap();
        assert_eq!((welcome.cut, welcome.anew, welcome.end), (80, None, 200));
    }

    #[test]
    fn an_empty_slave_begins_at_the_oldest_byte() {
        let (mine, theirs) = (table(&[(1, 0)]), table(&[]));
        let master = MasterLog { epoch: Epoch(1), epochs: &mine, extent: Extent { begin: 40, end: 200 } };
        let welcome =
            welcome(master, SlaveLog { promised: Epoch(0), epochs: &theirs, extent: Extent { begin: 0, end: 0 } })
                .unwrap();
        assert_eq!((welcome.cut, welcome.anew), (40, Some(0)));
    }

    #[test]
    fn a_slave_that_promised_a_newer_epoch_is_not_taken() {
        let epochs = table(&[(1, 0)]);
        let master = MasterLog { epoch: Epoch(1), epochs: &epochs, extent: Extent { begin: 0, end: 10 } };
        let refused =
            welcome(master, SlaveLog { promised: Epoch(2), epochs: &epochs, extent: Extent { begin: 0, end: 10 } });
        assert_eq!(refused, Err(Stale { offered: Epoch(1), promised: Epoch(2) }));
    }
}
