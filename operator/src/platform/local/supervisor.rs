//! Keeps one child process running: starts it, says so, restarts it with back-off, and stops it in the end.
//!
//! The child's standard input is a pipe that this process holds: when this process ends, however that happens, the pipe closes,
//! and a child started with `--exit-with-stdin` ends too. Each child leads a process group of its own, so that a Ctrl-C in the
//! terminal reaches this process alone, which stops the children in their order.

use std::convert::Infallible;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};

use super::child_log::{self, MAX_LOG_BYTES};
use crate::plan::Command;

/// How restarts are spaced.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// Before the first restart.
    pub first: Duration,
    /// Doubled with each restart up to this.
    pub most: Duration,
    /// A child that lived this long starts from `first` again.
    pub reset_after: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(100), most: Duration::from_secs(10), reset_after: Duration::from_secs(30) }
    }
}

impl Backoff {
    /// The wait before the next start, after a child that lived so long and was started after waiting `last`.
    fn next(&self, last: Option<Duration>, lived: Duration) -> Duration {
        match last {
            Some(last) if lived < self.reset_after => (last * 2).min(self.most),
            _ => self.first,
        }
    }
}

/// What to keep running.
#[derive(Clone, Debug)]
pub struct ChildPlan {
    /// Its name in events.
    pub name: String,
    /// What to run.
    pub command: Command,
    /// Where its output goes, appended; bounded, see [`child_log`].
    pub log: PathBuf,
    /// Whether the first line of its standard output is told as [`ChildEvent::Announced`].
    pub announces: bool,
}

/// How often a running child's log is looked at.
const LOG_CHECK: Duration = Duration::from_secs(10);

/// Longest line that is taken as an announcement.
const MAX_ANNOUNCEMENT_BYTES: u64 = 4096;

/// What happens to a child. A child's events come in order, and its end is told before it is started again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChildEvent {
    /// It runs.
    Started {
        /// Its name.
        name: String,
        /// Its process.
        pid: u32,
    },
    /// It said its first line.
    Announced {
        /// Its name.
        name: String,
        /// The line, without its end.
        line: String,
    },
    /// It has ended, or could not be started, and will be started again.
    Ended {
        /// Its name.
        name: String,
        /// How, in words, with the last line of its log.
        how: String,
        /// When it will be started again.
        again_in: Duration,
    },
}

/// Whom events are told. Called where they happen: it must not block.
pub type Tell = Arc<dyn Fn(ChildEvent) + Send + Sync>;

/// How a child was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It ended when asked to, or wasn't running.
    ByItself,
    /// It had to be killed.
    Killed,
}

/// A child being kept running. Dropped, it is killed.
#[derive(Debug)]
pub struct Supervised {
    command: Arc<Mutex<Command>>,
    stop: Option<oneshot::Sender<(Duration, oneshot::Sender<Stopped>)>>,
}

impl Supervised {
    /// Starts the child and keeps it running, from now on.
    pub fn start(plan: ChildPlan, backoff: Backoff, tell: Tell) -> Self {
        let (stop, stopping) = oneshot::channel();
        let command = Arc::new(Mutex::new(plan.command.clone()));
        let keeper = Keeper { plan, command: Arc::clone(&command), backoff, tell };
        tokio::spawn(keeper.run(stopping));
        Self { command, stop: Some(stop) }
    }

    /// What its next start will run.
    pub fn set_command(&self, command: Command) {
        *self.command.lock() = command;
    }

    /// Asks it to end (SIGTERM, standard input closed), kills it after `patience`.
    pub async fn stop(mut self, patience: Duration) -> Stopped {
        let Some(stop) = self.stop.take() else { return Stopped::ByItself };
        let (answer, stopped) = oneshot::channel();
        if stop.send((patience, answer)).is_err() {
            return Stopped::ByItself;
        }
        stopped.await.unwrap_or(Stopped::Killed)
    }
}

type Stopping = oneshot::Receiver<(Duration, oneshot::Sender<Stopped>)>;

