//! The tables that requests read and write, together.
//!
//! On a slave they follow the metadata log. On the master they change at once and the log follows them.

use super::config::ServicesConfig;
use super::delay_progress::DelayProgress;
use super::groups::Groups;
use super::offsets::ConsumerOffsets;
use super::tables::{Change, Tables};
use super::topics::Topics;

/// All metadata as it is now.
pub struct Live {
    /// topics
    pub topics: Topics,
    /// subscription groups
    pub groups: Groups,
    /// consumed offsets
    pub offsets: ConsumerOffsets,
    /// how far delayed messages were delivered
    pub delay: DelayProgress,
}

impl Live {
    /// Empty tables, but for the broker's own topics.
    pub fn new(config: &ServicesConfig) -> Self {
        Self {
            topics: Topics::new(config),
            groups: Groups::new(config.auto_create_groups),
            offsets: ConsumerOffsets::default(),
            delay: DelayProgress::default(),
        }
    }

    /// All that changed and isn't logged yet. Topics and groups come first, so that who reads the log in order
    /// never meets an offset of an unknown topic.
    pub fn take_changes(&self) -> Vec<Change> {
        let mut changes = self.topics.take_changes();
        changes.extend(self.groups.take_changes());
        changes.extend(self.offsets.take_changes());
        changes.extend(self.delay.take_change());
        changes
    }

    /// These changes weren't taken by the log: they are to be taken again, with the values of then.
    pub fn mark(&self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Topic(config) => self.topics.mark(&config.topic_name),
                Change::TopicDeleted(name) => self.topics.mark(name),
                Change::Group(config) => self.groups.mark(&config.group_name),
                Change::GroupDeleted(name) => self.groups.mark(name),
                Change::OffsetsDeleted(group) => self.offsets.mark_deleted(group),
                Change::Offsets { topic, group, offsets } => self.offsets.mark(topic, group, offsets.keys()),
                Change::Delay(_) => self.delay.mark(),
            }
        }
    }

    /// Sets what the metadata log says.
    pub fn apply(&self, change: &Change) {
        match change {
            Change::Topic(_) => self.topics.apply(change),
            Change::TopicDeleted(name) => {
                self.topics.apply(change);
                self.offsets.remove(Some(name), None);
            }
            Change::Group(_) | Change::GroupDeleted(_) => self.groups.apply(change),
            Change::OffsetsDeleted(group) => self.offsets.remove(None, Some(group)),
            Change::Offsets { topic, group, offsets } => self.offsets.apply(topic, group, offsets),
            Change::Delay(progress) => self.delay.apply(progress),
        }
    }

    /// Replaces everything by what the confirmed metadata says: what this replica did as a master and nobody
    /// confirmed never was.
    pub fn reset(&self, tables: &Tables) {
        self.reset_to(tables, true);
    }

    /// The same, but topics only if they changed: name servers are told each time.
    pub fn reset_to(&self, tables: &Tables, topics_too: bool) {
        if topics_too {
            self.topics.reset(tables);
        }
        self.groups.reset(tables);
        self.offsets.reset(tables.offsets());
        self.delay.reset(&tables.delay);
    }
}
