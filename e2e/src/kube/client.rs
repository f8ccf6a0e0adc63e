//! The Java program of e2e/clients in a pod, with Apache's library as it is.

use std::fs::File;
use std::process::Stdio;

use anyhow::{Context, bail};

use super::installation::{CLIENT, Installation};
use crate::client::{Job, Library, Outcome};

/// In the pod.
const HISTORY: &str = "/tmp/history";

/// A client program that is to run in the pod; [`fetch_history`] has to follow when it has ended.
pub fn job(installation: &Installation<'_>, subcommand: &str, topic: &str) -> anyhow::Result<Job> {
    job_at(installation, &installation.name_server(), subcommand, topic)
}

/// The same, with other name servers than the chart's.
pub fn job_at(
    installation: &Installation<'_>,
    name_server: &str,
    subcommand: &str,
    topic: &str,
) -> anyhow::Result<Job> {
    let mut command = installation.kubectl(&["exec", "--stdin", CLIENT, "--", "java"]);
    command.args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", "/client/classes:/client/lib/*"]);
    command.args(["-Duser.home=/tmp", "-Drocketmq.client.logRoot=/tmp", "gantry.e2e.Main"]);
    Job::elsewhere(Library::Java5, command, subcommand, name_server, topic, HISTORY)
}

/// Brings the history from the pod to where the outcome has it.
pub fn fetch_history(installation: &Installation<'_>, outcome: &Outcome) -> anyhow::Result<()> {
    let to = outcome.history();
    let file = File::create(&to).with_context(|| to.display().to_string())?;
    let mut cat = installation.kubectl(&["exec", CLIENT, "--", "cat", HISTORY]);
    let status = cat.stdin(Stdio::null()).stdout(file).status().with_context(|| format!("starting {cat:?}"))?;
    if !status.success() {
        bail!("{cat:?}: {status}");
    }
    Ok(())
}
