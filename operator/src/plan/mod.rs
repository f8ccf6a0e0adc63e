//! Pure: a manifest validated into typed facts, and what follows from them. No I/O, no clock.

pub mod broker_conf;
mod command;
pub mod conditions;
pub mod declared;
mod group;
pub mod kubernetes;
mod layout;

pub use command::{Command, broker_command, nameserver_command};
pub use group::{GroupPlan, Invalid, ReplicaPlan, plan_groups};
pub use layout::Layout;
