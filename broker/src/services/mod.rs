//! What the broker does for clients: send, pull, heartbeats, offsets, retries, delays, administration.
//!
//! [`Services`] is the [`Handler`](gantry_remoting::Handler) of the client port. It knows the store for reading, the log's
//! writer through [`Log`], and whether it may serve through [`Role`]; the rest of the broker provides those two.
//! One file a family of requests; the tables they share are in [`live`], and reach the other replicas by [`metadata`].

mod admin_requests;
mod bases;
mod clean_requests;
mod client_requests;
pub mod clients;
pub mod config;
pub mod config_files;
mod delay;
pub mod delay_levels;
pub mod delay_progress;
mod dispatcher;
mod early;
pub mod failure;
mod filter;
mod group_requests;
pub mod groups;
mod ha_requests;
pub mod live;
mod lock;
mod long_polling;
pub mod metadata;
pub mod names;
mod off_thread;
mod offset_requests;
pub mod offsets;
mod pull;
mod query_requests;
pub mod seam;
mod send;
mod send_back;
mod send_batch;
mod send_properties;
pub mod send_reply;
pub mod tables;
mod topic_requests;
pub mod topics;
pub mod traffic;
mod update_config;
mod upkeep;

#[cfg(test)]
mod tests;

pub use config::{Adjustable, ServicesConfig};
pub use failure::Refusal;
pub use seam::{Busy, Done, Log, NotServing, Replication, Role, SendFailure, Submission, Wait};
pub use send_reply::SendReply;

use bases::Bases;
use clients::Clients;
use config_files::ConfigFiles;
use delay_levels::DelayLevels;
use gantry_remoting::body::topic_config::TopicConfigs;
use gantry_remoting::{Command, Connection, Latencies, Response};
use gantry_store::{Dispatched, QueueOffset, Store};
use groups::GroupConfig;
use live::Live;
use lock::QueueLocks;
use long_polling::WaitingRoom;
use metadata::Metadata;
use off_thread::Disk;
use parking_lot::{Mutex, RwLock};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinSet;
use traffic::{Deliveries, Outgoing};

/// The services of one broker.
pub struct Services {
    me: Weak<Services>,
    /// As it was at the start; what of it may change is in `adjustable`.
    config: ServicesConfig,
    adjustable: RwLock<Adjustable>,
    store: Store,
    log: Arc<dyn Log>,
    role: Arc<dyn Role>,
    replication: OnceLock<Arc<dyn Replication>>,
    live: Arc<Live>,
    metadata: Metadata,
    clients: Clients<Arc<Connection>>,
    locks: QueueLocks,
    waiting: WaitingRoom<pull::Pull>,
    disk: Disk,
    latencies: Arc<Latencies>,
    deliveries: Deliveries,
    early: early::Early,
    /// Held by who cleans the store on an administrator's request
    cleaning: Mutex<()>,
    delay_levels: DelayLevels,
    region: Arc<str>,
    schedule_topic: Arc<str>,
    /// Which mastership delivers delayed messages; `None`: somebody else's
    mastership: watch::Sender<Option<u64>>,
    /// Whether sends and pulls are judged by the log and the store. If not, whoever sends one has lost his way
    leads: AtomicBool,
    /// Something was put into the schedule topic
    delayed: Arc<Notify>,
    runtime: Handle,
    upkeep: Mutex<JoinSet<()>>,
    started_ms: i64,
}

/// How long a stopping broker waits for its last metadata record.
const LAST_CHANGES_TIMEOUT: Duration = Duration::from_secs(1);

