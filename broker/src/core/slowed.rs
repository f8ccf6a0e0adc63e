//! Sends that wait because slaves lag (see [`gantry_replication::pressure`]): let in at the rate that the slaves take, refused when they
//! have waited for too long.

use std::collections::VecDeque;

use gantry_replication::Millis;
use gantry_replication::pressure::Pressure;

use crate::services::seam::{Busy, Submission};

/// How producers are slowed; the writer's own.
pub(super) struct Slowed {
    pressure: Pressure,
    /// Sends wait this long at most.
    patience_ms: Millis,
    max_waiting: usize,
    waiting: VecDeque<(Submission, Millis)>,
}

impl Slowed {
    pub(super) fn new(pressure: Pressure, patience_ms: Millis, max_waiting: usize) -> Self {
        Self { pressure, patience_ms, max_waiting, waiting: VecDeque::new() }
    }

    /// Sends wait so long at most from now on.
    pub(super) fn set_patience(&mut self, patience_ms: Millis) {
        self.patience_ms = patience_ms;
    }

    /// The log ends at `end`; the slowest in-sync slave's, if there is one, at `slowest`. Answers the rate, if producers are slowed.
    pub(super) fn observe(&mut self, end: u64, slowest: Option<u64>, now: Millis) -> Option<u64> {
        self.pressure.observe(end, slowest, now);
        self.pressure.limit()
    }

    /// Keeps those of `sends` that must wait, refuses those for which there is no room. What the broker itself appends (offsets, topics,
    /// deliveries) never waits.
    pub(super) fn sift(
        &mut self,
        sends: &mut Vec<Submission>,
        is_own: fn(&Submission) -> bool,
        now: Millis,
        refuse: impl Fn(Vec<Submission>, &Busy),
    ) {
        if self.pressure.limit().is_none() && self.waiting.is_empty() {
            return;
        }
        let (from_producers, own): (Vec<_>, Vec<_>) = std::mem::take(sends).into_iter().partition(|send| !is_own(send));
        *sends = own;
        for send in from_producers {
            if self.waiting.len() < self.max_waiting {
                self.waiting.push_back((send, now));
            } else {
                refuse(vec![send], &Busy::Overload);
            }
        }
    }

    /// Takes those that may go now; refuses those that have waited too long.
    pub(super) fn release(&mut self, now: Millis, refuse: impl Fn(Vec<Submission>, &Busy)) -> Vec<Submission> {
        let mut go = Vec::new();
        while self.pressure.wait_ms(now) == 0 {
            let Some((send, _)) = self.waiting.pop_front() else { break };
            self.pressure.let_in(bytes_of(&send), now);
            go.push(send);
        }
        while let Some((_, since)) = self.waiting.front()
            && now.saturating_sub(*since) > self.patience_ms
        {
            let (period_ms, queue) = (now.saturating_sub(*since), self.waiting.len());
            if let Some((send, _)) = self.waiting.pop_front() {
                refuse(vec![send], &Busy::TimedOut { period_ms, queue });
            }
        }
        go
    }

    /// For how long nothing will change, if anybody waits.
    pub(super) fn next_ms(&mut self, now: Millis) -> Option<Millis> {
        let (_, since) = self.waiting.front()?;
        let overdue = (since + self.patience_ms + 1).saturating_sub(now);
        Some(self.pressure.wait_ms(now).min(overdue).max(1))
    }

    /// All who wait, for whoever ends their waiting.
    pub(super) fn take_all(&mut self) -> Vec<Submission> {
        self.waiting.drain(..).map(|(send, _)| send).collect()
    }
}

