//! A group's status as it changes, by one `kubectl get --watch`.

use std::io::BufReader;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Deserializer, Value};

use crate::{logs, wait};

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
    /// The condition's reason and message.
    pub ready_says: String,
    /// How far its master's log was when the operator wrote this.
    pub master_end: u64,
    /// What of `lastFailover`: why.
    pub failover_reason: Option<String>,
}

impl Status {
    pub(super) fn of(group: &Value) -> Self {
        let status = &group["status"];
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let conditions = status["conditions"].as_array().into_iter().flatten();
        let ready = conditions.into_iter().find(|it| it["type"] == "Ready").unwrap_or(&Value::Null);
        let says = |key: &str| ready[key].as_str().unwrap_or_default();
        let mut replicas = status["replicas"].as_array().into_iter().flatten();
        let master = replicas.find(|replica| replica["role"] == "Master").unwrap_or(&Value::Null);
        Self {
            master: text(&status["master"]),
            epoch: status["record"]["epoch"].as_u64().unwrap_or(0),
            in_sync: text(&status["inSync"]).unwrap_or_default(),
            ready: ready["status"] == "True",
            ready_says: format!("{}: {}", says("reason"), says("message")),
            master_end: master["maxOffset"].as_u64().unwrap_or(0),
            failover_reason: text(&status["lastFailover"]["reason"]),
        }
    }

    /// All replicas in sync, and their pods ready.
    pub fn is_whole(&self) -> bool {
        let mut numbers = self.in_sync.split('/');
        self.ready && numbers.next().is_some_and(|some| numbers.next() == Some(some))
    }
}

/// Before a `kubectl` that has ended is started again: it ends at once while there is no API server.
const AGAIN: Duration = Duration::from_millis(200);

/// Follows one group until it is dropped, through whatever becomes of the API server.
pub struct Follower {
    seen: Arc<Mutex<Status>>,
    kubectl: Arc<Mutex<Kubectl>>,
}

#[derive(Default)]
struct Kubectl {
    child: Option<Child>,
    over: bool,
}

impl Follower {
    /// `watch` prints the object each time that it changes.
    pub(super) fn start(mut watch: Command) -> anyhow::Result<Self> {
        // While there is no API server it complains each time that it is started.
        watch.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let follower = Self { seen: Arc::default(), kubectl: Arc::default() };
        let mut output = begin(&mut watch, &follower.kubectl)?;
        let (seen, kubectl) = (Arc::clone(&follower.seen), Arc::clone(&follower.kubectl));
        std::thread::spawn(move || {
            while let Some(lines) = output {
                read(lines, &seen);
                std::thread::sleep(AGAIN);
                output = match begin(&mut watch, &kubectl) {
                    Ok(output) => output,
                    Err(error) => return logs::say(&format!("the group is not followed any more: {error:#}")),
                };
            }
        });
        Ok(follower)
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
            bail!("the newest is {status:?}")
        })
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut kubectl = self.kubectl.lock().unwrap_or_else(PoisonError::into_inner);
        kubectl.over = true;
        kubectl.end();
    }
}

impl Kubectl {
    fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            // One that has ended already is what is wanted.
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// What it prints; none once nobody follows any more.
fn begin(watch: &mut Command, kubectl: &Mutex<Kubectl>) -> anyhow::Result<Option<ChildStdout>> {
    let mut kubectl = kubectl.lock().unwrap_or_else(PoisonError::into_inner);
    kubectl.end();
    if kubectl.over {
        return Ok(None);
    }
    let mut child = watch.spawn().with_context(|| format!("starting {watch:?}"))?;
    let output = child.stdout.take().context("kubectl has no standard output")?;
    kubectl.child = Some(child);
    Ok(Some(output))
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
