//! Client programs over the official libraries, as child processes.

use std::ffi::{OsStr, OsString};
use std::fmt::{self, Display};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use tempfile::TempDir;

use crate::{logs, process, wait};

/// An official library, at the version that the build script pins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Library {
    /// `org.apache.rocketmq:rocketmq-client` 5.5.0.
    #[value(name = "java")]
    Java5,
    /// `org.apache.rocketmq:rocketmq-client` 4.9.7.
    #[value(name = "java4")]
    Java4,
    /// `github.com/apache/rocketmq-client-go/v2`.
    Go,
    /// `ali-ons`, pure JavaScript.
    Node,
}

impl Display for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Java5 => "java",
            Self::Java4 => "java4",
            Self::Go => "go",
            Self::Node => "node",
        })
    }
}

impl Library {
    fn build_name(self) -> &'static str {
        match self {
            Self::Java5 => "java-5.5.0",
            Self::Java4 => "java-4.9.7",
            Self::Go => "go",
            Self::Node => "node",
        }
    }

    /// Whether the program creates its topic by itself; for the others it must be there.
    pub fn creates_topics(self) -> bool {
        matches!(self, Self::Java5 | Self::Java4)
    }

    fn command(self, home: &Path) -> anyhow::Result<Command> {
        let folder = built(self.build_name())?;
        match self {
            Self::Java5 | Self::Java4 => Ok(java(&folder, home)),
            Self::Go => Ok(Command::new(folder.join("client"))),
            Self::Node => {
                let mut command = Command::new("node");
                command.arg(folder.join("client.js"));
                Ok(command)
            }
        }
    }
}

/// The same command behind another one that starts it.
fn behind(front: Vec<OsString>, command: Command) -> Command {
    let mut front = front.into_iter();
    let Some(first) = front.next() else { return command };
    let mut whole = Command::new(first);
    whole.args(front).arg(command.get_program()).args(command.get_args());
    whole
}

/// Where the build script has a program, or Apache's jars; it builds or fetches them first when they are missing.
pub(crate) fn built(name: &str) -> anyhow::Result<PathBuf> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/build");
    let output = Command::new(script).arg(name).output().with_context(|| script.to_owned())?;
    let said = String::from_utf8_lossy(&output.stdout);
    match said.trim().split_once(' ') {
        Some((_, folder)) if output.status.success() => Ok(folder.into()),
        _ => bail!("{script} {name}: {}", String::from_utf8_lossy(&output.stderr)),
    }
}

/// A JVM that starts quickly, takes little, and writes its library's logs below `home`.
fn java(folder: &Path, home: &Path) -> Command {
    let mut command = Command::new("java");
    command.args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.net.preferIPv4Stack=true"]);
    command.arg(format!("-Duser.home={}", home.display()));
    command.arg(format!("-Drocketmq.client.logRoot={}", home.display()));
    command.arg("-cp").arg(format!("{0}/classes:{0}/lib/*", folder.display())).arg("gantry.e2e.Main");
    command
}

fn work_folder() -> anyhow::Result<TempDir> {
    let mut work = TempDir::with_prefix("gantry-client-").context("making the client's folder")?;
    work.disable_cleanup(std::env::var_os("GANTRY_KEEP").is_some());
    Ok(work)
}

/// A client program with its flags, not yet started. With `GANTRY_KEEP` set its folder stays, with the history.
#[derive(Debug)]
pub struct Job {
    command: Command,
    work: TempDir,
    library: Library,
    until_told: bool,
}

impl Job {
    /// `subcommand` is `load`, `consume` or `pair`; e2e/clients/java has the flags. `front` stands before the command.
    pub fn new(
        library: Library,
        front: Vec<OsString>,
        subcommand: &str,
        nameserver: &str,
        topic: &str,
    ) -> anyhow::Result<Self> {
        let work = work_folder()?;
        let mut command = behind(front, library.command(work.path())?);
        command.arg(subcommand).args(["--namesrv", nameserver, "--topic", topic]);
        command.arg("--history").arg(work.path().join("history"));
        Ok(Self { command, work, library, until_told: false })
    }

    /// One that `command` starts on another machine, where it writes `history`: whoever asks for that brings it to [`Outcome::history`].
    pub(crate) fn elsewhere(
        library: Library,
        mut command: Command,
        subcommand: &str,
        nameserver: &str,
        topic: &str,
        history: &str,
    ) -> anyhow::Result<Self> {
        command.arg(subcommand).args(["--namesrv", nameserver, "--topic", topic, "--history", history]);
        Ok(Self { command, work: work_folder()?, library, until_told: false })
    }

    /// Adds a flag and its value.
    #[must_use]
    pub fn with(mut self, flag: &str, value: impl Display) -> Self {
        self.command.arg(format!("--{flag}")).arg(format!("{value}"));
        self
    }

