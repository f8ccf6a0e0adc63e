//! One broker: store, core, services, replication, registration, put together and taken apart again.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use gantry_remoting::{Connection, Limits as RemotingLimits, Server};
use gantry_replication::master::{Alter, Durability};
use gantry_store::{Dispatched, Events, PhysicalOffset, Store, StoreFailure};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{error, info, warn};

use crate::agent::{Agent, Identity};
use crate::clock::Clock;
use crate::config::{BrokerConfig, BrokerRole};
use crate::core::{Core, Job, Limits, Standing};
use crate::departure;
use crate::fatal::Fatal;
use crate::ha::{self, Follower, HaServer, classic};
use crate::heartbeat;
use crate::live_settings::LiveSettings;
use crate::observe::Exporter;
use crate::registration::{self, NamedMaster, Registrant};
use crate::replica::ReplicaState;
use crate::services::{self, Log, Services};
use crate::slave::Slave;
use crate::static_group;

/// How often the core looks at the clock.
const TICK: Duration = Duration::from_millis(50);
/// A master that proved nothing for this long appends a heartbeat record. Well below the elector's patience for a data plane.
const PROOF_AFTER_MS: u64 = 1_500;
/// Clients of an old master wait so long for the master's address to lead to the next one. Those that send give up by themselves then.
const EXIT_WITHIN: Duration = Duration::from_secs(3);
/// A replica that stepped down gives its clients this long to go away by themselves.
const GO_AWAY_GRACE: Duration = Duration::from_secs(1);
/// Where RocketMQ's brokers listen a second time, below `listenPort`.
const FAST_PORT_BELOW: u16 = 2;
/// At the end: for answers that are on their way.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A running broker.
pub struct Broker {
    core: Arc<Core>,
    services: Arc<Services>,
    server: Arc<Server>,
    /// Two below the clients' port, as RocketMQ's brokers have it for a VIP channel: Apache's slaves ask for topics there.
    fast: Option<Server>,
    ha: Arc<HaServer>,
    _follower: Follower,
    tasks: JoinSet<()>,
    writer: JoinHandle<()>,
    failed: watch::Receiver<Option<Arc<StoreFailure>>>,
    exporter: Exporter,
}

impl Broker {
    /// Opens the store (which may take a while after a crash), and begins to take part in its group.
    pub async fn start(mut config: BrokerConfig) -> Result<Self> {
        for warning in &config.warnings {
            warn!("{warning}");
        }
        if !config.unknown_keys.is_empty() {
            warn!(keys = config.unknown_keys.join(", "), "broker.conf has keys that this broker doesn't read");
        }
        config.listen = with_port(config.listen, config.ha.classic)?;
        if config.advertised_master.is_none() {
            config.services.store_host = config.listen;
        }
        let exporter = Exporter::start(&config)?;
        let clock = Clock::start();
        let bridge = Arc::new(Bridge::default());
        let (store_config, events) = (config.store.clone(), Arc::clone(&bridge) as Arc<dyn Events>);
        let opened = tokio::task::spawn_blocking(move || gantry_store::open(store_config, events)).await?;
        let (store, appender) = opened.with_context(|| format!("store {}", config.store.root.display()))?;
        let all_flushed = config.master.durability == Durability::Flushed;
        let replica = ReplicaState::open(&config.store.root, &config.replica, all_flushed)?;
        let limits = Limits {
            max_queued_sends: config.max_queued_sends,
            max_parked_sends: config.max_queued_sends,
            flow: config.flow,
            slave_timeout_ms: config.slave_timeout_ms,
            sync_flush_timeout_ms: config.sync_flush_timeout_ms,
            pressure: config.pressure,
            divergent: config.divergent,
        };
        let logged = appender.next_queue_offset(services::names::METADATA_TOPIC, 0);
        let (core, writer) = Core::start(store.clone(), appender, replica, config.master.clone(), limits, clock)?;
        core.name_group(&config.name);
        let log = Arc::clone(&core) as Arc<dyn Log>;
        let services = Services::open(config.services.clone(), store.clone(), logged, log, Arc::clone(&core) as _)?;
        bridge.connect(&core, &services);

        let ha_config = config.ha.clone();
        let (ha_address, metadata) = (config.ha_listen, Arc::clone(&services) as Arc<dyn ha::Metadata>);
        let ha = HaServer::bind(ha_address, Arc::clone(&core), ha_config.clone(), Arc::clone(&metadata)).await?;
        let ha = Arc::new(ha);
        exporter.opened(&core, &services, &ha);
        services.report_replication(Arc::new(ha::View::new(Arc::clone(&core), Arc::clone(&ha))));
        let follower = Follower::start(Arc::clone(&core), ha_config, metadata);
        let handler = Arc::clone(&services) as Arc<dyn gantry_remoting::Handler>;
        let fast =
            if config.ha.classic { Some(bind(fast_address(config.listen), Arc::clone(&handler)).await?) } else { None };
        let server = Arc::new(bind(config.listen, handler).await?);
        let failed = bridge.failed.subscribe();
        let tasks = JoinSet::new();
        let mut broker =
            Self { core, services, server, fast, ha, _follower: follower, tasks, writer, failed, exporter };
        if let Some(undirected) = broker.spawn_tasks(&config, &store, &bridge) {
            match config.role {
                BrokerRole::Slave => broker.follow_by_name(&config, undirected.named_master).await?,
                BrokerRole::AsyncMaster | BrokerRole::SyncMaster => broker.lead_alone(undirected.alters).await?,
            }
        }
        info!(
            replica = config.replica, clients = %broker.server.local_addr(), ha = %broker.ha.local_addr(),
            log_end = store.watermarks().written.0, "broker started"
        );
        Ok(broker)
    }

