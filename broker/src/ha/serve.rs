//! The master's side: takes slaves' connections, judges who may follow, and keeps their sessions.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, bail};
use gantry_replication::epochs::Extent;
use gantry_replication::handshake::{MasterLog, SlaveLog, Welcome, welcome};
use gantry_replication::same_secret;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Duration, timeout};
use tracing::{info, warn};

use super::HaConfig;
use super::beginning::{self, Metadata};
use super::classic::ClassicSlaves;
use super::frame::{Ack, Fenced, Frame, Hello, MAGIC, MAX_ACK_BYTES, MAX_HELLO_BYTES};
use super::link::{Counters, Link, LinkStatus};
use super::send::Sender;
use super::session::{Refused, SendTimeout, is_peers_fault, read, write};
use super::sessions::{Session, Sessions};
use super::tls::{self, Reading};
use crate::core::{Core, Standing};
use crate::fatal::Fatal;

/// Connections at once; a group has at most nine replicas.
const MAX_CONNECTIONS: usize = 64;
/// A slave that opened a connection has this long for its hello.
const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// A slave that was silent for this many of its heartbeats may be taken for gone by another process that shows its store.
const MISSED_HEARTBEATS: u32 = 3;

/// Listens for slaves, whatever the replica's role: one that isn't master says so.
pub struct HaServer {
    local: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl HaServer {
    /// Listens at `address`, port 0: given by the system.
    pub async fn bind(
        address: SocketAddr,
        core: Arc<Core>,
        config: HaConfig,
        metadata: Arc<dyn Metadata>,
    ) -> Result<Self> {
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("can't listen for slaves at {address}"))?;
        let local = listener.local_addr()?;
        let silence = config.heartbeat * MISSED_HEARTBEATS;
        let sessions = Sessions::new(Arc::clone(&core), silence.as_millis() as u64);
        let classic = ClassicSlaves::new(Arc::clone(&core), &config);
        let shared = Arc::new(Shared { core, config, metadata, sessions, classic, counters: Arc::default() });
        Ok(Self { local, accepting: tokio::spawn(accept_all(listener, Arc::clone(&shared))), shared })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The slaves that are connected, by member.
    pub fn links(&self) -> Vec<LinkStatus> {
        self.shared.sessions.statuses()
    }

    /// The Apache slaves that are connected.
    pub fn classic_links(&self) -> Vec<LinkStatus> {
        self.shared.classic.statuses()
    }

    /// Waits until Apache's slaves have all that is confirmed, for `within` at most: they have no other way to get it once this
    /// process has ended.
    pub async fn drain_classic(&self, within: Duration) {
        self.shared.classic.drain(within).await;
    }

    /// What the port has seen.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.shared.counters
    }
}

impl Drop for HaServer {
    /// Ends all sessions, too: they are the accepting task's own.
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

struct Shared {
    core: Arc<Core>,
    config: HaConfig,
    metadata: Arc<dyn Metadata>,
    sessions: Sessions,
    classic: ClassicSlaves,
    counters: Arc<Counters>,
}

async fn accept_all(listener: TcpListener, shared: Arc<Shared>) {
    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_ended) = open.join_next() => continue,
        };
        match accepted {
            Err(error) => {
                warn!(%error, "accepting a slave failed; trying again");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Ok((_, peer)) if open.len() >= MAX_CONNECTIONS => {
                warn!(%peer, "HA connection refused: {MAX_CONNECTIONS} are open");
            }
            Ok((stream, peer)) => {
                open.spawn(take(Arc::clone(&shared), stream, peer));
            }
        }
    }
}

async fn take(shared: Arc<Shared>, stream: TcpStream, peer: SocketAddr) {
    let _fatal = Fatal("a slave's session");
    let Err(error) = serve(&shared, stream, peer).await else { return };
    let reason = format!("{error:#}");
    if is_peers_fault(&error) {
        shared.counters.refused.fetch_add(1, Ordering::Relaxed);
        warn!(%peer, reason, "HA peer refused");
    } else {
        info!(%peer, reason, "HA connection ended");
    }
    if error.chain().any(<dyn std::error::Error>::is::<SendTimeout>) {
        shared.counters.send_timeouts.fetch_add(1, Ordering::Relaxed);
    }
}

