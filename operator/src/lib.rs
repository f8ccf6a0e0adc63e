//! The Gantry control plane: elector and the platforms that carry out a BrokerGroup.

pub mod api;
pub mod cli;
pub mod elector;
pub mod observe;
pub mod plan;
pub mod platform;
