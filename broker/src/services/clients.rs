//! Who is connected: the producers and consumers of each group, by connection, as their heartbeats say.
//!
//! `P` is how a member is reached (`Arc<Connection>`); this table only hands it out again to whoever must tell the
//! members of a group that their number changed.

use super::failure::Refusal;
use super::filter::TagFilter;
use gantry_remoting::Language;
use gantry_remoting::body::heartbeat::{ConsumerData, HeartbeatData, MessageModel, SubscriptionData};
use gantry_remoting::code::response;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Who sends a heartbeat.
#[derive(Debug, Clone)]
pub struct Client<P> {
    /// id of its connection
    pub connection: u64,
    /// how to reach it
    pub peer: P,
    /// its name for itself, such as `10.0.0.7@4711`
    pub id: String,
    /// its library's language
    pub language: Language,
    /// its library's version (MQVersion ordinal)
    pub version: i32,
}

/// All groups with connected members.
pub struct Clients<P> {
    inner: Mutex<Inner<P>>,
}

struct Inner<P> {
    consumers: HashMap<String, ConsumerGroup<P>>,
    producers: HashMap<String, HashMap<u64, Member<P>>>,
    /// The groups of each connection, so that its end is cheap
    by_connection: HashMap<u64, HashSet<GroupName>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum GroupName {
    Consumers(String),
    Producers(String),
}

/// A member of a group.
#[derive(Debug, Clone)]
pub struct Member<P> {
    /// Who
    pub client: Client<P>,
    /// Last heartbeat, ms since 1970
    pub seen_ms: u64,
}

struct ConsumerGroup<P> {
    members: HashMap<u64, Member<P>>,
    /// How the group consumes, as the last heartbeat said
    settings: ConsumerData,
    subscriptions: BTreeMap<String, Subscription>,
}

struct Subscription {
    data: SubscriptionData,
    filter: Result<TagFilter, Refusal>,
}

/// A consumer group as admin tools see it.
pub struct GroupView<P> {
    /// Its members, by client id
    pub members: Vec<Member<P>>,
    /// Type, model, and where it starts
    pub settings: ConsumerData,
    /// What it subscribes to, by topic
    pub subscriptions: Vec<SubscriptionData>,
}

/// How many clients are connected: a client that is in two groups is counted in both.
#[derive(Debug, Default)]
pub struct Census {
    /// By language and version
    pub producers: BTreeMap<(&'static str, i32), usize>,
    /// By group, language and version
    pub consumers: BTreeMap<(String, &'static str, i32), usize>,
}

/// A group whose members must be told that they are others now.
#[derive(Debug, PartialEq, Eq)]
pub struct Changed<P> {
    /// its name
    pub group: String,
    /// its members
    pub members: Vec<P>,
}

impl<P: Clone> Default for Clients<P> {
    fn default() -> Self {
        let inner = Inner { consumers: HashMap::new(), producers: HashMap::new(), by_connection: HashMap::new() };
        Self { inner: Mutex::new(inner) }
    }
}

impl<P: Clone> Clients<P> {
    /// Takes a heartbeat in. Returns the consumer groups it changed.
    pub fn heartbeat(&self, client: &Client<P>, data: HeartbeatData, now_ms: u64) -> Vec<Changed<P>> {
        let mut inner = self.inner.lock();
        let mut changed = Vec::new();
        for producer in data.producer_data_set {
            inner.produce(client, producer.group_name, now_ms);
        }
        for consumer in data.consumer_data_set {
            changed.extend(inner.consume(client, consumer, now_ms));
        }
        changed
    }

    /// A client leaves a group of producers, of consumers, or both.
    pub fn unregister(&self, connection: u64, producers: Option<&str>, consumers: Option<&str>) -> Vec<Changed<P>> {
        let mut inner = self.inner.lock();
        let producers = producers.map(|group| GroupName::Producers(group.to_owned()));
        let consumers = consumers.map(|group| GroupName::Consumers(group.to_owned()));
        producers.into_iter().chain(consumers).filter_map(|group| inner.leave(connection, &group)).collect()
    }

    /// A connection has ended.
    pub fn disconnected(&self, connection: u64) -> Vec<Changed<P>> {
        let mut inner = self.inner.lock();
        let groups = inner.by_connection.get(&connection).cloned().unwrap_or_default();
        groups.iter().filter_map(|group| inner.leave(connection, group)).collect()
    }

    /// Forgets members that sent no heartbeat for `silence_ms`.
    pub fn expire(&self, now_ms: u64, silence_ms: u64) -> Vec<Changed<P>> {
        let mut inner = self.inner.lock();
        let silent = |member: &Member<P>| now_ms.saturating_sub(member.seen_ms) > silence_ms;
        let mut gone = Vec::new();
        for (name, group) in &inner.consumers {
            let silent = group.members.iter().filter(|(_, member)| silent(member));
            gone.extend(silent.map(|(id, _)| (*id, GroupName::Consumers(name.clone()))));
        }
        for (name, members) in &inner.producers {
            let silent = members.iter().filter(|(_, member)| silent(member));
            gone.extend(silent.map(|(id, _)| (*id, GroupName::Producers(name.clone()))));
        }
        gone.into_iter().filter_map(|(connection, group)| inner.leave(connection, &group)).collect()
    }

    /// Client ids of a group's consumers, sorted, each once; empty if there is nobody.
    pub fn consumer_ids(&self, group: &str) -> Vec<String> {
        let inner = self.inner.lock();
        let members = inner.consumers.get(group).map(|group| group.members.values());
        let mut ids: Vec<_> = members.into_iter().flatten().map(|member| member.client.id.clone()).collect();
        ids.sort();
        ids.dedup();
        ids
    }

    /// The filter a group's heartbeats give for a topic, at least of version `version`.
    pub(super) fn filter(
        &self,
        group: &str,
        topic: &str,
        version: i64,
        broadcast_allowed: bool,
    ) -> Result<TagFilter, Refusal> {
        let refuse = |code, text: &str| Err(Refusal::new(code, format!("{text}, group {group}, topic {topic}")));
        let inner = self.inner.lock();
        let Some(consumers) = inner.consumers.get(group) else {
            return refuse(response::SUBSCRIPTION_NOT_EXIST, "the consumer's group info not exist");
        };
        if !broadcast_allowed && consumers.is_broadcast() {
            return refuse(response::NO_PERMISSION, "the consumer group can not consume by broadcast way");
        }
        let Some(subscription) = consumers.subscriptions.get(topic) else {
            return refuse(response::SUBSCRIPTION_NOT_EXIST, "the consumer's subscription not exist");
        };
        if subscription.data.sub_version < version {
            return refuse(response::SUBSCRIPTION_NOT_LATEST, "the consumer's subscription not latest");
        }
        subscription.filter.clone()
    }

    /// All about a consumer group, if anybody is connected.
    pub fn consumers(&self, group: &str) -> Option<GroupView<P>> {
        let inner = self.inner.lock();
        let group = inner.consumers.get(group)?;
        let mut members: Vec<_> = group.members.values().cloned().collect();
        members.sort_by(|a, b| a.client.id.cmp(&b.client.id));
        let subscriptions = group.subscriptions.values().map(|subscription| subscription.data.clone()).collect();
        Some(GroupView { members, settings: group.settings.clone(), subscriptions })
    }

    /// How many are connected.
    pub fn census(&self) -> Census {
        let mut census = Census::default();
        let inner = self.inner.lock();
        for member in inner.producers.values().flat_map(HashMap::values) {
            *census.producers.entry((member.client.language.name(), member.client.version)).or_default() += 1;
        }
        for (group, consumers) in &inner.consumers {
            for member in consumers.members.values() {
                let key = (group.clone(), member.client.language.name(), member.client.version);
                *census.consumers.entry(key).or_default() += 1;
            }
        }
        census
    }

    /// The members of a producer group, by client id.
    pub fn producers(&self, group: &str) -> Vec<Member<P>> {
        let inner = self.inner.lock();
        let members = inner.producers.get(group).map(HashMap::values);
        let mut members: Vec<_> = members.into_iter().flatten().cloned().collect();
        members.sort_by(|a, b| a.client.id.cmp(&b.client.id));
        members
    }
}

impl<P: Clone> Inner<P> {
    fn produce(&mut self, client: &Client<P>, group: String, now_ms: u64) {
        let member = Member { client: client.clone(), seen_ms: now_ms };
        self.by_connection.entry(client.connection).or_default().insert(GroupName::Producers(group.clone()));
        self.producers.entry(group).or_default().insert(client.connection, member);
    }

    fn consume(&mut self, client: &Client<P>, data: ConsumerData, now_ms: u64) -> Option<Changed<P>> {
        let name = data.group_name.clone();
        self.by_connection.entry(client.connection).or_default().insert(GroupName::Consumers(name.clone()));
        let group = self.consumers.entry(name.clone()).or_insert_with(|| ConsumerGroup {
            members: HashMap::new(),
            settings: data.clone(),
            subscriptions: BTreeMap::new(),
        });
        let member = Member { client: client.clone(), seen_ms: now_ms };
        let joined = group.members.insert(client.connection, member).is_none();
        let resubscribed = group.subscribe(&data.subscription_data_set);
        group.settings = ConsumerData { subscription_data_set: Vec::new(), ..data };
        (joined || resubscribed).then(|| group.changed(name)).flatten()
    }

    fn leave(&mut self, connection: u64, group: &GroupName) -> Option<Changed<P>> {
        if let Some(groups) = self.by_connection.get_mut(&connection) {
            groups.remove(group);
            if groups.is_empty() {
                self.by_connection.remove(&connection);
            }
        }
        match group {
            GroupName::Producers(name) => {
                let members = self.producers.get_mut(name)?;
                members.remove(&connection);
                if members.is_empty() {
                    self.producers.remove(name);
                }
                None
            }
            GroupName::Consumers(name) => {
                let group = self.consumers.get_mut(name)?;
                group.members.remove(&connection)?;
                if group.members.is_empty() {
                    self.consumers.remove(name);
                    return None;
                }
                group.changed(name.clone())
            }
        }
    }
}

impl<P: Clone> ConsumerGroup<P> {
    /// Takes over what the last heartbeat subscribes to. Did a topic come or go? A newer expression for a topic that is
    /// there counts for nothing, as in RocketMQ: the queues are shared out as before.
    fn subscribe(&mut self, wanted: &[SubscriptionData]) -> bool {
        let before = self.subscriptions.len();
        self.subscriptions.retain(|topic, _| wanted.iter().any(|new| new.topic == *topic));
        let mut changed = self.subscriptions.len() != before;
        for new in wanted {
            match self.subscriptions.get(&new.topic) {
                Some(old) if old.data.sub_version >= new.sub_version => {}
                old => {
                    changed |= old.is_none();
                    self.subscriptions.insert(new.topic.clone(), Subscription::of(new));
                }
            }
        }
        changed
    }

    fn is_broadcast(&self) -> bool {
        self.settings.message_model == MessageModel::Broadcasting
    }

    /// Members of a broadcasting group share nothing, so nobody needs to know.
    fn changed(&self, group: String) -> Option<Changed<P>> {
        let members = || self.members.values().map(|member| member.client.peer.clone()).collect();
        (!self.is_broadcast()).then(|| Changed { group, members: members() })
    }
}

impl Subscription {
    fn of(data: &SubscriptionData) -> Self {
        let filter = TagFilter::parse(&data.sub_string, Some(&data.expression_type));
        Self { data: data.clone(), filter }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_remoting::body::parse;

    fn client(connection: u64, peer: &'static str) -> Client<&'static str> {
        Client { connection, peer, id: peer.to_owned(), language: Language::Java, version: 513 }
    }

    fn heartbeat(model: &str, topic: &str, version: i64) -> HeartbeatData {
        let json = format!(
            r#"{{"clientID":"c","producerDataSet":[{{"groupName":"pg"}}],"consumerDataSet":[{{"groupName":"g",
            "messageModel":"{model}","subscriptionDataSet":[{{"topic":"{topic}","subString":"*","subVersion":{version}}}]}}]}}"#
        );
        parse(json.as_bytes()).unwrap()
    }

