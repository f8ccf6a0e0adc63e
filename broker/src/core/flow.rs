//! Flow control, RocketMQ's "fast failure": a send that would wait long for the log's writer is refused instead, with the
//! code and the text that RocketMQ's users know, and its producer tries again.
//!
//! | text | when |
//! |---|---|
//! | `[OVERLOAD]` | `sendThreadPoolQueueCapacity` sends wait already |
//! | `[REJECTREQUEST]` | the writer has been at one write for `osPageCacheBusyTimeOutMills`: nothing more is taken in |
//! | `[PCBUSY_CLEAN_QUEUE]` | the same, for those who waited by then |
//! | `[TIMEOUT_CLEAN_QUEUE]` | a send has waited for `waitTimeMillsInSendQueue` |
//!
//! Nothing of a refused send is in the log. What the writer has begun on is not refused any more. The broker's own records
//! wait as long as it takes. Pulls need none of this: they are answered where they come in, or wait for messages.

use std::sync::atomic::{AtomicU64, Ordering};

use gantry_remoting::code::response;
use gantry_replication::Millis;
use gantry_store::Histogram;

use super::Core;
use crate::services::names;
use crate::services::seam::{Busy, Done, SendFailure, Submission};

/// When sends are refused.
#[derive(Clone, Copy, Debug)]
pub struct FlowLimits {
    /// `brokerFastFailureEnable`: whether those who wait are refused at all.
    pub fast_failure: bool,
    /// `waitTimeMillsInSendQueue`.
    pub send_wait_ms: Millis,
    /// `osPageCacheBusyTimeOutMills`.
    pub page_cache_busy_ms: Millis,
}

impl Default for FlowLimits {
    fn default() -> Self {
        Self { fast_failure: true, send_wait_ms: 200, page_cache_busy_ms: 1_000 }
    }
}

/// Milliseconds; slaveTimeout and syncFlushTimeout end all waiting.
const ACK_WAITS_MS: &[Millis] = &[1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 3_000, 5_000];

/// What happened since the broker started: sends that were not acknowledged, by why, and the rest.
#[derive(Debug)]
pub struct Counters {
    /// `[OVERLOAD]`.
    pub overload: AtomicU64,
    /// `[REJECTREQUEST]` because of a slow write.
    pub rejected: AtomicU64,
    /// `[PCBUSY_CLEAN_QUEUE]`.
    pub page_cache_busy: AtomicU64,
    /// `[TIMEOUT_CLEAN_QUEUE]`.
    pub timed_out: AtomicU64,
    /// The disk is full.
    pub disk_full: AtomicU64,
    /// Fewer in-sync replicas than `minInSyncReplicas`.
    pub in_sync_short: AtomicU64,
    /// The master is fenced, or this replica has no role yet.
    pub fenced: AtomicU64,
    /// This replica is a slave.
    pub not_master: AtomicU64,
    /// A switchover was under way.
    pub switching_over: AtomicU64,
    /// Written, and not on disk in time.
    pub flush_disk_timeout: AtomicU64,
    /// Written, and not replicated in time.
    pub flush_slave_timeout: AtomicU64,
    /// How long those waited that were acknowledged, in ms.
    pub ack_wait_ms: Histogram,
    /// How often this replica became master.
    pub masterships: AtomicU64,
    /// Tails that were cut from its log.
    pub truncations: AtomicU64,
    /// How often it took its log anew from the master's oldest byte.
    pub resynchronisations: AtomicU64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            overload: AtomicU64::default(),
            rejected: AtomicU64::default(),
            page_cache_busy: AtomicU64::default(),
            timed_out: AtomicU64::default(),
            disk_full: AtomicU64::default(),
            in_sync_short: AtomicU64::default(),
            fenced: AtomicU64::default(),
            not_master: AtomicU64::default(),
            switching_over: AtomicU64::default(),
            flush_disk_timeout: AtomicU64::default(),
            flush_slave_timeout: AtomicU64::default(),
            ack_wait_ms: Histogram::new(ACK_WAITS_MS),
            masterships: AtomicU64::default(),
            truncations: AtomicU64::default(),
            resynchronisations: AtomicU64::default(),
        }
    }
}

impl Counters {
    /// Sends that were not acknowledged: why, RocketMQ's response code, how many.
    pub fn refusals(&self) -> impl Iterator<Item = (&'static str, i32, &AtomicU64)> {
        [
            ("overload", response::SYSTEM_BUSY, &self.overload),
            ("rejected", response::SYSTEM_BUSY, &self.rejected),
            ("page_cache_busy", response::SYSTEM_BUSY, &self.page_cache_busy),
            ("timed_out", response::SYSTEM_BUSY, &self.timed_out),
            ("disk_full", response::SERVICE_NOT_AVAILABLE, &self.disk_full),
            ("in_sync_short", response::SYSTEM_ERROR, &self.in_sync_short),
            ("fenced", response::SERVICE_NOT_AVAILABLE, &self.fenced),
            ("not_master", response::SERVICE_NOT_AVAILABLE, &self.not_master),
            ("switching_over", response::SYSTEM_BUSY, &self.switching_over),
            ("flush_disk_timeout", response::FLUSH_DISK_TIMEOUT, &self.flush_disk_timeout),
            ("flush_slave_timeout", response::FLUSH_SLAVE_TIMEOUT, &self.flush_slave_timeout),
        ]
        .into_iter()
    }

