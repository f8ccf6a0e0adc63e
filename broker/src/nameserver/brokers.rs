//! One broker name: a master and its slaves.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use gantry_remoting::body::route::BrokerData;
use gantry_remoting::body::topic_config::DataVersion;
use gantry_remoting::headers::route::RegisterBroker;

use super::refusal::{Epoch, Refusal};

/// RocketMQ's id of a master.
pub(super) const MASTER_ID: i64 = 0;

/// A master and its slaves. Invariant: never without members, and no two members have the same address or replica name.
#[derive(Debug, Clone)]
pub(super) struct Broker {
    pub(super) cluster: String,
    enable_acting_master: bool,
    zone_name: Option<String>,
    /// The highest epoch of a master that registered. Forgotten with the last member.
    epoch: Option<i64>,
    members: BTreeMap<i64, Member>,
}

/// One registered process.
#[derive(Debug, Clone)]
struct Member {
    addr: String,
    ha_addr: String,
    /// `gantryReplica`.
    replica: Option<String>,
    /// `gantryExternalMaster`.
    external: Option<String>,
    /// A master at an address that outlives it: its entry doesn't end with its connection.
    stable: bool,
    /// The connection that it last registered on.
    connection: u64,
    last_heard: Instant,
    expiry: Duration,
    data_version: DataVersion,
}

/// What a registration changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Registered {
    /// The id had no entry before.
    pub(super) first: bool,
    /// The data version is not the one that was known for the address.
    pub(super) changed: bool,
    /// The topics in the registration count: it is the master's, or the first slave's where there is no master.
    pub(super) topics_count: bool,
}

impl Broker {
    /// A broker that its first registration is about to fill.
    pub(super) fn new(cluster: &str) -> Self {
        Self {
            cluster: cluster.to_owned(),
            enable_acting_master: false,
            zone_name: None,
            epoch: None,
            members: BTreeMap::new(),
        }
    }

    /// Whether `header` may register; changes nothing.
    pub(super) fn check(
        &self,
        header: &RegisterBroker<'_>,
        version: &DataVersion,
        topics: usize,
    ) -> Result<(), Refusal> {
        let (broker_name, addr) = (header.broker_name.to_owned(), header.broker_addr.to_owned());
        if header.broker_id == MASTER_ID {
            self.check_epoch(header.gantry_epoch, header.broker_name, header.broker_addr)?;
        }
        let registered = self.members.get(&header.broker_id);
        if let Some(other) = registered.filter(|member| member.addr != header.broker_addr)
            && other.data_version.state_version > version.state_version
        {
            return Err(Refusal::OldState {
                broker_name,
                id: header.broker_id,
                registered: other.addr.clone(),
                addr,
                known: other.data_version.state_version,
                given: version.state_version,
            });
        }
        // After a restart of the name server, one changed topic must not stand for the whole table: its version would
        // make the broker believe that everything is known. Gantry's brokers always send the whole.
        if registered.is_none() && topics == 1 && header.gantry_replica.is_none() {
            return Err(Refusal::NotYetWhole { broker_name, addr });
        }
        Ok(())
    }

    /// An epoch below the known one is over; a master without one is below all.
    pub(super) fn check_epoch(&self, given: Option<i64>, broker_name: &str, addr: &str) -> Result<(), Refusal> {
        match self.epoch {
            Some(known) if given.is_none_or(|given| given < known) => Err(Refusal::OldEpoch {
                broker_name: broker_name.to_owned(),
                addr: addr.to_owned(),
                given: Epoch(given),
                known,
            }),
            _ => Ok(()),
        }
    }

