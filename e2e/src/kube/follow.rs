//! A group's status as it changes, by one `kubectl get --watch`.

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
    pub failover_reason: Option<String>,
}

impl Status {
    pub(super) fn of(group: &Value) -> Self {
        let status = &group["status"];
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let conditions = status["conditions"].as_array().into_iter().flatten();
        Self {
            master: text(&status["master"]),
            epoch: status["record"]["epoch"].as_u64().unwrap_or(0),
            in_sync: text(&status["inSync"]).unwrap_or_default(),
            ready: conditions.into_iter().any(|it| it["type"] == "Ready" && it["status"] == "True"),
            failover_reason: text(&status["lastFailover"]["reason"]),
        }
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
}

impl Follower {
    /// `watch` prints the object each time that it changes.
    pub(super) fn start(mut watch: Command) -> anyhow::Result<Self> {
        watch.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = watch.spawn().with_context(|| format!("starting {watch:?}"))?;
        let output = child.stdout.take().context("kubectl has no standard output")?;
        let seen = Arc::default();
        let shared = Arc::clone(&seen);
        std::thread::spawn(move || read(output, &shared));
        Ok(Self { child, seen })
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

fn read(output: ChildStdout, seen: &Mutex<Status>) {
    for group in Deserializer::from_reader(BufReader::new(output)).into_iter::<Value>().map_while(Result::ok) {
        *seen.lock().unwrap_or_else(PoisonError::into_inner) = Status::of(&group);
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
                "lastFailover": {"reason": "silence"},
            }}))
        };
        let whole = group("3/3", "True");
        assert_eq!((whole.master.as_deref(), whole.epoch), (Some("a-1"), 7));
        assert_eq!(whole.failover_reason.as_deref(), Some("silence"));
        assert!(whole.is_whole());
        assert!(!group("2/3", "True").is_whole());
        assert!(!group("3/3", "False").is_whole());
        assert!(!Status::of(&json!({})).is_whole());
    }
}