    /// Answers what a broker goes by that no elector directs, if it is one.
    fn spawn_tasks(&mut self, config: &BrokerConfig, store: &Store, bridge: &Arc<Bridge>) -> Option<Undirected> {
        let (alter, alters) = mpsc::channel(1);
        self.tasks.spawn(tick(Arc::clone(&self.core), alter, config.services.store_host));
        self.tasks.spawn(follow_standing(
            Arc::clone(&self.core),
            Arc::clone(&self.services),
            store.clone(),
            Arc::clone(bridge),
            Exit { server: Arc::clone(&self.server), master_address: config.advertised_master },
        ));
        let (core, services) = (Arc::clone(&self.core), Arc::clone(&self.services));
        let settings = Arc::new(LiveSettings::new(config, core, services, store.clone()));
        let address = self.server.local_addr().to_string();
        let registrant = Registrant {
            cluster: config.cluster.clone(),
            name: config.name.clone(),
            replica: config.replica.clone(),
            slave_id: config.broker_id,
            address: address.clone(),
            advertised_master: config.advertised_master.map(|address| address.to_string()),
            ha_address: self.ha.local_addr().to_string(),
            external_master: settings.external_master(),
        };
        let period = Duration::from_millis(config.register_ms);
        let (core, services) = (Arc::clone(&self.core), Arc::clone(&self.services));
        let named_master = watch::Sender::new(None);
        let naming = named_master.subscribe();
        self.tasks.spawn(registration::run(
            registrant,
            config.name_servers.clone(),
            period,
            core,
            services,
            named_master,
        ));
        if config.electors.is_empty() {
            return Some(Undirected { named_master: naming, alters });
        }
        let identity = Identity {
            electors: config.electors.clone(),
            group: config.name.clone(),
            token: config.ha.token.clone(),
            client_address: address,
            ha_address: self.ha.local_addr().to_string(),
            priority: config.priority,
            zone: config.zone.clone(),
        };
        let agent = Agent::new(Arc::clone(&self.core), Arc::clone(&self.services), settings, identity);
        self.tasks.spawn(agent.run(alters));
        None
    }

