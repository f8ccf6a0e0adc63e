//! Subscription groups: what a consumer group may do, and how often its messages are retried.

use super::failure::Refusal;
use super::names;
use super::tables::{Change, Tables};
use gantry_remoting::body::topic_config::DataVersion;
use gantry_remoting::code::response;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A group's settings, in RocketMQ's JSON shape (`SubscriptionGroupConfig`). What Gantry doesn't know is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(clippy::struct_excessive_bools, reason = "RocketMQ's own shape")]
pub struct GroupConfig {
    /// name
    pub group_name: String,
    /// may it pull
    pub consume_enable: bool,
    /// may it start at a queue's oldest message
    pub consume_from_min_enable: bool,
    /// may its members each get everything
    pub consume_broadcast_enable: bool,
    /// does it consume in order
    pub consume_message_orderly: bool,
    /// queues of `%RETRY%group`; 0 switches retries off
    pub retry_queue_nums: i32,
    /// consumptions after which a message goes to `%DLQ%group`
    pub retry_max_times: i32,
    /// whom it reads from: 0 the master
    pub broker_id: i64,
    /// whom it reads from when it lags far behind
    pub which_broker_when_consume_slowly: i64,
    /// are members told when others come and go
    pub notify_consumer_ids_changed_enable: bool,
    /// RocketMQ's flags
    pub group_sys_flag: i32,
    /// minutes after which a push consumer gives a message back
    pub consume_timeout_minute: i32,
    /// Settings that only other versions know
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            group_name: String::new(),
            consume_enable: true,
            consume_from_min_enable: true,
            consume_broadcast_enable: true,
            consume_message_orderly: false,
            retry_queue_nums: 1,
            retry_max_times: 16,
            broker_id: 0,
            which_broker_when_consume_slowly: 1,
            notify_consumer_ids_changed_enable: true,
            group_sys_flag: 0,
            consume_timeout_minute: 15,
            others: Map::new(),
        }
    }
}

/// Groups that exist on every broker, for its tools.
const BUILT_IN: [&str; 2] = ["TOOLS_CONSUMER", "SELF_TEST_C_GROUP"];
/// RocketMQ's own consumers, created also where groups aren't created by themselves.
const SYSTEM_PREFIX: &str = "CID_RMQ_SYS_";

/// All groups this broker knows.
pub struct Groups {
    auto_create: AtomicBool,
    inner: RwLock<Inner>,
}

#[derive(Default)]
struct Inner {
    table: HashMap<Arc<str>, Arc<GroupConfig>>,
    version: DataVersion,
    /// Names whose present state the metadata log doesn't have yet
    dirty: BTreeSet<Arc<str>>,
}

impl Groups {
    /// A table that makes unknown groups by itself if `auto_create`.
    pub fn new(auto_create: bool) -> Self {
        Self { auto_create: auto_create.into(), inner: RwLock::default() }
    }

    /// Whether unknown groups are made from now on.
    pub fn set_auto_create(&self, auto_create: bool) {
        self.auto_create.store(auto_create, Ordering::Relaxed);
    }

    /// Whether unknown groups are made.
    pub fn auto_creates(&self) -> bool {
        self.auto_create.load(Ordering::Relaxed)
    }

    /// The group's settings.
    pub fn get(&self, group: &str) -> Option<Arc<GroupConfig>> {
        self.inner.read().table.get(group).cloned()
    }

    /// The group's settings; an unknown group is created if that's allowed. The flag says whether it was.
    pub fn get_or_create(&self, group: &str, now_ms: i64) -> Result<(Arc<GroupConfig>, bool), Refusal> {
        if let Some(config) = self.get(group) {
            return Ok((config, false));
        }
        names::check_group(group)?;
        if !(self.auto_creates() || group.starts_with(SYSTEM_PREFIX) || BUILT_IN.contains(&group)) {
            return Err(Refusal::new(
                response::SUBSCRIPTION_GROUP_NOT_EXIST,
                format!("subscription group [{group}] does not exist; create it, or set autoCreateSubscriptionGroup"),
            ));
        }
        let mut inner = self.inner.write();
        if let Some(config) = inner.table.get(group) {
            return Ok((config.clone(), false));
        }
        let config = GroupConfig { group_name: group.to_owned(), ..GroupConfig::default() };
        Ok((inner.put(config, now_ms), true))
    }

    /// Creates or replaces a group.
    pub fn put(&self, config: GroupConfig, now_ms: i64) -> Result<(), Refusal> {
        names::check_group(&config.group_name)?;
        self.inner.write().put(config, now_ms);
        Ok(())
    }