/// Why the services can't start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// `messageDelayLevel`
    #[error(transparent)]
    DelayLevels(#[from] delay_levels::BadLevel),
    /// A configuration file
    #[error(transparent)]
    File(#[from] config_files::FileError),
    /// The metadata
    #[error(transparent)]
    Metadata(#[from] metadata::MetadataError),
}

impl Services {
    /// Loads topics, groups and offsets, and starts what runs by itself. To be called within a tokio runtime, after
    /// the store was opened, `logged` being the next number of [`names::METADATA_TOPIC`]'s queue in its log. The replica begins as
    /// a slave; see [`Self::became_master`].
    pub fn open(
        config: ServicesConfig,
        store: Store,
        logged: QueueOffset,
        log: Arc<dyn Log>,
        role: Arc<dyn Role>,
    ) -> Result<Arc<Self>, OpenError> {
        let live = Arc::new(Live::new(&config));
        let files = ConfigFiles::open(&config.config_dir)?;
        let bases = Bases::open(&config.config_dir, Duration::from_millis(config.base_ms))?;
        let metadata =
            Metadata::open(store.clone(), logged, log.clone(), files, bases, live.clone(), config.store_host)?;
        let delay_levels = DelayLevels::parse(&config.delay_levels)?;
        let services = Arc::new_cyclic(|me| Self {
            me: me.clone(),
            store,
            log,
            role,
            replication: OnceLock::new(),
            live,
            metadata,
            clients: Clients::default(),
            locks: QueueLocks::new(config.queue_lock_ms),
            waiting: WaitingRoom::new(config.max_held_pulls),
            disk: Disk::new(config.max_queued_queries),
            latencies: Arc::default(),
            deliveries: Deliveries::default(),
            early: early::Early::default(),
            cleaning: Mutex::default(),
            delay_levels,
            region: config.region_id.as_str().into(),
            schedule_topic: names::SCHEDULE_TOPIC.into(),
            mastership: watch::Sender::new(None),
            leads: AtomicBool::new(false),
            delayed: Arc::default(),
            runtime: Handle::current(),
            upkeep: Mutex::new(JoinSet::new()),
            started_ms: now_ms(),
            adjustable: RwLock::new(config.adjustable),
            config,
        });
        services.start_upkeep();
        Ok(services)
    }

    /// The store's `Events::dispatched`: these messages are visible now. Called on the dispatcher's thread.
    pub fn on_dispatched(&self, batch: &[Dispatched]) {
        if let Some(first) = batch.iter().find(|message| &*message.topic == names::METADATA_TOPIC) {
            if let Err(problem) = self.metadata.rewind_to(first.queue_offset) {
                tracing::error!(%problem, "the metadata can't be read again from before the cut");
            }
            self.follow_metadata();
        }
        if batch.iter().any(|message| &*message.topic == names::SCHEDULE_TOPIC) {
            self.delayed.notify_one();
        }
        self.wake_pulls(batch);
    }

    /// This replica is the master of `epoch`, may write, and the store has dispatched everything that the log held at
    /// the promotion.
    pub fn became_master(&self, epoch: u64) {
        self.follow_metadata();
        self.metadata.became_master(epoch);
        self.mastership.send_replace(Some(epoch));
        self.leads.store(true, Ordering::SeqCst);
    }

    /// This replica follows another master, or nobody yet. Who is connected, and who locked what, is the next master's to know. Pulls
    /// that wait are answered by [`Self::departed`].
    pub fn became_slave(&self) {
        self.leads.store(false, Ordering::SeqCst);
        self.mastership.send_replace(None);
        self.metadata.became_slave();
        self.locks.clear();
    }

    /// Whoever comes back by the master's address reaches another one: pulls that wait are refused with a code to retry on. The connections of
    /// those who don't leave by themselves.
    pub fn departed(&self) -> Vec<Arc<Connection>> {
        self.refuse_held_pulls()
    }

    /// Logs changed offsets at once: before a planned switchover hands over, so that nobody is rewound.
    pub fn flush_metadata(&self, logged: metadata::Logged) {
        self.metadata.flush_then(logged);
    }

    /// The topic table as REGISTER_BROKER carries it.
    pub fn topic_config_for_registration(&self) -> TopicConfigs {
        let (data_version, topics) = self.live.topics.all();
        let table = topics.iter().map(|topic| (topic.name.to_string(), topic.config.clone()));
        TopicConfigs { topic_config_table: table.collect(), data_version }
    }

    /// Changes whenever the topic table does: then it is time to register again.
    pub fn topics_changed(&self) -> watch::Receiver<u64> {
        self.live.topics.subscribe()
    }

    /// All confirmed metadata, for a replica that starts from the log's oldest byte.
    pub fn snapshot(&self) -> Result<bytes::Bytes, metadata::MetadataError> {
        self.metadata.snapshot()
    }

    /// Takes over a master's [`Self::snapshot`].
    pub fn install_snapshot(&self, snapshot: &[u8]) -> Result<(), metadata::MetadataError> {
        self.metadata.install_snapshot(snapshot)
    }

    /// This replica follows an Apache master, whose metadata is this.
    pub fn follow_foreign(&self, tables: tables::Tables) {
        self.metadata.follow_foreign(tables);
    }

    /// Stops what runs by itself, answers what waits, and writes the snapshot files.
    pub async fn shutdown(&self) {
        self.mastership.send_replace(None);
        let mut upkeep = std::mem::take(&mut *self.upkeep.lock());
        upkeep.shutdown().await;
        // All connections are closed soon.
        drop(self.refuse_held_pulls());
        self.log_last_changes().await;
        self.follow_metadata();
        self.save_metadata();
    }

    /// `brokerPermission`.
    pub fn permission(&self) -> u8 {
        self.adjustable().permission
    }

    /// Goes by these settings from now on, as far as they may change while it runs.
    pub fn adjust(&self, config: &ServicesConfig) {
        *self.adjustable.write() = config.adjustable;
        self.live.groups.set_auto_create(config.auto_create_groups);
    }

    fn adjustable(&self) -> Adjustable {
        *self.adjustable.read()
    }

    /// Pulls that wait for messages.
    pub fn held_pulls(&self) -> usize {
        self.waiting.len()
    }

    /// How many clients are connected.
    pub fn census(&self) -> clients::Census {
        self.clients.census()
    }

    /// How long answers take.
    pub fn answer_latencies(&self) -> &Latencies {
        &self.latencies
    }

    /// What each group got of each topic.
    pub fn deliveries(&self) -> Vec<(Arc<str>, Arc<str>, Arc<Outgoing>)> {
        let live = &self.live;
        self.deliveries.all(|topic, group| live.topics.get(topic).is_some() && live.groups.get(group).is_some())
    }

    /// A message of the topic that the group gave up.
    fn count_dead(&self, topic: &Arc<str>, group: &str) {
        if let Some(counted) = self.deliveries.of(topic, group) {
            counted.count_dead();
        }
    }

    /// The tables requests work on.
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// Best effort: offsets committed in the last half second. Without it consumers get that much again.
    async fn log_last_changes(&self) {
        let (told, logged) = oneshot::channel();
        self.metadata.flush_then(Box::new(move |result| {
            // Nobody listens any more after the time below.
            let _unheard = told.send(result);
        }));
        match tokio::time::timeout(LAST_CHANGES_TIMEOUT, logged).await {
            Ok(Ok(Ok(()) | Err(SendFailure::NotMaster))) => {}
            other => tracing::warn!(?other, "the last changes of offsets are not in the log"),
        }
    }

    fn follow_metadata(&self) {
        if let Err(problem) = self.metadata.catch_up() {
            tracing::error!(%problem, "the metadata log can't be read; tried again with its next record");
        }
    }

    fn save_metadata(&self) {
        if let Err(problem) = self.metadata.save() {
            tracing::error!(%problem, "snapshot of the metadata not written; the log has it, tried again");
        }
    }

    /// A group's settings; an unknown one is created if that's allowed.
    fn group(&self, group: &str) -> Result<Arc<GroupConfig>, Refusal> {
        let (config, created) = self.live.groups.get_or_create(group, now_ms())?;
        if created {
            self.metadata.flush();
        }
        Ok(config)
    }
}

impl crate::ha::Metadata for Services {
    fn snapshot(&self) -> anyhow::Result<bytes::Bytes> {
        Ok(Self::snapshot(self)?)
    }

    fn install(&self, snapshot: &[u8]) -> anyhow::Result<()> {
        Ok(self.install_snapshot(snapshot)?)
    }
}

/// The system's clock, in ms since 1970. It dates and expires; nothing that keeps data safe depends on it.
pub(crate) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// A request's JSON body.
fn parse<T: serde::de::DeserializeOwned>(request: &Command) -> Result<T, Refusal> {
    Ok(gantry_remoting::body::parse(&request.body.to_bytes())?)
}

/// An answer with a JSON body.
fn json<T: serde::Serialize>(body: &T) -> Result<Response, Refusal> {
    Ok(Response::success().with_body(gantry_remoting::body::to_json(body)?))
}
