//! Replication: who this replica is, how far its log is, and its slaves'.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use gantry_replication::master::SlaveStanding;
use gantry_replication::wire::Role;
use gantry_store::Watermarks;

use super::Parts;
use super::page::{Kind, Metric, Page};
use crate::services::seam::Role as _;

macro_rules! metrics {
    ($all:ident: $($name:ident = $kind:ident $text:literal $labels:tt $help:literal;)*) => {
        $(static $name: Metric = Metric { name: $text, kind: Kind::$kind, labels: &$labels, help: $help };)*
        /// In the order of the documentation.
        pub(super) const $all: &[&Metric] = &[$(&$name),*];
    };
}
pub(super) use metrics;

metrics! { METRICS:
    TRANSFER = Counter "rocketmq_ha_transfer_byte_total" ["role"]
        "Bytes of the log that went over HA connections since the start: sent (role=master), received (role=slave)";
    SLAVE_MAX = Gauge "rocketmq_ha_slave_max_offset" ["slaveId"]
        "On the master: the end of a slave's log, as it acknowledged. Of slaves that are gone: the last";
    MASTER_MAX = Gauge "rocketmq_ha_master_max_offset" [] "On the master: the end of its log";
    CONNECTIONS = Gauge "rocketmq_ha_connection_count" [] "Slaves that are connected to this replica";
    SEND_TIMEOUTS = Counter "rocketmq_ha_send_timeout_total" []
        "Connections of slaves that were closed because the slave took nothing for haHousekeepingInterval";
    SEND_TIMEOUTS_TOO = Counter "ha_send_timeout_count" [] "The same as rocketmq_ha_send_timeout_total, by its old name";
    SLAVE_FLUSHED = Gauge "rocketmq_ha_slave_flushed_offset" ["slaveId"]
        "On the master: up to where a slave's log is on disk, as it acknowledged";
    SLAVE_CONNECTED = Gauge "rocketmq_ha_slave_connected" ["slaveId"] "On the master: 1 if the slave is connected, 0 if not";
    SLAVE_IN_SYNC = Gauge "rocketmq_ha_slave_in_sync" ["slaveId"]
        "On the master: 1 if the slave is in sync, so that acknowledgements wait for it and it may become master; 0 if not";
    IN_SYNC = Gauge "rocketmq_ha_in_sync_replicas" [] "On the master: replicas that are in sync, it included";
    ALIVE = Gauge "rocketmq_ha_alive_in_sync_replicas" []
        "On the master: in-sync replicas that have not failed, it included. onShortage=Refuse keeps minInSyncReplicas in the set, failed or not: this tells the shortage";
    MIN_IN_SYNC = Gauge "rocketmq_ha_min_in_sync_replicas" [] "minInSyncReplicas";
    ROLE = Gauge "rocketmq_ha_role" ["role"] "1 for the role that this replica has: master, slave or fenced";
    SERVING = Gauge "rocketmq_ha_serving" [] "1 if this replica is a master that serves clients, 0 if not";
    EPOCH = Gauge "rocketmq_ha_epoch" [] "The highest epoch that this replica has promised to";
    MAX = Gauge "rocketmq_ha_max_offset" [] "The end of this replica's log";
    CONFIRM = Gauge "rocketmq_ha_confirm_offset" []
        "Below it everything is acknowledged and visible, as far as this replica knows";
    FLUSHED = Gauge "rocketmq_ha_flushed_offset" [] "Below it everything in this replica's log is on disk";
    UPSTREAM = Gauge "rocketmq_ha_upstream_connected" [] "On a slave: 1 if it is connected to its master, 0 if not";
    INTACT = Gauge "rocketmq_ha_intact" []
        "0 if a crash of the machine may have taken from this log what was acknowledged, and it isn't back yet";
    DATA_PLANE = Gauge "rocketmq_ha_data_plane_alive" [] "0 if nothing has reached this replica's disk for long";
    ACK_WAIT = Histogram "rocketmq_ha_ack_wait_seconds" []
        "From a message's append to its acknowledgement: what flush and replication cost a producer";
    DEGRADED = Gauge "rocketmq_ha_degraded" []
        "1 if this master takes sends although fewer replicas than minInSyncReplicas are in sync";
    DEGRADATIONS = Counter "rocketmq_ha_degradations_total" [] "How often that began";
    SLOWED_TO = Gauge "rocketmq_ha_producers_slowed_to_bytes_per_second" []
        "While slaves lag and haBackPressureEnable is on: how much producers may send";
    MASTERSHIPS = Counter "rocketmq_ha_masterships_total" [] "How often this replica became master since its start";
    TRUNCATIONS = Counter "rocketmq_ha_truncations_total" [] "Tails of this log that were cut because the master doesn't have them";
    RESYNCHRONISATIONS = Counter "rocketmq_ha_resynchronisations_total" []
        "How often this log was taken anew from the master's oldest byte";
    TAKEN = Counter "rocketmq_ha_connections_total" [] "Slaves' connections taken since the start";
    REFUSED = Counter "rocketmq_ha_connections_refused_total" []
        "Peers that were refused at the HA port, or closed for what they sent; the log says why";
    COLD = Counter "rocketmq_ha_cold_transfer_byte_total" []
        "Bytes sent to slaves that are far behind, read from the files past the page cache";
}

