//! Figures of HA connections, kept up as they go and read by whoever shows them.

use std::sync::atomic::{AtomicU64, Ordering};

use gantry_replication::{Epoch, Member, Millis};

use crate::meter::Meter;

/// What a master's HA port has seen since it was opened.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections of slaves that were taken.
    pub connections: AtomicU64,
    /// Peers that were refused, or closed because of what they sent.
    pub refused: AtomicU64,
    /// Connections closed because the slave took nothing for `haHousekeepingInterval`.
    pub send_timeouts: AtomicU64,
    /// Bytes of the log sent.
    pub sent_bytes: AtomicU64,
    /// Of them, bytes read from the files because the slave was far behind.
    pub cold_bytes: AtomicU64,
}

/// One connection of a slave.
#[derive(Debug)]
pub struct Link {
    /// The slave.
    pub member: Member,
    /// Where it is.
    pub peer: String,
    /// The epoch of the session.
    pub epoch: Epoch,
    /// When the session began, on the core's clock.
    pub since: Millis,
    /// When it was last heard.
    heard_at: AtomicU64,
    sent_bytes: AtomicU64,
    meter: Meter,
    /// Where the next piece begins.
    next: AtomicU64,
    written: AtomicU64,
    flushed: AtomicU64,
}

/// One connection of a slave, at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkStatus {
    /// The slave.
    pub member: Member,
    /// Where it is, `host:port`.
    pub peer: String,
    /// The epoch of the session.
    pub epoch: Epoch,
    /// How long the session stands, in milliseconds.
    pub age_ms: Millis,
    /// Milliseconds since its last acknowledgement.
    pub heard_ms_ago: Millis,
    /// Bytes of the log sent in this session.
    pub sent_bytes: u64,
    /// Bytes of the log sent in the last second.
    pub bytes_per_second: u64,
    /// The offset from which the log is sent next.
    pub next: u64,
    /// Its acknowledged end of log, written.
    pub written: u64,
    /// The same, flushed.
    pub flushed: u64,
}

impl Link {
    pub(super) fn new(member: Member, peer: String, epoch: Epoch, from: u64, now: Millis) -> Self {
        Self {
            member,
            peer,
            epoch,
            since: now,
            heard_at: AtomicU64::new(now),
            sent_bytes: AtomicU64::new(0),
            meter: Meter::default(),
            next: AtomicU64::new(from),
            written: AtomicU64::new(from),
            flushed: AtomicU64::new(0),
        }
    }

    pub(super) fn heard(&self, written: u64, flushed: u64, now: Millis) {
        self.heard_at.store(now, Ordering::Relaxed);
        self.written.store(written, Ordering::Relaxed);
        self.flushed.store(flushed, Ordering::Relaxed);
    }

    pub(super) fn sent(&self, bytes: u64, next: u64) {
        self.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.meter.add(bytes);
        self.next.store(next, Ordering::Relaxed);
    }

    pub(super) fn heard_ms_ago(&self, now: Millis) -> Millis {
        now.saturating_sub(self.heard_at.load(Ordering::Relaxed))
    }

    pub(super) fn status(&self, now: Millis) -> LinkStatus {
        LinkStatus {
            member: self.member.clone(),
            peer: self.peer.clone(),
            epoch: self.epoch,
            age_ms: now.saturating_sub(self.since),
            heard_ms_ago: self.heard_ms_ago(now),
            sent_bytes: self.sent_bytes.load(Ordering::Relaxed),
            bytes_per_second: self.meter.per_second(),
            next: self.next.load(Ordering::Relaxed),
            written: self.written.load(Ordering::Relaxed),
            flushed: self.flushed.load(Ordering::Relaxed),
        }
    }
}
