//! What the end-to-end tests share: a group, a client's exchange with it, and the judgement.

use std::process::Command;
use std::time::Duration;

use anyhow::bail;

use crate::checker::{self, Circumstances, Verdict};
use crate::client::{Job, Library, Outcome};
use crate::group::Group;
use crate::{admin, binaries, history, process};

/// How long one client program may take. Generous: two busy cores.
pub const CLIENT_WITHIN: Duration = Duration::from_mins(5);

/// A number from the environment, to make a run longer; `otherwise` where it isn't set.
pub fn number(variable: &str, otherwise: u64) -> anyhow::Result<u64> {
    match std::env::var(variable) {
        Err(_) => Ok(otherwise),
        Ok(text) => text.parse().map_err(|error| anyhow::anyhow!("{variable}={text}: {error}")),
    }
}

/// A client program on a group, with a topic that exists, or will once it runs.
pub fn job(group: &Group, library: Library, subcommand: &str, topic: &str) -> anyhow::Result<Job> {
    if subcommand != "consume" && !library.creates_topics() {
        create_topic(group, topic, 4)?;
    }
    Job::new(library, group.client_front(), subcommand, group.nameserver(), topic)
}

/// Creates a topic, from where the clients are.
fn create_topic(group: &Group, topic: &str, queues: i32) -> anyhow::Result<()> {
    let front = group.client_front();
    let Some((first, front)) = front.split_first() else {
        return admin::create_topic(group.nameserver(), group.address(), topic, queues);
    };
    let mut command = Command::new(first);
    command.args(front).arg(binaries::folder()?.join("gantry-e2e")).arg("create-topic").arg(topic);
    command.args(["--nameserver", group.nameserver(), "--broker", group.address(), "--queues", &queues.to_string()]);
    process::run(&mut command, None).map(|_| ())
}

/// Judges the histories of clients that were to drain what they consumed. A violation, or a client that didn't
/// finish its job, is an error.
pub fn judge(outcomes: &[&Outcome], circumstances: &Circumstances) -> anyhow::Result<Verdict> {
    let files: Vec<_> = outcomes.iter().map(|outcome| outcome.history()).collect();
    let verdict = checker::check(&history::read(&files)?, circumstances);
    for outcome in outcomes {
        if !outcome.is_complete() {
            bail!("{outcome}\n{verdict}");
        }
    }
    if verdict.is_clean() { Ok(verdict) } else { bail!("{verdict}") }
}

/// The circumstances of a test without faults.
pub fn drained() -> Circumstances {
    Circumstances { drained: true, ..Circumstances::default() }
}
