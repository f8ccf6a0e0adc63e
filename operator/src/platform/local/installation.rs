//! Everything that a manifest describes, running: name server, elector, stable addresses, brokers.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use gantry_replication::Epoch;
use gantry_replication::elector::{Config, SwitchoverDone};
use gantry_replication::master::Mode;
use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::board::Board;
use super::forwarder::{self, Forwarder};
use super::placement::Placement;
use super::preference::Preference;
use super::screen::Lines;
use super::state_dir::write_private;
use super::status::{Addresses, GroupStatus, Process, Status};
use super::supervisor::{Backoff, ChildEvent, ChildPlan, Stopped, Supervised, Tell};
use super::{RecordFile, StateDir};
use crate::api::ReplicationMode;
use crate::elector::{ElectorServer, Group, Listener};
use crate::plan::broker_conf::{Surroundings, render};
use crate::plan::{GroupPlan, broker_command, nameserver_command};

/// Where the first group's master is reached, if not told.
pub const DEFAULT_MASTER_PORT: u16 = 10_911;

/// How long the name server may take until it listens.
const NAMESERVER_PATIENCE: Duration = Duration::from_secs(20);

/// How long a child may take to end when it is asked to.
const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// How to run it.
#[derive(Clone, Debug)]
pub struct Options {
    /// The `gantry` binary.
    pub gantry: PathBuf,
    /// The name server's port; 0 is given by the system.
    pub nameserver_port: u16,
    /// The groups' stable master ports in the manifest's order; 0, and those not told, are given by the system, but
    /// the first one not told is [`DEFAULT_MASTER_PORT`].
    pub master_ports: Vec<u16>,
    /// Where replicas run.
    pub placement: Placement,
    /// How far failovers on suspicion are apart; the elector's default if none.
    pub suspicion_gap: Option<Duration>,
}

/// A running installation. Dropped, its children are killed.
#[derive(Debug)]
pub struct Installation {
    shared: Arc<Shared>,
    nameserver: Supervised,
    /// With the replica's name.
    brokers: Vec<(String, Supervised)>,
    /// The groups' preferences, looked after.
    tending: JoinSet<()>,
    /// Last, so that the lock outlives all else.
    _state: StateDir,
}

/// What requests need.
#[derive(Debug)]
pub struct Shared {
    groups: Vec<GroupPlan>,
    preferences: BTreeMap<String, Preference>,
    elector: ElectorServer,
    board: Arc<Board>,
    nameserver: SocketAddr,
    /// By replica.
    processes: Mutex<BTreeMap<String, Process>>,
    lines: Lines,
}

impl Installation {
    /// Starts everything. An error leaves nothing running.
    pub async fn start(
        state: StateDir,
        groups: Vec<GroupPlan>,
        options: &Options,
        lines: Lines,
    ) -> anyhow::Result<Self> {
        options.placement.check(&groups)?;
        let forwarders = bind_forwarders(&groups, options)?;
        let (nameserver, nameserver_address) = start_nameserver(&state, options, &lines).await?;
        let board = Arc::new(Board::new(forwarders, nameserver_address, lines.clone()));
        let elector = start_elector(&state, &groups, options, Arc::clone(&board) as Arc<dyn Listener>).await?;
        let shared = Arc::new(Shared {
            preferences: groups.iter().map(|group| (group.name.clone(), Preference::new(group))).collect(),
            groups,
            elector,
            board,
            nameserver: nameserver_address,
            processes: Mutex::default(),
            lines,
        });
        shared.write_configurations(&state, &options.placement)?;
        let brokers = shared.start_brokers(&state, options);
        let mut tending = JoinSet::new();
        for group in shared.preferences.keys() {
            let (shared, group) = (Arc::clone(&shared), group.clone());
            tending.spawn(async move { shared.tend_preference(&group).await });
        }
        Ok(Self { shared, nameserver, brokers, tending, _state: state })
    }

    /// For requests and the display.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Stops everything in order: masters first, while their slaves can still take all they have; then slaves, then the
    /// name server. The names of those that had to be killed.
    pub async fn stop(mut self) -> Vec<String> {
        self.tending.shutdown().await;
        let masters: Vec<_> = self.shared.status().groups.into_iter().filter_map(|group| group.master).collect();
        self.shared.elector.stop_deciding();
        let (first, second): (Vec<_>, Vec<_>) = self.brokers.into_iter().partition(|(name, _)| masters.contains(name));
        let mut killed = Vec::new();
        for children in [first, second, vec![("name server".to_owned(), self.nameserver)]] {
            killed.extend(stop_all(children).await);
        }
        killed
    }
}

async fn stop_all(children: Vec<(String, Supervised)>) -> Vec<String> {
    let mut stopping = JoinSet::new();
    for (name, child) in children {
        stopping.spawn(async move { (child.stop(STOP_PATIENCE).await == Stopped::Killed).then_some(name) });
    }
    let mut killed: Vec<_> = stopping.join_all().await.into_iter().flatten().collect();
    killed.sort();
    killed
}