    /// Takes a checked registration.
    pub(super) fn register(
        &mut self,
        header: &RegisterBroker<'_>,
        version: &DataVersion,
        connection: u64,
        now: Instant,
        default_expiry: Duration,
    ) -> Registered {
        let id = header.broker_id;
        self.enable_acting_master = header.enable_acting_master.unwrap_or(false);
        self.zone_name = header.zone_name.map(str::to_owned);
        if id == MASTER_ID {
            self.epoch = self.epoch.max(header.gantry_epoch);
        }
        // One process, one entry: a slave that became master leaves its old id.
        self.members.retain(|other, member| {
            *other == id
                || member.addr != header.broker_addr
                    && (member.replica.is_none() || member.replica.as_deref() != header.gantry_replica)
        });
        let member = Member {
            addr: header.broker_addr.to_owned(),
            ha_addr: header.ha_server_addr.to_owned(),
            replica: header.gantry_replica.map(str::to_owned),
            external: header.gantry_external_master.filter(|_| id == MASTER_ID).map(str::to_owned),
            stable: id == MASTER_ID && header.gantry_epoch.is_some(),
            connection,
            last_heard: now,
            expiry: expiry(header.heartbeat_timeout_ms, default_expiry),
            data_version: version.clone(),
        };
        let before = self.members.insert(id, member);
        let known = before.as_ref().filter(|before| before.addr == header.broker_addr);
        let prime_slave = header.enable_acting_master.is_some() && self.members.keys().next() == Some(&id);
        Registered {
            first: before.is_none(),
            changed: known.is_none_or(|before| before.data_version != *version),
            topics_count: id == MASTER_ID || prime_slave,
        }
    }

    /// Removes who has this address, unless it is a master whose epoch is above the one given.
    pub(super) fn unregister(&mut self, broker_name: &str, addr: &str, epoch: Option<i64>) -> Result<bool, Refusal> {
        if self.members.values().any(|member| member.stable && member.addr == addr) {
            self.check_epoch(epoch, broker_name, addr)?;
        }
        Ok(self.remove_where(|member| member.addr == addr))
    }

    /// Removes who registered on this connection; who has a stable address stays until it expires.
    pub(super) fn connection_closed(&mut self, connection: u64) -> bool {
        self.remove_where(|member| member.connection == connection && !member.stable)
    }

    /// Removes who has been silent for too long.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        self.remove_where(|member| now.saturating_duration_since(member.last_heard) >= member.expiry)
    }

    fn remove_where(&mut self, gone: impl Fn(&Member) -> bool) -> bool {
        let before = self.members.len();
        self.members.retain(|_, member| !gone(member));
        self.members.len() != before
    }

    /// A sign of life of who has this address.
    pub(super) fn heard(&mut self, addr: &str, now: Instant) {
        if let Some(member) = self.members.values_mut().find(|member| member.addr == addr) {
            member.last_heard = now;
        }
    }

    /// The version of the topics of who has this address.
    pub(super) fn data_version(&self, addr: &str) -> Option<&DataVersion> {
        self.members.values().find(|member| member.addr == addr).map(|member| &member.data_version)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The master's address and its HA address.
    pub(super) fn master(&self) -> Option<(&str, &str)> {
        self.members.get(&MASTER_ID).map(|master| (master.addr.as_str(), master.ha_addr.as_str()))
    }

    /// Whether a slave stands in for the lost master, so that its topics may only be read (RIP-32).
    pub(super) fn lacks_master_and_has_a_stand_in(&self) -> bool {
        self.enable_acting_master && self.master().is_none()
    }

    pub(super) fn addrs(&self) -> BTreeMap<i64, String> {
        self.members.iter().map(|(id, member)| (*id, member.addr.clone())).collect()
    }

    /// As clients in the cluster see it.
    pub(super) fn data(&self, broker_name: &str) -> BrokerData {
        self.data_with(broker_name, self.addrs())
    }

    /// As clients outside see it: the master alone, where it has an address for them. The slaves' lead nowhere from there.
    pub(super) fn data_outside(&self, broker_name: &str) -> Option<BrokerData> {
        let external = self.members.get(&MASTER_ID)?.external.clone()?;
        Some(self.data_with(broker_name, BTreeMap::from([(MASTER_ID, external)])))
    }

    fn data_with(&self, broker_name: &str, broker_addrs: BTreeMap<i64, String>) -> BrokerData {
        BrokerData {
            cluster: self.cluster.clone(),
            broker_name: broker_name.to_owned(),
            broker_addrs,
            enable_acting_master: self.enable_acting_master,
            zone_name: self.zone_name.clone(),
        }
    }
}

/// What the broker asks for, in milliseconds, if it is a time at all.
fn expiry(asked_ms: Option<i64>, default: Duration) -> Duration {
    asked_ms.and_then(|ms| u64::try_from(ms).ok()).filter(|ms| *ms > 0).map_or(default, Duration::from_millis)
}
