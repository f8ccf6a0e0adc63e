//! The topic table: what exists, with how many queues, and who may read and write it.

use super::config::ServicesConfig;
use super::failure::Refusal;
use super::groups::next_version;
use super::names;
use super::tables::{Change, Tables};
use super::traffic::Incoming;
use gantry_remoting::body::topic_config::{DataVersion, TopicConfig};
use gantry_remoting::code::response;
use parking_lot::RwLock;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use tokio::sync::watch;

/// Permission bits of a topic, a queue, a broker.
pub mod perm {
    /// may be pulled from
    pub const READ: i32 = 4;
    /// may be sent to
    pub const WRITE: i32 = 2;
    /// may be the model of an automatically created topic
    pub const INHERIT: i32 = 1;
}

/// The attribute that says which kind of queues a topic has.
pub const QUEUE_TYPE: &str = "queue.type";
/// Its value for batch queues.
pub const BATCH_QUEUES: &str = "BatchCQ";
/// Its value for the usual ones.
pub const SIMPLE_QUEUES: &str = "SimpleCQ";

/// A topic as the send and pull paths see it: one shared allocation with its name.
#[derive(Debug)]
pub struct Topic {
    /// The name, shared with every message sent to it
    pub name: Arc<str>,
    /// Its settings
    pub config: TopicConfig,
    /// What producers sent to it
    pub incoming: Arc<Incoming>,
}

impl Topic {
    /// May messages be sent to it?
    pub fn is_writable(&self) -> bool {
        self.config.perm & perm::WRITE != 0
    }

    /// Are its queues batch queues, in which a producer's batch is one record?
    pub fn has_batch_queues(&self) -> bool {
        self.config.attributes.get(QUEUE_TYPE).is_some_and(|kind| kind == BATCH_QUEUES)
    }

    /// May messages be pulled from it?
    pub fn is_readable(&self) -> bool {
        self.config.perm & perm::READ != 0
    }
}

/// All topics of this broker.
pub struct Topics {
    built_in: Vec<TopicConfig>,
    inner: RwLock<Inner>,
    /// Counts changes: whoever registers the table with the name servers waits on it
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct Inner {
    table: HashMap<Arc<str>, Arc<Topic>>,
    version: DataVersion,
    /// Names whose present state the metadata log doesn't have yet
    dirty: BTreeSet<Arc<str>>,
}

/// What a producer says about a topic that may have to be created.
#[derive(Debug, Clone, Copy)]
pub struct WantedTopic<'a> {
    /// its name
    pub name: &'a str,
    /// the topic whose settings it inherits, usually TBW102
    pub model: &'a str,
    /// queues the client would like
    pub queues: i32,
    /// RocketMQ's topic flags
    pub sys_flag: i32,
}

impl Topics {
    /// A table that holds only the broker's own topics.
    pub fn new(config: &ServicesConfig) -> Self {
        let topics = Self { built_in: built_in(config), inner: RwLock::default(), changed: watch::Sender::new(0) };
        topics.reset(&Tables::default());
        topics
    }

    /// The topic of that name.
    pub fn get(&self, name: &str) -> Option<Arc<Topic>> {
        self.inner.read().table.get(name).cloned()
    }

    /// The topic, or a refusal that says it isn't there.
    pub fn require(&self, name: &str) -> Result<Arc<Topic>, Refusal> {
        self.get(name).ok_or_else(|| not_exist(name))
    }

    /// Creates the topic a producer sends to, after its model. The flag says whether it is new.
    pub fn get_or_create(&self, wanted: WantedTopic<'_>, now_ms: i64) -> Result<(Arc<Topic>, bool), Refusal> {
        names::check_topic(wanted.name)?;
        let mut inner = self.inner.write();
        if let Some(topic) = inner.table.get(wanted.name) {
            return Ok((topic.clone(), false));
        }
        let model = inner.table.get(wanted.model).filter(|model| model.config.perm & perm::INHERIT != 0);
        let Some(model) = model else { return Err(not_exist(wanted.name)) };
        let queues = wanted.queues.clamp(0, model.config.write_queue_nums);
        let config = TopicConfig {
            topic_name: wanted.name.to_owned(),
            perm: model.config.perm & !perm::INHERIT,
            topic_sys_flag: wanted.sys_flag,
            ..new_topic(wanted.name, queues)
        };
        tracing::info!(topic = wanted.name, queues, model = wanted.model, "topic created by a send");
        let topic = inner.put(config, now_ms);
        drop(inner);
        self.notify();
        Ok((topic, true))
    }

    /// The retry or dead letter topic of a group, created with `queues` queues if need be. The flag says whether it is new.
    pub fn get_or_create_derived(&self, name: &str, queues: i32, now_ms: i64) -> Result<(Arc<Topic>, bool), Refusal> {
        if let Some(topic) = self.get(name) {
            return Ok((topic, false));
        }
        names::check_topic(name)?;
        let mut inner = self.inner.write();
        if let Some(topic) = inner.table.get(name) {
            return Ok((topic.clone(), false));
        }
        let topic = inner.put(new_topic(name, queues), now_ms);
        drop(inner);
        self.notify();
        Ok((topic, true))
    }

