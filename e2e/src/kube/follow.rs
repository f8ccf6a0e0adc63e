//! A group's status as it changes, by one `kubectl get --watch`.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Deserializer, Value};

use crate::wait;

/// What a group's status says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The master that serves.
    pub master: Option<String>,
    /// Of the record.
    pub epoch: u64,
    /// As in the column: `3/3`.
    pub in_sync: String,
    /// The condition.
    pub ready: bool,
    /// What of `lastFailover`: why.
    pub failover_cause: Option<String>,
    /// And how long it took in all.
    pub failover_ms: Option<u64>,
    /// Pods that have not ended.
    pub current_replicas: Option<u64>,
    /// Whether an annotation asks for a switchover.
    pub switchover_asked: bool,
    /// All that the spec asks for is done.
    pub settled: bool,
    /// Each condition's status and reason, by type.
    pub conditions: BTreeMap<String, String>,
}

impl Status {
    pub(super) fn of(group: &Value) -> Self {
        let status = &group["status"];
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let conditions = || status["conditions"].as_array().into_iter().flatten();
        let has = |type_: &str, value: &str| conditions().find(|it| it["type"] == type_ && it["status"] == value);
        let told = |it: &Value| {
            let word = |key: &str| it[key].as_str().unwrap_or_default();
            (word("type").to_owned(), format!("{} {}", word("status"), word("reason")))
        };
        Self {
            master: text(&status["master"]),
            epoch: status["record"]["epoch"].as_u64().unwrap_or(0),
            in_sync: text(&status["inSync"]).unwrap_or_default(),
            ready: has("Ready", "True").is_some(),
            failover_cause: text(&status["lastFailover"]["cause"]),
            failover_ms: status["lastFailover"]["totalMs"].as_u64(),
            current_replicas: status["currentReplicas"].as_u64(),
            switchover_asked: !group["metadata"]["annotations"]["gantry.rs/switchover-to"].is_null(),
            settled: has("Progressing", "False").is_some_and(|it| {
                it["reason"] == "Settled" && it["observedGeneration"] == group["metadata"]["generation"]
            }),
            conditions: conditions().map(told).collect(),
        }
    }

    /// Whether a condition is there with this status and reason.
    pub fn says(&self, type_: &str, status_and_reason: &str) -> bool {
        self.conditions.get(type_).is_some_and(|said| said == status_and_reason)
    }

    /// Whole, and nothing of the spec is left to do.
    pub fn is_settled(&self) -> bool {
        self.settled && self.is_whole()
    }

    /// All replicas in sync, and their pods ready.
    pub fn is_whole(&self) -> bool {
        let mut numbers = self.in_sync.split('/');
        self.ready && numbers.next().is_some_and(|some| numbers.next() == Some(some))
    }
}

/// Follows one group until it is dropped.
pub struct Follower {
    child: Child,
    seen: Arc<Mutex<Status>>,
    /// The fewest replicas that were in sync in any status.
    fewest: Arc<Mutex<Option<usize>>>,
}

impl Follower {
    /// `watch` prints the object each time that it changes.
    pub(super) fn start(mut watch: Command) -> anyhow::Result<Self> {
        watch.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = watch.spawn().with_context(|| format!("starting {watch:?}"))?;
        let output = child.stdout.take().context("kubectl has no standard output")?;
        let (seen, fewest) = (Arc::default(), Arc::default());
        let shared = (Arc::clone(&seen), Arc::clone(&fewest));
        std::thread::spawn(move || read(output, &shared.0, &shared.1));
        Ok(Self { child, seen, fewest })
    }

    /// The fewest replicas that were in sync in any status since the first whole one.
    pub fn fewest_in_sync(&self) -> Option<usize> {
        *self.fewest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest.
    pub fn status(&self) -> Status {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it is as wanted.
    pub(super) fn wait_for(
        &mut self,
        what: &str,
        within: Duration,
        wanted: impl Fn(&Status) -> bool,
    ) -> anyhow::Result<Status> {
        wait::until(what, within, || {
            let status = self.status();
            if wanted(&status) {
                return Ok(Some(status));
            }
            if let Some(ended) = self.child.try_wait()? {
                bail!("kubectl, which follows the group, ended with {ended}");
            }
            bail!("the newest is {status:?}")
        })
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // One that has ended already is what is wanted.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn read(output: ChildStdout, seen: &Mutex<Status>, fewest: &Mutex<Option<usize>>) {
    for group in Deserializer::from_reader(BufReader::new(output)).into_iter::<Value>().map_while(Result::ok) {
        let status = Status::of(&group);
        let in_sync = status.in_sync.split('/').next().and_then(|number| number.parse().ok());
        {
            let mut fewest = fewest.lock().unwrap_or_else(PoisonError::into_inner);
            if fewest.is_some() || status.is_whole() {
                *fewest = [*fewest, in_sync].into_iter().flatten().min();
            }
        }
        *seen.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_group_is_whole_when_it_is_ready_and_all_are_in_sync() {
        let group = |in_sync: &str, ready: &str| {
            let conditions = json!([{"type": "Available", "status": "True"}, {"type": "Ready", "status": ready}]);
            Status::of(&json!({"status": {
                "master": "a-1", "inSync": in_sync, "record": {"epoch": 7}, "conditions": conditions,
                "lastFailover": {"cause": "MasterSilent", "totalMs": 7},
            }}))
        };
        let whole = group("3/3", "True");
        assert_eq!((whole.master.as_deref(), whole.epoch), (Some("a-1"), 7));
        assert_eq!((whole.failover_cause.as_deref(), whole.failover_ms), (Some("MasterSilent"), Some(7)));
        assert!(whole.says("Available", "True ") && !whole.says("Paused", "True Annotation"));
        assert!(whole.is_whole());
        assert!(!group("2/3", "True").is_whole());
        assert!(!group("3/3", "False").is_whole());
        assert!(!Status::of(&json!({})).is_whole());
    }
}
