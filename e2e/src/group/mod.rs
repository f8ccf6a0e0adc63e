//! A group under test: what `gantry-operator local up` runs, in a folder of its own, on ports given by the system.

mod manifest;
mod placed;
mod status;

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use tempfile::TempDir;

pub use manifest::Options;
pub use status::{Replica, Status};

use crate::lab::{Lab, PREFIX};
use crate::process::{self, Signal};
use crate::wait;
use crate::{binaries, logs};
use placed::Places;

/// How long a group may take to serve, and to become whole again after a fault. Generous: two busy cores.
pub const PATIENCE: Duration = Duration::from_mins(1);

const NAME: &str = "broker-a";

/// Two cores carry one group: in one process the next one starts when the one before was dropped.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A running group; dropping it ends all its processes and removes its folder. With `GANTRY_KEEP` set the folder stays.
pub struct Group {
    _alone: MutexGuard<'static, ()>,
    folder: Option<TempDir>,
    places: Places,
    replicas: u8,
    suspicion_gap: Option<u32>,
    operator: Option<Child>,
    nameserver: String,
    address: String,
}

impl Group {
    /// Starts a group on loopback and waits until it serves and every replica is in sync.
    pub fn start(options: &Options) -> anyhow::Result<Self> {
        Self::start_at(options, None)
    }

    /// The same over network namespaces, each replica with a disk of its own of so many bytes.
    pub fn start_in(lab: Lab, options: &Options, disk_bytes: u64) -> anyhow::Result<Self> {
        Self::start_at(&Options { gates: true, ..options.clone() }, Some((lab, disk_bytes)))
    }

    fn start_at(options: &Options, place: Option<(Lab, u64)>) -> anyhow::Result<Self> {
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let prefix = format!("{PREFIX}{}-", std::process::id());
        let folder = TempDir::with_prefix(prefix).context("making the group's folder")?;
        let manifest = serde_json::to_string_pretty(&options.manifest(NAME))?;
        std::fs::write(folder.path().join("group.yaml"), manifest).context("writing the manifest")?;
        let (lab, disk_bytes) = place.unzip();
        let mut group = Self {
            _alone: alone,
            places: Places::new(lab, options.gates, folder.path())?,
            replicas: options.replicas,
            suspicion_gap: options.suspicion_gap,
            folder: Some(folder),
            operator: None,
            nameserver: String::new(),
            address: String::new(),
        };
        let stores: Vec<_> = (0..usize::from(options.replicas)).map(|ordinal| group.store(ordinal)).collect();
        let images = group.folder().to_owned();
        if let (Some(lab), Some(bytes)) = (&mut group.places.lab, disk_bytes) {
            lab.mount(&stores, &images, bytes)?;
        }
        group.up()?;
        Ok(group)
    }