    /// These fail so; the broker's own records don't count. What is counted where it is found out (flow control, a full disk) isn't counted again.
    pub(super) fn failed<'a>(&self, failure: &SendFailure, sends: impl IntoIterator<Item = &'a Done>) {
        let counter = match failure {
            SendFailure::InSyncShort { .. } => &self.in_sync_short,
            SendFailure::Fenced(_) => &self.fenced,
            SendFailure::NotMaster => &self.not_master,
            SendFailure::SwitchingOver => &self.switching_over,
            SendFailure::FlushDiskTimeout(_) => &self.flush_disk_timeout,
            SendFailure::FlushSlaveTimeout(_) => &self.flush_slave_timeout,
            SendFailure::Busy(_) | SendFailure::DiskFull(..) | SendFailure::TooLarge(_) | SendFailure::Store(_) => {
                return;
            }
        };
        let producers = sends.into_iter().filter(|done| done.is_producers()).count();
        counter.fetch_add(producers as u64, Ordering::Relaxed);
    }
}

/// Since when the writer is at one thing, such as a write.
#[derive(Debug, Default)]
pub(super) struct Writing(AtomicU64);

impl Writing {
    pub(super) fn begin(&self, now: Millis) {
        self.0.store(now + 1, Ordering::Release);
    }

    pub(super) fn end(&self) {
        self.0.store(0, Ordering::Release);
    }

    pub(super) fn lasts_ms(&self, now: Millis) -> Millis {
        let since = self.0.load(Ordering::Acquire);
        if since == 0 { 0 } else { (now + 1).saturating_sub(since) }
    }
}

impl Core {
    /// When sends that wait are refused, as it is now.
    pub(super) fn flow(&self) -> FlowLimits {
        *self.flow.read()
    }

    /// Goes by other limits from now on.
    pub fn set_flow(&self, limits: FlowLimits) {
        *self.flow.write() = limits;
    }

    /// Refuses those who have waited too long; to be called about each 50 ms.
    pub(super) fn shed(&self) {
        let flow = self.flow();
        if !flow.fast_failure {
            return;
        }
        let now = self.clock.now_ms();
        let busy = self.is_page_cache_busy(now);
        let patience_ms = if busy { 0 } else { flow.send_wait_ms };
        let (overdue, queue) = self.queue.take_overdue(now, patience_ms);
        for (sends, since) in overdue {
            let period_ms = now.saturating_sub(since);
            let why = if busy { Busy::PageCache { period_ms, queue } } else { Busy::TimedOut { period_ms, queue } };
            self.refuse(sends, &why);
        }
    }

    /// Refuses clients' sends at the door while the writer is stuck in a write; gives the others back.
    pub(super) fn reject_if_busy(&self, sends: Vec<Submission>) -> Vec<Submission> {
        if !self.flow().fast_failure || !self.is_page_cache_busy(self.clock.now_ms()) {
            return sends;
        }
        let (own, clients) = sends.into_iter().partition(is_own);
        self.refuse(clients, &Busy::Rejected);
        own
    }

    pub(super) fn refuse(&self, sends: Vec<Submission>, why: &Busy) {
        let counter = match why {
            Busy::Overload => &self.counters.overload,
            Busy::Rejected => &self.counters.rejected,
            Busy::PageCache { .. } => &self.counters.page_cache_busy,
            Busy::TimedOut { .. } => &self.counters.timed_out,
        };
        counter.fetch_add(sends.len() as u64, Ordering::Relaxed);
        for send in sends {
            send.done.complete(Err(SendFailure::Busy(why.clone())));
        }
    }

    /// Takes clients' sends out while the disk is full, each answered; the broker's own records are few and small.
    pub(super) fn refuse_if_disk_full(&self, sends: &mut Vec<Submission>) {
        let disk = self.store.disk();
        if !disk.full {
            return;
        }
        let refused: Vec<_> = sends.extract_if(.., |send| !is_own(send)).collect();
        self.counters.disk_full.fetch_add(refused.len() as u64, Ordering::Relaxed);
        for send in refused {
            send.done.complete(Err(SendFailure::DiskFull(disk, "above diskSpaceWarningLevelRatio".to_owned())));
        }
    }

    /// Sends refused by flow control since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn is_page_cache_busy(&self, now: Millis) -> bool {
        self.writing.lasts_ms(now) > self.flow().page_cache_busy_ms
    }
}

/// Whether it is a record of the broker itself.
pub(super) fn is_own(send: &Submission) -> bool {
    send.append.messages.first().is_some_and(|message| names::is_internal_topic(&message.topic))
}