struct Keeper {
    plan: ChildPlan,
    command: Arc<Mutex<Command>>,
    backoff: Backoff,
    tell: Tell,
}

impl Keeper {
    async fn run(self, mut stopping: Stopping) {
        let mut waited = None;
        loop {
            let began = Instant::now();
            let how = match self.spawn() {
                Err(error) => format!("can't be started: {error}"),
                Ok(mut child) => {
                    // Taken out, because waiting would close it, and with it end the child.
                    let lifeline = child.stdin.take();
                    self.tell_start(&mut child);
                    tokio::select! {
                        ended = child.wait() => self.describe(&ended),
                        never = self.bound_log() => match never {},
                        asked = &mut stopping => {
                            drop(lifeline);
                            let stopped = end(child, asked.as_ref().map_or(Duration::ZERO, |(patience, _)| *patience)).await;
                            answer(asked.ok(), stopped);
                            return;
                        }
                    }
                }
            };
            let again_in = self.backoff.next(waited, began.elapsed());
            waited = Some(again_in);
            (self.tell)(ChildEvent::Ended { name: self.plan.name.clone(), how, again_in });
            tokio::select! {
                () = sleep(again_in) => {}
                asked = &mut stopping => return answer(asked.ok(), Stopped::ByItself),
            }
        }
    }

    fn spawn(&self) -> io::Result<Child> {
        let log = child_log::open(&self.plan.log)
            .map_err(|error| io::Error::new(error.kind(), format!("its log {}: {error}", self.plan.log.display())))?;
        let command = self.command.lock().clone();
        let stdout = if self.plan.announces { Stdio::piped() } else { log.try_clone()?.into() };
        tokio::process::Command::new(&command.program)
            .args(&command.args)
            .stdin(Stdio::piped())
            .stdout(stdout)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", command.program.display())))
    }

    /// For as long as the child runs.
    async fn bound_log(&self) -> Infallible {
        loop {
            sleep(LOG_CHECK).await;
            let log = self.plan.log.clone();
            let bounded = spawn_blocking(move || child_log::bound(&log, MAX_LOG_BYTES)).await;
            if let Err(error) = bounded.map_err(io::Error::other).flatten() {
                tracing::warn!(log = %self.plan.log.display(), %error, "a child's log can't be kept small");
            }
        }
    }

    fn tell_start(&self, child: &mut Child) {
        let Some(pid) = child.id() else { return };
        (self.tell)(ChildEvent::Started { name: self.plan.name.clone(), pid });
        if let Some(stdout) = child.stdout.take() {
            tokio::spawn(announce(self.plan.name.clone(), stdout, self.plan.log.clone(), Arc::clone(&self.tell)));
        }
    }

    fn describe(&self, ended: &io::Result<ExitStatus>) -> String {
        let how = match ended {
            // Who was killed from outside has no last words.
            Ok(status) if status.signal() == Some(Signal::KILL.as_raw()) => return "killed (SIGKILL)".to_owned(),
            Ok(status) => status.to_string(),
            Err(error) => format!("can't be waited for: {error}"),
        };
        match child_log::last_line(&self.plan.log) {
            Some(line) => format!("{how}; last in {}: {line}", self.plan.log.display()),
            None => how,
        }
    }
}

fn answer(asked: Option<(Duration, oneshot::Sender<Stopped>)>, stopped: Stopped) {
    if let Some((_, answer)) = asked {
        // Whoever asked may have stopped waiting.
        answer.send(stopped).ok();
    }
}

async fn end(mut child: Child, patience: Duration) -> Stopped {
    if let Some(pid) = child.id().and_then(|pid| Pid::from_raw(pid as i32)) {
        // It is not reaped yet, so the number is its own. It may be gone already, which is as good.
        kill_process(pid, Signal::TERM).ok();
        // Should it be frozen, it has to wake up in order to end.
        kill_process(pid, Signal::CONT).ok();
    }
    if timeout(patience, child.wait()).await.is_ok() {
        return Stopped::ByItself;
    }
    if let Err(error) = child.kill().await {
        tracing::warn!(%error, "a child could not be killed");
    }
    Stopped::Killed
}

