//! The replica's heart: its role, its log's one writer, and the acknowledgements that wait.
//!
//! Everything that writes to the log or changes the role is a [`Job`] of one thread ([`writer`]), in order; so a role never changes
//! in the middle of a batch. Everything that can complete an acknowledgement (the log grew, was flushed, a slave answered, the
//! record changed) passes through [`Core::settle`], under one short lock that is never held over I/O.

mod acks;
mod departing;
mod divergent;
mod flow;
mod jobs;
mod motion;
mod role;
mod slowed;
mod transitions;
mod upstream;
mod writer;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::Context;
use gantry_remoting::Connection;
use gantry_replication::master::{self, Refusal, SlaveStanding};
use gantry_replication::wire::{CutTail, DATA_PLANE_MS, Report};
use gantry_replication::{Election, Epoch, GroupRecord, Member, Millis, StoreId, pressure, wire};
use gantry_store::{Appender, PhysicalOffset, Store, Watermarks};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{oneshot, watch};
use tracing::{info, warn};

use crate::clock::Clock;
use crate::replica::ReplicaState;
use crate::services::seam::{Busy, Log, NotServing, Role as ServiceRole, SendFailure, Submission};
use departing::Departing;
use divergent::Divergent;
pub use divergent::DivergentLimits;
use flow::Writing;
pub use flow::{Counters, FlowLimits};
pub use jobs::{Align, Answer, Beginning, Job, Raw, Survey};
use motion::Motion;
use role::{Gate, Role};
pub use upstream::{Upstream, UpstreamStatus};

/// Above what an elector gives a switchover.
const MAX_PARKED_MS: Millis = 15_000;

/// An asynchronous flush takes that long to tell of a heartbeat record.
const HEARTBEAT_AGAIN_MS: Millis = 500;

/// Bounds of the core.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Sends that wait for the writer.
    pub max_queued_sends: usize,
    /// Sends parked during a switchover.
    pub max_parked_sends: usize,
    /// See `slaveTimeout`.
    pub slave_timeout_ms: Millis,
    /// See `syncFlushTimeout`.
    pub sync_flush_timeout_ms: Millis,
    /// Lag as back-pressure in `Async` mode, if it is on: `haBackPressureEnable`, `haBackPressureLagBytes`.
    pub pressure: Option<pressure::Config>,
    /// When sends that wait are refused, at the start; see [`Core::set_flow`].
    pub flow: FlowLimits,
    /// What is kept of tails that were cut.
    pub divergent: DivergentLimits,
}

/// A master's sign of life, in each frame that it sends to a slave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulse {
    /// When it was sent, on the master's own clock; never 0.
    pub at: Millis,
    /// Whether its disk and its writer have answered lately. If not, its process is all that lives, and nobody is to vouch for it.
    pub alive: bool,
}

/// What the rest of the broker follows: who this replica is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing decided; serves nobody.
    Fenced,
    /// Follows the master of `epoch`, whose log is to be had at the address, if known.
    Slave {
        /// The epoch promised.
        epoch: Epoch,
        /// The master's HA address.
        ha_address: Option<String>,
    },
    /// Serves.
    Master {
        /// Its epoch.
        epoch: Epoch,
        /// Where it began in the log.
        start: u64,
    },
}

/// See the module.
pub struct Core {
    pub(crate) clock: Clock,
    pub(crate) store: Store,
    /// For the log.
    group: OnceLock<String>,
    /// As a slave: the connection to the master.
    pub(crate) upstream: Upstream,
    master_config: master::Config,
    limits: Limits,
    flow: RwLock<FlowLimits>,
    /// Which settings apply, see [`wire::Report::settings`].
    settings: Mutex<Option<u64>>,
    divergent: Divergent,
    queue: jobs::Queue,
    writing: Writing,
    motion: Motion,
    counters: Counters,
    state: Mutex<State>,
    /// Locked within `state`, or alone.
    departing: Departing,
    /// The log's written end, for those who send it on.
    written: watch::Sender<u64>,
    /// The log's flushed end and the confirm offset's movements, told after the fact.
    moved: watch::Sender<u64>,
    standing: watch::Sender<Standing>,
    degradations: AtomicU64,
    /// Orders to park that have come.
    orders: AtomicU64,
    /// Bytes each second that producers may send; `u64::MAX`: as many as they like.
    slowed_to: AtomicU64,
}

