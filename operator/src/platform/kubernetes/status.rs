//! A group's status, but for the record, which the elector writes.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::{BrokerGroup, BrokerGroupStatus, LastFailover, ReplicaStatus};
use crate::elector::{self, View};
use crate::plan::kubernetes::{
    Blueprint, ClaimSeen, Configured, HASH_ANNOTATION, Observed, PodSeen, Standing, Step, conditions, selector_text,
};

/// A pod as the plan sees it.
pub(super) fn pod_seen(pod: &Pod, is_cordoned: impl Fn(&str) -> bool) -> PodSeen {
    let metadata = &pod.metadata;
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    let status = pod.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let phase = status.and_then(|status| status.phase.as_deref()).unwrap_or_default();
    PodSeen {
        uid: metadata.uid.clone().unwrap_or_default(),
        hash: metadata.annotations.as_ref().and_then(|all| all.get(HASH_ANNOTATION)).cloned().unwrap_or_default(),
        ready: conditions.iter().any(|it| it.type_ == "Ready" && it.status == "True"),
        deleting: metadata.deletion_timestamp.is_some(),
        ended: phase == "Failed" || phase == "Succeeded",
        cordoned: node.is_some_and(is_cordoned),
        fenced: false,
        node: node.map(str::to_owned),
    }
}

/// Adds what the elector knows to what is seen of pods.
pub(super) fn observe(
    pods: impl IntoIterator<Item = (String, PodSeen)>,
    claims: BTreeMap<String, ClaimSeen>,
    view: &View,
) -> Observed {
    let record = view.record.as_ref();
    let in_sync = view.replicas.iter().filter(|(_, seen)| {
        // Another disk under the same name is another member.
        record.is_some_and(|record| record.in_sync.contains(&seen.hello.member))
    });
    Observed {
        pods: pods.into_iter().collect(),
        master: record.filter(|_| view.serving).map(|record| record.master.name.clone()),
        in_sync: in_sync.map(|(name, seen)| (name.clone(), seen.report.max_offset)).collect(),
        claims,
    }
}

/// The record's master and the replicas that it counts as in sync, by name. As the elector has it, or else as it stands in the status.
pub(super) fn recorded(group: &BrokerGroup, view: &View) -> (Option<String>, BTreeSet<String>) {
    if let Some(record) = &view.record {
        let counted = record.in_sync.iter().map(|member| member.name.clone()).collect();
        return (Some(record.master.name.clone()), counted);
    }
    let Some(record) = group.status.as_ref().and_then(|status| status.record.as_ref()) else {
        return (None, BTreeSet::new());
    };
    let name = |member: &String| member.rsplit_once('#').map_or(member.as_str(), |(name, _)| name).to_owned();
    (Some(name(&record.master)), record.in_sync.iter().map(name).collect())
}

/// How a group stands, for its conditions.
pub(super) fn standing(blueprint: &Blueprint, seen: &Observed, view: &View, trouble: Option<String>) -> Standing {
    let master = seen.master.as_ref().and_then(|name| view.replicas.get(name));
    Standing {
        master: seen.master.clone(),
        replicas: blueprint.plan.replicas.len(),
        min_in_sync: usize::from(blueprint.plan.min_in_sync),
        degraded: master.is_some_and(|seen| seen.report.degraded),
        current: seen.pods.values().filter(|pod| !pod.ended).count() as u32,
        fencing: blueprint.fencing.clone(),
        configured: configured(view),
        ready_pods: seen.pods.values().filter(|pod| pod.ready && !pod.deleting).count(),
        trouble,
        ..Standing::default()
    }
}

fn configured(view: &View) -> Configured {
    let mut configured = Configured::default();
    for (name, seen) in &view.replicas {
        match &seen.configured {
            elector::Configured::Yes => {}
            elector::Configured::Pending => configured.pending.push(name.clone()),
            elector::Configured::Refused(why) => configured.refused.push(format!("{name}: {why}")),
        }
    }
    configured
}

/// The status to apply.
pub(super) fn status(
    group: &BrokerGroup,
    standing: &Standing,
    step: &Step,
    view: &View,
    last_failover: Option<LastFailover>,
) -> BrokerGroupStatus {
    let before = group.status.clone().unwrap_or_default();
    // One that can't be found out at the moment still leads there.
    let external =
        standing.external.as_ref().and_then(|now| now.clone().ok().or_else(|| before.external_address.clone()));
    let generation = group.metadata.generation.unwrap_or_default();
    let master_end = standing.master.as_ref().and_then(|name| Some(view.replicas.get(name)?.report.max_offset));
    let replica = |(name, seen): (&String, &elector::ReplicaView)| ReplicaStatus {
        name: name.clone(),
        role: Some(format!("{:?}", seen.report.role)),
        epoch: Some(seen.report.promised.0),
        address: Some(seen.hello.client_address.clone()),
        max_offset: Some(seen.report.max_offset),
        confirm_offset: Some(seen.report.confirm_offset),
        lag_bytes: master_end.map(|end| end.saturating_sub(seen.report.max_offset)),
    };
    BrokerGroupStatus {
        master: standing.master.clone(),
        // A record counts one at least.
        in_sync: (standing.in_sync > 0).then(|| format!("{}/{}", standing.in_sync, standing.replicas)),
        current_replicas: Some(standing.current),
        selector: Some(selector_text(group.metadata.name.as_deref().unwrap_or_default())),
        record: None,
        replicas: view.replicas.iter().map(replica).collect(),
        conditions: conditions(standing, step, generation, &Time(Timestamp::now()), &before.conditions),
        last_failover: last_failover.or(before.last_failover),
        external_address: external.clone(),
        observed_generation: Some(generation),
    }
}

/// Whether two statuses say the same but for offsets, which change all the time, and the record, which isn't ours.
pub(super) fn is_news(new: &BrokerGroupStatus, old: Option<&BrokerGroupStatus>) -> bool {
    let without_offsets = |status: &BrokerGroupStatus| {
        let mut status = BrokerGroupStatus { record: None, ..status.clone() };
        for replica in &mut status.replicas {
            (replica.max_offset, replica.confirm_offset, replica.lag_bytes) = (None, None, None);
        }
        status
    };
    old.is_none_or(|old| without_offsets(new) != without_offsets(old))
}

/// As it is applied.
pub(super) fn patch(name: &str, status: &BrokerGroupStatus) -> Value {
    json!({"apiVersion": "gantry.rs/v1alpha1", "kind": "BrokerGroup", "metadata": {"name": name}, "status": status})
}
