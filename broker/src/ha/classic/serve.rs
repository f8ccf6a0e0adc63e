//! Serving Apache's slaves: off unless `gantryClassicHa=true`, because the protocol proves nobody's identity.
//!
//! Invariant: they get what is confirmed, and nothing else. They show it to consumers at once, and can't cut their logs.
//!
//! They never count in the in-sync set: what they acknowledge is in their memory only, and they can't say which history it is of.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use gantry_replication::{Epoch, Member, StoreId};
use gantry_store::{PhysicalOffset, ReadLog};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::super::HaConfig;
use super::super::link::{Link, LinkStatus};
use super::super::session::Refused;
use super::wire::Header;
use crate::core::{Core, Standing};
use crate::ha::tls::{Reading, Writing};

/// RocketMQ's `haTransferBatchSize`.
const PIECE_BYTES: usize = 32 << 10;

/// The Apache slaves of this broker.
pub(in crate::ha) struct ClassicSlaves {
    core: Arc<Core>,
    heartbeat: Duration,
    housekeeping: Duration,
    present: Mutex<Vec<Arc<Link>>>,
    /// One of them acknowledged something, or left.
    moved: Notify,
}

impl ClassicSlaves {
    pub(in crate::ha) fn new(core: Arc<Core>, config: &HaConfig) -> Self {
        let (heartbeat, housekeeping) = (config.heartbeat, config.housekeeping);
        Self { core, heartbeat, housekeeping, present: Mutex::default(), moved: Notify::new() }
    }

    /// The slaves that are connected.
    pub(in crate::ha) fn statuses(&self) -> Vec<LinkStatus> {
        let now = self.core.clock.now_ms();
        self.present.lock().iter().map(|link| link.status(now)).collect()
    }

    /// Waits until all of them have what is confirmed, for `within` at most: a master that is stopped takes nothing with it.
    pub(in crate::ha) async fn drain(&self, within: Duration) {
        let confirmed = self.core.store.watermarks().confirmed.0;
        let lacking = || self.statuses().into_iter().filter(|link| link.written < confirmed).collect::<Vec<_>>();
        let drained = async {
            loop {
                let moved = self.moved.notified();
                if lacking().is_empty() {
                    return;
                }
                moved.await;
            }
        };
        if timeout(within, drained).await.is_err() {
            for link in lacking() {
                warn!(
                    slave = link.peer,
                    has = link.written,
                    confirmed,
                    "an Apache slave lacks the log's end; stopping all the same"
                );
            }
        }
    }

    /// Serves one, until something ends it.
    pub(in crate::ha) async fn serve(&self, peer: SocketAddr, mut from: BufReader<Reading>, to: Writing) -> Result<()> {
        let Standing::Master { epoch, .. } = *self.core.watch_standing().borrow() else {
            bail!("this replica is not master");
        };
        let reported = self.read_offset(&mut from).await?;
        let next = self.begin(reported)?;
        let (member, now) = (Member::new("Apache slave", StoreId(0)), self.core.clock.now_ms());
        let link = Arc::new(Link::new(member, peer.to_string(), epoch, reported, now));
        let _leave = Leave(self, &link);
        self.present.lock().push(Arc::clone(&link));
        info!(%peer, reported, from = next, "an Apache slave is connected");
        tokio::select! {
            ended = self.take_acks(&link, from) => ended,
            ended = self.send_log(&link, epoch, next, to) => ended,
        }
    }

    /// Where to begin for a slave that reports this end. An empty one gets everything, and not only the newest file, as it would from an
    /// Apache master.
    fn begin(&self, reported: u64) -> Result<u64> {
        let (oldest, written) = (self.core.store.min_offset().0, self.core.store.watermarks().written.0);
        match reported {
            0 => Ok(oldest),
            _ if reported > written => Err(Refused(format!(
                "it reports a log up to {reported}; this master's ends at {written}: it is of another history, or no slave"
            ))
            .into()),
            _ if reported < oldest => Err(Refused(format!(
                "it needs the log from {reported}, but the oldest byte left is {oldest}: empty its store directory"
            ))
            .into()),
            _ => Ok(reported),
        }
    }

    async fn read_offset(&self, from: &mut BufReader<Reading>) -> Result<u64> {
        let read = timeout(self.housekeeping, from.read_u64()).await;
        Ok(read.with_context(|| format!("it said nothing for {:?}", self.housekeeping))??)
    }

    async fn take_acks(&self, link: &Link, mut from: BufReader<Reading>) -> Result<()> {
        loop {
            let acked = self.read_offset(&mut from).await?;
            let written = self.core.store.watermarks().written.0;
            if acked > written {
                return Err(Refused(format!("it acknowledges {acked}; this log ends at {written}")).into());
            }
            link.heard(acked, 0, self.core.clock.now_ms());
            self.moved.notify_waiters();
        }
    }

    async fn send_log(&self, link: &Link, epoch: Epoch, mut next: u64, mut to: Writing) -> Result<()> {
        let core = &self.core;
        let (mut moved, mut standing) = (core.watch_moved(), core.watch_standing());
        loop {
            if !matches!(*standing.borrow_and_update(), Standing::Master { epoch: now, .. } if now == epoch) {
                bail!("no longer master of epoch {epoch}");
            }
            moved.borrow_and_update();
            let confirmed = core.store.watermarks().confirmed.0;
            // A slave may be ahead of a new master's confirm offset, for a moment.
            let room = confirmed.saturating_sub(next).min(PIECE_BYTES as u64) as usize;
            if room > 0 {
                let ReadLog::Bytes { bytes, next: end } = core.store.read_bytes(PhysicalOffset(next), room)? else {
                    bail!("the log from {next} is gone");
                };
                self.write_piece(&mut to, next, &bytes).await?;
                next = end.0;
                link.sent(bytes.len() as u64, next);
                continue;
            }
            tokio::select! {
                changed = moved.changed() => changed?,
                changed = standing.changed() => changed?,
                () = sleep(self.heartbeat) => self.write_piece(&mut to, next, &[]).await?,
            }
        }
    }

    async fn write_piece(&self, to: &mut Writing, offset: u64, bytes: &[u8]) -> Result<()> {
        let header = Header { offset, len: bytes.len() as u32 }.encode();
        let mut both = bytes::Buf::chain(&header[..], bytes);
        let written = timeout(self.housekeeping, async {
            to.write_all_buf(&mut both).await?;
            to.flush().await
        })
        .await;
        written.with_context(|| format!("it took nothing for {:?}", self.housekeeping))?.context("writing failed")
    }
}

/// However a session ends, it is known to have ended.
struct Leave<'a>(&'a ClassicSlaves, &'a Arc<Link>);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.present.lock().retain(|link| !Arc::ptr_eq(link, self.1));
        self.0.moved.notify_waiters();
    }
}
