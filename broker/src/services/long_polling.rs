//! Requests that wait for a message to arrive in their queue.
//!
//! A waiting room, no more: who may enter, who is woken by a new message, whose time is up, who has left. What a
//! woken request then does is its owner's matter. Bounded in number; a request leaves exactly once, by whichever of
//! waking, expiry, release or its connection's end comes first.

use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// What a waiting request waits for, and how long.
pub(super) struct Wanted {
    /// topic name
    pub(super) topic: Arc<str>,
    /// queue id
    pub(super) queue: u32,
    /// id of the connection that asks
    pub(super) connection: u64,
    /// When it must be answered though nothing came
    pub(super) deadline: Instant,
}

/// Requests of type `R` that wait.
pub(super) struct WaitingRoom<R> {
    capacity: usize,
    /// How many wait: read without the lock by the dispatcher, which mostly finds nobody.
    len: AtomicUsize,
    inner: Mutex<Inner<R>>,
}

struct Inner<R> {
    next_id: u64,
    waiting: HashMap<u64, Waiting<R>>,
    by_topic: HashMap<Arc<str>, HashMap<u32, Vec<u64>>>,
    by_connection: HashMap<u64, Vec<u64>>,
    by_deadline: BTreeSet<(Instant, u64)>,
}

struct Waiting<R> {
    wanted: Wanted,
    request: R,
}

impl<R> WaitingRoom<R> {
    /// A room for at most `capacity` requests.
    pub(super) fn new(capacity: usize) -> Self {
        let inner = Inner {
            next_id: 0,
            waiting: HashMap::new(),
            by_topic: HashMap::new(),
            by_connection: HashMap::new(),
            by_deadline: BTreeSet::new(),
        };
        Self { capacity, len: AtomicUsize::new(0), inner: Mutex::new(inner) }
    }

    /// Lets a request wait; its id is for [`Self::release`]. A full room gives it back.
    ///
    /// The caller must look at the queue again afterwards: a message may have come before it was in.
    pub(super) fn enter(&self, wanted: Wanted, request: R) -> Result<u64, R> {
        let mut inner = self.inner.lock();
        if inner.waiting.len() >= self.capacity {
            return Err(request);
        }
        let id = inner.next_id;
        inner.next_id += 1;
        inner.by_topic.entry(wanted.topic.clone()).or_default().entry(wanted.queue).or_default().push(id);
        inner.by_connection.entry(wanted.connection).or_default().push(id);
        inner.by_deadline.insert((wanted.deadline, id));
        inner.waiting.insert(id, Waiting { wanted, request });
        // SeqCst, and the caller's second look comes after it: either that look sees the message, or the dispatcher,
        // which published the message before it asks `is_empty`, sees the request.
        self.len.fetch_add(1, Ordering::SeqCst);
        Ok(id)
    }

    /// Takes a request out, unless it has left already.
    pub(super) fn release(&self, id: u64) -> Option<R> {
        let mut inner = self.inner.lock();
        let request = inner.remove(id);
        self.publish(&inner);
        request
    }

    /// Takes out those who wait for this queue and whom `accept` picks.
    pub(super) fn wake(&self, topic: &str, queue: u32, accept: impl Fn(&R) -> bool) -> Vec<R> {
        let mut inner = self.inner.lock();
        let Some(ids) = inner.by_topic.get(topic).and_then(|queues| queues.get(&queue)) else { return Vec::new() };
        let picked: Vec<u64> =
            ids.iter().copied().filter(|id| inner.waiting.get(id).is_some_and(|w| accept(&w.request))).collect();
        self.take(&mut inner, picked)
    }

    /// Takes out those whose deadline is not after `now`.
    pub(super) fn expired(&self, now: Instant) -> Vec<R> {
        let mut inner = self.inner.lock();
        let due = inner.by_deadline.range(..=(now, u64::MAX)).map(|(_, id)| *id).collect();
        self.take(&mut inner, due)
    }

