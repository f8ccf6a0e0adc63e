//! The process itself, by the names that all Prometheus clients use.

use prometheus::core::Collector as _;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::MetricFamily;

pub(super) fn collect() -> Vec<MetricFamily> {
    ProcessCollector::for_self().collect()
}

/// Name and help of each.
pub(super) fn descriptions() -> Vec<(String, String)> {
    let collector = ProcessCollector::for_self();
    collector.desc().into_iter().map(|desc| (desc.fq_name.clone(), desc.help.clone())).collect()
}