    /// Adds a flag whose value is a path.
    #[must_use]
    pub fn with_path(mut self, flag: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.arg(format!("--{flag}")).arg(value);
        self
    }

    /// It sends until [`Running::tell_end`].
    #[must_use]
    pub fn until_told(mut self) -> Self {
        self.until_told = true;
        self.with("until-stdin-ends", true)
    }

    /// Starts the program.
    pub fn start(mut self) -> anyhow::Result<Running> {
        let complaints = File::create(self.work.path().join("stderr.log"))?;
        let stdin = if self.until_told { Stdio::piped() } else { Stdio::null() };
        self.command.current_dir(self.work.path()).stdin(stdin).stdout(Stdio::piped()).stderr(complaints);
        let mut child = self.command.spawn().with_context(|| format!("starting {:?}", self.command))?;
        let output = child.stdout.take().context("the client has no standard output")?;
        let stdin = child.stdin.take();
        let seen = Arc::new(Mutex::new(Progress::default()));
        let shared = Arc::clone(&seen);
        std::thread::spawn(move || follow(output, &shared));
        Ok(Running { child, stdin, work: Some(self.work), library: self.library, seen })
    }

    /// Starts the program and waits for its end.
    pub fn run(self, within: Duration) -> anyhow::Result<Outcome> {
        self.start()?.finish(within)
    }
}

/// The figures of a client's newest line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Whether it said that it is ready.
    pub ready: bool,
    /// Messages acknowledged.
    pub acked: u64,
    /// Deliveries.
    pub received: u64,
    /// Sends that ended in an error that the application saw.
    pub errors: u64,
}

fn follow(output: ChildStdout, seen: &Mutex<Progress>) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split(' ').collect();
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        match words[..] {
            ["ready"] => seen.ready = true,
            ["progress" | "done", "acked", acked, "received", received, "errors", errors] => {
                let number = |text: &str| text.parse().unwrap_or(0);
                *seen =
                    Progress { ready: true, acked: number(acked), received: number(received), errors: number(errors) };
            }
            _ => logs::say(&format!("client: {line}")),
        }
    }
}

/// A client program that runs; dropping it kills it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    work: Option<TempDir>,
    library: Library,
    seen: Arc<Mutex<Progress>>,
}

impl Running {
    /// Its newest figures.
    pub fn progress(&self) -> Progress {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the figures are as wanted; its end before that is an error.
    pub fn wait_for(&mut self, what: &str, within: Duration, wanted: impl Fn(Progress) -> bool) -> anyhow::Result<()> {
        let mut ended = None;
        let result = wait::until(what, within, || {
            if wanted(self.progress()) || ended.is_some() {
                return Ok(Some(()));
            }
            ended = self.child.try_wait()?;
            Ok(None)
        });
        result.with_context(|| self.told())?;
        match ended {
            Some(status) if !wanted(self.progress()) => bail!("ended with {status} before {what}: {}", self.told()),
            _ => Ok(()),
        }
    }

    /// Waits until so many messages were acknowledged.
    pub fn wait_acked(&mut self, acked: u64, within: Duration) -> anyhow::Result<()> {
        self.wait_for(&format!("{acked} acknowledged messages"), within, |progress| progress.acked >= acked)
    }

    /// A program that sends until it is told makes no further message.
    pub fn tell_end(&mut self) {
        self.stdin = None;
    }

    /// Waits for the program's end.
    pub fn finish(mut self, within: Duration) -> anyhow::Result<Outcome> {
        let status =
            wait::until("the client's end", within, || Ok(self.child.try_wait()?)).with_context(|| self.told())?;
        let work = self.work.take().context("the client's folder is gone")?;
        let complaints = logs::tail(&work.path().join("stderr.log"));
        let code = status.code();
        let outcome = Outcome { code, library: self.library, complaints, progress: self.progress(), work };
        if !matches!(code, Some(0 | 3)) {
            bail!("the client broke: {outcome}");
        }
        Ok(outcome)
    }

    fn told(&self) -> String {
        let complaints = self.work.as_ref().map(|work| logs::tail(&work.path().join("stderr.log")));
        format!("{} client: {:?}, standard error: {}", self.library, self.progress(), complaints.unwrap_or_default())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.work.is_some() {
            process::kill_tree(self.child.id()).ok();
            self.child.wait().ok();
        }
    }
}

/// What a client program left behind; its history lives as long as this.
#[derive(Debug)]
pub struct Outcome {
    code: Option<i32>,
    library: Library,
    complaints: String,
    /// Its last figures.
    pub progress: Progress,
    work: TempDir,
}

impl Outcome {
    /// Whether the program did its whole job: sent everything, received everything that it waited for.
    pub fn is_complete(&self) -> bool {
        self.code == Some(0)
    }

    /// The history's file.
    pub fn history(&self) -> PathBuf {
        self.work.path().join("history")
    }
}

impl Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} client ended with {:?}, {:?}: {}", self.library, self.code, self.progress, self.complaints)
    }
}
