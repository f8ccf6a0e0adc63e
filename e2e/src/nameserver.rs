//! A name server as a child process, on a port given by the system.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::Context;

use crate::binaries;

/// Running; dropping it ends it.
pub struct Nameserver {
    child: Child,
    address: String,
}

impl Nameserver {
    /// Starts one and waits until it listens.
    pub fn start() -> anyhow::Result<Self> {
        let mut command = Command::new(binaries::folder()?.join("gantry"));
        command.args(["nameserver", "--listen", "127.0.0.1:0"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut started =
            Self { child: child.with_context(|| format!("starting {command:?}"))?, address: String::new() };
        let output = started.child.stdout.take().context("the name server has no standard output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).context("reading the name server's address")?;
        let address = line.trim().strip_prefix("listening on ");
        address.with_context(|| format!("the name server said {line:?}"))?.clone_into(&mut started.address);
        Ok(started)
    }

    /// What clients and brokers are given.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Nameserver {
    fn drop(&mut self) {
        // Ended already is as good.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
