//! The master's side: takes slaves' connections and sends them the log.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use gantry_replication::epochs::EpochTable;
use gantry_replication::handshake::{MasterLog, SlaveLog, Welcome, welcome};
use gantry_replication::{Epoch, Member};
use gantry_store::{PhysicalOffset, ReadLog};
use parking_lot::Mutex;
use tokio::io::BufReader;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant, sleep_until};
use tracing::{info, warn};

use super::HaConfig;
use super::frame::{Ack, Append, Fenced, Frame, Hello};
use super::session::{read, write};
use crate::core::{Core, Standing};
use crate::fatal::Fatal;

/// Connections at once; a group has at most nine replicas.
const MAX_CONNECTIONS: u64 = 64;
/// A slave that opened a connection has this long for its hello, and then for its first acknowledgement (it may have to cut its log).
const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// A confirm offset that moved after the last piece was sent is told after this long at most.
const CONFIRM_WITHIN: Duration = Duration::from_millis(5);

/// Listens for slaves, whatever the replica's role: one that isn't master says so.
pub struct HaServer {
    local: SocketAddr,
    accepting: JoinHandle<()>,
}

impl HaServer {
    /// Listens at `address`, port 0: given by the system.
    pub async fn bind(address: SocketAddr, core: Arc<Core>, config: HaConfig) -> Result<Self> {
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("can't listen for slaves at {address}"))?;
        let local = listener.local_addr()?;
        let shared = Arc::new(Shared { core, config, sessions: Mutex::default(), open: AtomicU64::new(0) });
        Ok(Self { local, accepting: tokio::spawn(accept_all(listener, shared)) })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

impl Drop for HaServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

struct Shared {
    core: Arc<Core>,
    config: HaConfig,
    /// The present session of each slave: a newer one ends the older.
    sessions: Mutex<HashMap<Member, Arc<Notify>>>,
    open: AtomicU64,
}

async fn accept_all(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Err(error) => {
                warn!(%error, "accepting a slave failed; trying again");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Ok((stream, peer)) => {
                if shared.open.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
                    shared.open.fetch_sub(1, Ordering::Relaxed);
                    warn!(%peer, "HA connection refused: {MAX_CONNECTIONS} are open");
                    continue;
                }
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    let _fatal = Fatal("a slave's session");
                    if let Err(error) = serve(&shared, stream).await {
                        info!(%peer, reason = format!("{error:#}"), "HA connection ended");
                    }
                    shared.open.fetch_sub(1, Ordering::Relaxed);
                });
            }
        }
    }
}

async fn serve(shared: &Shared, stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let (from, mut to) = stream.into_split();
    let mut from = BufReader::new(from);
    let Frame::Hello(hello) = read(&mut from, HELLO_WITHIN).await? else { bail!("the first frame is no hello") };
    let welcome = match judge(shared, &hello) {
        Ok(welcome) => welcome,
        Err(refused) => {
            let reason = format!("{refused:#}");
            write(&mut to, &Frame::Fenced(Fenced { reason: reason.clone() }), shared.config.housekeeping).await?;
            bail!("{} refused: {reason}", hello.member);
        }
    };
    let (epoch, epochs) = (welcome.epoch, welcome.epochs.clone());
    write(&mut to, &Frame::Welcome(welcome), shared.config.housekeeping).await?;
    let Frame::Ack(first) = read(&mut from, shared.config.housekeeping).await? else {
        bail!("no acknowledgement after the welcome")
    };
    if first.session != epoch {
        bail!("{} acknowledges epoch {} in a session of epoch {epoch}", hello.member, first.session);
    }
    let member = hello.member;
    let replaced = Arc::new(Notify::new());
    if let Some(older) = shared.sessions.lock().insert(member.clone(), Arc::clone(&replaced)) {
        older.notify_one();
    }
    shared.core.slave_connected(&member, epoch, first.written);
    info!(%member, %epoch, from = first.written, "slave connected");
    let session = Session { shared, member: &member, epoch, epochs };
    let ended = tokio::select! {
        ended = session.take_acks(first, from) => ended,
        ended = session.send_log(first.written, to) => ended,
        () = replaced.notified() => bail!("{member} opened another connection"),
    };
    // Not if a newer session has taken the place already: then this slave is connected.
    let mut sessions = shared.sessions.lock();
    if sessions.get(&member).is_some_and(|present| Arc::ptr_eq(present, &replaced)) {
        sessions.remove(&member);
        shared.core.slave_disconnected(&member);
    }
    ended.with_context(|| format!("slave {member}"))
}

