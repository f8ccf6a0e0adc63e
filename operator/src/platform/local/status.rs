//! What `local status` shows: a local installation at a moment. Unknown values are null.

use std::net::SocketAddr;

use gantry_replication::GroupRecord;
use gantry_replication::wire::Role;
use serde::{Deserialize, Serialize};

use crate::elector::{ReplicaView, View};

/// All groups of an installation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// In the manifest's order.
    pub groups: Vec<GroupStatus>,
}

/// One group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupStatus {
    /// Its name.
    pub name: String,
    /// Of its record; none before the first election.
    pub epoch: Option<u64>,
    /// The replica that serves as master; none while nobody does.
    pub master: Option<String>,
    /// Names of the replicas that have every acknowledged message.
    pub in_sync: Vec<String>,
    /// Whether the master goes on with fewer in-sync replicas than asked for; unknown while none serves.
    pub degraded: Option<bool>,
    /// The name server's address.
    pub nameserver: SocketAddr,
    /// The elector's address, which is what RocketMQ's tools ask as a controller.
    pub controller: SocketAddr,
    /// The group's stable master address.
    pub address: SocketAddr,
    /// By ordinal.
    pub replicas: Vec<ReplicaStatus>,
}

/// One replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaStatus {
    /// Its name.
    pub name: String,
    /// What it says it is.
    pub role: Option<Role>,
    /// Its process, if it runs.
    pub pid: Option<u32>,
    /// Its own client address.
    pub address: Option<String>,
    /// End of its log, in bytes since the log's beginning.
    pub max_offset: Option<u64>,
    /// End of what is on its disk.
    pub flushed_offset: Option<u64>,
    /// End of what consumers may see, as far as it knows.
    pub confirm_offset: Option<u64>,
    /// Bytes that its log is behind the serving master's.
    pub lag_bytes: Option<u64>,
    /// Whether the record has it among those in sync.
    pub in_sync: bool,
    /// How often its process has been started again since the operator runs.
    pub restarts: u64,
}

/// Where things are.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// The name server.
    pub nameserver: SocketAddr,
    /// The elector.
    pub controller: SocketAddr,
    /// The group's stable master address.
    pub master: SocketAddr,
}

/// What the operator knows of a replica's process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// While it runs.
    pub pid: Option<u32>,
    /// How often it was started.
    pub starts: u64,
}

impl GroupStatus {
    /// Puts together what the elector and the supervisors know.
    pub fn new(
        name: &str,
        addresses: Addresses,
        view: &View,
        replicas: impl IntoIterator<Item = (String, Process)>,
    ) -> Self {
        let record = view.record.as_ref();
        let master = record.filter(|_| view.serving).map(|record| record.master.name.clone());
        let serving = master.as_ref().and_then(|name| view.replicas.get(name));
        let degraded = serving.map(|seen| seen.report.degraded);
        let master_end = serving.map(|seen| seen.report.max_offset);
        let replicas = replicas
            .into_iter()
            .map(|(name, process)| ReplicaStatus::new(name, process, view, record, master_end))
            .collect();
        Self {
            name: name.to_owned(),
            epoch: record.map(|record| record.epoch.0),
            master,
            in_sync: record.iter().flat_map(|record| &record.in_sync).map(|member| member.name.clone()).collect(),
            degraded,
            nameserver: addresses.nameserver,
            controller: addresses.controller,
            address: addresses.master,
            replicas,
        }
    }
}