pub(super) fn collect(page: &mut Page, parts: &Parts, min_in_sync: usize, marks: Watermarks) {
    let core = &parts.core;
    let report = core.report();
    let (written, confirmed, flushed) = (marks.written.0 as f64, marks.confirmed.0 as f64, marks.flushed.0 as f64);
    let is_master = report.role == Role::Master;
    let is = |role: Role| truth(report.role == role);
    page.add(&ROLE, [(["master"], is(Role::Master)), (["slave"], is(Role::Slave)), (["fenced"], is(Role::Fenced))]);
    page.one(&SERVING, truth(core.serving().is_ok()));
    page.one(&EPOCH, report.promised.0 as f64);
    page.one(&MAX, written);
    page.one(&CONFIRM, confirmed);
    page.one(&FLUSHED, flushed);
    page.one(&INTACT, truth(report.intact));
    page.one(&DATA_PLANE, truth(report.data_plane_alive));
    page.one(&MIN_IN_SYNC, min_in_sync as f64);
    page.one(&DEGRADED, truth(report.degraded));
    if is_master {
        page.one(&MASTER_MAX, written);
        slaves(page, &core.slaves());
    }
    if let Some(alive) = core.alive_in_sync() {
        page.one(&ALIVE, alive as f64);
    }
    if report.role == Role::Slave {
        page.one(&UPSTREAM, truth(core.upstream.status().connected));
    }
    if let Some(rate) = core.slowed_to() {
        page.one(&SLOWED_TO, rate as f64);
    }
    counters(page, parts);
}

fn slaves(page: &mut Page, standings: &[SlaveStanding]) {
    // A replica whose disk was replaced is another member of the same name: who is connected counts, else who is further.
    let mut slaves: BTreeMap<&str, &SlaveStanding> = BTreeMap::new();
    for slave in standings {
        let known = slaves.entry(slave.member.name.as_str()).or_insert(slave);
        if (slave.connected, slave.written) > (known.connected, known.written) {
            *known = slave;
        }
    }
    page.add(&SLAVE_MAX, slaves.iter().map(|(name, slave)| ([*name], slave.written as f64)));
    page.add(&SLAVE_FLUSHED, slaves.iter().map(|(name, slave)| ([*name], slave.flushed as f64)));
    page.add(&SLAVE_CONNECTED, slaves.iter().map(|(name, slave)| ([*name], truth(slave.connected))));
    page.add(&SLAVE_IN_SYNC, slaves.iter().map(|(name, slave)| ([*name], truth(slave.in_sync))));
    page.one(&IN_SYNC, 1.0 + slaves.values().filter(|slave| slave.in_sync).count() as f64);
}

fn counters(page: &mut Page, parts: &Parts) {
    let (core, ha) = (&parts.core, parts.ha.counters());
    let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed) as f64;
    page.add(&TRANSFER, [(["master"], read(&ha.sent_bytes)), (["slave"], core.upstream.received_bytes() as f64)]);
    page.one(&COLD, read(&ha.cold_bytes));
    page.one(&CONNECTIONS, (parts.ha.links().len() + parts.ha.classic_links().len()) as f64);
    page.one(&SEND_TIMEOUTS, read(&ha.send_timeouts));
    page.one(&SEND_TIMEOUTS_TOO, read(&ha.send_timeouts));
    page.one(&TAKEN, read(&ha.connections));
    page.one(&REFUSED, read(&ha.refused));
    let own = core.counters();
    page.one(&DEGRADATIONS, core.degradations() as f64);
    page.one(&MASTERSHIPS, read(&own.masterships));
    page.one(&TRUNCATIONS, read(&own.truncations));
    page.one(&RESYNCHRONISATIONS, read(&own.resynchronisations));
    page.histogram(&ACK_WAIT, &own.ack_wait_ms.snapshot(), 1_000.0);
}

pub(super) fn truth(is: bool) -> f64 {
    f64::from(u8::from(is))
}
