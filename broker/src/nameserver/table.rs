//! All that a name server knows of brokers and topics. Time is an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use gantry_remoting::body::cluster::{BrokerMemberGroup, ClusterInfo, TopicList};
use gantry_remoting::body::route::{BrokerData, QueueData, TopicRouteData};
use gantry_remoting::body::topic_config::{DataVersion, TopicConfigs};
use gantry_remoting::headers::route::{RegisterBroker, UnregisterBroker};
use tracing::{info, warn};

use super::brokers::{Broker, MASTER_ID};
use super::refusal::Refusal;
use super::topics::Topics;

/// Bounds, far above what RocketMQ's name server is run with.
const MAX_BROKER_NAMES: usize = 10_000;
const MAX_TOPICS: usize = 1_000_000;

/// Brokers and topics.
///
/// Invariant: every broker name that a topic has queues at is in `brokers`, so that no route lacks its addresses.
#[derive(Debug)]
pub(super) struct Table {
    default_expiry: Duration,
    brokers: BTreeMap<String, Broker>,
    topics: Topics,
}

/// What a slave is told of its master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MasterOf {
    pub(super) addr: String,
    pub(super) ha_addr: String,
}

impl Table {
    pub(super) fn new(default_expiry: Duration) -> Self {
        Self { default_expiry, brokers: BTreeMap::new(), topics: Topics::default() }
    }

    /// Takes a broker's registration that came on this connection; refused, it changes nothing.
    pub(super) fn register(
        &mut self,
        header: &RegisterBroker<'_>,
        topics: &TopicConfigs,
        connection: u64,
        now: Instant,
    ) -> Result<Option<MasterOf>, Refusal> {
        let name = header.broker_name;
        self.check_registration(header, topics)?;
        let broker = self.brokers.entry(name.to_owned()).or_insert_with(|| Broker::new(header.cluster_name));
        header.cluster_name.clone_into(&mut broker.cluster);
        let registered = broker.register(header, &topics.data_version, connection, now, self.default_expiry);
        let read_only = broker.lacks_master_and_has_a_stand_in();
        let master = broker.master().filter(|_| header.broker_id != MASTER_ID);
        let master = master.map(|(addr, ha_addr)| MasterOf { addr: addr.to_owned(), ha_addr: ha_addr.to_owned() });
        if registered.first {
            info!(
                broker = name,
                id = header.broker_id,
                addr = header.broker_addr,
                epoch = header.gantry_epoch,
                replica = header.gantry_replica,
                topics = topics.topic_config_table.len(),
                "broker registered"
            );
        }
        if registered.topics_count {
            for topic in topics.topic_config_table.values() {
                // An unchanged table leaves a wiped permission wiped.
                if registered.first || registered.changed || !self.topics.has(&topic.topic_name, name) {
                    self.topics.set_from_config(name, topic, read_only);
                }
            }
        }
        Ok(master)
    }

    fn check_registration(&self, header: &RegisterBroker<'_>, topics: &TopicConfigs) -> Result<(), Refusal> {
        if header.broker_name.is_empty() || header.cluster_name.is_empty() || header.broker_addr.is_empty() {
            return Err(Refusal::Invalid("broker name, cluster name and address must not be empty".into()));
        }
        if header.broker_id < MASTER_ID {
            return Err(Refusal::Invalid(format!("broker id {} is negative", header.broker_id)));
        }
        if self.topics.len() + topics.topic_config_table.len() > MAX_TOPICS {
            return Err(Refusal::Full { what: "topics", limit: MAX_TOPICS });
        }
        match self.brokers.get(header.broker_name) {
            Some(broker) => broker.check(header, &topics.data_version, topics.topic_config_table.len()),
            None if self.brokers.len() >= MAX_BROKER_NAMES => {
                Err(Refusal::Full { what: "broker names", limit: MAX_BROKER_NAMES })
            }
            None => {
                let empty = Broker::new(header.cluster_name);
                empty.check(header, &topics.data_version, topics.topic_config_table.len())
            }
        }
    }

    /// A broker stops. One that isn't known is no error.
    pub(super) fn unregister(&mut self, header: &UnregisterBroker<'_>) -> Result<(), Refusal> {
        let Some(broker) = self.brokers.get_mut(header.broker_name) else { return Ok(()) };
        if broker.unregister(header.broker_name, header.broker_addr, header.gantry_epoch)? {
            info!(broker = header.broker_name, id = header.broker_id, addr = header.broker_addr, "broker unregistered");
        }
        self.clean_up(header.broker_name);
        Ok(())
    }

    /// A connection has ended, and with it what was registered on it.
    pub(super) fn connection_closed(&mut self, connection: u64) {
        self.remove("its connection closed", |broker| broker.connection_closed(connection));
    }

    /// Forgets who has been silent for too long.
    pub(super) fn expire(&mut self, now: Instant) {
        self.remove("it was silent for too long", |broker| broker.expire(now));
    }

    fn remove(&mut self, why: &str, mut remove: impl FnMut(&mut Broker) -> bool) {
        let brokers = self.brokers.iter_mut().filter_map(|(name, broker)| remove(broker).then(|| name.clone()));
        for name in brokers.collect::<Vec<_>>() {
            warn!(broker = name, left = ?self.brokers[&name].addrs(), "a broker is forgotten: {why}");
            self.clean_up(&name);
        }
    }

    /// Restores the invariants after members of a broker went.
    fn clean_up(&mut self, name: &str) {
        let Some(broker) = self.brokers.get(name) else { return };
        if broker.is_empty() {
            self.brokers.remove(name);
            self.topics.remove_broker(name);
        } else if broker.lacks_master_and_has_a_stand_in() {
            self.topics.wipe_write_perm(name);
        }
    }

