//! How this replica replicates, in the words of RocketMQ's tools.

use std::sync::Arc;

use gantry_remoting::body::ha::{EpochEntry, HaClientInfo, HaConnectionInfo, HaRuntimeInfo};

use super::{HaServer, LinkStatus};
use crate::core::{Core, Standing};
use crate::services::seam::Replication;

/// RocketMQ's `haMaxGapNotInSync`: an Apache slave further behind than this is shown as falling behind.
const CLASSIC_GAP_BYTES: u64 = 256 << 20;

/// A view of a replica's replication.
pub(crate) struct View {
    core: Arc<Core>,
    server: Arc<HaServer>,
}

impl View {
    pub(crate) fn new(core: Arc<Core>, server: Arc<HaServer>) -> Self {
        Self { core, server }
    }

    fn of_master(&self) -> HaRuntimeInfo {
        let end = self.core.store.watermarks().written.0;
        let standings = self.core.slaves();
        let own = self.server.links().into_iter().map(|link| {
            let in_sync = standings.iter().any(|slave| slave.member == link.member && slave.in_sync);
            connection(&link, end, in_sync)
        });
        // Not counted among those in sync: no acknowledgement waits for them.
        let apaches = self.server.classic_links();
        let apaches =
            apaches.iter().map(|link| connection(link, end, end.saturating_sub(link.written) < CLASSIC_GAP_BYTES));
        let in_sync_slave_nums = standings.iter().filter(|slave| slave.in_sync).count() as i32;
        HaRuntimeInfo {
            master: true,
            master_commit_log_max_offset: end as i64,
            in_sync_slave_nums,
            ha_connection_info: own.chain(apaches).collect(),
            ha_client_runtime_info: HaClientInfo::default(),
        }
    }

    fn of_slave(&self) -> HaRuntimeInfo {
        let (marks, upstream) = (self.core.store.watermarks(), self.core.upstream.status());
        let client = HaClientInfo {
            master_addr: upstream.address,
            transferred_byte_in_second: upstream.bytes_per_second as i64,
            max_offset: marks.written.0 as i64,
            last_read_timestamp: upstream.read_at_ms,
            last_write_timestamp: upstream.wrote_at_ms,
            master_flush_offset: marks.confirmed.0 as i64,
            activated: upstream.connected,
        };
        HaRuntimeInfo { ha_client_runtime_info: client, ..HaRuntimeInfo::default() }
    }
}

impl Replication for View {
    fn is_master(&self) -> bool {
        matches!(*self.core.watch_standing().borrow(), Standing::Master { .. })
    }

    fn ha_status(&self) -> HaRuntimeInfo {
        if self.is_master() { self.of_master() } else { self.of_slave() }
    }

    fn epochs(&self) -> (Vec<EpochEntry>, i64) {
        let end = self.core.store.watermarks().written.0;
        let table = self.core.epochs();
        let ends = table.entries().iter().skip(1).map(|next| next.start).chain([end]);
        let entry = |(entry, end): (&gantry_replication::epochs::EpochStart, u64)| EpochEntry {
            epoch: i32::try_from(entry.epoch.0).unwrap_or(i32::MAX),
            start_offset: entry.start as i64,
            end_offset: end as i64,
        };
        (table.entries().iter().zip(ends).map(entry).collect(), end as i64)
    }
}

fn connection(link: &LinkStatus, end: u64, in_sync: bool) -> HaConnectionInfo {
    HaConnectionInfo {
        addr: link.peer.clone(),
        slave_ack_offset: link.written as i64,
        diff: end.saturating_sub(link.written) as i64,
        in_sync,
        transferred_byte_in_second: link.bytes_per_second as i64,
        transfer_from_where: link.next as i64,
    }
}