    /// With nobody to ask but the name servers, this broker follows whom they name.
    async fn follow_by_name(
        &mut self,
        config: &BrokerConfig,
        naming: watch::Receiver<Option<NamedMaster>>,
    ) -> Result<()> {
        if config.name_servers.is_empty() {
            bail!("brokerRole=SLAVE needs a name server (namesrvAddr), which says who its master is");
        }
        let settings = classic::Settings {
            heartbeat: config.ha.heartbeat,
            housekeeping: config.ha.housekeeping,
            ack_flushed: config.master.durability == Durability::Flushed,
        };
        let (core, services) = (Arc::clone(&self.core), Arc::clone(&self.services));
        let slave = Slave::new(core, services, config.ha_master.clone(), settings);
        slave.wait_for_master().await?;
        self.tasks.spawn(slave.run(naming));
        Ok(())
    }

    /// With nobody to ask, this broker says itself who is in sync with it.
    async fn lead_alone(&mut self, alters: mpsc::Receiver<Alter>) -> Result<()> {
        let record = static_group::open(&self.core).await?;
        self.tasks.spawn(static_group::keep(Arc::clone(&self.core), record, alters));
        Ok(())
    }

    /// Where clients reach it.
    pub fn local_addr(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// Where it answers probes and shows its metrics, if it does.
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.exporter.local_addr()
    }

    /// Resolves when the store has failed: the broker must stop.
    pub async fn failed(&mut self) -> Arc<StoreFailure> {
        loop {
            if let Some(failure) = self.failed.borrow_and_update().clone() {
                return failure;
            }
            if self.failed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Stops cleanly: answers what waits, flushes, and leaves a store that needs no recovery. A master that has just handed over sees its clients
    /// off first.
    pub async fn stop(mut self) -> Result<()> {
        while self.core.is_leaving() {
            tokio::time::sleep(TICK).await;
        }
        self.services.shutdown().await;
        self.core.stop();
        let writer = self.writer;
        let ended = tokio::task::spawn_blocking(move || writer.join()).await?;
        self.ha.drain_classic(LAST_WORDS).await;
        self.tasks.shutdown().await;
        if let Some(fast) = self.fast {
            fast.shutdown(LAST_WORDS).await;
        }
        if let Some(server) = Arc::into_inner(self.server) {
            server.shutdown(LAST_WORDS).await;
        }
        if ended.is_err() {
            bail!("the log's writer ended by a panic; the store is recovered at the next start");
        }
        info!("broker stopped");
        Ok(())
    }
}

/// What a broker goes by that no elector directs.
struct Undirected {
    /// As a slave: whom the name servers name master.
    named_master: watch::Receiver<Option<NamedMaster>>,
    /// As a master: its wishes to change the in-sync set.
    alters: mpsc::Receiver<Alter>,
}

/// An address with a port of its own: 0 becomes one given by the system, because records and registrations carry it. With `fast` the
/// port two below is free, too.
fn with_port(address: SocketAddr, fast: bool) -> Result<SocketAddr> {
    if address.port() != 0 {
        return Ok(address);
    }
    loop {
        let listener = TcpListener::bind(address).with_context(|| format!("can't listen at {address}"))?;
        let given = listener.local_addr()?;
        if !fast || TcpListener::bind(fast_address(given)).is_ok() {
            return Ok(given);
        }
    }
}

async fn bind(address: SocketAddr, handler: Arc<dyn gantry_remoting::Handler>) -> Result<Server> {
    let bound = Server::bind(address, RemotingLimits::default(), handler).await;
    bound.with_context(|| format!("can't listen for clients at {address}"))
}

/// RocketMQ's VIP channel.
fn fast_address(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port().saturating_sub(FAST_PORT_BELOW))
}

/// What the store tells, passed on to those who came after it.
#[derive(Default)]
struct Bridge {
    core: OnceLock<Arc<Core>>,
    services: OnceLock<Weak<Services>>,
    dispatched: Notify,
    failed: watch::Sender<Option<Arc<StoreFailure>>>,
}

impl Bridge {
    fn connect(&self, core: &Arc<Core>, services: &Arc<Services>) {
        // Set once, by `start`.
        self.core.get_or_init(|| Arc::clone(core));
        self.services.get_or_init(|| Arc::downgrade(services));
    }
}

impl Events for Bridge {
    fn flushed(&self, offset: PhysicalOffset) {
        if let Some(core) = self.core.get() {
            core.flushed(offset);
        }
    }

