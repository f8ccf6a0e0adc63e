//! Which topics have queues at which broker names.

use std::collections::{BTreeMap, HashMap};

use gantry_remoting::body::route::QueueData;
use gantry_remoting::body::topic_config::TopicConfig;

/// Bits of a topic's permissions.
const PERM_WRITE: i32 = 2;
const PERM_READ: i32 = 4;

/// Topic → broker name → queues. Invariant: no topic without a broker.
#[derive(Debug, Default)]
pub(super) struct Topics {
    queues: HashMap<String, BTreeMap<String, QueueData>>,
}

impl Topics {
    pub(super) fn len(&self) -> usize {
        self.queues.len()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.queues.keys()
    }

    /// The names of the topics that one of these brokers has.
    pub(super) fn names_at(&self, has: impl Fn(&str) -> bool) -> impl Iterator<Item = &String> {
        self.queues.iter().filter(move |(_, brokers)| brokers.keys().any(|name| has(name))).map(|(topic, _)| topic)
    }

    pub(super) fn get(&self, topic: &str) -> Option<&BTreeMap<String, QueueData>> {
        self.queues.get(topic)
    }

    pub(super) fn has(&self, topic: &str, broker_name: &str) -> bool {
        self.queues.get(topic).is_some_and(|brokers| brokers.contains_key(broker_name))
    }

    /// Takes a topic as its broker has it; `read_only` where a slave stands in for the master.
    pub(super) fn set_from_config(&mut self, broker_name: &str, topic: &TopicConfig, read_only: bool) {
        let perm = if read_only { topic.perm & !PERM_WRITE } else { topic.perm };
        let queues = QueueData {
            broker_name: broker_name.to_owned(),
            read_queue_nums: topic.read_queue_nums,
            write_queue_nums: topic.write_queue_nums,
            perm,
            topic_sys_flag: topic.topic_sys_flag,
        };
        self.set(&topic.topic_name, queues);
    }

    pub(super) fn set(&mut self, topic: &str, queues: QueueData) {
        self.queues.entry(topic.to_owned()).or_default().insert(queues.broker_name.clone(), queues);
    }

    /// Forgets a topic at these brokers.
    pub(super) fn remove(&mut self, topic: &str, gone: impl Fn(&str) -> bool) {
        if let Some(brokers) = self.queues.get_mut(topic) {
            brokers.retain(|broker_name, _| !gone(broker_name));
            if brokers.is_empty() {
                self.queues.remove(topic);
            }
        }
    }

    /// Forgets all topics of a broker.
    pub(super) fn remove_broker(&mut self, broker_name: &str) {
        self.queues.retain(|_, brokers| {
            brokers.remove(broker_name);
            !brokers.is_empty()
        });
    }

    /// Takes the permission to write from all topics of a broker; returns how many it has.
    pub(super) fn wipe_write_perm(&mut self, broker_name: &str) -> usize {
        self.each_at(broker_name, |queues| queues.perm &= !PERM_WRITE)
    }

    /// Gives all topics of a broker the permission to read and write; returns how many it has.
    pub(super) fn add_write_perm(&mut self, broker_name: &str) -> usize {
        self.each_at(broker_name, |queues| queues.perm = PERM_READ | PERM_WRITE)
    }

    fn each_at(&mut self, broker_name: &str, mut change: impl FnMut(&mut QueueData)) -> usize {
        self.queues.values_mut().filter_map(|brokers| brokers.get_mut(broker_name)).map(&mut change).count()
    }
}
