//! `status`: a group on one screen.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Context as _;
use comfy_table::{CellAlignment, Table};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;

use crate::connection::Connection;
use crate::group::{Group, LastFailover, Replica};

/// What isn't known.
const UNKNOWN: &str = "-";

pub(crate) async fn run(connection: &Connection, group: Option<&str>, all: bool) -> anyhow::Result<String> {
    let groups = if let Some(name) = group {
        vec![connection.group(name).await?]
    } else {
        let api = if all { connection.all_groups() } else { connection.groups() };
        let objects = api.list(&ListParams::default()).await.context("reading BrokerGroups")?;
        objects.items.iter().map(Group::read).collect::<Result<_, _>>()?
    };
    if groups.is_empty() {
        return Ok(format!("there is no BrokerGroup in namespace {}\n", connection.namespace));
    }
    let mut text = Vec::new();
    for group in groups {
        let pods = connection.pods(&group.namespace, &group.name).await?;
        text.push(render(&group, &pods));
    }
    Ok(text.join("\n"))
}

fn render(group: &Group, pods: &[Pod]) -> String {
    let status = &group.status;
    let master = status.master.as_deref().map_or("no master".to_owned(), |name| format!("master {name}"));
    let epoch = status.record.as_ref().map_or(UNKNOWN.to_owned(), |record| record.epoch.to_string());
    let in_sync = status.in_sync.as_deref().unwrap_or(UNKNOWN);
    let mut text = format!("{}/{}: {master}, epoch {epoch}, {in_sync} in sync\n", group.namespace, group.name);
    // Writing to a String can't fail.
    if let Some(address) = &status.external_address {
        writeln!(text, "outside: {address}").ok();
    }
    if let Some(failover) = &status.last_failover {
        writeln!(text, "last failover: {}", told(failover)).ok();
    }
    writeln!(text, "\n{}\n\n{}", replicas(group, pods), conditions(group)).ok();
    text
}

fn told(failover: &LastFailover) -> String {
    let LastFailover { time, from, to, epoch, cause, message, detection_ms, total_ms } = failover;
    let from = from.as_deref().unwrap_or("nobody");
    let mut text = format!("{time} {from} -> {to}, epoch {epoch}, {cause}");
    if let Some(message) = message.as_deref().filter(|message| !message.is_empty()) {
        write!(text, " ({message})").ok();
    }
    if let Some(ms) = detection_ms {
        write!(text, ", decided after {ms} ms").ok();
    }
    if let Some(ms) = total_ms {
        write!(text, ", served again after {ms} ms").ok();
    }
    text
}

