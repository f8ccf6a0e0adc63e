//! `local up` in the foreground: starts an installation, shows it, takes requests, and stops it in the end.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use parking_lot::Mutex;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};

use super::StateDir;
use super::control::{Answer, ControlServer, Operate, Request};
use super::installation::{Installation, Options, Shared};
use super::screen::{Changes, Screen};
use super::status::Status;
use crate::api::read_manifest;
use crate::plan::plan_groups;

/// How often the display looks for changes.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Every how many looks a live table is redrawn.
const LOOKS_A_DRAW: u32 = 10;

/// Runs what the manifest describes until a signal or a request stops it.
pub async fn run(manifest: &Path, state: StateDir, options: &Options) -> anyhow::Result<()> {
    let groups = plan_groups(&read_manifest(manifest)?).with_context(|| manifest.display().to_string())?;
    let mut signals = Signals::new()?;
    let screen = Screen::on_stdout().context("can't start the display")?;
    let names: Vec<_> = groups.iter().map(|group| group.name.as_str()).collect();
    screen.lines().say(&format!("starting {} in {}", names.join(", "), state.layout().root().display()));
    let layout = state.layout().clone();
    let started = tokio::select! {
        started = Installation::start(state, groups, options, screen.lines().clone()) => started,
        () = signals.next() => Err(anyhow::anyhow!("interrupted while starting")),
    };
    let installation = match started {
        Ok(installation) => installation,
        Err(error) => {
            screen.end();
            return Err(error);
        }
    };
    let (stop, mut stops) = mpsc::channel(1);
    let operator = Arc::new(Operator { shared: Mutex::new(Some(Arc::clone(installation.shared()))), stop });
    let control = ControlServer::bind(&layout, Arc::clone(&operator))
        .with_context(|| format!("can't make the control socket {}", layout.control().display()))?;
    let asked = show_until_stopped(&screen, installation.shared(), &mut signals, &mut stops).await;
    operator.shared.lock().take();
    let outcome = stop_all(installation, &screen, &mut signals).await;
    if let (Some(asked), Ok(killed)) = (asked, &outcome) {
        // Its answer is written while the socket closes; whoever asked may have gone.
        let (told, answered) = oneshot::channel();
        if asked.send((killed.clone(), told)).is_ok() {
            tokio::time::timeout(Duration::from_secs(1), answered).await.ok();
        }
    }
    drop(control);
    screen.end();
    outcome.map(|_| ())
}

/// Who asked to stop is told what was killed, and drops the other channel's end when the answer is written.
type StopAsked = oneshot::Sender<(Vec<String>, oneshot::Sender<()>)>;

struct Operator {
    /// None once it is being stopped.
    shared: Mutex<Option<Arc<Shared>>>,
    stop: mpsc::Sender<StopAsked>,
}

impl Operate for Operator {
    async fn operate(&self, request: Request) -> Answer {
        let stopping = || Answer::Error { message: "it is being stopped".to_owned() };
        let Some(shared) = self.shared.lock().clone() else { return stopping() };
        match request {
            Request::Status => Answer::Status(shared.status()),
            Request::Switchover { replica } => match shared.switchover(&replica).await {
                Ok(done) => Answer::Switched { master: replica, epoch: done.epoch.0, pause_ms: done.pause_ms },
                Err(message) => Answer::Error { message },
            },
            Request::ElectUnclean { replica, epoch } => match shared.elect_unclean(&replica, epoch).await {
                Ok(done) => Answer::Switched { master: replica, epoch: done.epoch.0, pause_ms: done.pause_ms },
                Err(message) => Answer::Error { message },
            },
            Request::Down => {
                drop(shared);
                let (asked, answer) = oneshot::channel();
                if self.stop.try_send(asked).is_err() {
                    return stopping();
                }
                match answer.await {
                    Ok((killed, _told)) => Answer::Down { killed },
                    Err(_) => Answer::Error { message: "it was stopped at once".to_owned() },
                }
            }
        }
    }
}

/// Shows what happens until a signal comes (none) or somebody asks to stop.
async fn show_until_stopped(
    screen: &Screen,
    shared: &Shared,
    signals: &mut Signals,
    stops: &mut mpsc::Receiver<StopAsked>,
) -> Option<StopAsked> {
    let mut looks = interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut changes = Changes::default();
    let mut until_draw = 0;
    loop {
        tokio::select! {
            () = signals.next() => return None,
            asked = stops.recv() => return asked,
            _ = looks.tick() => {}
        }
        let status: Status = shared.status();
        shared.say_worries();
        for line in changes.since_last(&status) {
            screen.lines().say(&line);
        }
        if until_draw == 0 {
            screen.draw(&status);
            until_draw = LOOKS_A_DRAW;
        }
        until_draw -= 1;
    }
}

async fn stop_all(installation: Installation, screen: &Screen, signals: &mut Signals) -> anyhow::Result<Vec<String>> {
    screen.lines().say("stopping");
    let shared = Arc::clone(installation.shared());
    tokio::select! {
        killed = installation.stop() => {
            match killed.as_slice() {
                [] => screen.lines().say("stopped"),
                killed => screen.lines().say(&format!("stopped; killed because they did not end by themselves: {}", killed.join(", "))),
            }
            Ok(killed)
        }
        () = signals.next() => {
            shared.kill_all();
            screen.lines().say("killed");
            bail!("stopped by a second signal: all brokers were killed")
        }
    }
}

/// SIGINT, SIGTERM, and the terminal's going away.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("can't listen for signals");
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