impl ReplicaStatus {
    fn new(name: String, process: Process, view: &View, record: Option<&GroupRecord>, master_end: Option<u64>) -> Self {
        let seen: Option<&ReplicaView> = view.replicas.get(&name);
        let report = seen.map(|seen| &seen.report);
        let in_sync = record.is_some_and(|record| match seen {
            // Another disk under the same name is another member.
            Some(seen) => record.in_sync.contains(&seen.hello.member),
            None => record.in_sync.iter().any(|member| member.name == name),
        });
        Self {
            role: report.map(|report| report.role),
            pid: process.pid,
            address: seen.map(|seen| seen.hello.client_address.clone()),
            max_offset: report.map(|report| report.max_offset),
            flushed_offset: report.map(|report| report.flushed_offset),
            confirm_offset: report.map(|report| report.confirm_offset),
            lag_bytes: report.and_then(|report| Some(master_end?.saturating_sub(report.max_offset))),
            in_sync,
            restarts: process.starts.saturating_sub(1),
            name,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use gantry_replication::wire::{Hello, Report};
    use gantry_replication::{Epoch, Member, StoreId};

    fn seen(name: &str, store: u64, role: Role, max_offset: u64) -> (String, ReplicaView) {
        let report = Report {
            role,
            promised: Epoch(4),
            revision: 0,
            last_epoch: Epoch(4),
            min_offset: 0,
            max_offset,
            flushed_offset: max_offset,
            confirm_offset: max_offset - 1,
            master_heard_ms_ago: None,
            drained: false,
            data_plane_alive: true,
            intact: true,
            degraded: false,
            last_cut: None,
            settings: None,
        };
        let hello = Hello {
            group: "a".to_owned(),
            token: String::new(),
            member: Member::new(name, StoreId(store)),
            client_address: "127.0.0.1:5".to_owned(),
            ha_address: "127.0.0.1:6".to_owned(),
            pid: 1,
            priority: 0,
            zone: None,
            report: report.clone(),
        };
        (name.to_owned(), ReplicaView { hello, report, configured: crate::elector::Configured::Yes })
    }

    fn addresses() -> Addresses {
        let [nameserver, controller, master] =
            ["127.0.0.1:9876", "127.0.0.1:9878", "127.0.0.1:10911"].map(|address| address.parse().unwrap());
        Addresses { nameserver, controller, master }
    }

    fn names() -> Vec<(String, Process)> {
        (0..3).map(|n| (format!("a-{n}"), Process { pid: Some(100 + n), starts: u64::from(n) + 1 })).collect()
    }

    #[test]
    fn the_json_is_what_scripts_rely_on_and_unknown_is_null() {
        let member = |n: u64| Member::new(format!("a-{n}"), StoreId(n));
        let record = GroupRecord {
            epoch: Epoch(4),
            revision: 9,
            master: member(0),
            in_sync: BTreeSet::from([member(0), member(1), member(2)]),
        };
        let replicas = [seen("a-0", 0, Role::Master, 500), seen("a-1", 77, Role::Slave, 460)].into();
        let view = View { record: Some(record), serving: true, replicas };
        let json = serde_json::to_value(GroupStatus::new("a", addresses(), &view, names())).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "name": "a", "epoch": 4, "master": "a-0", "inSync": ["a-0", "a-1", "a-2"],
                "degraded": false, "nameserver": "127.0.0.1:9876", "controller": "127.0.0.1:9878",
                "address": "127.0.0.1:10911",
                "replicas": [
                    {"name": "a-0", "role": "master", "pid": 100, "address": "127.0.0.1:5", "maxOffset": 500,
                     "flushedOffset": 500, "confirmOffset": 499, "lagBytes": 0, "inSync": true, "restarts": 0},
                    {"name": "a-1", "role": "slave", "pid": 101, "address": "127.0.0.1:5", "maxOffset": 460,
                     "flushedOffset": 460, "confirmOffset": 459, "lagBytes": 40, "inSync": false, "restarts": 1},
                    {"name": "a-2", "role": null, "pid": 102, "address": null, "maxOffset": null,
                     "flushedOffset": null, "confirmOffset": null, "lagBytes": null, "inSync": true, "restarts": 2},
                ],
            })
        );
    }

    #[test]
    fn before_the_first_election_there_is_no_epoch_and_no_master() {
        let status = GroupStatus::new("a", addresses(), &View::default(), names());
        assert_eq!((status.epoch, status.master, status.in_sync.len()), (None, None, 0));
    }

    #[test]
    fn a_master_that_does_not_serve_is_not_called_one() {
        let member = Member::new("a-0", StoreId(0));
        let record =
            GroupRecord { epoch: Epoch(4), revision: 9, in_sync: BTreeSet::from([member.clone()]), master: member };
        let view = View { record: Some(record), serving: false, replicas: [seen("a-1", 1, Role::Slave, 7)].into() };
        let status = GroupStatus::new("a", addresses(), &view, names());
        assert_eq!((status.epoch, status.master), (Some(4), None));
        assert_eq!(status.replicas[1].lag_bytes, None, "behind whom?");
    }
}
