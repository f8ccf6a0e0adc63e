//! A replica's `broker.conf`, in RocketMQ's properties format.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use super::{GroupPlan, ReplicaPlan};
use crate::api::{FlushMode, OnShortage, ReplicationMode};

/// What a replica has to be told besides its plan.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// Where the elector listens: `host:port`.
    pub electors: &'a str,
    /// The replica's own address, for clients and for its peers; none where it is told at its start alone.
    pub address: Option<IpAddr>,
    /// Where it listens for clients and for its peers; 0: given by the system, the broker tells the elector when it joins.
    pub ports: (u16, u16),
    /// Where it answers probes and shows its metrics; 0: given by the system, the broker's log tells which.
    pub metrics_port: u16,
    /// The group's stable master address, which masters register at the name servers.
    pub advertised_master: SocketAddr,
    /// Where clients outside the cluster reach the group's master, if they do.
    pub external_master: Option<&'a str>,
    /// The replica's store directory.
    pub store: &'a Path,
    /// The group's secret; none where it lies in a file of its own.
    pub token: Option<&'a str>,
}

/// The file's contents: what the operator sets, then the manifest's own keys in the order of their names.
pub fn render(group: &GroupPlan, replica: &ReplicaPlan, surroundings: &Surroundings<'_>) -> String {
    let flush = match group.flush {
        FlushMode::Async => "ASYNC_FLUSH",
        FlushMode::Sync => "SYNC_FLUSH",
    };
    let mode = match group.mode {
        ReplicationMode::Sync => "Sync",
        ReplicationMode::Async => "Async",
    };
    let on_shortage = match group.on_shortage {
        OnShortage::Refuse => "Refuse",
        OnShortage::Degrade => "Degrade",
    };
    let address = surroundings.address.map(|address| address.to_string());
    let own = [
        ("brokerClusterName", Some(group.cluster.clone())),
        ("brokerName", Some(group.name.clone())),
        // Every replica starts as a slave; the elector says who is master.
        ("brokerRole", Some("SLAVE".to_owned())),
        ("brokerId", Some(replica.slave_id.to_string())),
        ("brokerIP1", address.clone()),
        ("brokerIP2", address.clone()),
        ("listenPort", Some(surroundings.ports.0.to_string())),
        ("haListenPort", Some(surroundings.ports.1.to_string())),
        ("metricsPromExporterPort", Some(surroundings.metrics_port.to_string())),
        ("storePathRootDir", Some(surroundings.store.display().to_string())),
        ("flushDiskType", Some(flush.to_owned())),
        ("replicationMode", Some(mode.to_owned())),
        ("minInSyncReplicas", Some(group.min_in_sync.to_string())),
        ("onShortage", Some(on_shortage.to_owned())),
        ("gantryReplica", Some(replica.name.clone())),
        // Among equals an election takes the preferred one.
        ("gantryPriority", Some(u8::from(group.preferred_master.as_ref() == Some(&replica.name)).to_string())),
        ("gantryElectors", Some(surroundings.electors.to_string())),
        ("gantryAdvertisedMaster", Some(surroundings.advertised_master.to_string())),
        ("gantryExternalMaster", surroundings.external_master.map(str::to_owned)),
        ("gantryToken", surroundings.token.map(str::to_owned)),
    ];
    let mut text = "# Written by gantry-operator at each start: change the manifest, not this file.\n".to_owned();
    let own = own.iter().filter_map(|(key, value)| Some((*key, value.as_ref()?)));
    let manifest = group.config.iter().map(|(key, value)| (key.as_str(), value));
    for (key, value) in own.chain(manifest) {
        text.push_str(key);
        text.push('=');
        push_escaped(&mut text, value);
        text.push('\n');
    }
    text
}

/// As `java.util.Properties` reads it: backslashes doubled, leading white space kept by one, non-ASCII as UTF-16 escapes.
fn push_escaped(text: &mut String, value: &str) {
    for (index, c) in value.char_indices() {
        match c {
            '\\' => text.push_str("\\\\"),
            ' ' if index == 0 => text.push_str("\\ "),
            ' '..='~' => text.push(c),
            other => {
                for unit in other.encode_utf16(&mut [0; 2]) {
                    // Writing to a String can't fail.
                    write!(text, "\\u{unit:04x}").ok();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::BrokerGroup;
    use serde_json::json;

    fn conf(spec: serde_json::Value) -> String {
        let group = GroupPlan::new(&BrokerGroup::new("broker-a", serde_json::from_value(spec).unwrap())).unwrap();
        let surroundings = Surroundings {
            electors: "127.0.0.1:4001",
            address: Some("127.0.0.1".parse().unwrap()),
            ports: (0, 0),
            metrics_port: 0,
            advertised_master: "127.0.0.1:10911".parse().unwrap(),
            external_master: Some("mq.example.org:30911"),
            store: Path::new("/data/x y/store"),
            token: Some("secret"),
        };
        render(&group, &group.replicas[1], &surroundings)
    }

    #[test]
    fn a_replica_is_told_everything_it_needs_once() {
        let text = conf(json!({"flush": "Sync", "config": {"maxMessageSize": "1048576"}}));
        let expected = [
            "brokerClusterName=DefaultCluster",
            "brokerName=broker-a",
            "brokerRole=SLAVE",
            "brokerId=2",
            "brokerIP1=127.0.0.1",
            "brokerIP2=127.0.0.1",
            "listenPort=0",
            "haListenPort=0",
            "metricsPromExporterPort=0",
            "storePathRootDir=/data/x y/store",
            "flushDiskType=SYNC_FLUSH",
            "replicationMode=Sync",
            "minInSyncReplicas=2",
            "onShortage=Refuse",
            "gantryReplica=broker-a-1",
            "gantryPriority=0",
            "gantryElectors=127.0.0.1:4001",
            "gantryAdvertisedMaster=127.0.0.1:10911",
            "gantryExternalMaster=mq.example.org:30911",
            "gantryToken=secret",
            "maxMessageSize=1048576",
        ];
        assert_eq!(text.lines().skip(1).collect::<Vec<_>>(), expected);
        let keys: Vec<_> = expected[..20].iter().map(|line| line.split('=').next().unwrap()).collect();
        for key in keys {
            assert!(crate::api::IDENTITY_KEYS.contains(&key), "spec.config could override {key}");
        }
    }

    #[test]
    fn values_read_back_as_they_were_meant() {
        let text = conf(json!({"config": {"a": " b\\c=d#e", "z": "Grüße 🦀"}}));
        assert!(text.contains("\na=\\ b\\\\c=d#e\n"), "{text}");
        assert!(text.ends_with("\nz=Gr\\u00fc\\u00dfe \\ud83e\\udd80\n"), "{text}");
    }

    #[test]
    fn the_other_settings_say_so() {
        let text =
            conf(json!({"replication": {"mode": "Async", "onShortage": "Degrade"}, "preferredMaster": "broker-a-1"}));
        for line in ["flushDiskType=ASYNC_FLUSH", "replicationMode=Async", "onShortage=Degrade", "gantryPriority=1"] {
            assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
        }
    }
}