    /// Starts the operator again, after [`Group::kill_everything`] or [`Group::down`], on the same state. The addresses
    /// are other ones then.
    pub fn up(&mut self) -> anyhow::Result<Status> {
        assert!(self.operator.is_none(), "the operator runs already");
        let output = self.output();
        let log = File::options().create(true).append(true).open(&output).context("opening the operator's output")?;
        let seen_before = log.metadata()?.len();
        let mut command = self.operator_command(&["up"])?;
        command.arg(self.path("group.yaml")).args(["--nameserver-port", "0", "--master-port", "0"]);
        command.args(self.places.arguments(self.replicas));
        if let Some(seconds) = self.suspicion_gap {
            command.arg("--suspicion-gap").arg(seconds.to_string());
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.operator = Some(command.spawn().context("starting gantry-operator")?);
        wait::until("a line with `ready` from gantry-operator", PATIENCE, || {
            let said = std::fs::read(&output).context("reading the operator's output")?;
            let said = String::from_utf8_lossy(&said[seen_before as usize..]).into_owned();
            if said.lines().any(|line| line.contains("ready")) {
                return Ok(Some(()));
            }
            if let Some(ended) = self.operator.as_mut().and_then(|operator| operator.try_wait().transpose()) {
                bail!("gantry-operator ended with {} before it was ready and said: {said}", ended?);
            }
            Ok(None)
        })?;
        let status = self.wait_whole()?;
        self.nameserver = status.nameserver.clone().context("the status has no name server")?;
        self.address = status.address.clone().context("the status has no master address")?;
        Ok(status)
    }

    /// The name server's address, which clients are given.
    pub fn nameserver(&self) -> &str {
        &self.nameserver
    }

    /// The stable master address.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// How many replicas the manifest asks for.
    pub fn replicas(&self) -> u8 {
        self.replicas
    }

    /// What the operator knows now.
    pub fn status(&self) -> anyhow::Result<Status> {
        let said = self.control(&["status", "--json"])?;
        let report: status::Report =
            serde_json::from_str(&said).with_context(|| format!("reading the status {said:?}"))?;
        report.groups.into_iter().find(|group| group.name == NAME).context("the status doesn't name the group")
    }

    /// Waits until the status is as wanted.
    pub fn wait_for(&self, what: &str, wanted: impl FnMut(&Status) -> bool) -> anyhow::Result<Status> {
        self.wait_within(what, PATIENCE, wanted)
    }

    /// Waits until every replica has joined and is in sync.
    pub fn wait_settled(&self, within: Duration) -> anyhow::Result<Status> {
        self.wait_within("a master with every replica there and in sync", within, Status::is_settled)
    }

    fn wait_within(
        &self,
        what: &str,
        within: Duration,
        mut wanted: impl FnMut(&Status) -> bool,
    ) -> anyhow::Result<Status> {
        let mut last = None;
        wait::until(what, within, || {
            let status = self.status()?;
            let found = wanted(&status).then(|| status.clone());
            last = Some(status);
            Ok(found)
        })
        .with_context(|| format!("the last status was {last:?}"))
    }

    /// Waits until there is a master and every replica is in sync.
    pub fn wait_whole(&self) -> anyhow::Result<Status> {
        self.wait_for("a master with every replica in sync", Status::is_whole)
    }

    /// Sends a signal to a replica's process and says when, on the histories' clock.
    pub fn signal(&self, replica: &str, signal: Signal) -> anyhow::Result<i64> {
        let pid = self.status()?.pid(replica).with_context(|| format!("{replica} has no process"))?;
        process::signal(pid, signal)?;
        Ok(wait::now_us())
    }

    /// `kill -9` of the operator, the name server and every broker, at once; says when.
    pub fn kill_everything(&mut self) -> anyhow::Result<i64> {
        let mut operator = self.operator.take().context("the operator doesn't run")?;
        let killed = process::kill_tree(operator.id());
        let at_us = wait::now_us();
        operator.wait().context("waiting for the operator's end")?;
        killed.map(|()| at_us)
    }

    /// A planned switchover; returns what the operator said.
    pub fn switchover(&self, to: &str) -> anyhow::Result<String> {
        self.control(&["switchover", to])
    }

    /// A planned stop; the state stays.
    pub fn down(&mut self) -> anyhow::Result<()> {
        let mut operator = self.operator.take().context("the operator doesn't run")?;
        let below = process::descendants(operator.id());
        let answer = self.control(&["down"]);
        if answer.is_err() {
            process::kill_tree(operator.id())?;
        }
        operator.wait().context("waiting for the operator's end")?;
        answer?;
        process::wait_gone(&below)
    }

    /// Processes of the brokers, master first where it is known.
    pub fn broker_pids(&self) -> anyhow::Result<Vec<u32>> {
        let status = self.status()?;
        let mut replicas = status.replicas.clone();
        replicas.sort_by_key(|replica| Some(&replica.name) != status.master.as_ref());
        Ok(replicas.iter().filter_map(|replica| replica.pid).collect())
    }

    /// All processes of the group.
    pub fn pids(&self) -> Vec<u32> {
        let operator = self.operator.as_ref().map(Child::id);
        operator.into_iter().chain(operator.into_iter().flat_map(process::descendants)).collect()
    }

    /// Its namespaces.
    pub fn lab(&self) -> anyhow::Result<&Lab> {
        self.places.lab.as_ref().context("the group runs on loopback, not in network namespaces")
    }

    /// What stands before the command of a client, so that it runs where it reaches the group.
    pub fn client_front(&self) -> Vec<OsString> {
        self.places.client_front()
    }

    /// `kill -9`, and the replica stays down until [`Group::let_start`]. Says when it was killed.
    pub fn take_down(&self, ordinal: usize) -> anyhow::Result<i64> {
        self.places.close_gate(ordinal)?;
        let before = self.status()?.pid(&replica_name(ordinal)).context("it has no process")?;
        process::signal(before, Signal::KILL)?;
        let at_us = wait::now_us();
        process::wait_gone(&[before])?;
        Ok(at_us)
    }

    /// A replica that was taken down may start.
    pub fn let_start(&self, ordinal: usize) -> anyhow::Result<()> {
        self.places.open_gate(ordinal)
    }

    /// A replica's store directory.
    pub fn store(&self, ordinal: usize) -> PathBuf {
        self.path("state").join("replicas").join(replica_name(ordinal)).join("store")
    }

    /// A replica's log.
    pub fn broker_log(&self, ordinal: usize) -> PathBuf {
        self.path("state").join("replicas").join(replica_name(ordinal)).join("log").join("broker.log")
    }

    /// The elector's port.
    pub fn elector_port(&self) -> anyhow::Result<u16> {
        let conf = self.path("state").join("replicas").join(replica_name(0)).join("broker.conf");
        let text = std::fs::read_to_string(&conf).with_context(|| format!("reading {}", conf.display()))?;
        let electors = text.lines().find_map(|line| line.strip_prefix("gantryElectors="));
        let port = electors.and_then(|electors| electors.rsplit_once(':')).map(|(_, port)| port.parse());
        port.with_context(|| format!("{} names no elector", conf.display()))?.context("the elector's port")
    }

    /// The folder that holds everything of this group.
    pub fn folder(&self) -> &Path {
        self.folder.as_ref().map_or(Path::new(""), TempDir::path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    fn output(&self) -> PathBuf {
        self.path("operator.out")
    }

    fn operator_command(&self, subcommand: &[&str]) -> anyhow::Result<Command> {
        let operator = binaries::folder()?.join("gantry-operator");
        let mut front = self.places.operator_front().into_iter().chain([operator.into()]);
        let mut command = Command::new(front.next().context("no command")?);
        command.args(front).arg("local").args(subcommand).arg("--dir").arg(self.path("state"));
        Ok(command)
    }

    /// Runs `gantry-operator local …` against the running operator and returns its standard output.
    fn control(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.operator_command(arguments)?.stdin(Stdio::null()).output()?;
        let (said, complaint) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if !output.status.success() {
            bail!("gantry-operator local {arguments:?} ended with {}: {said}{complaint}", output.status);
        }
        Ok(said.into_owned())
    }
}

/// A replica's name by its ordinal.
pub fn replica_name(ordinal: usize) -> String {
    format!("{NAME}-{ordinal}")
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(mut operator) = self.operator.take() {
            if let Err(error) = process::kill_tree(operator.id()) {
                logs::say(&format!("ending the group: {error:#}"));
            }
            operator.wait().ok();
        }
        // Its disks are unmounted before the folder goes, and stay to be looked at if the folder does.
        if std::env::var_os("GANTRY_KEEP").is_none() {
            self.places.lab.take();
        }
        if std::thread::panicking() {
            logs::tell_tails(self.folder());
        }
        if std::env::var_os("GANTRY_KEEP").is_some()
            && let Some(folder) = self.folder.take()
        {
            logs::say(&format!("kept {}", folder.keep().display()));
        }
    }
}