    /// A sign of life.
    pub(super) fn heard(&mut self, broker_name: &str, addr: &str, now: Instant) {
        if let Some(broker) = self.brokers.get_mut(broker_name) {
            broker.heard(addr, now);
        }
    }

    /// The version of a broker's topics as they are known.
    pub(super) fn data_version(&self, broker_name: &str, addr: &str) -> Option<&DataVersion> {
        self.brokers.get(broker_name)?.data_version(addr)
    }

    /// Where a topic is.
    pub(super) fn route(&self, topic: &str) -> Result<TopicRouteData, Refusal> {
        let queues = self.topics.get(topic).ok_or_else(|| Refusal::TopicNotExist(topic.to_owned()))?;
        let broker_datas: Vec<_> =
            queues.keys().filter_map(|name| self.brokers.get(name).map(|broker| broker.data(name))).collect();
        assert_eq!(broker_datas.len(), queues.len(), "topic {topic} has queues at a broker that isn't known");
        Ok(TopicRouteData {
            queue_datas: queues.values().cloned().collect(),
            broker_datas,
            ..TopicRouteData::default()
        })
    }

    /// The same for a client outside: of queues at brokers that it can't reach nothing is said, or it would send there.
    pub(super) fn route_outside(&self, topic: &str) -> Result<TopicRouteData, Refusal> {
        let mut route = self.route(topic)?;
        let outside = |data: &BrokerData| self.brokers.get(&data.broker_name)?.data_outside(&data.broker_name);
        route.broker_datas = route.broker_datas.iter().filter_map(outside).collect();
        let brokers = &route.broker_datas;
        route.queue_datas.retain(|queues| brokers.iter().any(|broker| broker.broker_name == queues.broker_name));
        if route.broker_datas.is_empty() { Err(Refusal::NotOutside(topic.to_owned())) } else { Ok(route) }
    }

    /// Clusters and brokers as a client outside reaches them.
    pub(super) fn cluster_info_outside(&self) -> ClusterInfo {
        let mut info = ClusterInfo::default();
        for (name, broker) in &self.brokers {
            let Some(data) = broker.data_outside(name) else { continue };
            info.broker_addr_table.insert(name.clone(), data);
            info.cluster_addr_table.entry(broker.cluster.clone()).or_default().insert(name.clone());
        }
        info
    }

    pub(super) fn cluster_info(&self) -> ClusterInfo {
        let mut info = ClusterInfo::default();
        for (name, broker) in &self.brokers {
            info.broker_addr_table.insert(name.clone(), broker.data(name));
            info.cluster_addr_table.entry(broker.cluster.clone()).or_default().insert(name.clone());
        }
        info
    }

    pub(super) fn member_group(&self, cluster: &str, broker_name: &str) -> BrokerMemberGroup {
        BrokerMemberGroup {
            cluster: cluster.to_owned(),
            broker_name: broker_name.to_owned(),
            broker_addrs: self.brokers.get(broker_name).map(Broker::addrs).unwrap_or_default(),
        }
    }

    pub(super) fn all_topics(&self) -> TopicList {
        TopicList { topic_list: self.topics.names().cloned().collect(), broker_addr: None }
    }

    pub(super) fn topics_of_cluster(&self, cluster: &str) -> TopicList {
        TopicList {
            topic_list: self.topics.names_at(|name| self.is_in(name, cluster)).cloned().collect(),
            broker_addr: None,
        }
    }

    /// RocketMQ's system topics are named after clusters and brokers; with any broker's address to ask for the others.
    pub(super) fn system_topics(&self) -> TopicList {
        let clusters = self.brokers.values().map(|broker| broker.cluster.clone());
        let topic_list: BTreeSet<_> = clusters.chain(self.brokers.keys().cloned()).collect();
        let broker_addr = self.brokers.values().find_map(|broker| broker.addrs().into_values().next());
        TopicList { topic_list, broker_addr }
    }

    pub(super) fn wipe_write_perm(&mut self, broker_name: &str) -> usize {
        self.topics.wipe_write_perm(broker_name)
    }

    pub(super) fn add_write_perm(&mut self, broker_name: &str) -> usize {
        self.topics.add_write_perm(broker_name)
    }

    /// Forgets a topic, at one cluster's brokers or at all.
    pub(super) fn delete_topic(&mut self, topic: &str, cluster: Option<&str>) {
        let brokers = &self.brokers;
        let in_cluster = |name: &str| brokers.get(name).map(|broker| broker.cluster.as_str()) == cluster;
        self.topics.remove(topic, |name| cluster.is_none() || in_cluster(name));
    }

    /// Takes a topic's queues at brokers that are known; none of them if one isn't.
    pub(super) fn register_topic(&mut self, topic: &str, queues: Vec<QueueData>) -> Result<(), Refusal> {
        if topic.is_empty() {
            return Err(Refusal::Invalid("the topic's name is empty".into()));
        }
        if self.topics.len() >= MAX_TOPICS {
            return Err(Refusal::Full { what: "topics", limit: MAX_TOPICS });
        }
        if let Some(stray) = queues.iter().find(|queues| !self.brokers.contains_key(&queues.broker_name)) {
            return Err(Refusal::Invalid(format!("topic {topic}: broker {} is not registered", stray.broker_name)));
        }
        for queues in queues {
            self.topics.set(topic, queues);
        }
        Ok(())
    }

    fn is_in(&self, broker_name: &str, cluster: &str) -> bool {
        self.brokers.get(broker_name).is_some_and(|broker| broker.cluster == cluster)
    }
}