/// Judges a hello: what the slave must do to follow, or why it may not.
fn judge(shared: &Shared, hello: &Hello) -> Result<Welcome> {
    let core = &shared.core;
    if hello.group != shared.config.group || hello.token != shared.config.token {
        bail!("it belongs to another group, or shows another token");
    }
    if hello.member.name == core.member().name {
        bail!("it has the master's own name; gantryReplica must differ in each replica");
    }
    core.heard_of(hello.promised);
    let standing = core.watch_standing();
    let Standing::Master { epoch, .. } = *standing.borrow() else { bail!("this replica is not master") };
    let (epochs, oldest) = (core.epochs(), core.store.min_offset().0);
    let master = MasterLog { epoch, epochs: &epochs, oldest, end: core.store.watermarks().written.0 };
    let slave = SlaveLog { promised: hello.promised, epochs: &hello.epochs, end: hello.end };
    Ok(welcome(master, slave)?)
}

struct Session<'a> {
    shared: &'a Shared,
    member: &'a Member,
    epoch: Epoch,
    epochs: EpochTable,
}

impl Session<'_> {
    async fn take_acks(&self, first: Ack, mut from: BufReader<OwnedReadHalf>) -> Result<()> {
        let mut ack = first;
        loop {
            if !self.shared.core.slave_acked(self.member, ack.session, ack.written, ack.flushed) {
                bail!(
                    "acknowledges {} of epoch {}, which can't be (or this master has stepped down)",
                    ack.written,
                    ack.session
                );
            }
            match read(&mut from, self.shared.config.housekeeping).await? {
                Frame::Ack(next) => ack = next,
                other => bail!("sent {other:?} where only acknowledgements belong"),
            }
        }
    }

    async fn send_log(&self, mut next: u64, mut to: OwnedWriteHalf) -> Result<()> {
        let core = &self.shared.core;
        let (mut written, mut moved, mut standing) = (core.watch_written(), core.watch_moved(), core.watch_standing());
        let patience = self.shared.config.housekeeping;
        let mut told = u64::MAX;
        loop {
            if !matches!(*standing.borrow_and_update(), Standing::Master { epoch, .. } if epoch == self.epoch) {
                let reason = format!("no longer master of epoch {}", self.epoch);
                write(&mut to, &Frame::Fenced(Fenced { reason: reason.clone() }), patience).await?;
                bail!(reason);
            }
            written.borrow_and_update();
            moved.borrow_and_update();
            let confirm = core.store.watermarks().confirmed.0;
            if let Some(append) = self.piece(next, confirm)? {
                next = append.from + append.bytes.len() as u64;
                told = confirm;
                write(&mut to, &Frame::Append(append), patience).await?;
                continue;
            }
            let idle_until = Instant::now() + self.shared.config.heartbeat;
            let mut quiet_until = if told == confirm { idle_until } else { Instant::now() + CONFIRM_WITHIN };
            let grew = loop {
                tokio::select! {
                    changed = written.changed() => { changed?; break true }
                    changed = standing.changed() => { changed?; break true }
                    changed = moved.changed() => {
                        changed?;
                        if core.store.watermarks().confirmed.0 != told {
                            quiet_until = quiet_until.min(Instant::now() + CONFIRM_WITHIN);
                        }
                    }
                    () = sleep_until(quiet_until) => break false,
                }
            };
            if !grew {
                told = core.store.watermarks().confirmed.0;
                write(&mut to, &Frame::Heartbeat { session: self.epoch, confirm: told }, patience).await?;
            }
        }
    }

    /// The next piece of the log, of one epoch.
    fn piece(&self, from: u64, confirm: u64) -> Result<Option<Append>> {
        match self.shared.core.store.read_log(PhysicalOffset(from), self.shared.config.batch_bytes)? {
            ReadLog::AtEnd => Ok(None),
            ReadLog::Gone { oldest } => bail!("it needs the log from {from}, but the oldest byte left is {oldest}"),
            ReadLog::Bytes { mut bytes, .. } => {
                let entry =
                    self.epochs.epoch_at(from).with_context(|| format!("no epoch is known of offset {from}"))?;
                let following = self.epochs.entries().iter().find(|other| other.epoch > entry.epoch);
                if let Some(following) = following {
                    bytes.truncate(usize::try_from(following.start - from).unwrap_or(usize::MAX).min(bytes.len()));
                }
                Ok(Some(Append { session: self.epoch, written_in: (entry.epoch, entry.start), from, confirm, bytes }))
            }
        }
    }
}
