//! Replication and election as pure state machines. Knows no socket, no disk, no Kubernetes.
//!
//! Three machines, each "input and the time in, actions out":
//! - [`master::Master`]: what a master may acknowledge, whom it counts, when it fences itself;
//! - [`epochs::EpochTable`]: which part of a replica's log its master shares, and where it must be cut;
//! - [`elector::Elector`]: who is master, decided over the group record by compare-and-set.
//!
//! The six invariants of the protocol are written where they are kept, and asserted in release builds too:
//! *Ack*, *Shrink/Grow* and *Visibility* in [`master`], *Promise* in [`promise`], *Election* and *Epoch* in [`elector`].
//!
//! Deliberately absent: clocks (time is an argument, in milliseconds of any monotonic clock), threads, I/O, logging.

pub mod elector;
pub mod epochs;
pub mod master;
pub mod promise;
pub mod record;
pub mod types;
pub mod wire;

pub use record::{GroupRecord, Version};
pub use types::{Epoch, Member, Millis, StoreId};
