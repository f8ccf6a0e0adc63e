//! The broker's metadata as data: the tables, and the changes that the metadata log carries.
//!
//! A change says what an entry *is* from now on, never by how much it differs: applying one twice, or a stretch of
//! them again from further back, ends in the same tables.

use super::groups::{GroupConfig, next_version};
use super::offsets::QueueOffsets;
use gantry_remoting::body::topic_config::{DataVersion, TopicConfig};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One entry's new state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Change {
    /// A topic was created or altered
    Topic(TopicConfig),
    /// A topic, by name, was deleted, and every group's offsets on it
    TopicDeleted(String),
    /// A group was created or altered
    Group(GroupConfig),
    /// A group, by name, was deleted
    GroupDeleted(String),
    /// A group, by name, lost its offsets
    OffsetsDeleted(String),
    /// Consumed offsets moved
    Offsets {
        /// of this topic
        topic: String,
        /// by this group
        group: String,
        /// next offset to consume, by queue
        offsets: QueueOffsets,
    },
    /// Delivery of delayed messages advanced: delay level → offset of the first message not yet delivered
    Delay(BTreeMap<u32, u64>),
}

/// Changes that became one record of the metadata log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChangeSet {
    /// Which mastership wrote it: it has these changes in its own tables already, and perhaps newer ones.
    pub by: String,
    /// When, in ms since 1970
    pub at: i64,
    /// What, in order
    pub changes: Vec<Change>,
}

/// A table and its RocketMQ data version.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Versioned<T> {
    /// Grows with each change
    pub version: DataVersion,
    /// By name
    pub entries: BTreeMap<String, T>,
}

/// All metadata, exactly as of a place in the metadata log.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Tables {
    /// Queue offset in the metadata topic of the first record that is *not* in here
    pub next: u64,
    /// by topic name
    pub topics: Versioned<TopicConfig>,
    /// by group name
    pub groups: Versioned<GroupConfig>,
    /// by `topic@group`
    pub offsets: Versioned<QueueOffsets>,
    /// by delay level
    pub delay: BTreeMap<u32, u64>,
}

impl Tables {
    /// Takes a record's changes in.
    pub fn apply(&mut self, set: &ChangeSet) {
        for change in &set.changes {
            self.apply_one(change, set.at);
        }
    }

    /// `(topic, group, offsets)` of all groups.
    pub fn offsets(&self) -> impl Iterator<Item = (&str, &str, &QueueOffsets)> {
        self.offsets.entries.iter().filter_map(|(key, offsets)| {
            let (topic, group) = key.split_once('@')?;
            Some((topic, group, offsets))
        })
    }

    /// Everything as changes, for a log that has never had them.
    pub fn as_changes(&self) -> Vec<Change> {
        let topics = self.topics.entries.values().cloned().map(Change::Topic);
        let groups = self.groups.entries.values().cloned().map(Change::Group);
        let offsets = self.offsets().map(|(topic, group, offsets)| Change::Offsets {
            topic: topic.to_owned(),
            group: group.to_owned(),
            offsets: offsets.clone(),
        });
        let delay = (!self.delay.is_empty()).then(|| Change::Delay(self.delay.clone()));
        topics.chain(groups).chain(offsets).chain(delay).collect()
    }

    fn apply_one(&mut self, change: &Change, at: i64) {
        match change {
            Change::Topic(config) => self.topics.put(&config.topic_name, config.clone(), at),
            Change::TopicDeleted(name) => {
                self.topics.remove(at, |topic| topic == name);
                self.offsets.remove(at, |key| key.split_once('@').is_some_and(|(topic, _)| topic == name));
            }
            Change::Group(config) => self.groups.put(&config.group_name, config.clone(), at),
            Change::GroupDeleted(name) => self.groups.remove(at, |group| group == name),
            Change::OffsetsDeleted(name) => {
                self.offsets.remove(at, |key| key.split_once('@').is_some_and(|(_, group)| group == name));
            }
            Change::Offsets { topic, group, offsets } => {
                self.offsets.entries.entry(format!("{topic}@{group}")).or_default().extend(offsets);
                self.offsets.version = next_version(&self.offsets.version, at);
            }
            Change::Delay(progress) => self.delay.extend(progress),
        }
    }
}

impl<T> Versioned<T> {
    fn put(&mut self, name: &str, entry: T, at: i64) {
        self.entries.insert(name.to_owned(), entry);
        self.version = next_version(&self.version, at);
    }

    fn remove(&mut self, at: i64, gone: impl Fn(&str) -> bool) {
        let before = self.entries.len();
        self.entries.retain(|name, _| !gone(name));
        if self.entries.len() != before {
            self.version = next_version(&self.version, at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name() -> impl Strategy<Value = String> {
        "[abc]"
    }

    fn change() -> impl Strategy<Value = Change> {
        let offsets = prop::collection::btree_map(0_u32..3, 0_i64..100, 1..3);
        prop_oneof![
            (name(), 1..9).prop_map(|(topic_name, perm)| Change::Topic(TopicConfig {
                topic_name,
                perm,
                ..TopicConfig::default()
            })),
            name().prop_map(Change::TopicDeleted),
            name().prop_map(|group_name| Change::Group(GroupConfig { group_name, ..GroupConfig::default() })),
            name().prop_map(Change::GroupDeleted),
            name().prop_map(Change::OffsetsDeleted),
            (name(), name(), offsets).prop_map(|(topic, group, offsets)| Change::Offsets { topic, group, offsets }),
            prop::collection::btree_map(1_u32..4, 0_u64..9, 1..3).prop_map(Change::Delay),
        ]
    }

    fn apply(tables: &mut Tables, changes: &[Change]) {
        tables.apply(&ChangeSet { by: "m".into(), at: 1, changes: changes.to_vec() });
    }

    /// Versions count applications, so they are left out.
    fn content(tables: &Tables) -> impl PartialEq + std::fmt::Debug {
        let Tables { next: _, topics, groups, offsets, delay } = tables.clone();
        let offsets: Vec<_> = offsets.entries.into_iter().filter(|(_, queues)| !queues.is_empty()).collect();
        (topics.entries, groups.entries, offsets, delay)
    }

    proptest! {
        #[test]
        fn replaying_from_further_back_ends_in_the_same_tables(changes in prop::collection::vec(change(), 0..40), back in 0..40_usize) {
            let mut once = Tables::default();
            apply(&mut once, &changes);
            let mut again = once.clone();
            apply(&mut again, &changes[changes.len().saturating_sub(back)..]);
            prop_assert_eq!(content(&again), content(&once));
        }

        #[test]
        fn everything_as_changes_makes_the_same_tables(changes in prop::collection::vec(change(), 0..40)) {
            let mut tables = Tables::default();
            apply(&mut tables, &changes);
            let mut copy = Tables::default();
            apply(&mut copy, &tables.as_changes());
            prop_assert_eq!(content(&copy), content(&tables));
        }

        #[test]
        fn a_record_reads_back_what_was_written(changes in prop::collection::vec(change(), 0..10)) {
            let set = ChangeSet { by: "m".into(), at: 5, changes };
            let json = serde_json::to_vec(&set).unwrap();
            prop_assert_eq!(serde_json::from_slice::<ChangeSet>(&json).unwrap(), set);
        }
    }
}
