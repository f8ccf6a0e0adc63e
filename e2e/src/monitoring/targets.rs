//! Where Prometheus finds the brokers: it is told anew when one has started again, as it is of pods by Kubernetes.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};

use crate::group::{Group, replica_name};
use crate::logs;

const EACH: Duration = Duration::from_millis(100);

/// Keeps a file of targets true until it is dropped.
pub(super) struct Discovery {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Discovery {
    /// `file` is what `file_sd_configs` names. It is there when this returns.
    pub(super) fn start(group: &Group, file: PathBuf) -> anyhow::Result<Self> {
        let brokers: Vec<_> = (0..usize::from(group.replicas()))
            .map(|ordinal| (replica_name(ordinal), group.broker_log(ordinal)))
            .collect();
        let mut known = targets(&brokers)?;
        write(&file, &known)?;
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            while stopped.recv_timeout(EACH) == Err(RecvTimeoutError::Timeout) {
                let now = targets(&brokers).and_then(|now| {
                    if now != known {
                        write(&file, &now)?;
                        known = now;
                    }
                    Ok(())
                });
                if let Err(error) = now {
                    logs::say(&format!("Prometheus isn't told where brokers are: {error:#}"));
                }
            }
        });
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        self.stop.take();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            logs::say("the thread that tells Prometheus where brokers are panicked");
        }
    }
}

/// With the labels that a PodMonitor gives.
fn targets(brokers: &[(String, PathBuf)]) -> anyhow::Result<Value> {
    let mut targets = Vec::new();
    for (name, log) in brokers {
        let text = std::fs::read_to_string(log).with_context(|| format!("reading {}", log.display()))?;
        let address = address_in(&text).with_context(|| format!("{} doesn't say where metrics are", log.display()))?;
        let labels = json!({"namespace": "shop", "pod": name, "container": "broker", "endpoint": "http"});
        targets.push(json!({"targets": [address], "labels": labels}));
    }
    Ok(Value::Array(targets))
}

/// The newest.
fn address_in(log: &str) -> Option<&str> {
    let line = log.lines().rev().find(|line| line.contains("probes and metrics"))?;
    line.split_once("address=")?.1.split_whitespace().next()
}

/// Whoever reads meanwhile reads the old or the new one.
fn write(file: &Path, targets: &Value) -> anyhow::Result<()> {
    let fresh = file.with_extension("new");
    std::fs::write(&fresh, targets.to_string())?;
    std::fs::rename(&fresh, file).with_context(|| format!("writing {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_that_started_again_is_at_its_new_address() {
        let log = "INFO probes and metrics address=10.0.0.1:1\nINFO other\n";
        assert_eq!(address_in(log), Some("10.0.0.1:1"));
        assert_eq!(address_in(&format!("{log}INFO probes and metrics address=10.0.0.1:2 x=y\n")), Some("10.0.0.1:2"));
        assert_eq!(address_in("INFO other\n"), None);
    }
}
