//! RocketMQ's store files: commit log, consume queues, flush, recovery. Knows no network.
//!
//! [`open`] gives a [`Store`] (shared: readers, watermarks) and the one [`Appender`] (the writer).
//! Everything that others must hear of comes through [`Events`], from the store's own threads.
//!
//! What lies where, under [`Config::root`]:
//!
//! | path | what |
//! |---|---|
//! | `commitlog/<20 digits>` | segments, named by their first byte's offset, each allocated whole before use |
//! | `consumequeue/<topic>/<queue>/<20 digits>` | 20-byte units that point into the log |
//! | `index/<yyyyMMddHHmmssSSS>` | where messages with a key lie (module `index`) |
//! | `checkpoint` | RocketMQ's 40 bytes, and ours behind byte 64 (module `checkpoint`) |
//! | `abort` | there while the store is open: found at start, the last stop was unclean |
//! | `queuenumbers` | which numbers queues go on with of which nothing is left (module `queue_numbers`) |
//! | `recovery.progress` | how far an interrupted recovery was (module `recovery`) |
//! | `lock` | held while the store is open |
//! | `commitlog.next`, `commitlog.cut` | a segment being allocated or replaced; removed at start. Beside the segments where `storePathCommitLog` names another place |

mod allocator;
mod appender;
mod checkpoint;
mod checkpointer;
mod commit_log;
mod config;
mod dispatcher;
mod error;
mod events;
mod flusher;
mod histogram;
mod index;
mod marks;
mod message;
mod offset;
mod queue_numbers;
mod queue_offsets;
mod queues;
mod read;
mod recovery;
mod retention;
mod scan;
mod segment;
mod shared;
mod store;
mod upkeep;

pub mod atomic_file;
pub mod fs;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod inspect;
pub mod properties;
pub mod record;
pub mod repair;
pub mod tags;

pub use appender::Appender;
pub use config::{Clock, Config, Flush};
pub use error::{
    AppendError, Damage, NoSpace, OpenError, Proof, RawError, ReadError, StartError, StoreFailure, TruncateError,
};
pub use events::{Dispatched, Events};
pub use histogram::{Flushes, Histogram, HistogramSnapshot};
pub use message::{Append, Appended, NewMessage, Truncated};
pub use offset::{PhysicalOffset, QueueOffset};
pub use queue_numbers::QueueNumber;
pub use read::{
    Boundary, OldLimits, Query, QueryResult, QueueInfo, QueueRange, ReadLimits, ReadLog, ReadQueue, ReadStatus,
};
pub use recovery::{RecoveryPhase, RecoveryProgress, RecoverySnapshot};
pub use retention::{DeleteWhen, Disk, NotHours, Retention};
pub use store::{Store, Watermarks, open, open_by_hand, open_on};
pub use upkeep::Upkeep;

/// The same cases in every run, and no files left behind.
#[cfg(test)]
fn property_config() -> proptest::test_runner::Config {
    proptest::test_runner::Config {
        rng_seed: proptest::test_runner::RngSeed::Fixed(20_261_122),
        failure_persistence: None,
        ..Default::default()
    }
}
