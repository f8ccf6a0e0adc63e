//! Bugs planted to see the simulator find them.
//!
//! All of them live here, in the simulator's model of the shell: it hands the pure machines something false, or does something
//! else than they said. So the product's code has no switch for them, and no build of it can have one turned on.

/// Which bug a run has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Planted {
    Nothing,
    /// The master acknowledges what itself has.
    AckBeforeTheSet,
    /// The master drops a member by itself and tells the elector afterwards.
    ShrinkWithoutCompareAndSet,
    /// The master takes what a slave's log held in past epochs for acknowledged in its own.
    StaleEpochAckCounted,
    /// The log is cut in memory only: a power loss brings the old tail back.
    TruncationNotDurable,
    /// The elector takes any replica for a member of the set.
    ElectionOutsideTheSet,
    /// Consumers are served to the log's end.
    VisibilityAboveConfirm,
    /// The promise is not written to disk.
    PromiseNotPersisted,
    /// A slave is asked into the set when it connects.
    GrowBeforeAcks,
    /// After a power loss without SYNC_FLUSH a log counts as intact.
    UncleanCountedIntact,
    /// A torn log counts as intact as soon as it is aligned.
    IntactOnceAligned,
    /// A restarted master goes on in its old epoch.
    EpochReopened,
    /// A slave takes pieces of the log from a master of a past epoch.
    OldSessionAccepted,
    /// A slave tells what it has written as flushed.
    FlushedTooEarly,
    /// A slave doesn't cut what its master doesn't have.
    TailKept,
    /// A wish whose answer got lost counts as not granted.
    LostAnswerIsNo,
    /// A parked master says that its candidate has everything, whatever it has.
    DrainedTooEarly,
    /// The end of an old session is taken for the end of the replica's present one.
    OldSessionEndsNew,
    /// The elector grants a wish whatever record it was made on.
    OldWishGranted,
    /// An elector's answer counts as a sign of life of the moment at which it is read.
    AnswerCountsWhenItComes,
    /// So does a slave's acknowledgement.
    AckCountsWhenItComes,
}

/// All of them but [`Planted::Nothing`].
pub(crate) const ALL: [Planted; 20] = [
    Planted::AckBeforeTheSet,
    Planted::ShrinkWithoutCompareAndSet,
    Planted::StaleEpochAckCounted,
    Planted::TruncationNotDurable,
    Planted::ElectionOutsideTheSet,
    Planted::VisibilityAboveConfirm,
    Planted::PromiseNotPersisted,
    Planted::GrowBeforeAcks,
    Planted::UncleanCountedIntact,
    Planted::IntactOnceAligned,
    Planted::EpochReopened,
    Planted::OldSessionAccepted,
    Planted::FlushedTooEarly,
    Planted::TailKept,
    Planted::LostAnswerIsNo,
    Planted::DrainedTooEarly,
    Planted::OldSessionEndsNew,
    Planted::OldWishGranted,
    Planted::AnswerCountsWhenItComes,
    Planted::AckCountsWhenItComes,
];
