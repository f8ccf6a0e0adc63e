//! This machine: child processes, ports, and files below one directory.

mod board;
mod child_log;
pub mod control;
pub mod forwarder;
pub mod installation;
pub mod placement;
mod preference;
mod record_file;
pub mod screen;
mod state_dir;
pub mod status;
pub mod supervisor;
pub mod up;

pub use record_file::RecordFile;
pub use state_dir::{StateDir, default_dir};
