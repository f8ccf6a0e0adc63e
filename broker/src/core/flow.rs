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

use gantry_replication::Millis;

use super::Core;
use crate::services::names;
use crate::services::seam::{Busy, SendFailure, Submission};

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

/// Sends refused since the broker started, by reason.
#[derive(Debug, Default)]
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
    /// Refuses those who have waited too long; to be called about each 50 ms.
    pub(super) fn shed(&self) {
        let flow = self.limits.flow;
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
        if !self.limits.flow.fast_failure || !self.is_page_cache_busy(self.clock.now_ms()) {
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
        self.writing.lasts_ms(now) > self.limits.flow.page_cache_busy_ms
    }
}

/// Whether it is a record of the broker itself.
pub(super) fn is_own(send: &Submission) -> bool {
    send.append.messages.first().is_some_and(|message| names::is_internal_topic(&message.topic))
}
