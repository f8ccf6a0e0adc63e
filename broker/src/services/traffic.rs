//! What came into topics, and what their consumers took, since the start. Counting is additions: nobody waits for it.

use gantry_store::{Appended, Histogram, HistogramSnapshot};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a message: RocketMQ's bounds.
const SIZES: &[u64] = &[1 << 10, 4 << 10, 512 << 10, 1 << 20, 2 << 20, 4 << 20];

/// Pairs of topic and group that are counted at most.
const MAX_PAIRS: usize = 100_000;

/// What producers sent to a topic.
#[derive(Debug)]
pub struct Incoming {
    bytes: AtomicU64,
    sizes: Histogram,
}

impl Default for Incoming {
    fn default() -> Self {
        Self { bytes: AtomicU64::new(0), sizes: Histogram::new(SIZES) }
    }
}

impl Incoming {
    /// These messages are in the log.
    pub(super) fn count(&self, appended: &Appended) {
        let bytes = appended.end.0.saturating_sub(appended.physical.0);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.sizes.observe(bytes / (appended.each.len().max(1) as u64));
    }

    /// Bytes as they lie in the log.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How large messages were; those of one request count as one, of their average size.
    pub fn sizes(&self) -> HistogramSnapshot {
        self.sizes.snapshot()
    }
}

/// What a group got of a topic.
#[derive(Debug, Default)]
pub struct Outgoing {
    messages: AtomicU64,
    bytes: AtomicU64,
    dead: AtomicU64,
}

impl Outgoing {
    pub(super) fn count(&self, messages: usize, bytes: usize) {
        self.messages.fetch_add(messages as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn count_dead(&self) {
        self.dead.fetch_add(1, Ordering::Relaxed);
    }

    /// Messages, bytes, and messages that went to the dead letter topic.
    pub fn totals(&self) -> (u64, u64, u64) {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (load(&self.messages), load(&self.bytes), load(&self.dead))
    }
}

/// By topic and group.
#[derive(Debug, Default)]
pub struct Deliveries {
    topics: RwLock<HashMap<Arc<str>, ByGroup>>,
}

type ByGroup = HashMap<Arc<str>, Arc<Outgoing>>;

impl Deliveries {
    /// Where a group's pulls of a topic are counted; nowhere if there are too many to tell apart.
    pub(super) fn of(&self, topic: &Arc<str>, group: &str) -> Option<Arc<Outgoing>> {
        if let Some(known) = self.topics.read().get(topic).and_then(|groups| groups.get(group)) {
            return Some(Arc::clone(known));
        }
        let mut topics = self.topics.write();
        if topics.values().map(HashMap::len).sum::<usize>() >= MAX_PAIRS {
            return None;
        }
        let groups = topics.entry(Arc::clone(topic)).or_default();
        Some(Arc::clone(groups.entry(group.into()).or_default()))
    }

    /// All of them whose topic and group still exist, in an order that stays. The others are forgotten.
    pub fn all(&self, exists: impl Fn(&str, &str) -> bool) -> Vec<(Arc<str>, Arc<str>, Arc<Outgoing>)> {
        let mut topics = self.topics.write();
        topics.retain(|topic, groups| {
            groups.retain(|group, _| exists(topic, group));
            !groups.is_empty()
        });
        let mut all = Vec::new();
        for (topic, groups) in &*topics {
            all.extend(groups.iter().map(|(group, out)| (Arc::clone(topic), Arc::clone(group), Arc::clone(out))));
        }
        drop(topics);
        all.sort_unstable_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deliveries_are_counted_by_topic_and_group_and_forgotten_with_them() {
        let deliveries = Deliveries::default();
        let (t, u): (Arc<str>, Arc<str>) = ("t".into(), "u".into());
        deliveries.of(&t, "g").unwrap().count(3, 300);
        deliveries.of(&t, "g").unwrap().count(1, 10);
        deliveries.of(&u, "g").unwrap().count_dead();
        let all = deliveries.all(|_, _| true);
        let totals: Vec<_> = all.iter().map(|(topic, group, out)| (&**topic, &**group, out.totals())).collect();
        assert_eq!(totals, [("t", "g", (4, 310, 0)), ("u", "g", (0, 0, 1))]);
        assert_eq!(deliveries.all(|topic, _| topic == "u").len(), 1);
        assert_eq!(deliveries.of(&t, "g").unwrap().totals(), (0, 0, 0), "made anew, it begins anew");
    }
}
