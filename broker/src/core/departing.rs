//! Producers of a master that is one no longer, until they are sent away.
//!
//! They came by an address that leads to whoever is master, and it leads here for some moments yet. Sent away at once they would be back at once,
//! again and again, until their attempts are used up. So whoever sees where that address leads says when they shall go.

use gantry_replication::Millis;
use parking_lot::Mutex;

use super::acks::Waiting;
use super::flow::Counters;
use crate::services::seam::{SendFailure, Submission};

/// Clients give up after this long by themselves.
const PATIENCE_MS: Millis = 3_000;

/// See the module.
#[derive(Default)]
pub(super) struct Departing(Mutex<Option<Crowd>>);

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
        let mut crowd = self.0.lock();
        let crowd = crowd.get_or_insert_with(|| Crowd::new(now));
        crowd.sends.extend(sends.extract_if(.., |send| send.done.is_producers()));
        crowd.written.extend(written.extract_if(.., |waiting| waiting.is_producers()));
        (sends, written)
    }

    /// A master that knows itself deposed, and hasn't been told yet to step down, lets its producers wait: as many as there is room for.
    pub(super) fn begin_with(&self, now: Millis, sends: &mut Vec<Submission>, room: usize) {
        self.0.lock().get_or_insert_with(|| Crowd::new(now)).take_in(sends, room);
    }

    /// Lets producers wait, if others do: as many as there is room for.
    pub(super) fn join(&self, sends: &mut Vec<Submission>, room: usize) {
        if let Some(crowd) = &mut *self.0.lock() {
            crowd.take_in(sends, room);
        }
    }

    pub(super) fn is_on(&self) -> bool {
        self.0.lock().is_some()
    }

    /// The time has come for all of them.
    pub(super) fn end(&self, counters: &Counters, now: Millis) {
        if let Some(crowd) = self.0.lock().take() {
            crowd.send_away(counters, now);
        }
    }

    /// Nobody has said that the time has come.
    pub(super) fn end_if_overdue(&self, counters: &Counters, now: Millis) {
        let overdue = |crowd: &mut Crowd| now.saturating_sub(crowd.since) > PATIENCE_MS;
        let crowd = self.0.lock().take_if(overdue);
        if let Some(crowd) = crowd {
            crowd.send_away(counters, now);
        }
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

    fn send_away(self, counters: &Counters, now: Millis) {
        for waiting in self.written {
            waiting.count(counters, now);
            waiting.complete();
        }
        counters.failed(&FAILURE, self.sends.iter().map(|send| &send.done));
        for send in self.sends {
            send.done.complete(Err(FAILURE));
        }
    }
}
