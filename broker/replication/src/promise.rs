//! Invariant *Promise*: a replica that accepted epoch E refuses data and acknowledgements of any epoch below E.

use crate::Epoch;

/// The highest epoch a replica has accepted. The shell persists it *before* it answers: hence the two steps, of which
/// the second is called only when the first's value is on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Promise {
    durable: Epoch,
}

/// An epoch below what was promised.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("epoch {offered} is past: this replica has promised epoch {promised}")]
pub struct Stale {
    /// What came.
    pub offered: Epoch,
    /// What had been promised.
    pub promised: Epoch,
}

impl Promise {
    /// As it was read from disk.
    pub fn restored(epoch: Epoch) -> Self {
        Self { durable: epoch }
    }

    /// The epoch promised.
    pub fn epoch(self) -> Epoch {
        self.durable
    }

    /// May something of `epoch` be accepted? `Ok(true)` means: after `epoch` has been persisted and [`Promise::persisted`] called.
    pub fn check(self, epoch: Epoch) -> Result<bool, Stale> {
        if epoch < self.durable {
            return Err(Stale { offered: epoch, promised: self.durable });
        }
        Ok(epoch > self.durable)
    }

    /// `epoch` is on disk.
    pub fn persisted(&mut self, epoch: Epoch) {
        assert!(epoch >= self.durable, "a promise never goes back: {} after {}", epoch, self.durable);
        self.durable = epoch;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_epoch_is_refused_and_a_newer_one_needs_the_disk_first() {
        let mut promise = Promise::restored(Epoch(3));
        assert_eq!(promise.check(Epoch(2)), Err(Stale { offered: Epoch(2), promised: Epoch(3) }));
        assert_eq!(promise.check(Epoch(3)), Ok(false));
        assert_eq!(promise.check(Epoch(5)), Ok(true));
        assert_eq!(promise.epoch(), Epoch(3), "a check alone promises nothing");
        promise.persisted(Epoch(5));
        assert!(promise.check(Epoch(4)).is_err());
    }
}