fn replicas(group: &Group, pods: &[Pod]) -> Table {
    let pods: BTreeMap<_, _> = pods.iter().map(|pod| (pod.metadata.name.clone().unwrap_or_default(), pod)).collect();
    let seen: BTreeMap<_, _> = group.status.replicas.iter().map(|replica| (replica.name.as_str(), replica)).collect();
    let mut names = group.replica_names();
    names.extend(pods.keys().cloned());
    let mut table = table(&["REPLICA", "ROLE", "EPOCH", "MAX OFFSET", "CONFIRMED", "LAG", "IN SYNC", "POD", "NODE"]);
    for name in names {
        let (replica, pod) = (seen.get(name.as_str()).copied(), pods.get(&name).copied());
        table.add_row(row(group, &name, replica, pod));
    }
    for column in 2..=5 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn row(group: &Group, name: &str, replica: Option<&Replica>, pod: Option<&Pod>) -> Vec<String> {
    let number =
        |of: fn(&Replica) -> Option<u64>| replica.and_then(of).map_or(UNKNOWN.to_owned(), |number| number.to_string());
    let role = replica.and_then(|replica| replica.role.clone()).unwrap_or(UNKNOWN.to_owned());
    let fenced = if group.fenced().contains(name) { " (fenced)" } else { "" };
    let in_sync = match &group.status.record {
        None => UNKNOWN,
        Some(_) if group.counts_in_sync(name) => "yes",
        Some(_) => "no",
    };
    let node = pod.and_then(|pod| pod.spec.as_ref()?.node_name.clone());
    vec![
        name.to_owned(),
        format!("{role}{fenced}"),
        number(|replica| replica.epoch),
        number(|replica| replica.max_offset),
        number(|replica| replica.confirm_offset),
        number(|replica| replica.lag_bytes),
        in_sync.to_owned(),
        pod.map_or("none".to_owned(), pod_state),
        node.unwrap_or(UNKNOWN.to_owned()),
    ]
}

/// In kubectl's words, and shorter.
fn pod_state(pod: &Pod) -> String {
    if pod.metadata.deletion_timestamp.is_some() {
        return "Terminating".to_owned();
    }
    let status = pod.status.as_ref();
    let container = status.and_then(|status| status.container_statuses.as_ref()?.first());
    let waits = container.and_then(|container| container.state.as_ref()?.waiting.as_ref()?.reason.clone());
    let phase = status.and_then(|status| status.phase.clone());
    let mut state = waits.or(phase).unwrap_or(UNKNOWN.to_owned());
    if state == "Running" && !container.is_some_and(|container| container.ready) {
        "Running, not ready".clone_into(&mut state);
    }
    match container.map_or(0, |container| container.restart_count) {
        0 => state,
        restarts => format!("{state}, restarts {restarts}"),
    }
}

fn conditions(group: &Group) -> Table {
    let mut table = table(&["CONDITION", "STATUS", "REASON", "MESSAGE"]);
    for condition in &group.status.conditions {
        table.add_row([&condition.type_, &condition.status, &condition.reason, &condition.message]);
    }
    table
}

/// As kubectl's: no lines, columns apart.
fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(head.to_vec());
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::group::FENCED_ANNOTATION;
    use crate::group::tests::group;

    fn pod(name: &str, change: impl FnOnce(&mut Value)) -> Pod {
        let container = json!({
            "name": "broker", "image": "i", "imageID": "i", "ready": true, "restartCount": 0, "state": {"running": {}},
        });
        let mut pod = json!({
            "metadata": {"name": name}, "spec": {"nodeName": "node-1", "containers": []},
            "status": {"phase": "Running", "containerStatuses": [container]},
        });
        change(&mut pod);
        serde_json::from_value(pod).unwrap()
    }

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn a_group_is_shown_with_all_that_is_known_of_it() {
        let group = group(|object| object["metadata"]["annotations"] = json!({FENCED_ANNOTATION: "broker-a-2"}));
        let pods = [
            pod("broker-a-0", |_| {}),
            pod("broker-a-1", |pod| pod["status"]["containerStatuses"][0]["restartCount"] = 2.into()),
            pod("broker-a-2", |pod| pod["status"]["containerStatuses"][0]["ready"] = false.into()),
        ];
        let expected = [
            "shop/broker-a: master broker-a-1, epoch 7, 2/3 in sync",
            "last failover: 2026-11-25T13:00:00Z broker-a-0 -> broker-a-1, epoch 7, MasterDied (the master's process ended), decided after 12 ms, served again after 340 ms",
            "",
            "REPLICA ROLE EPOCH MAX OFFSET CONFIRMED LAG IN SYNC POD NODE",
            "broker-a-0 Slave 7 900 880 100 yes Running node-1",
            "broker-a-1 Master 7 1000 900 0 yes Running, restarts 2 node-1",
            "broker-a-2 - (fenced) - - - - no Running, not ready node-1",
            "",
            "CONDITION STATUS REASON MESSAGE",
            "Ready False PodsNotReady 2 of 3 pods",
        ];
        assert_eq!(lines(&render(&group, &pods)), expected);
    }

    #[test]
    fn what_is_unknown_is_not_made_up() {
        let bare = group(|object| object["status"] = Value::Null);
        let waiting = pod("broker-a-0", |pod| {
            pod["status"]["containerStatuses"][0]["state"] = json!({"waiting": {"reason": "ImagePullBackOff"}});
        });
        let lines = lines(&render(&bare, &[waiting]));
        assert_eq!(lines[0], "shop/broker-a: no master, epoch -, - in sync");
        assert_eq!(lines[3], "broker-a-0 - - - - - - ImagePullBackOff node-1");
        assert_eq!(lines[4], "broker-a-1 - - - - - - none -");
    }
}