    /// Takes out a connection's requests.
    pub(super) fn leave(&self, connection: u64) -> Vec<R> {
        let mut inner = self.inner.lock();
        let ids = inner.by_connection.get(&connection).cloned().unwrap_or_default();
        self.take(&mut inner, ids)
    }

    /// Takes out everybody.
    pub(super) fn clear(&self) -> Vec<R> {
        let mut inner = self.inner.lock();
        let all = inner.waiting.keys().copied().collect();
        self.take(&mut inner, all)
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::SeqCst)
    }

    /// Does nobody wait?
    pub(super) fn is_empty(&self) -> bool {
        self.len.load(Ordering::SeqCst) == 0
    }

    fn take(&self, inner: &mut Inner<R>, ids: Vec<u64>) -> Vec<R> {
        let taken = ids.into_iter().filter_map(|id| inner.remove(id)).collect();
        self.publish(inner);
        taken
    }

    fn publish(&self, inner: &Inner<R>) {
        self.len.store(inner.waiting.len(), Ordering::SeqCst);
    }
}

impl<R> Inner<R> {
    fn remove(&mut self, id: u64) -> Option<R> {
        let Waiting { wanted, request } = self.waiting.remove(&id)?;
        if let Some(queues) = self.by_topic.get_mut(&wanted.topic) {
            remove_from(queues, &wanted.queue, id);
            if queues.is_empty() {
                self.by_topic.remove(&wanted.topic);
            }
        }
        remove_from(&mut self.by_connection, &wanted.connection, id);
        self.by_deadline.remove(&(wanted.deadline, id));
        Some(request)
    }
}

/// Removes `id` from the list at `key`, and the list when it's empty: names of the past leave nothing behind.
fn remove_from<K: std::hash::Hash + Eq>(lists: &mut HashMap<K, Vec<u64>>, key: &K, id: u64) {
    let Some(ids) = lists.get_mut(key) else { return };
    if let Some(at) = ids.iter().position(|other| *other == id) {
        ids.swap_remove(at);
    }
    if ids.is_empty() {
        lists.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn wanted(topic: &str, queue: u32, connection: u64, deadline: Instant) -> Wanted {
        Wanted { topic: topic.into(), queue, connection, deadline }
    }

    #[test]
    fn a_message_wakes_those_who_wait_for_its_queue_and_want_it() {
        let (room, later) = (WaitingRoom::new(10), Instant::now() + Duration::from_mins(1));
        for (queue, name) in [(0, "a"), (0, "b"), (1, "c")] {
            room.enter(wanted("t", queue, 1, later), name).unwrap();
        }
        assert_eq!(room.wake("t", 0, |name| *name == "b"), ["b"]);
        assert!(room.wake("other", 0, |_| true).is_empty());
        assert_eq!(room.wake("t", 0, |_| true), ["a"]);
        assert!(!room.is_empty());
        assert_eq!(room.wake("t", 1, |_| true), ["c"]);
        assert!(room.is_empty());
    }

    #[test]
    fn deadlines_and_closed_connections_take_their_requests_out_once() {
        let (room, now) = (WaitingRoom::new(10), Instant::now());
        room.enter(wanted("t", 0, 1, now), "due").unwrap();
        let id = room.enter(wanted("t", 0, 2, now + Duration::from_secs(9)), "left").unwrap();
        assert_eq!(room.expired(now), ["due"]);
        assert!(room.expired(now).is_empty());
        assert_eq!(room.leave(2), ["left"]);
        assert_eq!(room.release(id), None);
        let inner = room.inner.lock();
        assert!(inner.by_topic.is_empty() && inner.by_connection.is_empty() && inner.by_deadline.is_empty());
    }

    #[test]
    fn a_full_room_gives_the_request_back() {
        let (room, later) = (WaitingRoom::new(1), Instant::now() + Duration::from_mins(1));
        room.enter(wanted("t", 0, 1, later), 1).unwrap();
        assert_eq!(room.enter(wanted("t", 0, 1, later), 2), Err(2));
        assert_eq!(room.clear(), [1]);
    }
}
