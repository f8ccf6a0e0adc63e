//! Producers of a master that is one no longer, until they are sent away.
//!
//! They came by an address that leads to whoever is master, and it leads here for some moments yet. Sent away at once they would be back at once,
//! again and again, until their attempts are used up. So whoever sees where that address leads says when they shall go.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gantry_remoting::Connection;
use gantry_replication::Millis;
use parking_lot::Mutex;

use super::acks::Waiting;
use super::flow::Counters;
use crate::services::seam::{SendFailure, Submission};

/// Clients give up after this long by themselves.
const PATIENCE_MS: Millis = 3_000;

/// For so long after they were sent away some come back: not everywhere does the address change at the same moment.
const LAST_MS: Millis = 1_000;

/// See the module.
#[derive(Default)]
pub(super) struct Departing {
    crowd: Mutex<Option<Crowd>>,
    /// When the last ones were sent away, plus one; 0: never.
    ended: AtomicU64,
}

struct Crowd {
    since: Millis,
    sends: Vec<Submission>,
    /// Whose messages are in the log, which is another master's now.
    written: Vec<Waiting>,
}

/// What they are all told.
const FAILURE: SendFailure = SendFailure::SwitchingOver;

impl Departing {
    /// The master has stepped down: these wait from now on, and so do those who come. What isn't a producer's is given back.
    pub(super) fn begin(
        &self,
        now: Millis,
        mut sends: Vec<Submission>,
        mut written: Vec<Waiting>,
    ) -> (Vec<Submission>, Vec<Waiting>) {
        let mut crowd = self.crowd.lock();
        let crowd = crowd.get_or_insert_with(|| Crowd::new(now));
        crowd.sends.extend(sends.extract_if(.., |send| send.done.is_producers()));
        crowd.written.extend(written.extract_if(.., |waiting| waiting.is_producers()));
        (sends, written)
    }

    /// A master that knows itself deposed, and hasn't been told yet to step down, lets its producers wait: as many as there is room for.
    pub(super) fn begin_with(&self, now: Millis, sends: &mut Vec<Submission>, room: usize) {
        self.crowd.lock().get_or_insert_with(|| Crowd::new(now)).take_in(sends, room);
    }

    /// Lets producers wait, if others do: as many as there is room for.
    pub(super) fn join(&self, sends: &mut Vec<Submission>, room: usize) {
        if let Some(crowd) = &mut *self.crowd.lock() {
            crowd.take_in(sends, room);
        }
    }

    pub(super) fn is_on(&self) -> bool {
        self.crowd.lock().is_some()
    }

    /// Whether clients are here that wait, or may come back yet.
    pub(super) fn needs_us(&self, now: Millis) -> bool {
        let ended = self.ended.load(Ordering::Relaxed);
        self.is_on() || (ended > 0 && now < ended + LAST_MS)
    }

    /// The time has come for all of them. The connections of those who don't leave by themselves.
    pub(super) fn end(&self, counters: &Counters, now: Millis) -> Vec<Arc<Connection>> {
        let crowd = self.crowd.lock().take();
        self.send_away(crowd, counters, now)
    }

    /// Nobody has said that the time has come.
    pub(super) fn end_if_overdue(&self, counters: &Counters, now: Millis) {
        let overdue = |crowd: &mut Crowd| now.saturating_sub(crowd.since) > PATIENCE_MS;
        let crowd = self.crowd.lock().take_if(overdue);
        self.send_away(crowd, counters, now);
    }

    fn send_away(&self, crowd: Option<Crowd>, counters: &Counters, now: Millis) -> Vec<Arc<Connection>> {
        let Some(crowd) = crowd else { return Vec::new() };
        self.ended.store(now + 1, Ordering::Relaxed);
        crowd.send_away(counters, now)
    }
}

impl Crowd {
    fn new(since: Millis) -> Self {
        Self { since, sends: Vec::new(), written: Vec::new() }
    }

    fn take_in(&mut self, sends: &mut Vec<Submission>, room: usize) {
        let room = room.saturating_sub(self.sends.len());
        self.sends.extend(sends.extract_if(.., |send| send.done.is_producers()).take(room));
    }

    fn send_away(self, counters: &Counters, now: Millis) -> Vec<Arc<Connection>> {
        let clinging = self.written.iter().filter_map(Waiting::clings_to);
        let clinging = clinging.chain(self.sends.iter().filter_map(|send| send.done.clings_to())).cloned().collect();
        for waiting in self.written {
            waiting.count(counters, now);
            waiting.complete();
        }
        counters.failed(&FAILURE, self.sends.iter().map(|send| &send.done));
        for send in self.sends {
            send.done.complete(Err(FAILURE));
        }
        clinging
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_master_is_needed_until_a_moment_after_its_clients_were_sent_away() {
        let (departing, counters) = (Departing::default(), Counters::default());
        departing.end(&counters, 0);
        assert!(!departing.needs_us(0), "it never was master");
        departing.begin(100, Vec::new(), Vec::new());
        assert!(departing.is_on() && departing.needs_us(2_000));
        departing.end(&counters, 2_000);
        assert!(!departing.is_on() && departing.needs_us(2_999));
        assert!(!departing.needs_us(3_001));
    }

    #[test]
    fn nobody_waits_for_ever_for_an_address_that_does_not_change() {
        let (departing, counters) = (Departing::default(), Counters::default());
        departing.begin(100, Vec::new(), Vec::new());
        departing.end_if_overdue(&counters, 100 + PATIENCE_MS);
        assert!(departing.is_on());
        departing.end_if_overdue(&counters, 101 + PATIENCE_MS);
        assert!(!departing.is_on());
    }
}
