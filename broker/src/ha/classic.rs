//! RocketMQ's classic HA protocol, as Apache's brokers speak it: to follow an Apache master, and to be followed by an Apache slave.
//!
//! A slave writes eight bytes, its log's end, whenever it changes; the first eight say where it wants to begin. The master writes
//! pieces of its log, each with its offset and length, cut anywhere; a piece of no bytes is a heartbeat. There is no
//! greeting, no checksum, no epoch, no authentication: what can be checked is checked on this side.

mod assembler;
mod begin;
mod follower;
mod metadata;
mod serve;
mod wire;

#[cfg(test)]
mod tests;

pub(crate) use follower::{Settings, follow};
pub(crate) use metadata::is_gantry;
pub(super) use serve::ClassicSlaves;
