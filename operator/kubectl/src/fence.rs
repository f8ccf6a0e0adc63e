//! `fence` and `unfence`: by an annotation that the operator reads, and what becomes of it.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::time::{Instant, sleep};

use crate::cli::Fence;
use crate::connection::Connection;
use crate::group::{FENCED_ANNOTATION, Group};

const LOOK_AGAIN: Duration = Duration::from_millis(300);
/// Writes of others, between reading and writing, that are put up with.
const TRIES: usize = 10;

pub(crate) async fn fence(connection: &Connection, asked: &Fence) -> anyhow::Result<String> {
    let Fence { group, replica, timeout } = asked;
    connection.group(group).await?.check_replica(replica)?;
    change(connection, group, |fenced| fenced.insert(replica.clone())).await?;
    let out = |now: &Group| now.status.master.as_ref() != Some(replica) && !now.counts_in_sync(replica);
    match wait(connection, group, *timeout, out).await? {
        None => Ok(format!(
            "{replica} is fenced: it neither replicates nor can be elected; its pod and volume stay as they are. \
             Afterwards: kubectl gantry unfence {group} {replica}\n"
        )),
        Some(now) => bail!(
            "{replica} is marked as fenced and cannot be elected, but {} after {} s; `kubectl gantry status {group}` says more",
            still(&now, replica),
            timeout.as_secs()
        ),
    }
}

fn still(group: &Group, replica: &str) -> &'static str {
    if group.status.master.as_deref() == Some(replica) {
        "it is still the master, since no other replica could be"
    } else {
        "the group still counts it as in sync, since it has no more than minInSync replicas"
    }
}

pub(crate) async fn unfence(connection: &Connection, asked: &Fence) -> anyhow::Result<String> {
    let Fence { group, replica, timeout } = asked;
    if !change(connection, group, |fenced| fenced.remove(replica)).await? {
        bail!("{replica} is not fenced");
    }
    match wait(connection, group, *timeout, |now| now.counts_in_sync(replica)).await? {
        None => Ok(format!("{replica} takes part again, and is in sync\n")),
        Some(_) => Ok(format!(
            "{replica} takes part again; it was not in sync after {} s, which may take as long as it has to catch up\n",
            timeout.as_secs()
        )),
    }
}

/// Whether it was a change. Others may write the group meanwhile.
async fn change(
    connection: &Connection,
    name: &str,
    mut change: impl FnMut(&mut BTreeSet<String>) -> bool,
) -> anyhow::Result<bool> {
    let mut tries = TRIES;
    loop {
        let group = connection.group(name).await?;
        let mut fenced = group.fenced();
        if !change(&mut fenced) {
            return Ok(false);
        }
        let value = fenced.into_iter().collect::<Vec<_>>().join(",");
        let value = Some(value.as_str()).filter(|value| !value.is_empty());
        match connection.annotate(name, group.version.as_deref(), FENCED_ANNOTATION, value).await {
            Ok(()) => return Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 && tries > 1 => tries -= 1,
            Err(error) => {
                return Err(error).with_context(|| format!("writing the annotation {FENCED_ANNOTATION} of {name}"));
            }
        }
    }
}

/// None once the group is as wanted; the group as it is, when time is up.
async fn wait(
    connection: &Connection,
    name: &str,
    patience: Duration,
    wanted: impl Fn(&Group) -> bool,
) -> anyhow::Result<Option<Group>> {
    let give_up = Instant::now() + patience;
    loop {
        let group = connection.group(name).await?;
        if wanted(&group) {
            return Ok(None);
        }
        if Instant::now() >= give_up {
            return Ok(Some(group));
        }
        sleep(LOOK_AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::tests::group;

    #[test]
    fn why_a_fence_has_no_effect_yet_is_told() {
        let group = group(|_| {});
        assert!(still(&group, "broker-a-1").contains("still the master"));
        assert!(still(&group, "broker-a-0").contains("minInSync"));
    }
}
