//! Apache's own name server, broker and admin tool, from Maven Central: peers to replicate with, and the measure of what
//! their tools understand. Small heaps, loopback, ports given by the system.

mod broker;
mod jvm;

use std::fmt::{self, Display};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::client;
use crate::daemon::Daemon;
use crate::ports;
pub use broker::{Broker, Settings};

/// A JVM on two busy cores.
pub(crate) const START_WITHIN: Duration = Duration::from_mins(2);

/// A release of Apache RocketMQ that Maven Central has whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 4.9.7
    V4,
    /// 5.5.0
    V5,
}

impl Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "4.9.7",
            Self::V5 => "5.5.0",
        })
    }
}

impl Version {
    /// The folder with its jars, fetched first when it is missing.
    fn folder(self) -> anyhow::Result<PathBuf> {
        client::built(&format!("apache-{self}"))
    }
}

/// A running name server; dropping it kills it.
pub struct NameServer {
    daemon: Daemon,
    address: String,
}

impl NameServer {
    /// Starts one in a folder of its own.
    pub fn start(version: Version, folder: &Path) -> anyhow::Result<Self> {
        Self::start_with(version, folder, &[])
    }

    /// The same with further keys and values of `namesrv.conf`.
    pub fn start_with(version: Version, folder: &Path, others: &[(&str, String)]) -> anyhow::Result<Self> {
        let port = ports::free(&[0])?;
        std::fs::create_dir_all(folder)?;
        let config = folder.join("namesrv.conf");
        let mut text = format!("listenPort={port}\n");
        if version == Version::V5 {
            text.push_str("bindAddress=127.0.0.1\n");
        }
        text.extend(others.iter().map(|(key, value)| format!("{key}={value}\n")));
        std::fs::write(&config, text)?;
        let mut command = jvm::command(version, folder, 128)?;
        command.arg("org.apache.rocketmq.namesrv.NamesrvStartup").arg("-c").arg(&config);
        let mut daemon = Daemon::start(command, folder.join("namesrv.log"))?;
        daemon.wait_for_line("boot success", START_WITHIN)?;
        Ok(Self { daemon, address: format!("127.0.0.1:{port}") })
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }
}

/// Runs a subcommand of `mqadmin`; answers what it printed. Its errors go to standard output too, so that is no proof of success.
pub fn mqadmin(version: Version, folder: &Path, nameserver: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let home = folder.join("mqadmin");
    std::fs::create_dir_all(&home)?;
    let mut command: Command = jvm::command(version, &home, 128)?;
    command.env("NAMESRV_ADDR", nameserver).arg("org.apache.rocketmq.tools.command.MQAdminStartup").args(arguments);
    let output = command.output().context("starting mqadmin")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("mqadmin {arguments:?}: {}: {said}{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(said)
}