    #[test]
    fn a_silent_client_is_forgotten_and_the_others_are_told() {
        let clients = Clients::default();
        clients.heartbeat(&client(1, "old"), heartbeat("CLUSTERING", "t", 1), 0);
        clients.heartbeat(&client(2, "new"), heartbeat("CLUSTERING", "t", 1), 100_000);
        assert!(clients.expire(120_000, 120_000).is_empty(), "not longer than that");
        let changed = clients.expire(120_001, 120_000);
        assert_eq!(changed, [Changed { group: "g".into(), members: vec!["new"] }]);
        assert_eq!(clients.consumer_ids("g"), ["new"]);
        assert_eq!(clients.producers("pg").len(), 1);
        clients.expire(900_000, 120_000);
        let inner = clients.inner.lock();
        assert!(inner.consumers.is_empty() && inner.producers.is_empty() && inner.by_connection.is_empty());
    }

    #[test]
    fn another_topic_is_news_and_a_newer_expression_is_not() {
        let clients = Clients::default();
        assert_eq!(clients.heartbeat(&client(1, "a"), heartbeat("CLUSTERING", "t", 1), 0).len(), 1);
        assert!(clients.heartbeat(&client(1, "a"), heartbeat("CLUSTERING", "t", 2), 1).is_empty());
        clients.filter("g", "t", 2, true).unwrap();
        assert_eq!(clients.heartbeat(&client(1, "a"), heartbeat("CLUSTERING", "u", 3), 2).len(), 1);
        assert_eq!(clients.filter("g", "t", 1, true).unwrap_err().code, response::SUBSCRIPTION_NOT_EXIST);
    }

    #[test]
    fn broadcasting_members_share_nothing_and_hear_nothing() {
        let clients = Clients::default();
        assert!(clients.heartbeat(&client(1, "a"), heartbeat("BROADCASTING", "t", 1), 0).is_empty());
        assert_eq!(clients.filter("g", "t", 1, false).unwrap_err().code, response::NO_PERMISSION);
        assert!(clients.disconnected(1).is_empty() && clients.consumer_ids("g").is_empty());
    }
}
