//! Where a plan is carried out. What differs between platforms stands in traits here.

pub mod kubernetes;
pub mod local;
mod record_store;
mod token;

pub use record_store::{RecordError, RecordStore};
