//! End to end: real processes, real clients, faults, and the history checker.

pub mod checker;
pub mod history;
