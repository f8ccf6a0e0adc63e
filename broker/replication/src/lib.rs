//! Replication and election as pure state machines. Knows no socket, no disk, no Kubernetes.
//!
//! Machines, each "input and the time in, actions out":
//! - [`master::Master`]: what a master may acknowledge, whom it counts, when it fences itself;
//! - [`epochs::EpochTable`], [`handshake`]: which part of a replica's log its master shares, and where it must be cut;
//! - [`memory::Memory`]: what a replica has promised and which epochs its log is made of, and how these may change;
//! - [`elector::Elector`]: who is master, decided over the group record by compare-and-set.
//!
//! The six invariants of the protocol are written where they are kept, and asserted in release builds too:
//! *Ack*, *Shrink/Grow* and *Visibility* in [`master`], *Promise* in [`promise`] and [`memory`], *Election* and *Epoch* in [`elector`].
//!
//! Deliberately absent: clocks (time is an argument, in milliseconds of any monotonic clock), threads, I/O, logging.

pub mod bucket;
pub mod elector;
pub mod epochs;
pub mod handshake;
pub mod master;
pub mod memory;
pub mod pressure;
pub mod promise;
pub mod record;
pub mod settings;
pub mod types;
pub mod wire;

pub use record::{GroupRecord, Version};
pub use types::{Election, Epoch, Member, Millis, StoreId, same_secret};