    /// Creates or replaces a topic by request.
    pub fn put(&self, config: TopicConfig, now_ms: i64) -> Result<(), Refusal> {
        names::check_topic(&config.topic_name)?;
        check_not_system(&config.topic_name)?;
        check_numbers(&config)?;
        self.inner.write().put(config, now_ms);
        self.notify();
        Ok(())
    }

    /// Deletes a topic. Was there one? The broker's own topics can't be deleted.
    pub fn delete(&self, name: &str, now_ms: i64) -> Result<bool, Refusal> {
        check_not_system(name)?;
        let mut inner = self.inner.write();
        let Some((name, _)) = inner.table.remove_entry(name) else { return Ok(false) };
        inner.dirty.insert(name);
        inner.version = next_version(&inner.version, now_ms);
        drop(inner);
        self.notify();
        Ok(true)
    }

    /// All topics and the table's version, as a registration or an admin tool gets them, sorted by name.
    pub fn all(&self) -> (DataVersion, Vec<Arc<Topic>>) {
        let inner = self.inner.read();
        let mut topics: Vec<_> = inner.table.values().cloned().collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        (inner.version.clone(), topics)
    }

    /// Changes whenever the table does.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// What changed since the last call, as it is now.
    pub fn take_changes(&self) -> Vec<Change> {
        let mut inner = self.inner.write();
        let dirty = std::mem::take(&mut inner.dirty);
        dirty.into_iter().map(|name| inner.change(&name)).collect()
    }

    /// The metadata log didn't take this topic's change: take it up again.
    pub fn mark(&self, name: &str) {
        self.inner.write().dirty.insert(name.into());
    }

    /// Sets what the metadata log says.
    pub fn apply(&self, change: &Change) {
        let mut inner = self.inner.write();
        match change {
            Change::Topic(config) => {
                let incoming = inner.incoming(&config.topic_name);
                inner.insert(config.clone(), incoming)
            }
            Change::TopicDeleted(name) => inner.table.remove(name.as_str()),
            _ => return,
        };
        inner.version.counter += 1;
        drop(inner);
        self.notify();
    }

    /// A new mastership: name servers must take its table for newer than any of an older epoch.
    pub fn new_mastership(&self, epoch: u64, now_ms: i64) {
        let mut inner = self.inner.write();
        inner.version = next_version(&inner.version, now_ms);
        inner.version.state_version = epoch as i64;
        drop(inner);
        self.notify();
    }

    /// Replaces everything by what the confirmed metadata says, and the broker's own topics.
    pub fn reset(&self, tables: &Tables) {
        let mut inner = self.inner.write();
        let old = std::mem::replace(&mut *inner, Inner { version: tables.topics.version.clone(), ..Inner::default() });
        for config in tables.topics.entries.values().chain(&self.built_in) {
            let incoming = old.incoming(&config.topic_name);
            inner.insert(config.clone(), incoming);
        }
        drop(inner);
        self.notify();
    }

    fn notify(&self) {
        self.changed.send_modify(|count| *count += 1);
    }
}

impl Inner {
    fn insert(&mut self, config: TopicConfig, incoming: Arc<Incoming>) -> Option<Arc<Topic>> {
        let name: Arc<str> = config.topic_name.as_str().into();
        self.table.insert(name.clone(), Arc::new(Topic { name, config, incoming }))
    }

    /// What is counted goes on when a topic's settings change.
    fn incoming(&self, name: &str) -> Arc<Incoming> {
        self.table.get(name).map(|topic| Arc::clone(&topic.incoming)).unwrap_or_default()
    }

    fn put(&mut self, config: TopicConfig, now_ms: i64) -> Arc<Topic> {
        let name: Arc<str> = config.topic_name.as_str().into();
        let incoming = self.incoming(&name);
        let topic = Arc::new(Topic { name: name.clone(), config, incoming });
        self.table.insert(name.clone(), topic.clone());
        self.dirty.insert(name);
        self.version = next_version(&self.version, now_ms);
        topic
    }

    fn change(&self, name: &str) -> Change {
        match self.table.get(name) {
            Some(topic) => Change::Topic(topic.config.clone()),
            None => Change::TopicDeleted(name.to_owned()),
        }
    }
}

/// Readable and writable, with as many queues both ways.
fn new_topic(name: &str, queues: i32) -> TopicConfig {
    TopicConfig {
        topic_name: name.to_owned(),
        read_queue_nums: queues,
        write_queue_nums: queues,
        perm: perm::READ | perm::WRITE,
        ..TopicConfig::default()
    }
}