/// What a send adds to the log, all but the fixed fields.
fn bytes_of(send: &Submission) -> u64 {
    send.append.messages.iter().map(|message| (message.body.len() + message.properties.len()) as u64).sum()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    use super::*;
    use crate::services::seam::{Done, SendFailure, Wait};
    use bytes::Bytes;
    use gantry_replication::pressure::{Config, FLOOR_BYTES_PER_S};
    use gantry_store::NewMessage;

    const KIB: usize = 1 << 10;

    fn send(bytes: usize, told: &mpsc::Sender<String>) -> Submission {
        let host = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let message = NewMessage {
            topic: Arc::from("t"),
            queue_id: 0,
            flag: 0,
            sys_flag: 0,
            born_timestamp_ms: 0,
            born_host: host,
            store_host: host,
            reconsume_times: 0,
            prepared_offset: 0,
            body: Bytes::from(vec![0; bytes]),
            properties: Bytes::new(),
        };
        let told = told.clone();
        let done = Done::Call(Box::new(move |outcome| told.send(outcome.unwrap_err().to_string()).unwrap()));
        Submission { append: message.into(), wait: Wait::Acked, done }
    }

    fn tell_busy(sends: Vec<Submission>, why: &Busy) {
        for send in sends {
            send.done.complete(Err(SendFailure::Busy(why.clone())));
        }
    }

    /// Slaves that stand still, a bound away: the floor is the rate.
    fn slowed(max_waiting: usize) -> Slowed {
        let mut slowed = Slowed::new(Pressure::new(Config { lag_bytes: 1 << 20 }), 200, max_waiting);
        assert_eq!(slowed.observe(2 << 20, Some(0), 0), Some(FLOOR_BYTES_PER_S));
        slowed
    }

    #[test]
    fn sends_are_let_in_at_the_rate_and_refused_when_their_time_is_up() {
        let (tell, told) = mpsc::channel();
        let mut slowed = slowed(100);
        let mut sends: Vec<_> = (0..40).map(|_| send(KIB, &tell)).collect();
        slowed.sift(&mut sends, |_| false, 0, tell_busy);
        assert!(sends.is_empty());
        let mut let_in = 0;
        let mut now = 0;
        while let Some(wait) = slowed.next_ms(now) {
            let_in += slowed.release(now, tell_busy).len();
            now += wait;
            assert!(now < 1_000, "nobody waits for ever");
        }
        // 64 KiB each second, for 200 ms, and 50 ms at once.
        assert!((12..=20).contains(&let_in), "{let_in}");
        let refused: Vec<_> = told.try_iter().collect();
        assert_eq!(refused.len() + let_in, 40);
        assert!(
            refused[0]
                .starts_with("[TIMEOUT_CLEAN_QUEUE]broker busy, start flow control for a while, period in queue: 2"),
            "{refused:?}"
        );
    }

    #[test]
    fn the_brokers_own_records_never_wait_and_no_more_than_the_bound_do() {
        let (tell, told) = mpsc::channel();
        let mut slowed = slowed(2);
        let mut own = vec![send(KIB, &tell)];
        slowed.sift(&mut own, |_| true, 0, tell_busy);
        assert_eq!(own.len(), 1);
        let mut sends: Vec<_> = (0..3).map(|_| send(KIB, &tell)).collect();
        slowed.sift(&mut sends, |_| false, 0, tell_busy);
        assert_eq!(told.try_iter().count(), 1, "the third");
        assert_eq!(slowed.take_all().len(), 2);
    }

    #[test]
    fn once_slaves_have_caught_up_those_who_waited_go_first_and_then_nobody_waits() {
        let (tell, told) = mpsc::channel();
        let mut slowed = slowed(100);
        slowed.sift(&mut vec![send(KIB, &tell)], |_| false, 0, tell_busy);
        assert_eq!(slowed.observe(2 << 20, Some(2 << 20), 10), None);
        let mut later = vec![send(KIB, &tell)];
        slowed.sift(&mut later, |_| false, 10, tell_busy);
        assert!(later.is_empty(), "not before the one that waits");
        assert_eq!(slowed.release(10, tell_busy).len(), 2);
        slowed.sift(&mut vec![send(KIB, &tell)], |_| false, 11, tell_busy);
        assert_eq!((slowed.next_ms(11), told.try_iter().count()), (None, 0));
    }
}
