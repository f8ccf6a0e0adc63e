//! RocketMQ's typed headers, by family. Field names are RocketMQ's in snake case; the wire's key is beside each.

pub mod admin;
pub mod client;
pub mod controller;
pub mod offset;
pub mod pull;
pub mod route;
pub mod send;
pub mod topic;
pub mod transaction;
