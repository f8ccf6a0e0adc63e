//! One broker that stands alone, as a child process: no operator, no name server unless it is given one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::process::{self, Signal};
use crate::{binaries, logs, wait};

/// How long it may take to start, recovery included, and to stop. Generous: two busy cores.
const PATIENCE: Duration = Duration::from_mins(2);

/// A broker's settings and files; it is started and ended any number of times.
pub struct Broker {
    /// Where its configuration and its output are.
    folder: PathBuf,
    settings: BTreeMap<String, String>,
    child: Option<Child>,
    address: String,
}

impl Broker {
    /// A broker with its store in `store`; `folder` takes what it says. Port 0 everywhere: the system gives them.
    pub fn new(folder: &Path, store: &Path, settings: &[(&str, &str)]) -> Self {
        let fixed = [("brokerName", "broker-a"), ("listenPort", "0"), ("haListenPort", "0")];
        let mut all: BTreeMap<String, String> =
            fixed.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        all.insert("storePathRootDir".into(), store.display().to_string());
        all.extend(settings.iter().map(|(key, value)| ((*key).into(), (*value).into())));
        Self { folder: folder.to_owned(), settings: all, child: None, address: String::new() }
    }

    /// Starts it and waits until it serves.
    pub fn start(&mut self) -> anyhow::Result<()> {
        self.start_under(&[])
    }

    /// Starts it under a tool that runs a command, `strace` or its like.
    pub fn start_under(&mut self, tool: &[&str]) -> anyhow::Result<()> {
        assert!(self.child.is_none(), "the broker runs already");
        let configuration = self.folder.join("broker.conf");
        let lines: Vec<_> = self.settings.iter().map(|(key, value)| format!("{key}={value}")).collect();
        fs::write(&configuration, lines.join("\n")).with_context(|| configuration.display().to_string())?;
        let gantry = binaries::folder()?.join("gantry");
        let mut command = match tool.split_first() {
            Some((tool, arguments)) => {
                let mut command = Command::new(tool);
                command.args(arguments).arg(gantry);
                command
            }
            None => Command::new(gantry),
        };
        // A file of each life's own: what it says is that life's.
        let output = File::create(self.output()).context("making the broker's output")?;
        command
            .arg("broker")
            .arg("-c")
            .arg(&configuration)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        self.child = Some(command.spawn().with_context(|| format!("starting {command:?}"))?);
        self.address = wait::until("the broker's start", PATIENCE, || {
            let said = self.said();
            if let Some(address) = client_address(&said) {
                return Ok(Some(address));
            }
            match self.child.as_mut().and_then(|child| child.try_wait().transpose()) {
                // Not an error inside: that would be tried again.
                Some(ended) => Ok(Some(format!("it ended with {}", ended?))),
                None => Ok(None),
            }
        })
        .with_context(|| self.last_words())?;
        if self.address.starts_with("it ended") {
            self.child = None;
            bail!("the broker didn't start, {}: {}", self.address, self.last_words());
        }
        Ok(())
    }

    /// Where clients reach it.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its process, or that of the tool it runs under.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Everything that it said in this life.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.output()).unwrap_or_default()).into_owned()
    }

    /// `kill -9`, at once, of the tool too.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        process::kill_tree(child.id())?;
        child.wait().context("waiting for the broker's end")?;
        Ok(())
    }

    /// A planned stop.
    pub fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        let pid = self.pid().context("the broker doesn't run")?;
        process::signal(pid, Signal::TERM)?;
        self.wait_end()
    }

    /// Waits until it has ended by itself.
    pub fn wait_end(&mut self) -> anyhow::Result<ExitStatus> {
        let child = self.child.as_mut().context("the broker doesn't run")?;
        let ended = wait::until("the broker's end", PATIENCE, || Ok(child.try_wait()?));
        let ended = ended.with_context(|| self.last_words())?;
        self.child = None;
        Ok(ended)
    }

    fn output(&self) -> PathBuf {
        self.folder.join("broker.log")
    }

    fn last_words(&self) -> String {
        format!("its last words were: {}", logs::tail(&self.output()))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            logs::say(&format!("ending the broker: {error:#}"));
        }
        if std::thread::panicking() {
            logs::say(&self.last_words());
        }
    }
}

/// From the line that it says when it serves.
fn client_address(said: &str) -> Option<String> {
    let line = said.lines().find(|line| line.contains("broker started"))?;
    let address = line.split_whitespace().find_map(|word| word.strip_prefix("clients="))?;
    Some(address.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_in_the_line_that_tells_of_the_start() {
        let said =
            "INFO opening\nINFO gantry_broker: broker started replica=\"a-0\" clients=127.0.0.1:4711 ha=127.0.0.1:1\n";
        assert_eq!(client_address(said).as_deref(), Some("127.0.0.1:4711"));
        assert_eq!(client_address("INFO opening\n"), None);
    }
}
