//! How far each group has consumed each queue.
//!
//! As in RocketMQ the last commit wins, also when it goes backwards: that is how clients reset. What changed is kept
//! in a list until the metadata log has taken it.

use super::tables::Change;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem::take;
use std::sync::Arc;

/// Offsets of one `topic@group`: queue id → next offset to consume.
pub type QueueOffsets = BTreeMap<u32, i64>;

/// Every group's consumed offsets, as this master knows them.
#[derive(Default)]
pub struct ConsumerOffsets {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// topic → group → queues
    topics: HashMap<Arc<str>, HashMap<Arc<str>, Queues>>,
    /// Every (topic, group) with `changed` queues, once
    dirty: Vec<(Arc<str>, Arc<str>)>,
    /// Groups whose offsets were deleted
    deleted: BTreeSet<String>,
}

#[derive(Default)]
struct Queues {
    offsets: QueueOffsets,
    /// Queues committed since the last [`ConsumerOffsets::take_changes`]
    changed: Vec<u32>,
}

impl ConsumerOffsets {
    /// The offset committed last, if any.
    pub fn get(&self, topic: &str, group: &str, queue: u32) -> Option<i64> {
        self.inner.lock().topics.get(topic)?.get(group)?.offsets.get(&queue).copied()
    }

    /// All queues of a group on a topic.
    pub fn queues(&self, topic: &str, group: &str) -> QueueOffsets {
        let inner = self.inner.lock();
        inner.topics.get(topic).and_then(|groups| groups.get(group)).map(|q| q.offsets.clone()).unwrap_or_default()
    }

    /// Topics on which `group` has committed anything.
    pub fn topics_of(&self, group: &str) -> Vec<Arc<str>> {
        let inner = self.inner.lock();
        inner.topics.iter().filter(|(_, groups)| groups.contains_key(group)).map(|(topic, _)| topic.clone()).collect()
    }

    /// `(topic, group, queues)` of all groups.
    pub fn all(&self) -> Vec<(Arc<str>, Arc<str>, QueueOffsets)> {
        let inner = self.inner.lock();
        let groups = inner.topics.iter().flat_map(|(topic, groups)| groups.iter().map(move |group| (topic, group)));
        groups.map(|(topic, (group, queues))| (topic.clone(), group.clone(), queues.offsets.clone())).collect()
    }

    /// Shows each topic's and group's offsets. Commits wait meanwhile: `look` must be quick.
    pub fn for_each(&self, mut look: impl FnMut(&Arc<str>, &Arc<str>, &QueueOffsets)) {
        for (topic, groups) in &self.inner.lock().topics {
            for (group, queues) in groups {
                look(topic, group, &queues.offsets);
            }
        }
    }

    /// Commits; the metadata log takes it with the next batch. `offset` must not be negative.
    pub fn commit(&self, topic: &str, group: &str, queue: u32, offset: i64) {
        assert!(offset >= 0, "a negative consumer offset is checked before it gets here");
        let mut inner = self.inner.lock();
        let Inner { topics, dirty, .. } = &mut *inner;
        let first_change = match topics.get_mut(topic).and_then(|groups| groups.get_mut(group)) {
            Some(queues) => queues.commit(queue, offset),
            None => entry(topics, topic, group).commit(queue, offset),
        };
        if first_change {
            dirty.push((topic.into(), group.into()));
        }
    }

    /// What was committed or deleted since the last call, with the values of now.
    pub fn take_changes(&self) -> Vec<Change> {
        let mut inner = self.inner.lock();
        let Inner { topics, dirty, deleted } = &mut *inner;
        // Deletions first: what the group committed since is newer.
        let mut changes: Vec<Change> = take(deleted).into_iter().map(Change::OffsetsDeleted).collect();
        for (topic, group) in dirty.drain(..) {
            let Some(queues) = topics.get_mut(&topic).and_then(|groups| groups.get_mut(&group)) else { continue };
            let moved = take(&mut queues.changed);
            let offsets = moved.into_iter().filter_map(|queue| Some((queue, *queues.offsets.get(&queue)?))).collect();
            changes.push(Change::Offsets { topic: topic.to_string(), group: group.to_string(), offsets });
        }
        changes
    }

