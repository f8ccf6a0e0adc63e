//! End to end: real processes, real clients, faults, and the history checker.
//!
//! [`group::Group`] runs what a manifest describes, [`client::Job`] a client program over an official library against
//! it, [`checker::check`] judges the histories that the clients wrote. [`failover`] and [`bench`] put them together.

pub mod admin;
pub mod apache;
pub mod bench;
pub mod binaries;
pub mod broker;
pub mod chaos;
pub mod checker;
pub mod client;
pub mod daemon;
pub mod failover;
pub mod failover_times;
pub mod group;
pub mod handover;
pub mod history;
pub mod kube;
pub mod lab;
pub mod load;
pub mod logs;
pub mod loop_disk;
pub mod measure;
pub mod monitoring;
pub mod nameserver;
pub mod ports;
pub mod power_loss;
pub mod process;
pub mod quantiles;
pub mod scene;
pub mod wait;
pub mod wire;
