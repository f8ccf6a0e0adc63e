//! Locks on queues for orderly consumers: one client of a group at a time owns a queue.
//!
//! Kept in memory only, as in RocketMQ: clients renew every 20 s, a lock that isn't renewed for 60 s is free, and after
//! a failover the first to ask the new master gets it.

use parking_lot::Mutex;
use std::collections::HashMap;

/// A queue as clients name it in lock requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct QueueKey {
    /// topic name
    pub(super) topic: String,
    /// queue id as the client wrote it
    pub(super) queue_id: i32,
}

/// All queue locks of this broker.
pub(super) struct QueueLocks {
    lifetime_ms: u64,
    groups: Mutex<HashMap<String, HashMap<QueueKey, Held>>>,
}

struct Held {
    client: String,
    renewed_ms: u64,
}

impl QueueLocks {
    /// Locks that live `lifetime_ms` milliseconds without renewal.
    pub(super) fn new(lifetime_ms: u64) -> Self {
        Self { lifetime_ms, groups: Mutex::default() }
    }

    /// Locks or renews what is free or already the client's; says which of `wanted` it now owns.
    pub(super) fn lock(&self, group: &str, client: &str, wanted: Vec<QueueKey>, now_ms: u64) -> Vec<QueueKey> {
        let mut groups = self.groups.lock();
        let held = groups.entry(group.to_owned()).or_default();
        let mut owned = Vec::with_capacity(wanted.len());
        for queue in wanted {
            let taken = held.get(&queue).is_some_and(|lock| lock.client != client && self.alive(lock, now_ms));
            if !taken {
                held.insert(queue.clone(), Held { client: client.to_owned(), renewed_ms: now_ms });
                owned.push(queue);
            }
        }
        owned
    }

    /// Frees those of `queues` that `client` holds.
    pub(super) fn unlock(&self, group: &str, client: &str, queues: &[QueueKey]) {
        let mut groups = self.groups.lock();
        let Some(held) = groups.get_mut(group) else { return };
        for queue in queues {
            if held.get(queue).is_some_and(|lock| lock.client == client) {
                held.remove(queue);
            }
        }
    }

    /// Does anybody in `group` hold a live lock? Then it consumes in order, and what it gives back is beyond retrying.
    pub(super) fn any_alive(&self, group: &str, now_ms: u64) -> bool {
        self.groups.lock().get(group).is_some_and(|held| held.values().any(|lock| self.alive(lock, now_ms)))
    }

    /// Drops expired locks, so that the table doesn't grow with the names of the past.
    pub(super) fn expire(&self, now_ms: u64) {
        self.groups.lock().retain(|_, held| {
            held.retain(|_, lock| self.alive(lock, now_ms));
            !held.is_empty()
        });
    }

    /// Forgets everything: this replica is no longer the one that decides.
    pub(super) fn clear(&self) {
        self.groups.lock().clear();
    }

    fn alive(&self, lock: &Held, now_ms: u64) -> bool {
        now_ms.saturating_sub(lock.renewed_ms) < self.lifetime_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queues(ids: &[i32]) -> Vec<QueueKey> {
        ids.iter().map(|id| QueueKey { topic: "t".into(), queue_id: *id }).collect()
    }

    #[test]
    fn a_queue_has_one_owner_until_its_lock_expires() {
        let locks = QueueLocks::new(60_000);
        assert_eq!(locks.lock("g", "one", queues(&[0, 1]), 1_000), queues(&[0, 1]));
        assert_eq!(locks.lock("g", "two", queues(&[1, 2]), 1_000), queues(&[2]));
        assert_eq!(locks.lock("g", "one", queues(&[0]), 40_000), queues(&[0]), "renewed");
        assert_eq!(locks.lock("g", "two", queues(&[0, 1]), 61_000), queues(&[1]), "1 has expired, 0 was renewed");
    }

    #[test]
    fn groups_do_not_see_each_other_and_only_owners_unlock() {
        let locks = QueueLocks::new(60_000);
        locks.lock("g", "one", queues(&[0]), 0);
        assert_eq!(locks.lock("other", "two", queues(&[0]), 0), queues(&[0]));
        locks.unlock("g", "two", &queues(&[0]));
        assert!(locks.any_alive("g", 1));
        locks.unlock("g", "one", &queues(&[0]));
        assert!(!locks.any_alive("g", 1));
    }

    #[test]
    fn expired_locks_leave_nothing_behind() {
        let locks = QueueLocks::new(60_000);
        locks.lock("g", "one", queues(&[0]), 0);
        locks.expire(60_000);
        assert!(locks.groups.lock().is_empty());
    }
}