impl Shared {
    /// Everything at this moment.
    pub fn status(&self) -> Status {
        let processes = self.processes.lock().clone();
        let groups = self.groups.iter().filter_map(|group| {
            let view = self.elector.view(&group.name)?;
            let addresses = Addresses {
                nameserver: self.nameserver,
                controller: self.elector.local_addr(),
                master: self.board.address(&group.name)?,
            };
            let process = |name: &str| processes.get(name).copied().unwrap_or_default();
            let replicas = group.replicas.iter().map(|replica| (replica.name.clone(), process(&replica.name)));
            Some(GroupStatus::new(&group.name, addresses, &view, replicas))
        });
        Status { groups: groups.collect() }
    }

    /// Makes this replica its group's master, as planned; what the manifest prefers is put aside.
    pub async fn switchover(&self, replica: &str) -> Result<SwitchoverDone, String> {
        let group = self.group_of(replica)?;
        if let Some(preference) = self.preferences.get(&group.name) {
            preference.override_with(replica);
        }
        self.elector.switchover(&group.name, replica).await
    }

    /// Makes this replica its group's master though it may lack acknowledged messages, if the record is still of that epoch.
    pub async fn elect_unclean(&self, replica: &str, epoch: u64) -> Result<SwitchoverDone, String> {
        self.elector.elect_unclean(&self.group_of(replica)?.name, replica, Epoch(epoch)).await
    }

    fn group_of(&self, replica: &str) -> Result<&GroupPlan, String> {
        let holds = |group: &&GroupPlan| group.replicas.iter().any(|own| own.name == replica);
        self.groups.iter().find(holds).ok_or_else(|| {
            let names = self.groups.iter().flat_map(|group| &group.replicas).map(|replica| replica.name.as_str());
            let names: Vec<_> = names.collect();
            format!("there is no replica {replica:?}; there are {}", names.join(", "))
        })
    }

    /// Says why groups have had no master for a while, once.
    pub fn say_worries(&self) {
        self.board.say_worries();
    }

    /// Kills every child at once.
    pub fn kill_all(&self) {
        for pid in self.processes.lock().values().filter_map(|process| process.pid) {
            if let Some(pid) = rustix::process::Pid::from_raw(pid as i32) {
                // Gone already is as good.
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
            }
        }
    }

    async fn tend_preference(&self, group: &str) {
        let Some(preference) = self.preferences.get(group) else { return };
        loop {
            tokio::time::sleep(Preference::interval()).await;
            let status = self.status();
            let Some(status) = status.groups.iter().find(|status| status.name == group) else { continue };
            if let Some(preferred) = preference.due(status) {
                self.lines.say(&format!("{group}: switching over to its preferred master {preferred}"));
                if let Err(why) = self.elector.switchover(group, &preferred).await {
                    self.lines.say(&format!("{group}: not switched over to {preferred}: {why}"));
                    preference.failed();
                }
            }
        }
    }

    fn write_configurations(&self, state: &StateDir, placement: &Placement) -> anyhow::Result<()> {
        for group in &self.groups {
            let token = state.token(&group.name)?;
            let advertised_master = self.board.address(&group.name).context("a group without an address")?;
            for replica in &group.replicas {
                let layout = state.layout();
                let store = layout.store(&replica.name);
                std::fs::create_dir_all(&store).with_context(|| format!("can't make {}", store.display()))?;
                let surroundings = Surroundings {
                    electors: &self.elector.local_addr().to_string(),
                    address: Some(placement.address(&replica.name)),
                    ports: (0, 0),
                    metrics_port: 0,
                    advertised_master,
                    external_master: None,
                    store: &store,
                    token: Some(&token),
                };
                write_private(&layout.broker_conf(&replica.name), render(group, replica, &surroundings).as_bytes())?;
            }
        }
        Ok(())
    }

    fn start_brokers(self: &Arc<Self>, state: &StateDir, options: &Options) -> Vec<(String, Supervised)> {
        let mut brokers = Vec::new();
        for group in &self.groups {
            for replica in &group.replicas {
                let conf = state.layout().broker_conf(&replica.name);
                let command = broker_command(&options.gantry, &conf, self.nameserver);
                let plan = ChildPlan {
                    name: replica.name.clone(),
                    command: options.placement.wrapped(&replica.name, command),
                    log: state.layout().broker_log(&replica.name),
                    announces: false,
                };
                let (shared, group) = (Arc::clone(self), group.name.clone());
                let tell: Tell = Arc::new(move |event| shared.broker_event(&group, &event));
                brokers.push((replica.name.clone(), Supervised::start(plan, Backoff::default(), tell)));
            }
        }
        brokers
    }

