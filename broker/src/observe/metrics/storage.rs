//! The log and its disk.

use gantry_store::{RecoveryPhase, RecoverySnapshot, Store, Watermarks};

use super::ha::{metrics, truth};
use super::page::{Kind, Metric, Page};

metrics! { METRICS:
    SIZE = Gauge "rocketmq_storage_size" ["storage_type", "storage_medium"] "Bytes of the log";
    FLUSH_BEHIND = Gauge "rocketmq_storage_flush_behind_bytes" ["storage_type", "storage_medium"] "Bytes of the log that aren't on disk yet";
    DISPATCH_BEHIND = Gauge "rocketmq_storage_dispatch_behind_bytes" ["storage_type", "storage_medium"]
        "Bytes of the log that aren't in the consume queues yet: not confirmed, or not dispatched";
    DISPATCH_LAG = Gauge "rocketmq_storage_dispatch_lag_bytes" [] "Bytes that are confirmed, and not in the consume queues yet";
    FLUSH_SECONDS = Histogram "rocketmq_storage_flush_seconds" [] "How long a sync of the log took";
    FLUSH_BYTES = Histogram "rocketmq_storage_flush_bytes" [] "Bytes of the log that one sync made durable";
    DISK_USED = Gauge "rocketmq_storage_disk_used_ratio" ["volume"]
        "Used of the disk, or of gantryStoreQuotaBytes, 0 to 1: where the log is (log), and everything else (queues)";
    DISK_FULL = Gauge "rocketmq_storage_disk_full" []
        "1 if the disk was above diskSpaceWarningLevelRatio and isn't yet below diskSpaceCleanForciblyRatio: sends are refused";
    HANGING = Gauge "rocketmq_storage_hanging_bytes" [] "Bytes of deleted segments that somebody still reads";
    DELETED = Counter "rocketmq_storage_segments_deleted_total" [] "Segments of the log that retention deleted since the start";
    FAILED = Gauge "rocketmq_storage_failed" [] "1 if a write or a sync failed: the broker is stopping";
    RECOVERING = Gauge "rocketmq_storage_recovering" ["phase"]
        "1 for what the opening of the store is at: waiting, log, queues; all 0 once it is open";
    RECOVERED = Gauge "rocketmq_storage_recovery_done_bytes" [] "Bytes of the log that this phase has behind it";
    TO_RECOVER = Gauge "rocketmq_storage_recovery_total_bytes" [] "Bytes of the log that this phase has to do, at most";
}

/// RocketMQ's labels, which tell it from its tiered storage.
pub(super) const LOCAL: [&str; 2] = ["local", "disk"];

const MICROSECONDS: f64 = 1_000_000.0;

pub(super) fn recovery(page: &mut Page, now: &RecoverySnapshot) {
    let is = |phase: RecoveryPhase| truth(now.phase == phase);
    page.add(
        &RECOVERING,
        [
            (["waiting"], is(RecoveryPhase::Waiting)),
            (["log"], is(RecoveryPhase::ReadingLog)),
            (["queues"], is(RecoveryPhase::BuildingQueues)),
        ],
    );
    page.one(&RECOVERED, now.done_bytes as f64);
    page.one(&TO_RECOVER, now.total_bytes as f64);
}

pub(super) fn collect(page: &mut Page, store: &Store, marks: Watermarks) {
    let behind = |mark: gantry_store::PhysicalOffset| marks.written.0.saturating_sub(mark.0) as f64;
    page.add(&SIZE, [(LOCAL, behind(store.min_offset()))]);
    page.add(&FLUSH_BEHIND, [(LOCAL, behind(marks.flushed))]);
    page.add(&DISPATCH_BEHIND, [(LOCAL, behind(marks.dispatched))]);
    page.one(&DISPATCH_LAG, marks.confirmed.0.saturating_sub(marks.dispatched.0) as f64);
    page.histogram(&FLUSH_SECONDS, &store.flushes().micros.snapshot(), MICROSECONDS);
    page.histogram(&FLUSH_BYTES, &store.flushes().bytes.snapshot(), 1.0);
    let disk = store.disk();
    let volumes = [("log", disk.log_percent), ("queues", disk.queues_percent)];
    let known = volumes.into_iter().filter_map(|(volume, percent)| Some(([volume], f64::from(percent?) / 100.0)));
    page.add(&DISK_USED, known);
    page.one(&DISK_FULL, truth(disk.full));
    page.one(&HANGING, disk.hanging_bytes as f64);
    page.one(&DELETED, disk.deleted_segments as f64);
    page.one(&FAILED, truth(store.failure().is_some()));
}