struct State {
    replica: ReplicaState,
    role: Role,
    /// When the disk last proved itself: a flush that completed.
    proof_at: Millis,
    /// When it was last asked to by a heartbeat record.
    heartbeat_at: Millis,
    /// The last tail that was cut from the log.
    last_cut: Option<CutTail>,
    /// The master was last seen to be so.
    degraded: bool,
    /// Epoch and revision of the newest record that the elector has told of.
    record_heard: (Epoch, u64),
}

impl Core {
    /// Starts the writer's thread over an open store.
    pub fn start(
        store: Store,
        appender: Appender,
        mut replica: ReplicaState,
        master_config: master::Config,
        limits: Limits,
        clock: Clock,
    ) -> anyhow::Result<(Arc<Self>, std::thread::JoinHandle<()>)> {
        let written = store.watermarks().written.0;
        transitions::reconcile(&mut replica, written)?;
        let core = Arc::new(Self {
            clock,
            divergent: Divergent::new(store.root(), limits.divergent),
            store,
            group: OnceLock::new(),
            upstream: Upstream::default(),
            master_config,
            limits,
            flow: RwLock::new(limits.flow),
            settings: Mutex::new(None),
            queue: jobs::Queue::new(limits.max_queued_sends),
            writing: Writing::default(),
            motion: Motion::new(clock.now_ms()),
            counters: Counters::default(),
            state: Mutex::new(State {
                replica: replica.clone(),
                role: Role::Fenced,
                proof_at: clock.now_ms(),
                heartbeat_at: 0,
                last_cut: None,
                degraded: false,
                record_heard: (Epoch(0), 0),
            }),
            departing: Departing::default(),
            degradations: AtomicU64::new(0),
            orders: AtomicU64::new(0),
            slowed_to: AtomicU64::new(u64::MAX),
            written: watch::Sender::new(written),
            moved: watch::Sender::new(0),
            standing: watch::Sender::new(Standing::Fenced),
        });
        let thread = writer::spawn(Arc::clone(&core), appender, replica)?;
        Ok((core, thread))
    }

    /// The group's name, for the log. The first counts.
    pub fn name_group(&self, group: &str) {
        self.group.get_or_init(|| group.to_owned());
    }