/// Tells the first line, and copies everything to the log.
async fn announce(name: String, stdout: ChildStdout, log: PathBuf, tell: Tell) {
    let mut reader = BufReader::new(stdout);
    let mut line = Vec::new();
    let mut first = (&mut reader).take(MAX_ANNOUNCEMENT_BYTES);
    if first.read_until(b'\n', &mut line).await.is_ok_and(|bytes| bytes > 0) {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        tell(ChildEvent::Announced { name, line: text });
    }
    let mut file = match OpenOptions::new().append(true).create(true).open(&log) {
        Ok(file) => file,
        Err(error) => return tracing::warn!(log = %log.display(), %error, "a child's output is lost"),
    };
    let mut buffer = line;
    while !buffer.is_empty() {
        if let Err(error) = file.write_all(&buffer) {
            tracing::warn!(log = %log.display(), %error, "part of a child's output is lost");
        }
        buffer.clear();
        // An error reading a pipe is its end.
        reader.read_buf(&mut buffer).await.ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;
    use tokio::sync::mpsc;

    const FAST: Backoff = Backoff {
        first: Duration::from_millis(1),
        most: Duration::from_millis(4),
        reset_after: Duration::from_secs(30),
    };

    struct Rig {
        dir: TempDir,
        child: Supervised,
        events: mpsc::UnboundedReceiver<ChildEvent>,
    }

    fn channel() -> (Tell, mpsc::UnboundedReceiver<ChildEvent>) {
        let (sender, events) = mpsc::unbounded_channel();
        // A test that has seen enough drops its end.
        (Arc::new(move |event| drop(sender.send(event))), events)
    }

    fn run(script: &str, announces: bool) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let command = Command { program: "/bin/sh".into(), args: vec!["-c".into(), script.into()] };
        let plan =
            ChildPlan { name: "child".to_owned(), command, log: dir.path().join("log").join("child.log"), announces };
        let (tell, events) = channel();
        Rig { dir, child: Supervised::start(plan, FAST, tell), events }
    }

    impl Rig {
        async fn event(&mut self) -> ChildEvent {
            timeout(Duration::from_secs(20), self.events.recv()).await.expect("an event in time").unwrap()
        }

        async fn pid(&mut self) -> u32 {
            match self.event().await {
                ChildEvent::Started { pid, .. } => pid,
                other => panic!("{other:?}"),
            }
        }

        async fn how_it_ended(&mut self) -> (String, Duration) {
            match self.event().await {
                ChildEvent::Ended { how, again_in, .. } => (how, again_in),
                other => panic!("{other:?}"),
            }
        }

        fn log(&self) -> String {
            std::fs::read_to_string(self.dir.path().join("log").join("child.log")).unwrap()
        }
    }

    fn is_alive(pid: u32) -> bool {
        rustix::process::test_kill_process(Pid::from_raw(pid as i32).unwrap()).is_ok()
    }

    #[test]
    fn waits_double_up_to_the_most_and_start_over_after_a_long_life() {
        let backoff = Backoff::default();
        let (short, long) = (Duration::from_millis(5), Duration::from_secs(30));
        let mut waits = Vec::new();
        let mut last = None;
        for lived in [short, short, short, short, short, short, short, short, short, long, short] {
            let wait = backoff.next(last, lived);
            waits.push(wait.as_millis());
            last = Some(wait);
        }
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 100, 200]);
    }

    #[tokio::test]
    async fn a_child_that_dies_is_told_dead_and_started_again() {
        let mut rig = run("echo last words >&2; exit 3", false);
        for expected_wait_ms in [1, 2, 4, 4] {
            let pid = rig.pid().await;
            assert!(pid > 0);
            let (how, again_in) = rig.how_it_ended().await;
            assert!(how.contains("exit status: 3") && how.ends_with("last words"), "{how}");
            assert_eq!(again_in, Duration::from_millis(expected_wait_ms));
        }
        rig.child.stop(Duration::from_secs(20)).await;
    }

    #[tokio::test]
    async fn a_killed_child_is_told_dead_at_once() {
        let mut rig = run("cat", false);
        let pid = rig.pid().await;
        kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL).unwrap();
        let (how, _) = rig.how_it_ended().await;
        assert!(how.contains("killed (SIGKILL)"), "{how}");
        assert_ne!(rig.pid().await, pid);
        rig.child.stop(Duration::from_secs(20)).await;
    }

    #[tokio::test]
    async fn a_program_that_is_missing_is_named_and_tried_again() {
        let (tell, mut events) = channel();
        let dir = tempfile::tempdir().unwrap();
        let command = Command { program: "/nonexistent/gantry".into(), args: Vec::new() };
        let plan = ChildPlan { name: "child".to_owned(), command, log: dir.path().join("log"), announces: false };
        let child = Supervised::start(plan, FAST, tell);
        for _ in 0..2 {
            let Some(ChildEvent::Ended { how, .. }) = events.recv().await else { panic!("no end") };
            assert!(how.contains("/nonexistent/gantry: No such file"), "{how}");
        }
        let sh = Command { program: "/bin/sh".into(), args: vec!["-c".into(), "cat".into()] };
        child.set_command(sh);
        loop {
            match events.recv().await {
                Some(ChildEvent::Started { .. }) => break,
                Some(ChildEvent::Ended { .. }) => {}
                other => panic!("{other:?}"),
            }
        }
        child.stop(Duration::from_secs(20)).await;
    }

    #[tokio::test]
    async fn a_child_that_obeys_ends_by_itself_and_is_not_started_again() {
        let mut rig = run("trap 'echo bye; exit 0' TERM; echo hello; while :; do read line || sleep 0.01; done", true);
        let pid = rig.pid().await;
        assert_eq!(rig.event().await, ChildEvent::Announced { name: "child".to_owned(), line: "hello".to_owned() });
        assert_eq!(rig.child.stop(Duration::from_secs(20)).await, Stopped::ByItself);
        assert!(!is_alive(pid));
        let mut later = Vec::new();
        while let Some(event) = rig.events.recv().await {
            later.push(event);
        }
        assert_eq!(later, []);
    }

    #[tokio::test]
    async fn a_child_that_does_not_obey_is_killed() {
        let mut rig = run("trap '' TERM; echo ready; while :; do read line || sleep 0.01; done", true);
        let pid = rig.pid().await;
        rig.event().await;
        assert_eq!(rig.child.stop(Duration::from_millis(50)).await, Stopped::Killed);
        assert!(!is_alive(pid));
    }

    #[tokio::test]
    async fn a_frozen_child_can_be_stopped() {
        let mut rig = run("echo ready; cat", true);
        let pid = rig.pid().await;
        rig.event().await;
        kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::STOP).unwrap();
        assert_eq!(rig.child.stop(Duration::from_secs(20)).await, Stopped::ByItself);
        assert!(!is_alive(pid));
    }

    #[tokio::test]
    async fn the_lifeline_holds_while_the_supervisor_lives_and_breaks_with_it() {
        let mut rig = run("echo ready; cat; echo end of input", true);
        let pid = rig.pid().await;
        rig.event().await;
        assert!(is_alive(pid));
        drop(rig.child);
        while rig.events.recv().await.is_some() {}
        assert!(!is_alive(pid));
    }

    #[tokio::test]
    async fn all_output_is_in_the_log_also_what_was_announced() {
        let mut rig = run("echo one; echo two; echo three >&2; exec cat", true);
        rig.pid().await;
        rig.event().await;
        timeout(Duration::from_secs(20), async {
            while !["one", "two", "three"].iter().all(|line| rig.log().lines().any(|found| found == *line)) {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap();
        rig.child.stop(Duration::from_secs(20)).await;
    }
}
