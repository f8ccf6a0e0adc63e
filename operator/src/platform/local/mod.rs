//! This machine: child processes, ports, and files below one directory.

pub mod forwarder;
mod record_file;
pub mod supervisor;

pub use record_file::RecordFile;
