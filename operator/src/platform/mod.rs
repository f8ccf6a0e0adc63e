//! Where a plan is carried out. What differs between platforms stands in traits here.

pub mod local;
mod record_store;

pub use record_store::{RecordError, RecordStore};
