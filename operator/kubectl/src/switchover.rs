//! `switchover`: asks the operator by an annotation, and waits for what becomes of it.

use std::time::Duration;

use anyhow::{Context as _, bail};
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use tokio::time::{Instant, sleep};

use crate::connection::Connection;
use crate::group::{Group, SWITCHOVER_ANNOTATION};

const LOOK_AGAIN: Duration = Duration::from_millis(300);
/// The operator writes the Event and removes the annotation at about the same time.
const EVENT_WITHIN: Duration = Duration::from_secs(5);

pub(crate) async fn run(
    connection: &Connection,
    name: &str,
    replica: &str,
    patience: Duration,
) -> anyhow::Result<String> {
    let group = connection.group(name).await?;
    check(&group, replica)?;
    // Before the order: the operator may have carried it out, and told so, in the moment after it.
    let before = events(connection, name).await?;
    let asked = connection.annotate(name, group.version.as_deref(), SWITCHOVER_ANNOTATION, Some(replica)).await;
    asked.with_context(|| format!("asking for a switchover of {name} to {replica}"))?;
    let give_up = Instant::now() + patience;
    loop {
        let now = connection.group(name).await?;
        if now.annotations.get(SWITCHOVER_ANNOTATION).map(String::as_str) != Some(replica) {
            return outcome(connection, &now, replica, &before).await;
        }
        if Instant::now() >= give_up {
            bail!(
                "nobody has carried it out within {} s: does the operator run? The annotation {SWITCHOVER_ANNOTATION} stays on {name}, \
                 and counts as soon as it does; to take it back: kubectl annotate brokergroup {name} {SWITCHOVER_ANNOTATION}-",
                patience.as_secs()
            );
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// What needs no operator to be refused.
fn check(group: &Group, replica: &str) -> anyhow::Result<()> {
    group.check_replica(replica)?;
    if group.status.master.as_deref() == Some(replica) {
        bail!("{replica} is the master of {} already", group.name);
    }
    if group.fenced().contains(replica) {
        bail!("{replica} is fenced: kubectl gantry unfence {} {replica}", group.name);
    }
    if let Some(other) = group.annotations.get(SWITCHOVER_ANNOTATION) {
        bail!("a switchover of {} to {other} is asked for already", group.name);
    }
    Ok(())
}

/// The operator took the annotation away: by what it told, or else by who is master.
async fn outcome(connection: &Connection, group: &Group, replica: &str, before: &[Told]) -> anyhow::Result<String> {
    let give_up = Instant::now() + EVENT_WITHIN;
    loop {
        let new = events(connection, &group.name).await?;
        match judge(before, &new) {
            Some(Ok(note)) => return Ok(format!("{note}\n")),
            Some(Err(note)) => bail!(note),
            None if Instant::now() >= give_up => break,
            None => sleep(LOOK_AGAIN).await,
        }
    }
    let now = connection.group(&group.name).await?;
    match now.status.master {
        Some(master) if master == replica => Ok(format!("{replica} is master\n")),
        Some(master) => bail!("{master} is master; `kubectl describe brokergroup {}` may say why", group.name),
        None => bail!("nobody is master now; see `kubectl gantry status {}`", group.name),
    }
}

/// An Event about a requested switchover.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    /// Unique, but for repetitions, which are counted.
    name: String,
    count: i32,
    refused: bool,
    note: String,
}

async fn events(connection: &Connection, group: &str) -> anyhow::Result<Vec<Told>> {
    let api: Api<Event> = Api::namespaced(connection.client.clone(), &connection.namespace);
    let about = ListParams::default().fields(&format!("regarding.kind=BrokerGroup,regarding.name={group}"));
    let events = api.list(&about).await.context("reading Events")?;
    Ok(events.items.into_iter().filter_map(told).collect())
}

fn told(event: Event) -> Option<Told> {
    let refused = match event.reason.as_deref()? {
        "SwitchedOver" => false,
        "SwitchoverRefused" => true,
        _ => return None,
    };
    let count = event.series.as_ref().map_or(1, |series| series.count);
    Some(Told { name: event.metadata.name?, count, refused, note: event.note.unwrap_or_default() })
}

/// The one that is new, if there is one.
fn judge(before: &[Told], now: &[Told]) -> Option<Result<String, String>> {
    let new = now.iter().find(|told| !before.contains(told))?;
    Some(if new.refused { Err(new.note.clone()) } else { Ok(new.note.clone()) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::group::FENCED_ANNOTATION;
    use crate::group::tests::group;

    #[test]
    fn what_can_not_be_is_refused_before_anybody_is_asked() {
        let said = |group: &Group, replica: &str| check(group, replica).map_err(|error| error.to_string());
        let plain = group(|_| {});
        assert_eq!(said(&plain, "broker-a-0"), Ok(()));
        assert!(said(&plain, "broker-a-1").unwrap_err().contains("is the master of broker-a already"));
        assert!(said(&plain, "broker-a-7").unwrap_err().contains("it has broker-a-0"));
        let fenced = group(|object| object["metadata"]["annotations"] = json!({FENCED_ANNOTATION: "broker-a-0"}));
        assert!(said(&fenced, "broker-a-0").unwrap_err().contains("kubectl gantry unfence broker-a broker-a-0"));
        let asked = group(|object| object["metadata"]["annotations"] = json!({SWITCHOVER_ANNOTATION: "broker-a-2"}));
        assert!(said(&asked, "broker-a-0").unwrap_err().contains("to broker-a-2 is asked for already"));
    }

    #[test]
    fn what_the_operator_told_before_says_nothing_of_now() {
        let event = |name: &str, count: i32, reason: &str, note: &str| {
            let event = json!({
                "metadata": {"name": name}, "eventTime": null, "reason": reason, "note": note,
                "series": {"count": count, "lastObservedTime": "2026-11-25T13:00:00.000000Z"},
            });
            told(serde_json::from_value(event).unwrap())
        };
        let before: Vec<_> =
            [event("a", 1, "SwitchoverRefused", "no"), event("b", 1, "Failover", "x")].into_iter().flatten().collect();
        assert_eq!(before.len(), 1);
        assert_eq!(judge(&before, &before), None);
        let again: Vec<_> = event("a", 2, "SwitchoverRefused", "no").into_iter().collect();
        assert_eq!(judge(&before, &again), Some(Err("no".to_owned())));
        let done: Vec<_> = before.iter().cloned().chain(event("c", 1, "SwitchedOver", "b-1 is master")).collect();
        assert_eq!(judge(&before, &done), Some(Ok("b-1 is master".to_owned())));
    }
}