    fn dispatched(&self, batch: &[Dispatched]) {
        if let Some(services) = self.services.get().and_then(Weak::upgrade) {
            services.on_dispatched(batch);
        }
        self.dispatched.notify_waiters();
    }

    fn failed(&self, failure: &Arc<StoreFailure>) {
        error!(%failure, "the store failed");
        self.failed.send_replace(Some(Arc::clone(failure)));
    }
}

async fn tick(core: Arc<Core>, alters: mpsc::Sender<Alter>, host: SocketAddr) {
    let _fatal = Fatal("the core's clock");
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Some(alter) = core.tick()
            && alters.try_send(alter).is_err()
        {
            // The one before is still under way, or there is no session: the master asks again.
        }
        if core.needs_heartbeat_record(PROOF_AFTER_MS) {
            core.submit_job(Job::Heartbeat(heartbeat::record(host)));
        }
    }
}

/// Tells the services what this replica has become, and opens the gate for sends once they know everything.
async fn follow_standing(core: Arc<Core>, services: Arc<Services>, store: Store, bridge: Arc<Bridge>, exit: Exit) {
    let _fatal = Fatal("the services' standing");
    let mut standing = core.watch_standing();
    let mut was_master = false;
    loop {
        let now = standing.borrow_and_update().clone();
        match now {
            Standing::Master { epoch, start } => {
                let open = tokio::select! {
                    () = dispatched(&store, &bridge, PhysicalOffset(start)) => true,
                    _changed = standing.changed() => false,
                };
                was_master = true;
                if !open {
                    continue;
                }
                services.became_master(epoch.0);
                core.submit_job(Job::Open(epoch));
            }
            Standing::Slave { .. } | Standing::Fenced => {
                services.became_slave();
                if std::mem::take(&mut was_master) {
                    exit.opens(standing.clone()).await;
                    let mut clinging = core.departed();
                    clinging.extend(services.departed());
                    send_away(&exit.server, clinging);
                }
            }
        }
        if standing.changed().await.is_err() {
            return;
        }
    }
}

/// The way out for the clients of an old master.
struct Exit {
    server: Arc<Server>,
    /// The address by which they came, if it leads to the next master by itself.
    master_address: Option<SocketAddr>,
}

impl Exit {
    /// Until the way leads to another master, or to this one again; not for ever.
    async fn opens(&self, mut standing: watch::Receiver<Standing>) {
        let Some(address) = self.master_address else { return };
        tokio::select! {
            () = departure::leads_to_a_master(address) => {}
            _again = standing.wait_for(|now| matches!(now, Standing::Master { .. })) => {}
            () = tokio::time::sleep(EXIT_WITHIN) => {
                warn!(%address, "the master's address does not lead to the next master yet; clients are sent away all the same");
            }
        }
    }
}

/// Waits until everything below `offset` is visible.
async fn dispatched(store: &Store, bridge: &Bridge, offset: PhysicalOffset) {
    loop {
        let told = bridge.dispatched.notified();
        if store.watermarks().dispatched >= offset {
            return;
        }
        // Not everything in a log is a message: the end of a segment is passed without a word, hence the look now and then.
        drop(timeout(Duration::from_millis(10), told).await);
    }
}

/// Clients of a master that is one no longer: those that know GO_AWAY leave by themselves, the others are closed a little later; at once those
/// that are known not to know it, or they would only ask here again.
fn send_away(server: &Server, clinging: Vec<Arc<Connection>>) {
    let present = server.connections();
    tokio::spawn(async move {
        let close = |connection: Arc<Connection>| async move {
            connection.close_after_flush("this replica is not master any more", LAST_WORDS).await;
        };
        let mut closing: JoinSet<()> = clinging.into_iter().map(close).collect();
        tokio::time::sleep(GO_AWAY_GRACE).await;
        for connection in present {
            closing.spawn(close(connection));
        }
        closing.join_all().await;
    });
}
