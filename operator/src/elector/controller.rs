//! What RocketMQ's tools ask a controller, answered by the elector in its place: CONTROLLER_GET_METADATA_INFO (1005) and
//! CONTROLLER_GET_SYNC_STATE_DATA (1006). Anybody may ask: it names no more than a name server does.

use std::collections::{BTreeMap, BTreeSet};

use gantry_remoting::body::ha::{BrokerReplicasInfo, ReplicaIdentity, ReplicasInfo};
use gantry_remoting::code::{request, response};
use gantry_remoting::headers::controller::ControllerMetadata;
use gantry_remoting::{Command, Connection, Response, body};
use gantry_replication::GroupRecord;
use parking_lot::RwLock;
use tokio::sync::watch;

use super::{Group, View};

/// The groups as their electors see them.
#[derive(Debug, Default)]
pub(super) struct Controller {
    /// By id.
    groups: RwLock<BTreeMap<String, Seen>>,
}

#[derive(Debug)]
struct Seen {
    name: String,
    replicas: BTreeSet<String>,
    view: watch::Receiver<View>,
}

impl Controller {
    pub(super) fn add(&self, group: &Group, view: watch::Receiver<View>) {
        let seen = Seen { name: group.name.clone(), replicas: group.config.replicas.clone(), view };
        self.groups.write().insert(group.id.clone(), seen);
    }

    pub(super) fn remove(&self, group: &str) {
        self.groups.write().remove(group);
    }

    /// Answers a controller's request; none if this is no such request. An error is a code and the words.
    pub(super) fn answer(&self, connection: &Connection, request: &Command) -> Option<Result<Response, (i32, String)>> {
        match request.code {
            request::CONTROLLER_GET_METADATA_INFO => {
                // It leads: whoever reached it needs nobody else.
                let address = connection.local().to_string();
                let header = ControllerMetadata {
                    group: None,
                    leader_id: None,
                    leader_address: &address,
                    is_leader: true,
                    peers: Some(&address),
                };
                Some(Ok(Response::success().with_header(&header)))
            }
            request::CONTROLLER_GET_SYNC_STATE_DATA => Some(self.sync_state(request)),
            _ => None,
        }
    }

    fn sync_state(&self, request: &Command) -> Result<Response, (i32, String)> {
        let invalid = |error| (response::INVALID_PARAMETER, format!("a list of broker names is expected: {error}"));
        let names: Vec<String> = body::parse(&request.body.to_bytes()).map_err(invalid)?;
        let groups = self.groups.read();
        // Whoever asks knows a name alone: of two groups of one name it would be told a random one.
        let only = |name: &String| {
            let mut found = groups.values().filter(|seen| seen.name == *name);
            found.next().filter(|_| found.next().is_none())
        };
        let info = |name: &String| Some((name.clone(), only(name)?.replicas_info(name)?));
        let answer = BrokerReplicasInfo { replicas_info_table: names.iter().filter_map(info).collect() };
        let body = body::to_json(&answer).map_err(|error| (response::SYSTEM_ERROR, error.to_string()))?;
        Ok(Response::success().with_body(body))
    }
}

impl Seen {
    /// None before the first election.
    fn replicas_info(&self, group: &str) -> Option<ReplicasInfo> {
        let view = self.view.borrow();
        let record = view.record.as_ref()?;
        // As slaves they are registered under these ids, see the plan; RocketMQ's controllers count from 1, too.
        let (in_sync_replicas, not_in_sync_replicas) = (1..)
            .zip(&self.replicas)
            .map(|(broker_id, name)| (name, identity(group, broker_id, name, &view)))
            .partition::<Vec<_>, _>(|(name, _)| is_in_sync(name, record, &view));
        let identities = |replicas: Vec<(&String, ReplicaIdentity)>| replicas.into_iter().map(|(_, it)| it).collect();
        let master = (1..).zip(&self.replicas).find(|(_, name)| **name == record.master.name);
        let address = view.replicas.get(&record.master.name).map(|seen| seen.hello.client_address.clone());
        Some(ReplicasInfo {
            master_broker_id: master.map_or(-1, |(id, _)| id),
            master_address: address.unwrap_or_default(),
            master_epoch: i32::try_from(record.epoch.0).unwrap_or(i32::MAX),
            sync_state_set_epoch: i32::try_from(record.revision).unwrap_or(i32::MAX),
            in_sync_replicas: identities(in_sync_replicas),
            not_in_sync_replicas: identities(not_in_sync_replicas),
        })
    }
}

fn identity(group: &str, broker_id: i64, name: &str, view: &View) -> ReplicaIdentity {
    let seen = view.replicas.get(name);
    ReplicaIdentity {
        broker_name: group.to_owned(),
        broker_id,
        broker_address: seen.map(|seen| seen.hello.client_address.clone()).unwrap_or_default(),
        alive: seen.is_some(),
    }
}

/// Another disk under the same name is another member.
fn is_in_sync(name: &str, record: &GroupRecord, view: &View) -> bool {
    match view.replicas.get(name) {
        Some(seen) => record.in_sync.contains(&seen.hello.member),
        None => record.in_sync.iter().any(|member| member.name == name),
    }
}