    /// What the election that gave this epoch is called, here and in the logs of its peers and of the operator.
    pub fn election(&self, epoch: Epoch) -> Election<'_> {
        Election { group: self.group.get().map_or("", String::as_str), epoch }
    }

    /// Who this replica is.
    pub fn member(&self) -> Member {
        self.state.lock().replica.member().clone()
    }

    /// Follows the replica's standing.
    pub fn watch_standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Follows the log's written end.
    pub fn watch_written(&self) -> watch::Receiver<u64> {
        self.written.subscribe()
    }

    /// Wakes when flushed or confirm offset moved.
    pub fn watch_moved(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }

    /// These settings apply from now on: the number goes into the next report.
    pub fn settings_apply(&self, digest: u64) {
        *self.settings.lock() = Some(digest);
    }

    /// How this replica is.
    pub fn report(&self) -> Report {
        let now = self.clock.now_ms();
        let marks = self.store.watermarks();
        let state = self.state.lock();
        let epochs = state.replica.epochs();
        let (role, master_heard_ms_ago) = match &state.role {
            Role::Fenced => (wire::Role::Fenced, None),
            Role::Slave(slave) => (wire::Role::Slave, slave.heard_at.map(|at| now.saturating_sub(at))),
            Role::Master(_) => (wire::Role::Master, None),
        };
        let (drained, degraded) = match &state.role {
            Role::Master(role) => (role.is_drained(self.last_order()), role.master.degraded()),
            _ => (false, false),
        };
        let promised = state.replica.promised();
        let (epoch_heard, revision_heard) = state.record_heard;
        Report {
            role,
            promised,
            revision: if epoch_heard == promised { revision_heard } else { 0 },
            last_epoch: epochs.last().map_or(Epoch(0), |last| last.epoch),
            min_offset: self.store.min_offset().0,
            max_offset: marks.written.0,
            flushed_offset: marks.flushed.0,
            confirm_offset: marks.confirmed.0,
            master_heard_ms_ago,
            drained,
            data_plane_alive: is_proven(state.proof_at, now),
            intact: state.replica.is_intact(),
            degraded,
            last_cut: state.last_cut.clone(),
            settings: *self.settings.lock(),
        }
    }

    /// The standings of a master's slaves; none on any other replica.
    pub fn slaves(&self) -> Vec<SlaveStanding> {
        match &self.state.lock().role {
            Role::Master(role) => role.master.slaves(),
            _ => Vec::new(),
        }
    }

    /// On a master: how many in-sync replicas have not failed, it included.
    pub fn alive_in_sync(&self) -> Option<usize> {
        match &self.state.lock().role {
            Role::Master(role) => Some(role.master.alive_in_sync(self.clock.now_ms())),
            _ => None,
        }
    }

    /// The elector was heard, with this record, in answer to what it was asked then.
    pub fn recorded(&self, record: &GroupRecord, asked: Millis) {
        {
            let mut state = self.state.lock();
            state.record_heard = state.record_heard.max((record.epoch, record.revision));
        }
        self.settle(|master, now| master.recorded(record, asked, now));
    }

    /// How this master is, for its slaves.
    pub fn pulse(&self) -> Pulse {
        let now = self.clock.now_ms();
        Pulse { at: now.max(1), alive: is_proven(self.state.lock().proof_at, now) }
    }

    /// A slave of this epoch is connected, its log ending at `end`, by its answer to what it was `asked` then. `false`: that can't be.
    pub fn slave_connected(&self, member: &Member, epoch: Epoch, end: u64, asked: Millis) -> bool {
        let mut sound = true;
        self.settle(|master, now| {
            if master.epoch() == epoch {
                let marks = self.store.watermarks();
                master.local(marks.written.0, marks.flushed.0);
                sound = master.connected(member, end, asked, now);
            }
        });
        sound
    }

    /// A slave's connection ended.
    pub fn slave_disconnected(&self, member: &Member) {
        self.settle(|master, now| master.disconnected(member, now));
    }

    /// A slave acknowledged. `false`: it said something impossible, or this is not its master any more.
    /// It echoes when what it heard last was sent.
    pub fn slave_acked(&self, member: &Member, epoch: Epoch, written: u64, flushed: u64, echo: Millis) -> bool {
        let mut sound = false;
        self.settle(|master, now| {
            // A slave may have a batch, and say so, before the writer got round to telling.
            let marks = self.store.watermarks();
            master.local(marks.written.0, marks.flushed.0);
            sound = master.acked(member, epoch, written, flushed, echo, now);
        });
        sound
    }

    /// The newer epoch that ended this master's reign, if this is a master whose reign has ended.
    pub fn deposed_by(&self) -> Option<Epoch> {
        match &self.state.lock().role {
            Role::Master(role) => role.master.deposed_by(),
            _ => None,
        }
    }

    /// A replica has promised `epoch`: if that is above this master's own, it is master no more.
    pub fn heard_of(&self, epoch: Epoch) {
        self.settle(|master, _now| master.heard_of(epoch));
    }

    /// A slave heard its master's data plane.
    pub fn heard_master(&self, epoch: Epoch) {
        let now = self.clock.now_ms();
        if let Role::Slave(slave) = &mut self.state.lock().role
            && slave.epoch == epoch
        {
            slave.heard_at = Some(now);
        }
    }

    /// How far this slave's log is, for its acknowledgements in the session of `epoch`. None once it is no slave of that epoch: then
    /// its log may hold what that master doesn't have (invariant *Promise*).
    pub fn slave_marks(&self, epoch: Epoch) -> Option<Watermarks> {
        let state = self.state.lock();
        matches!(&state.role, Role::Slave(slave) if slave.epoch == epoch).then(|| self.store.watermarks())
    }

    /// A slave lost its connection to the master of `epoch`.
    pub fn lost_master(&self, epoch: Epoch) {
        if let Role::Slave(slave) = &mut self.state.lock().role
            && slave.epoch == epoch
        {
            slave.heard_at = None;
        }
        self.upstream.closed();
    }

    /// From the store: everything below `offset` is on disk.
    pub fn flushed(&self, offset: PhysicalOffset) {
        self.state.lock().proof_at = self.clock.now_ms();
        let written = self.store.watermarks().written.0;
        self.settle(|master, _now| master.local(written, offset.0));
        self.moved.send_modify(|count| *count += 1);
    }

    /// Looks at the clock; to be called about each 50 ms. Fails sends that waited too long, and gives the change of the in-sync set
    /// that is due, if one is.
    pub fn tick(&self) -> Option<master::Alter> {
        let mut alter = None;
        let mut needed = None;
        self.settle(|master, now| {
            alter = master.tick(now);
            needed = master.needed_from();
        });
        self.store.hold_for_replicas(needed.map(PhysicalOffset));
        self.end_waiting();
        self.departing.end_if_overdue(&self.counters, self.clock.now_ms());
        self.tell_degraded();
        self.shed();
        self.motion.ticked(self.clock.now_ms());
        alter
    }

    /// Sends that wait for the writer.
    pub fn queued_sends(&self) -> usize {
        self.queue.sends()
    }

    /// How often this replica, as a master, came to have fewer copies than asked for and went on all the same.
    pub fn degradations(&self) -> u64 {
        self.degradations.load(Ordering::Relaxed)
    }

    /// Bytes each second that producers may send now, if they are slowed because slaves lag.
    pub fn slowed_to(&self) -> Option<u64> {
        Some(self.slowed_to.load(Ordering::Relaxed)).filter(|rate| *rate != u64::MAX)
    }

    /// Nothing degrades silently.
    fn tell_degraded(&self) {
        let mut state = self.state.lock();
        let Role::Master(role) = &state.role else {
            state.degraded = false;
            return;
        };
        let (now, epoch) = (role.master.degraded(), role.master.epoch());
        let (have, need) = (role.master.in_sync().len(), self.master_config.min_in_sync);
        let before = std::mem::replace(&mut state.degraded, now);
        drop(state);
        if now && !before {
            self.degradations.fetch_add(1, Ordering::Relaxed);
            let election = self.election(epoch);
            warn!(group = election.group, %epoch, %election, have, need, "degraded: fewer in-sync replicas than minInSyncReplicas, and sends are taken all the same");
        } else if before && !now {
            let election = self.election(epoch);
            info!(group = election.group, %epoch, %election, have, need, "degraded no more: in-sync replicas are enough again");
        }
    }

    /// Nobody waits at the gate for ever. Whoever asked for a switchover may be gone, or couldn't say that it was given up; if it was
    /// decided all the same, nothing that this master takes in can be acknowledged any more.
    fn end_waiting(&self) {
        let now = self.clock.now_ms();
        let mut given_up = Vec::new();
        let mut forgotten = None;
        if let Role::Master(role) = &mut self.state.lock().role {
            if role.gate.is_overdue(now, self.limits) {
                given_up = role.gate.waiting().map(std::mem::take).unwrap_or_default();
            }
            if let Gate::Parked(parking, _) = &role.gate
                && now.saturating_sub(parking.since) > MAX_PARKED_MS
            {
                forgotten = Some((role.master.epoch(), parking.order));
            }
        }
        let overdue = SendFailure::Fenced(role::OPENING.to_owned());
        self.counters.failed(&overdue, given_up.iter().map(|send| &send.done));
        for send in given_up {
            send.done.complete(Err(overdue.clone()));
        }
        if let Some((epoch, order)) = forgotten {
            self.submit_job(Job::Unpark(epoch, order));
        }
    }

    /// A master with nothing to prove its disk by for `after_ms`: then a [`Job::Heartbeat`] is due, once in a while.
    pub fn needs_heartbeat_record(&self, after_ms: Millis) -> bool {
        let now = self.clock.now_ms();
        let mut state = self.state.lock();
        let due = matches!(state.role, Role::Master(_))
            && now.saturating_sub(state.proof_at) >= after_ms
            && now.saturating_sub(state.heartbeat_at) >= HEARTBEAT_AGAIN_MS;
        if due {
            state.heartbeat_at = now;
        }
        due
    }

    /// The number of an order to park that has just come; to call off all that have come is to call off the last number.
    pub fn number_order(&self) -> u64 {
        self.orders.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The number of the last order to park that has come.
    pub fn last_order(&self) -> u64 {
        self.orders.load(Ordering::Relaxed)
    }

    /// The address by which this replica's clients came, when it was master, leads to another one: those who wait are sent there.
    /// The connections of those who don't leave by themselves.
    pub fn departed(&self) -> Vec<Arc<Connection>> {
        self.departing.end(&self.counters, self.clock.now_ms())
    }

    /// Whether clients of this old master are here yet, or may come back: a process that ends now would leave them to nobody.
    pub fn is_leaving(&self) -> bool {
        self.departing.needs_us(self.clock.now_ms())
    }

    /// Hands a job to the writer.
    pub fn submit_job(&self, job: Job) {
        self.queue.push(job);
    }

    /// Ends the writer's thread after what it has been given; the thread closes the store.
    pub fn stop(&self) {
        self.queue.close();
    }

    /// The log's epochs, for a slave's handshake.
    pub fn epochs(&self) -> gantry_replication::epochs::EpochTable {
        self.state.lock().replica.epochs().clone()
    }

    /// Lets `change` act on the master, if this is one, then completes every acknowledgement that follows from it.
    fn settle(&self, change: impl FnOnce(&mut master::Master, Millis)) {
        let now = self.clock.now_ms();
        let (done, confirmed) = {
            let mut state = self.state.lock();
            let Role::Master(role) = &mut state.role else { return };
            change(&mut role.master, now);
            let before = role.confirmed;
            let done = role.settle(now, self.limits);
            // Under the lock, so that a later truncation is never followed by this epoch's word.
            if role.confirmed > before {
                self.store.confirm(PhysicalOffset(role.confirmed));
            }
            (done, role.confirmed > before)
        };
        if confirmed {
            self.moved.send_modify(|count| *count += 1);
        }
        for waiting in done {
            waiting.count(&self.counters, now);
            waiting.complete();
        }
    }
}

