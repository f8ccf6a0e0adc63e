//! A server process with its output in a file.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::process::{self, Signal};
use crate::{logs, wait};

/// A running server; dropping it kills it.
pub struct Daemon {
    child: Child,
    log: PathBuf,
    /// Where this life's output begins in the log.
    begins: usize,
}

impl Daemon {
    /// Starts it; what it says goes to the end of `log`.
    pub fn start(mut command: Command, log: PathBuf) -> anyhow::Result<Self> {
        let output = File::options().create(true).append(true).open(&log).with_context(|| log.display().to_string())?;
        let begins = output.metadata()?.len() as usize;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        Ok(Self { child, log, begins })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its output is.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Waits until it has said something that contains `text`; its end before that is an error.
    pub fn wait_for_line(&mut self, text: &str, within: Duration) -> anyhow::Result<()> {
        let mut ended = None;
        let said = wait::until(&format!("{text:?} in {}", self.log.display()), within, || {
            // Looked at first: what it said before its end is in the log by then.
            ended = self.child.try_wait()?;
            let said = std::fs::read(&self.log)?;
            let found = String::from_utf8_lossy(&said[self.begins.min(said.len())..]).contains(text);
            Ok((found || ended.is_some()).then_some(found))
        });
        if said.with_context(|| logs::tail(&self.log))? {
            return Ok(());
        }
        bail!("ended ({ended:?}) before it said {text:?}: {}", logs::tail(&self.log))
    }

    /// SIGTERM, and waits for its end.
    pub fn stop(mut self, within: Duration) -> anyhow::Result<()> {
        process::signal(self.pid(), Signal::TERM)?;
        let ended = wait::until(&format!("the end of process {}", self.pid()), within, || Ok(self.child.try_wait()?));
        ended.with_context(|| logs::tail(&self.log)).map(drop)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // One that has ended already is what is wanted.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
