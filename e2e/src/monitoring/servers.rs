//! Debian's Prometheus and Alertmanager as processes in a namespace, at ports given by the system.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use ureq::Agent;

use crate::daemon::Daemon;
use crate::lab::{Lab, Node};

/// How long each may take to listen. Generous: two busy cores.
const STARTS_WITHIN: Duration = Duration::from_mins(1);
const ANSWERS_WITHIN: Duration = Duration::from_secs(20);

/// Dropped, it is killed.
pub(super) struct Alertmanager {
    _daemon: Daemon,
    pub(super) address: String,
}

impl Alertmanager {
    /// Calls `webhook` at once for each alert by itself, and when it is over.
    pub(super) fn start(node: Node, folder: &Path, webhook: &str) -> anyhow::Result<Self> {
        let config = json!({
            "route": {
                "receiver": "test", "group_by": ["..."], "group_wait": "0s", "group_interval": "1s", "repeat_interval": "1h",
            },
            "receivers": [{"name": "test", "webhook_configs": [{"url": webhook, "send_resolved": true}]}],
        });
        let file = folder.join("alertmanager.yml");
        std::fs::write(&file, config.to_string()).context("writing Alertmanager's configuration")?;
        let mut command = Lab::command(node, "prometheus-alertmanager");
        command.arg(flag("config.file", &file)).arg(flag("storage.path", &folder.join("alertmanager")));
        command.arg(format!("--web.listen-address={}:0", node.address()));
        // By itself, without a cluster.
        command.arg("--cluster.listen-address=");
        let mut daemon = Daemon::start(command, folder.join("alertmanager.log"))?;
        let address = listens(&mut daemon).context("starting Alertmanager")?;
        Ok(Self { _daemon: daemon, address })
    }
}

/// Dropped, it is killed.
pub(super) struct Prometheus {
    _daemon: Daemon,
    node: Node,
    address: String,
    agent: Agent,
}

impl Prometheus {
    /// Scrapes what `targets.json` in the folder names, and evaluates the folder's `rules.yml`, each second.
    pub(super) fn start(node: Node, folder: &Path, alertmanager: &str) -> anyhow::Result<Self> {
        let config = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yml"],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
            "scrape_configs": [{"job_name": "gantry/brokers", "file_sd_configs": [{"files": ["targets.json"]}]}],
        });
        let file = folder.join("prometheus.yml");
        std::fs::write(&file, config.to_string()).context("writing Prometheus' configuration")?;
        let mut command = Lab::command(node, "prometheus");
        command.arg(flag("config.file", &file)).arg(flag("storage.tsdb.path", &folder.join("prometheus")));
        command.arg(format!("--web.listen-address={}:0", node.address()));
        let mut daemon = Daemon::start(command, folder.join("prometheus.log"))?;
        let address = listens(&mut daemon).context("starting Prometheus")?;
        daemon.wait_for_line("Server is ready to receive web requests", STARTS_WITHIN)?;
        let agent = Agent::config_builder()
            .timeout_global(Some(ANSWERS_WITHIN))
            .http_status_as_error(false)
            .proxy(None)
            .build()
            .into();
        Ok(Self { _daemon: daemon, node, address, agent })
    }

    /// What its API answers: the `data`.
    pub(super) fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> anyhow::Result<Value> {
        let asking = || format!("asking Prometheus for {path} {parameters:?}");
        let url = format!("http://{}/api/v1/{path}", self.address);
        let mut answer: Value = Lab::inside(self.node, || {
            let mut answer = self.agent.get(url).query_pairs(parameters.iter().copied()).call()?;
            Ok(answer.body_mut().read_json()?)
        })
        .with_context(asking)?;
        if answer["status"] != "success" {
            bail!("{}: it said {answer}", asking());
        }
        Ok(answer["data"].take())
    }
}

fn flag(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}

/// Where it listens, by its log.
fn listens(daemon: &mut Daemon) -> anyhow::Result<String> {
    const LINE: &str = "TLS is disabled.";
    daemon.wait_for_line(LINE, STARTS_WITHIN)?;
    let log = std::fs::read_to_string(daemon.log())?;
    let line = log.lines().rev().find(|line| line.contains(LINE)).unwrap_or_default();
    let address = line.split_once("address=").and_then(|(_, rest)| rest.split_whitespace().next());
    address.map(str::to_owned).with_context(|| format!("{line:?} names no address"))
}
