//! The Gantry data plane: broker and name server.

pub mod agent;
pub mod broker;
pub mod clock;
pub mod config;
pub mod core;
mod departure;
pub mod exchange;
mod fatal;
pub mod ha;
pub mod hand_over;
mod heartbeat;
pub mod live_settings;
mod meter;
pub mod nameserver;
pub mod observe;
pub mod registration;
pub mod replica;
pub mod services;
pub mod slave;
pub mod static_group;
pub mod store_tool;
