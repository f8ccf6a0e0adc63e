//! Carries out what the elector says about a group: its stable address leads to its master, and people hear of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use gantry_replication::GroupRecord;
use gantry_replication::elector::Notice;

use super::forwarder::Forwarder;
use super::screen::Lines;
use crate::elector::Listener;

/// The stable addresses of all groups.
#[derive(Debug)]
pub(super) struct Board {
    groups: BTreeMap<String, Entry>,
    nameserver: SocketAddr,
    lines: Lines,
}

#[derive(Debug)]
struct Entry {
    forwarder: Forwarder,
    /// Whether it has ever served since this process began.
    has_served: AtomicBool,
}

impl Board {
    pub(super) fn new(groups: BTreeMap<String, Forwarder>, nameserver: SocketAddr, lines: Lines) -> Self {
        let entry = |forwarder| Entry { forwarder, has_served: AtomicBool::new(false) };
        let groups = groups.into_iter().map(|(name, forwarder)| (name, entry(forwarder))).collect();
        Self { groups, nameserver, lines }
    }

    /// The group's stable master address.
    pub(super) fn address(&self, group: &str) -> Option<SocketAddr> {
        self.groups.get(group).map(|entry| entry.forwarder.address())
    }

    /// The group's master is known dead: who connects now waits for the next.
    pub(super) fn hold(&self, group: &str) {
        if let Some(entry) = self.groups.get(group) {
            entry.forwarder.hold();
        }
    }
}

impl Listener for Board {
    fn serving(&self, group: &str, record: &GroupRecord, address: &str) {
        let Some(entry) = self.groups.get(group) else { return };
        let (master, epoch) = (&record.master.name, record.epoch);
        let Ok(address) = address.parse() else {
            let text = format!("{group}: master {master} says that it serves at {address:?}, which is no address");
            return self.lines.say(&text);
        };
        entry.forwarder.point_to(address);
        let stable = entry.forwarder.address();
        if entry.has_served.swap(true, Ordering::Relaxed) {
            self.lines.say(&format!("{group} serves again: master {master} epoch {epoch}, address {stable}"));
        } else {
            let nameserver = self.nameserver;
            self.lines.say(&format!(
                "{group} ready: master {master} epoch {epoch}, address {stable}, name server {nameserver}"
            ));
        }
    }

    fn notice(&self, group: &str, notice: &Notice) {
        self.lines.say(&format!("{group}: {notice}"));
    }

    fn record_trouble(&self, group: &str, why: &str) {
        self.lines.say(&format!("{group}: {why}"));
    }
}