async fn serve(shared: &Shared, stream: TcpStream, peer: SocketAddr) -> Result<()> {
    let patience = shared.config.housekeeping;
    let (from, mut to) = tls::accept(stream, shared.config.tls.as_ref(), HELLO_WITHIN).await?;
    let mut from = BufReader::new(from);
    if is_classic(shared, &mut from).await? {
        return shared.classic.serve(peer, from, to).await.context("Apache slave");
    }
    let Frame::Hello(hello) = read(&mut from, MAX_HELLO_BYTES, HELLO_WITHIN).await? else {
        return Err(Refused("the first frame is no hello".to_owned()).into());
    };
    let welcome = match judge(shared, &hello) {
        Ok(welcome) => welcome,
        Err(refused) => {
            let reason = format!("{refused:#}");
            write(&mut to, &Frame::Fenced(Fenced { reason }), patience).await?;
            return Err(refused.context(format!("{} refused", hello.member)));
        }
    };
    let (epoch, epochs, anew) = (welcome.epoch, welcome.epochs.clone(), welcome.anew.is_some());
    let welcomed = shared.core.clock.now_ms();
    write(&mut to, &Frame::Welcome(welcome), patience).await?;
    if anew {
        beginning::send(&mut to, &shared.core.store, &shared.metadata, patience).await?;
    }
    let Frame::Ack(first) = read(&mut from, MAX_ACK_BYTES, patience).await? else {
        return Err(Refused(format!("{}: no acknowledgement after the welcome", hello.member)).into());
    };
    if first.session != epoch || first.flushed > first.written {
        return Err(Refused(format!("{} begins a session of epoch {epoch} with {first:?}", hello.member)).into());
    }
    let now = shared.core.clock.now_ms();
    let link = Link::new(hello.member, peer.to_string(), epoch, first.written, now);
    let session = Session::new(link, hello.life);
    let member = &session.link.member;
    shared.sessions.enter(&session, first.written, welcomed)?;
    let _leave = Leave(shared, &session);
    shared.counters.connections.fetch_add(1, Ordering::Relaxed);
    let election = shared.core.election(epoch);
    info!(group = election.group, %epoch, %election, %member, %peer, from = first.written, "slave connected");
    let sender = Sender::new(&shared.core, &shared.config, &shared.counters, &session.link, epochs);
    tokio::select! {
        biased;
        () = session.replaced() => bail!("{member} opened another connection"),
        ended = take_acks(shared, &session, first, from) => ended,
        ended = sender.run(first.written, to) => ended,
    }
    .with_context(|| format!("slave {member}"))
}

/// Looks at the first byte. Apache's slaves take their time: they report first after `haSendHeartbeatInterval`.
async fn is_classic(shared: &Shared, from: &mut BufReader<Reading>) -> Result<bool> {
    let patience = if shared.config.classic { shared.config.housekeeping } else { HELLO_WITHIN };
    let seen = timeout(patience, from.fill_buf())
        .await
        .with_context(|| format!("the peer said nothing for {patience:?}"))??;
    match seen.first() {
        Some(&MAGIC) => Ok(false),
        Some(_) if shared.config.classic => Ok(true),
        Some(_) => Err(Refused(
            "it doesn't speak Gantry's HA protocol. If it is an Apache slave that shall follow this broker, set \
             gantryClassicHa=true: the classic protocol has no authentication"
                .to_owned(),
        )
        .into()),
        None => bail!("the peer closed the connection"),
    }
}

/// However a session ends, it is known to have ended.
struct Leave<'a>(&'a Shared, &'a Arc<Session>);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.sessions.leave(self.1);
    }
}

/// Judges a hello: what the slave must do to follow, or why it may not.
fn judge(shared: &Shared, hello: &Hello) -> Result<Welcome> {
    let core = &shared.core;
    let refuse = |why: String| Err(anyhow::Error::from(Refused(why)));
    if hello.group != shared.config.group || !same_secret(&shared.config.token, &hello.token) {
        return refuse("it belongs to another group, or shows another token".to_owned());
    }
    if hello.member.name == core.member().name {
        return refuse("it has the master's own name; gantryReplica must differ in each replica".to_owned());
    }
    if hello.begin > hello.end {
        return refuse(format!("its log is to begin at {} and to end at {}", hello.begin, hello.end));
    }
    core.heard_of(hello.promised);
    let standing = core.watch_standing();
    let Standing::Master { epoch, .. } = *standing.borrow() else { bail!("this replica is not master") };
    shared.sessions.check(&hello.member, hello.life)?;
    let extent = Extent { begin: core.store.min_offset().0, end: core.store.watermarks().written.0 };
    let epochs = core.epochs();
    let master = MasterLog { epoch, epochs: &epochs, extent };
    let extent = Extent { begin: hello.begin, end: hello.end };
    let slave = SlaveLog { promised: hello.promised, epochs: &hello.epochs, extent };
    Ok(welcome(master, slave)?)
}

async fn take_acks(shared: &Shared, session: &Arc<Session>, first: Ack, mut from: BufReader<Reading>) -> Result<()> {
    let mut ack = first;
    loop {
        if !shared.sessions.acked(session, ack) {
            let Ack { session: epoch, written, flushed, echo } = ack;
            let standing = shared.core.watch_standing();
            if !matches!(*standing.borrow(), Standing::Master { epoch, .. } if epoch == session.link.epoch) {
                bail!("no longer master of epoch {}", session.link.epoch);
            }
            let end = shared.core.store.watermarks().written;
            let why = format!(
                "acknowledges {written} written and {flushed} flushed of epoch {epoch} in answer to time {echo}, which can't be: the log \
                 ends at {end}, and it is {}",
                shared.core.clock.now_ms()
            );
            return Err(Refused(why).into());
        }
        match read(&mut from, MAX_ACK_BYTES, shared.config.housekeeping).await? {
            Frame::Ack(next) => ack = next,
            other => return Err(Refused(format!("sent {other:?} where only acknowledgements belong")).into()),
        }
    }
}