    /// Deletes a group. Was there one?
    pub fn delete(&self, group: &str, now_ms: i64) -> bool {
        let mut inner = self.inner.write();
        let Some((name, _)) = inner.table.remove_entry(group) else { return false };
        inner.dirty.insert(name);
        inner.version = next_version(&inner.version, now_ms);
        true
    }

    /// All groups and the table's version, sorted by name.
    pub fn all(&self) -> (DataVersion, Vec<Arc<GroupConfig>>) {
        let inner = self.inner.read();
        let mut groups: Vec<_> = inner.table.values().cloned().collect();
        groups.sort_by(|a, b| a.group_name.cmp(&b.group_name));
        (inner.version.clone(), groups)
    }

    /// What changed since the last call, as it is now.
    pub fn take_changes(&self) -> Vec<Change> {
        let mut inner = self.inner.write();
        let dirty = std::mem::take(&mut inner.dirty);
        dirty.into_iter().map(|name| inner.change(&name)).collect()
    }

    /// The metadata log didn't take this group's change: take it up again.
    pub fn mark(&self, group: &str) {
        self.inner.write().dirty.insert(group.into());
    }

    /// Sets what the metadata log says.
    pub fn apply(&self, change: &Change) {
        let mut inner = self.inner.write();
        match change {
            Change::Group(config) => {
                inner.table.insert(config.group_name.as_str().into(), Arc::new(config.clone()));
            }
            Change::GroupDeleted(name) => {
                inner.table.remove(name.as_str());
            }
            _ => return,
        }
        inner.version.counter += 1;
    }

    /// Replaces everything by what the confirmed metadata says.
    pub fn reset(&self, tables: &Tables) {
        let table = tables.groups.entries.iter().map(|(name, config)| (name.as_str().into(), Arc::new(config.clone())));
        *self.inner.write() =
            Inner { table: table.collect(), version: tables.groups.version.clone(), dirty: BTreeSet::new() };
    }
}

impl Inner {
    fn put(&mut self, config: GroupConfig, now_ms: i64) -> Arc<GroupConfig> {
        let name: Arc<str> = config.group_name.as_str().into();
        let config = Arc::new(config);
        self.table.insert(name.clone(), config.clone());
        self.dirty.insert(name);
        self.version = next_version(&self.version, now_ms);
        config
    }

    fn change(&self, name: &str) -> Change {
        match self.table.get(name) {
            Some(config) => Change::Group(GroupConfig::clone(config)),
            None => Change::GroupDeleted(name.to_owned()),
        }
    }
}

/// A table's version after one more change.
pub fn next_version(version: &DataVersion, now_ms: i64) -> DataVersion {
    DataVersion { timestamp: now_ms, counter: version.counter + 1, ..version.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_group_is_made_with_rocketmqs_defaults() {
        let groups = Groups::new(true);
        let (config, created) = groups.get_or_create("g", 1).unwrap();
        assert!(created && config.consume_enable);
        assert_eq!((config.retry_queue_nums, config.retry_max_times), (1, 16));
        assert!(!groups.get_or_create("g", 2).unwrap().1);
        assert!(matches!(groups.take_changes().as_slice(), [Change::Group(config)] if config.group_name == "g"));
        assert!(groups.take_changes().is_empty());
    }

    #[test]
    fn without_automatic_groups_only_the_brokers_own_are_made() {
        let groups = Groups::new(false);
        assert_eq!(groups.get_or_create("g", 1).unwrap_err().code, response::SUBSCRIPTION_GROUP_NOT_EXIST);
        groups.get_or_create("TOOLS_CONSUMER", 1).unwrap();
        groups.get_or_create("CID_RMQ_SYS_TRANS", 1).unwrap();
    }

    #[test]
    fn settings_of_other_versions_survive() {
        let json = r#"{"groupName":"g","retryMaxTimes":3,"groupRetryPolicy":{"type":"CUSTOMIZED"}}"#;
        let config: GroupConfig = serde_json::from_str(json).unwrap();
        assert_eq!((config.retry_max_times, config.consume_enable), (3, true));
        let back: Value = serde_json::to_value(&config).unwrap();
        assert_eq!(back["groupRetryPolicy"]["type"], "CUSTOMIZED");
    }

    #[test]
    fn a_deletion_reaches_the_log_as_a_deletion() {
        let groups = Groups::new(true);
        groups.get_or_create("g", 1).unwrap();
        assert!(groups.delete("g", 2) && !groups.delete("g", 3));
        assert_eq!(groups.take_changes(), [Change::GroupDeleted("g".into())]);
    }
}
