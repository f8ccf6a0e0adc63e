//! `logs`: the logs of a group's replicas, merged, each line after its replica's name.

use anyhow::{Context as _, bail};
use futures::stream::SelectAll;
use futures::{AsyncBufReadExt as _, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::LogParams;

use crate::cli::Logs;
use crate::connection::Connection;
use crate::{complain, print};

/// The container of a broker's pod.
const CONTAINER: &str = "broker";

pub(crate) async fn run(connection: &Connection, asked: &Logs) -> anyhow::Result<()> {
    let group = connection.group(&asked.group).await?;
    for replica in &asked.replica {
        group.check_replica(replica)?;
    }
    let pods = connection.pods(&connection.namespace, &asked.group).await?;
    let names = pods.into_iter().filter_map(|pod| pod.metadata.name);
    let names: Vec<_> = names.filter(|name| asked.replica.is_empty() || asked.replica.contains(name)).collect();
    if names.is_empty() {
        bail!("there is no pod of {}", asked.group);
    }
    let api: Api<Pod> = Api::namespaced(connection.client.clone(), &connection.namespace);
    if asked.follow { follow(&api, &names, asked).await } else { merge(&api, &names, asked).await }
}

fn parameters(asked: &Logs, timestamps: bool) -> LogParams {
    LogParams {
        container: Some(CONTAINER.to_owned()),
        follow: asked.follow,
        previous: asked.previous,
        tail_lines: asked.tail,
        timestamps,
        ..LogParams::default()
    }
}

/// All that there is, in the order of the kubelets' time.
async fn merge(api: &Api<Pod>, names: &[String], asked: &Logs) -> anyhow::Result<()> {
    let mut lines = Vec::new();
    for name in names {
        match api.logs(name, &parameters(asked, true)).await {
            Ok(text) => lines.extend(text.lines().map(|line| stamped(name, line))),
            // One that has no container yet, or none before, doesn't hide the others'.
            Err(error) => complain(&format!("{name}: {}", words(&error))),
        }
    }
    print(&in_order(lines))
}

/// The line's time, and the line as it is shown.
fn stamped(name: &str, line: &str) -> (String, String) {
    let (time, rest) = line.split_once(' ').unwrap_or(("", line));
    (time.to_owned(), format!("{name} {rest}\n"))
}

/// Lines of one replica keep their order.
fn in_order(mut lines: Vec<(String, String)>) -> String {
    lines.sort_by(|(a, _), (b, _)| a.cmp(b));
    lines.into_iter().map(|(_, line)| line).collect()
}

/// As it comes, until the last of them ends.
async fn follow(api: &Api<Pod>, names: &[String], asked: &Logs) -> anyhow::Result<()> {
    let mut all = SelectAll::new();
    for name in names {
        let log = api.log_stream(name, &parameters(asked, false)).await;
        let lines = log.with_context(|| format!("the log of {name}"))?.lines();
        let name = name.clone();
        all.push(lines.map_ok(move |line| format!("{name} {line}\n")).boxed_local());
    }
    while let Some(line) = all.next().await {
        match line {
            Ok(line) => print(&line)?,
            Err(error) => complain(&format!("a log has ended: {error}")),
        }
    }
    Ok(())
}

/// The API server's own words.
pub(crate) fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_merged_by_time_and_those_of_one_replica_keep_their_order() {
        let a = ["2026-11-25T13:00:01.5Z second", "2026-11-25T13:00:03Z fourth"];
        let b = ["2026-11-25T13:00:01.1Z first", "2026-11-25T13:00:02Z third", "2026-11-25T13:00:02Z third, too"];
        let lines = a.iter().map(|line| stamped("a-0", line)).chain(b.iter().map(|line| stamped("a-1", line)));
        let expected = "a-1 first\na-0 second\na-1 third\na-1 third, too\na-0 fourth\n";
        assert_eq!(in_order(lines.collect()), expected);
    }
}
