//! A master that no elector directs: `brokerRole=SYNC_MASTER` or `ASYNC_MASTER`, as RocketMQ's users write it.
//!
//! The group record lives in this process: the master grants its own wishes. So its slaves join and leave the in-sync set by the same
//! rules as in a group with an elector, and `SYNC_MASTER` means what it says; but nobody else becomes master when it is lost, and a
//! restart begins with nobody in sync.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use gantry_replication::master::Alter;
use gantry_replication::{Epoch, GroupRecord};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};

use crate::core::{Core, Job};
use crate::fatal::Fatal;

/// How often the master hears its own record, well below the time after which it would fence itself.
const HEARD: Duration = Duration::from_millis(500);

/// Opens the next epoch.
pub async fn open(core: &Core) -> Result<GroupRecord> {
    lead(core, core.report().promised.next()).await
}

/// Grants the master's wishes, and opens a newer epoch should a slave have promised one (it was a master itself once). Runs until it is
/// dropped.
pub async fn keep(core: Arc<Core>, mut record: GroupRecord, mut alters: mpsc::Receiver<Alter>) {
    let _fatal = Fatal("the record of a group without an elector");
    let mut ticks = interval(HEARD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => core.recorded(&record, core.clock.now_ms()),
            Some(Alter { epoch, revision, in_sync }) = alters.recv() => {
                if (epoch, revision) == (record.epoch, record.revision) {
                    record.in_sync = in_sync;
                    record.revision += 1;
                    let names: Vec<_> = record.in_sync.iter().map(|member| member.name.as_str()).collect();
                    info!(in_sync = names.join(", "), "the in-sync set changes");
                }
                core.recorded(&record, core.clock.now_ms());
            }
        }
        if let Some(newer) = core.deposed_by() {
            warn!(%newer, "a slave has promised a newer epoch than this master's: it was master itself; going above it");
            match lead(&core, newer.next()).await {
                Ok(opened) => record = opened,
                Err(error) => {
                    error!(error = format!("{error:#}"), "this replica is configured as master and can't be it");
                }
            }
        }
    }
}

async fn lead(core: &Core, epoch: Epoch) -> Result<GroupRecord> {
    let me = core.member();
    let record = GroupRecord { epoch, revision: 1, in_sync: BTreeSet::from([me.clone()]), master: me };
    let (done, became) = oneshot::channel();
    core.submit_job(Job::BecomeMaster(record.clone(), done));
    became.await.context("the log's writer has ended")??;
    Ok(record)
}