    /// The metadata log didn't take these queues' offsets: take them up again.
    pub fn mark<'a>(&self, topic: &str, group: &str, queues: impl Iterator<Item = &'a u32>) {
        let mut inner = self.inner.lock();
        let Inner { topics, dirty, .. } = &mut *inner;
        let Some(entry) = topics.get_mut(topic).and_then(|groups| groups.get_mut(group)) else { return };
        if entry.changed.is_empty() {
            dirty.push((topic.into(), group.into()));
        }
        for queue in queues {
            if !entry.changed.contains(queue) {
                entry.changed.push(*queue);
            }
        }
    }

    /// Forgets all offsets of a group; the metadata log takes it with the next batch.
    pub fn delete_group(&self, group: &str) {
        self.remove(None, Some(group));
        self.mark_deleted(group);
    }

    /// The metadata log didn't take the deletion of this group's offsets: take it up again.
    pub fn mark_deleted(&self, group: &str) {
        let mut inner = self.inner.lock();
        let Inner { topics, dirty, deleted } = &mut *inner;
        deleted.insert(group.to_owned());
        // What the group has committed since must follow the deletion in the log.
        for (topic, groups) in topics {
            let Some(queues) = groups.get_mut(group) else { continue };
            if queues.changed.is_empty() {
                dirty.push((topic.clone(), group.into()));
            }
            queues.changed = queues.offsets.keys().copied().collect();
        }
    }

    /// Sets what the metadata log says; not a change of this master's, so it isn't logged again.
    pub fn apply(&self, topic: &str, group: &str, offsets: &QueueOffsets) {
        let mut inner = self.inner.lock();
        entry(&mut inner.topics, topic, group).offsets.extend(offsets);
    }

    /// Forgets a topic's offsets, or a group's, or both: `None` means any.
    pub fn remove(&self, topic: Option<&str>, group: Option<&str>) {
        let mut inner = self.inner.lock();
        let matches = |t: &str, g: &str| topic.is_none_or(|x| x == t) && group.is_none_or(|x| x == g);
        inner.topics.retain(|t, groups| {
            groups.retain(|g, _| !matches(t, g));
            !groups.is_empty()
        });
        inner.dirty.retain(|(t, g)| !matches(t, g));
    }

    /// Replaces everything by what the confirmed metadata says.
    pub fn reset<'a>(&self, all: impl Iterator<Item = (&'a str, &'a str, &'a QueueOffsets)>) {
        *self.inner.lock() = Inner::default();
        for (topic, group, offsets) in all {
            self.apply(topic, group, offsets);
        }
    }
}

impl Queues {
    /// Sets one queue's offset. Is it the first change since the changes were taken?
    fn commit(&mut self, queue: u32, offset: i64) -> bool {
        if self.offsets.insert(queue, offset) == Some(offset) {
            return false;
        }
        let first = self.changed.is_empty();
        if !self.changed.contains(&queue) {
            self.changed.push(queue);
        }
        first
    }
}

/// The entry of a topic and group, made when absent.
fn entry<'a>(topics: &'a mut HashMap<Arc<str>, HashMap<Arc<str>, Queues>>, topic: &str, group: &str) -> &'a mut Queues {
    topics.entry(topic.into()).or_default().entry(group.into()).or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_commit_wins_even_backwards() {
        let offsets = ConsumerOffsets::default();
        offsets.commit("t", "g", 0, 10);
        offsets.commit("t", "g", 0, 4);
        assert_eq!(offsets.get("t", "g", 0), Some(4));
        assert_eq!(offsets.get("t", "g", 1), None);
        assert_eq!(offsets.get("t", "other", 0), None);
    }

    #[test]
    fn a_change_is_handed_to_the_log_once_with_its_last_value() {
        let offsets = ConsumerOffsets::default();
        offsets.commit("t", "g", 0, 1);
        offsets.commit("t", "g", 0, 2);
        offsets.commit("t", "g", 3, 9);
        let changes = offsets.take_changes();
        let expected = QueueOffsets::from([(0, 2), (3, 9)]);
        assert_eq!(changes, [Change::Offsets { topic: "t".into(), group: "g".into(), offsets: expected }]);
        assert!(offsets.take_changes().is_empty());
        offsets.commit("t", "g", 0, 2);
        assert!(offsets.take_changes().is_empty(), "the same offset again is no change");
    }

    #[test]
    fn what_the_log_says_is_not_logged_again() {
        let offsets = ConsumerOffsets::default();
        offsets.apply("t", "g", &QueueOffsets::from([(0, 5)]));
        assert_eq!(offsets.get("t", "g", 0), Some(5));
        assert!(offsets.take_changes().is_empty());
    }

    #[test]
    fn a_deleted_topic_takes_its_offsets_along() {
        let offsets = ConsumerOffsets::default();
        offsets.commit("t", "g", 0, 1);
        offsets.commit("u", "g", 0, 1);
        offsets.remove(Some("t"), None);
        assert_eq!((offsets.get("t", "g", 0), offsets.get("u", "g", 0)), (None, Some(1)));
        assert_eq!(offsets.take_changes().len(), 1);
    }
}
