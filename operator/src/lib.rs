//! The Gantry control plane: elector and the platforms that carry out a BrokerGroup.

pub mod api;
pub mod cli;
pub mod elector;
mod log_level;
pub mod observe;
pub mod plan;
pub mod platform;
