//! Counts what the elector says, on its way to whom it concerns.

use std::sync::Arc;

use gantry_replication::GroupRecord;
use gantry_replication::elector::Notice;

use super::Metrics;
use crate::elector::Listener;

/// A listener whose elections are counted.
pub(crate) struct Counted {
    inner: Arc<dyn Listener>,
    metrics: Arc<Metrics>,
}

impl Counted {
    pub(crate) fn new(inner: Arc<dyn Listener>, metrics: Arc<Metrics>) -> Self {
        Self { inner, metrics }
    }
}

impl Listener for Counted {
    fn serving(&self, group: &str, record: &GroupRecord, address: &str) {
        self.metrics.serving(group, record.epoch);
        self.inner.serving(group, record, address);
    }

    fn notice(&self, group: &str, notice: &Notice) {
        self.metrics.noticed(group, notice);
        self.inner.notice(group, notice);
    }

    fn record_trouble(&self, group: &str, why: &str) {
        self.metrics.failed("record", "trouble");
        self.inner.record_trouble(group, why);
    }
}