/// Whether a disk that proved itself then is a living one now.
fn is_proven(proof_at: Millis, now: Millis) -> bool {
    now.saturating_sub(proof_at) < DATA_PLANE_MS
}

impl Core {
    /// Follows a master that no elector named; with that its epoch is promised. There is no record of it but this one, in the process.
    pub async fn follow_undirected(
        &self,
        master: &str,
        epoch: Epoch,
        ha_address: Option<String>,
    ) -> anyhow::Result<()> {
        let master = Member::new(master, StoreId(0));
        let record = GroupRecord { epoch, revision: 0, in_sync: BTreeSet::from([master.clone()]), master };
        let (done, became) = oneshot::channel();
        self.submit_job(Job::BecomeSlave(record, ha_address, done));
        became.await.context("the log's writer has ended")?
    }
}

impl Log for Core {
    fn submit(&self, sends: Vec<Submission>) {
        let taken = self.reject_if_busy(sends);
        let refused = self.queue.push_sends(taken, self.clock.now_ms());
        self.refuse(refused, &Busy::Overload);
    }
}

impl ServiceRole for Core {
    fn serving(&self) -> Result<(), NotServing> {
        match &self.state.lock().role {
            Role::Fenced => Err(NotServing::Fenced("it has not been told its role yet".to_owned())),
            Role::Slave(_) if self.departing.is_on() => Err(NotServing::SwitchingOver),
            Role::Slave(_) => Err(NotServing::Slave),
            Role::Master(role) if matches!(role.gate, Gate::Opening(..)) => Err(NotServing::Opening),
            Role::Master(role) => role.master.may_serve(self.clock.now_ms()).map_err(|refusal| match refusal {
                Refusal::Deposed { .. } => NotServing::SwitchingOver,
                other => NotServing::Fenced(other.to_string()),
            }),
        }
    }
}