/// The topics that come from the broker's configuration; never logged, never in `topics.json`.
fn built_in(config: &ServicesConfig) -> Vec<TopicConfig> {
    let queues = config.default_topic_queues as i32;
    let read_write = |on: bool| if on { perm::READ | perm::WRITE } else { 0 };
    let mut topics = vec![
        new_topic("SELF_TEST_TOPIC", 1),
        new_topic("OFFSET_MOVED_EVENT", 1),
        new_topic("BenchmarkTest", 1024),
        new_topic(names::SCHEDULE_TOPIC, 18),
        TopicConfig { perm: perm::INHERIT | read_write(config.cluster_topic), ..new_topic(&config.cluster_name, 16) },
        TopicConfig { perm: perm::INHERIT | read_write(config.broker_topic), ..new_topic(&config.broker_name, 1) },
    ];
    if config.auto_create_topics {
        topics.push(TopicConfig {
            perm: perm::INHERIT | perm::READ | perm::WRITE,
            ..new_topic(names::AUTO_CREATE_KEY, queues)
        });
    }
    topics
}

/// Queue counts that no real broker has are a mistake, and an expensive one: each queue costs a folder.
const MAX_QUEUES: i32 = 65_536;

fn check_numbers(config: &TopicConfig) -> Result<(), Refusal> {
    let bad = |what: &str, value: i32| {
        let text = format!("topic {}: {what} {value} is out of range", config.topic_name);
        Err(Refusal::new(response::INVALID_PARAMETER, text))
    };
    for (what, value) in [("readQueueNums", config.read_queue_nums), ("writeQueueNums", config.write_queue_nums)] {
        if !(0..=MAX_QUEUES).contains(&value) {
            return bad(what, value);
        }
    }
    if (0..=7).contains(&config.perm) { Ok(()) } else { bad("perm", config.perm) }
}

fn check_not_system(name: &str) -> Result<(), Refusal> {
    if names::is_system_topic(name) {
        let text = format!("The topic[{name}] is conflict with system topic.");
        return Err(Refusal::new(response::INVALID_PARAMETER, text));
    }
    Ok(())
}

fn not_exist(name: &str) -> Refusal {
    Refusal::new(response::TOPIC_NOT_EXIST, format!("topic[{name}] not exist, apply first please!"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(name: &str) -> WantedTopic<'_> {
        WantedTopic { name, model: names::AUTO_CREATE_KEY, queues: 4, sys_flag: 0 }
    }

    #[test]
    fn a_send_creates_its_topic_once_with_the_clients_queues() {
        let topics = Topics::new(&ServicesConfig::default());
        let seen = topics.subscribe();
        let (topic, new) = topics.get_or_create(wanted("t"), 1).unwrap();
        assert!(new && topic.is_readable() && topic.is_writable());
        assert_eq!((topic.config.read_queue_nums, topic.config.perm), (4, 6));
        assert!(!topics.get_or_create(wanted("t"), 2).unwrap().1);
        assert!(seen.has_changed().unwrap(), "name servers are told");
        assert_eq!(topics.take_changes(), [Change::Topic(topic.config.clone())]);
    }

    #[test]
    fn the_model_bounds_the_queues_and_must_be_inheritable() {
        let topics = Topics::new(&ServicesConfig::default());
        let many = topics.get_or_create(WantedTopic { queues: 1000, ..wanted("many") }, 1).unwrap().0;
        assert_eq!(many.config.write_queue_nums, 8);
        let refused = topics.get_or_create(WantedTopic { model: "BenchmarkTest", ..wanted("x") }, 1).unwrap_err();
        assert_eq!(refused.code, response::TOPIC_NOT_EXIST);
    }

    #[test]
    fn without_automatic_topics_nothing_is_created() {
        let topics = Topics::new(&ServicesConfig { auto_create_topics: false, ..ServicesConfig::default() });
        assert_eq!(topics.get_or_create(wanted("t"), 1).unwrap_err().code, response::TOPIC_NOT_EXIST);
        assert!(topics.get_or_create_derived("%RETRY%g", 1, 1).unwrap().1);
    }

    #[test]
    fn system_topics_are_neither_altered_nor_deleted_by_clients() {
        let topics = Topics::new(&ServicesConfig::default());
        for name in [names::AUTO_CREATE_KEY, names::METADATA_TOPIC, names::SCHEDULE_TOPIC] {
            topics.put(new_topic(name, 4), 1).unwrap_err();
            topics.delete(name, 1).unwrap_err();
        }
        topics.put(new_topic("t", -1), 1).unwrap_err();
        topics.put(new_topic("t", 4), 1).unwrap();
        assert!(topics.delete("t", 2).unwrap() && !topics.delete("t", 3).unwrap());
        assert_eq!(topics.take_changes(), [Change::TopicDeleted("t".into())]);
    }

    #[test]
    fn each_change_makes_a_newer_version() {
        let topics = Topics::new(&ServicesConfig::default());
        let before = topics.all().0;
        topics.get_or_create(wanted("t"), 77).unwrap();
        let after = topics.all().0;
        assert_eq!((after.counter, after.timestamp), (before.counter + 1, 77));
    }
}