    fn broker_event(&self, group: &str, event: &ChildEvent) {
        match event {
            ChildEvent::Started { name, pid } => {
                {
                    let mut processes = self.processes.lock();
                    let process = processes.entry(name.clone()).or_default();
                    process.pid = Some(*pid);
                    process.starts += 1;
                }
                self.lines.say(&format!("{name} started, process {pid}"));
            }
            ChildEvent::Ended { name, how, again_in } => {
                self.board.hold(group, name);
                self.elector.died(group, name);
                if let Some(process) = self.processes.lock().get_mut(name) {
                    process.pid = None;
                }
                self.lines.say(&format!("{name} ended: {how}; again in {} ms", again_in.as_millis()));
            }
            ChildEvent::Announced { .. } => {}
        }
    }
}

fn bind_forwarders(groups: &[GroupPlan], options: &Options) -> anyhow::Result<BTreeMap<String, Forwarder>> {
    let ports = &options.master_ports;
    if ports.len() > groups.len() {
        bail!("{} master ports are given for {} group(s)", ports.len(), groups.len());
    }
    let mut forwarders = BTreeMap::new();
    for (index, group) in groups.iter().enumerate() {
        let port = ports.get(index).copied().unwrap_or(if index == 0 { DEFAULT_MASTER_PORT } else { 0 });
        let address = SocketAddr::from((options.placement.listen(), port));
        let forwarder = Forwarder::bind(address, forwarder::Limits::default()).with_context(|| {
            format!(
                "can't listen at {address} for the master of {}; choose another port with --master-port",
                group.name
            )
        })?;
        forwarders.insert(group.name.clone(), forwarder);
    }
    Ok(forwarders)
}

async fn start_nameserver(
    state: &StateDir,
    options: &Options,
    lines: &Lines,
) -> anyhow::Result<(Supervised, SocketAddr)> {
    let wanted = SocketAddr::from((options.placement.listen(), options.nameserver_port));
    if options.nameserver_port != 0 {
        // Tried before, so that a taken port is told in one line; the name server itself comes a moment later.
        TcpListener::bind(wanted).with_context(|| {
            format!("can't listen at {wanted} for the name server; choose another port with --nameserver-port")
        })?;
    }
    let plan = ChildPlan {
        name: "name server".to_owned(),
        command: nameserver_command(&options.gantry, wanted),
        log: state.layout().nameserver_log(),
        announces: true,
    };
    let (sender, events) = unbounded_channel();
    let lines = lines.clone();
    let tell: Tell = Arc::new(move |event| {
        if let ChildEvent::Ended { name, how, again_in } = &event {
            lines.say(&format!("{name} ended: {how}; again in {} ms", again_in.as_millis()));
        }
        // Heard until it listens for the first time.
        sender.send(event).ok();
    });
    let child = Supervised::start(plan, Backoff::default(), tell);
    let address = timeout(NAMESERVER_PATIENCE, announced_address(events))
        .await
        .unwrap_or_else(|_elapsed| bail!("it does not listen after {} s", NAMESERVER_PATIENCE.as_secs()))
        .with_context(|| {
            format!("the name server can't be started; its log is {}", state.layout().nameserver_log().display())
        })?;
    // Should it be started again, then at the same address.
    child.set_command(nameserver_command(&options.gantry, address));
    Ok((child, address))
}

async fn announced_address(mut events: UnboundedReceiver<ChildEvent>) -> anyhow::Result<SocketAddr> {
    while let Some(event) = events.recv().await {
        match event {
            ChildEvent::Started { .. } => {}
            ChildEvent::Announced { line, .. } => {
                let address = line.strip_prefix("listening on ").and_then(|address| address.trim().parse().ok());
                return address.with_context(|| format!("it said {line:?}, not where it listens"));
            }
            ChildEvent::Ended { how, .. } => bail!("{how}"),
        }
    }
    bail!("it has gone")
}

async fn start_elector(
    state: &StateDir,
    groups: &[GroupPlan],
    options: &Options,
    listener: Arc<dyn Listener>,
) -> anyhow::Result<ElectorServer> {
    let mut electorates = Vec::new();
    for group in groups {
        let mode = match group.mode {
            ReplicationMode::Sync => Mode::Sync,
            ReplicationMode::Async => Mode::Async,
        };
        let replicas = group.replicas.iter().map(|replica| replica.name.clone());
        let mut config = Config::new(replicas, mode, usize::from(group.min_in_sync));
        if let Some(gap) = options.suspicion_gap {
            config.suspicion_gap_ms = gap.as_millis() as u64;
        }
        let token = state.token(&group.name)?;
        let store = RecordFile::new(state.layout().record(&group.name));
        electorates.push((Group { id: group.name.clone(), name: group.name.clone(), token, config }, store));
    }
    ElectorServer::bind((options.placement.listen(), 0).into(), electorates, listener)
        .await
        .context("can't start the elector")
}
