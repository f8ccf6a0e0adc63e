//! Carries out what the elector says about a group: its stable address leads to its master, and people hear of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gantry_replication::GroupRecord;
use gantry_replication::elector::Notice;
use parking_lot::Mutex;

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
    /// The replica that the forwarder leads to.
    master: Mutex<Option<String>>,
    /// Whether it has ever served since this process began.
    has_served: AtomicBool,
    /// Why there is no master, while that lasts.
    worry: Mutex<Option<Worry>>,
}

#[derive(Debug)]
struct Worry {
    text: String,
    since: Instant,
    told: bool,
}

/// A group without a master is told only after so long: replicas that are starting come one after the other.
const WORRY_AFTER: Duration = Duration::from_secs(2);

impl Board {
    pub(super) fn new(groups: BTreeMap<String, Forwarder>, nameserver: SocketAddr, lines: Lines) -> Self {
        let entry = |forwarder| Entry {
            forwarder,
            master: Mutex::new(None),
            has_served: AtomicBool::new(false),
            worry: Mutex::new(None),
        };
        let groups = groups.into_iter().map(|(name, forwarder)| (name, entry(forwarder))).collect();
        Self { groups, nameserver, lines }
    }

    /// The group's stable master address.
    pub(super) fn address(&self, group: &str) -> Option<SocketAddr> {
        self.groups.get(group).map(|entry| entry.forwarder.address())
    }

    /// A replica is known dead: if the address leads to it, who connects now waits for the next master.
    pub(super) fn hold(&self, group: &str, replica: &str) {
        if let Some(entry) = self.groups.get(group) {
            // Under the lock, so that a master that serves meanwhile is not held back.
            let master = entry.master.lock();
            if master.as_deref() == Some(replica) {
                entry.forwarder.hold();
            }
        }
    }

    /// Says why groups have had no master for a while, once.
    pub(super) fn say_worries(&self) {
        for (group, entry) in &self.groups {
            let mut worry = entry.worry.lock();
            if let Some(worry) = worry.as_mut().filter(|worry| !worry.told && worry.since.elapsed() >= WORRY_AFTER) {
                worry.told = true;
                self.lines.say(&format!("{group}: {}", worry.text));
            }
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
        {
            let mut leads_to = entry.master.lock();
            *leads_to = Some(master.clone());
            entry.forwarder.point_to(address);
        }
        *entry.worry.lock() = None;
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
        let Some(entry) = self.groups.get(group) else { return };
        match notice {
            Notice::Stuck(_) => entry.worry.lock().get_or_insert_with(Worry::new).change(notice.to_string()),
            Notice::Cut { .. } | Notice::Degraded { .. } | Notice::Restored { .. } => {
                self.lines.say(&format!("{group}: {notice}"));
            }
            Notice::Started { .. } | Notice::Elected { .. } | Notice::Unclean { .. } | Notice::CutOff { .. } => {
                if notice.is_failover() {
                    entry.forwarder.abandon();
                }
                *entry.worry.lock() = None;
                self.lines.say(&format!("{group}: {notice}"));
            }
        }
    }

    fn record_trouble(&self, group: &str, why: &str) {
        self.lines.say(&format!("{group}: {why}"));
    }
}

impl Worry {
    fn new() -> Self {
        Self { text: String::new(), since: Instant::now(), told: false }
    }

    fn change(&mut self, text: String) {
        self.told &= self.text == text;
        self.text = text;
    }
}
