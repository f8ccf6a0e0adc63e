//! What others see of an operator: how its reconciles go, what it decided, and how long elections took.
//!
//! Counted where it happens, read when Prometheus asks. Knows no platform: whoever carries out a plan says what it does.

mod document;
mod groups;
mod listener;
mod metrics;
mod registrar;
mod work;

pub use document::document as document_metrics;
pub use metrics::{DEFAULT_MAX_GROUPS, Metrics};

pub(crate) use listener::Counted;
pub(crate) use metrics::HUNG;
