//! Acknowledgements that wait for the confirm offset: in log order because the writer appends in order, drained in order.

use std::collections::VecDeque;
use std::sync::Arc;

use gantry_remoting::Connection;
use gantry_replication::Millis;
use gantry_store::Appended;

use super::flow::Counters;
use crate::services::seam::{Done, SendFailure};

/// A message that is in the log, and somebody who waits to hear so.
pub(super) struct Waiting {
    appended: Appended,
    since: Millis,
    done: Done,
    failure: Option<SendFailure>,
}

impl Waiting {
    pub(super) fn new(appended: Appended, done: Done, since: Millis) -> Self {
        Self { appended, since, done, failure: None }
    }

    fn failed(mut self, failure: SendFailure) -> Self {
        self.failure = Some(failure);
        self
    }

    /// Whether a producer waits, and not the broker itself.
    pub(super) fn is_producers(&self) -> bool {
        self.done.is_producers()
    }

    /// See [`Done::clings_to`].
    pub(super) fn clings_to(&self) -> Option<&Arc<Connection>> {
        self.done.clings_to()
    }

    /// Counts what became of it, if it is a producer's.
    pub(super) fn count(&self, counters: &Counters, now: Millis) {
        if !self.done.is_producers() {
            return;
        }
        match &self.failure {
            None => counters.ack_wait_ms.observe(now.saturating_sub(self.since)),
            Some(failure) => counters.failed(failure, [&self.done]),
        }
    }

    /// Tells whoever waits. Not to be called under a lock.
    pub(super) fn complete(self) {
        match self.failure {
            None => self.done.complete(Ok(&self.appended)),
            Some(failure) => self.done.complete(Err(failure)),
        }
    }
}

/// Those who wait, in log order.
#[derive(Default)]
pub(super) struct Acks(VecDeque<Waiting>);

impl Acks {
    pub(super) fn push(&mut self, waiting: Waiting) {
        if let Some(last) = self.0.back() {
            assert!(last.appended.end < waiting.appended.end, "acknowledgements out of log order");
        }
        self.0.push_back(waiting);
    }

    /// Takes those whose message ends at or below `confirmed`.
    pub(super) fn take_confirmed(&mut self, confirmed: u64, into: &mut Vec<Waiting>) {
        while self.0.front().is_some_and(|waiting| waiting.appended.end.0 <= confirmed) {
            into.extend(self.0.pop_front());
        }
    }

    /// Takes those who have waited longer than `patience_ms`: their messages are in the log and may yet be confirmed.
    pub(super) fn take_overdue(
        &mut self,
        now: Millis,
        patience_ms: Millis,
        why: fn(Appended) -> SendFailure,
        into: &mut Vec<Waiting>,
    ) {
        while self.0.front().is_some_and(|waiting| now.saturating_sub(waiting.since) > patience_ms) {
            let Some(waiting) = self.0.pop_front() else { return };
            let failure = why(waiting.appended.clone());
            into.push(waiting.failed(failure));
        }
    }

    /// Takes all, failed alike.
    pub(super) fn take_all(&mut self, failure: &SendFailure, into: &mut Vec<Waiting>) {
        into.extend(self.0.drain(..).map(|waiting| waiting.failed(failure.clone())));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
