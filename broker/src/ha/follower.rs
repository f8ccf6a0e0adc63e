//! The slave's side: finds its master, makes its log a prefix of the master's, and follows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use gantry_replication::Epoch;
use gantry_replication::handshake::Welcome;
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::HaConfig;
use super::beginning::{self, Metadata};
use super::frame::{Ack, Append, Frame, Hello, MAX_PAYLOAD_BYTES};
use super::session::{read, write};
use super::tls::{self, Reading, Writing};
use crate::core::{Align, Beginning, Core, Job, Raw, Standing, Survey};
use crate::fatal::Fatal;

const CONNECT_WITHIN: Duration = Duration::from_secs(2);
const FIRST_BACK_OFF: Duration = Duration::from_millis(10);
const LAST_BACK_OFF: Duration = Duration::from_secs(1);
/// Received and not yet appended, at most.
const MAX_PENDING_KIB: usize = 32 << 10;

/// A session that lasted this long was a good one: the next is tried at once. One that fails sooner fails again, perhaps (a full
/// disk does).
const STEADY: Duration = Duration::from_secs(3);

/// Follows whomever the replica's standing names.
pub struct Follower {
    task: JoinHandle<()>,
}

impl Follower {
    /// Starts following.
    pub fn start(core: Arc<Core>, config: HaConfig, metadata: Arc<dyn Metadata>) -> Self {
        Self { task: tokio::spawn(follow(core, config, metadata)) }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(core: Arc<Core>, config: HaConfig, metadata: Arc<dyn Metadata>) {
    let _fatal = Fatal("the follower");
    let mut standing = core.watch_standing();
    let mut back_off = BackOff::default();
    let slave = Slave { core: Arc::clone(&core), config, metadata, life: fastrand::u64(1..) };
    loop {
        let now = standing.borrow_and_update().clone();
        let Standing::Slave { epoch, ha_address: Some(address) } = now.clone() else {
            if standing.changed().await.is_err() {
                return;
            }
            continue;
        };
        let began = Instant::now();
        let ended = tokio::select! {
            ended = session(&slave, epoch, &address) => ended,
            _changed = standing.changed() => Ok(()),
        };
        core.lost_master(epoch);
        let Err(error) = ended else { continue };
        let wait = back_off.after(&now, began.elapsed()).mul_f64(0.5 + fastrand::f64() / 2.0);
        let election = core.election(epoch);
        info!(group = election.group, %epoch, %election, %address, reason = format!("{error:#}"), "not following; trying again in {wait:?}");
        tokio::select! {
            () = sleep(wait) => {}
            _changed = standing.changed() => {}
        }
    }
}

/// How long to wait until the next try. What failed with one master says nothing of the next: a slave that comes a moment before its new
/// master has opened the epoch tries again at once, however long it has knocked at the dead one's door.
#[derive(Default)]
struct BackOff {
    failed: Option<Standing>,
    next: Duration,
}

impl BackOff {
    /// After a session failed that `standing` had asked for, and that lasted so long.
    fn after(&mut self, standing: &Standing, lasted: Duration) -> Duration {
        if lasted >= STEADY || self.failed.as_ref() != Some(standing) {
            self.failed = Some(standing.clone());
            self.next = FIRST_BACK_OFF;
        }
        let wait = self.next;
        self.next = (wait * 2).min(LAST_BACK_OFF);
        wait
    }
}

/// What all sessions of this process have in common.
struct Slave {
    core: Arc<Core>,
    config: HaConfig,
    metadata: Arc<dyn Metadata>,
    /// Drawn when the process began.
    life: u64,
}

async fn session(slave: &Slave, epoch: Epoch, address: &str) -> Result<()> {
    let Slave { core, config, metadata, life } = slave;
    let stream = timeout(CONNECT_WITHIN, TcpStream::connect(address)).await.context("connecting took too long")??;
    let (from, mut to) = tls::connect(stream, config.tls.as_ref(), CONNECT_WITHIN).await?;
    let mut from = BufReader::with_capacity(256 << 10, from);
    write(&mut to, &Frame::Hello(hello(core, config, *life).await?), config.housekeeping).await?;
    let welcome = match read(&mut from, MAX_PAYLOAD_BYTES, config.master_silence).await? {
        Frame::Welcome(welcome) => welcome,
        Frame::Fenced(fenced) => bail!("refused: {}", fenced.reason),
        other => bail!("answered the hello with {other:?}"),
    };
    if config.undirected && welcome.epoch > epoch {
        // That changes this replica's standing, and so begins the next session.
        return core.follow_undirected(address, welcome.epoch, Some(address.to_owned())).await;
    }
    if welcome.epoch != epoch {
        bail!("the master is of epoch {}, not of {epoch}", welcome.epoch);
    }
    let beginning = match welcome.anew {
        Some(_) => Some(beginning::receive(&mut from, metadata, config.master_silence).await?),
        None => None,
    };
    let end = align(core, welcome, beginning).await?;
    core.upstream.opened(address);
    let election = core.election(epoch);
    info!(group = election.group, %epoch, %election, %address, from = end, "following");
    // Writes that fail end the session; there is one reason at most to tell.
    let (fail, mut failed) = mpsc::channel(1);
    let echo = AtomicU64::new(0);
    tokio::select! {
        ended = take_log(core, config, epoch, from, &echo, &fail) => ended,
        ended = acknowledge(core, config, epoch, &echo, to) => ended,
        Some(reason) = failed.recv() => Err(reason),
    }
}

/// Says what the log looks like once all that an earlier session left on its way has been appended: judged without that, good bytes
/// would be taken for divergent ones.
async fn hello(core: &Core, config: &HaConfig, life: u64) -> Result<Hello> {
    let (done, surveyed) = oneshot::channel();
    core.submit_job(Job::Survey(done));
    let Survey { promised, epochs, extent } = surveyed.await.context("the log's writer has ended")??;
    Ok(Hello {
        group: config.group.clone(),
        token: config.token.clone(),
        member: core.member(),
        promised,
        epochs,
        begin: extent.begin,
        end: extent.end,
        life,
    })
}

async fn align(core: &Core, welcome: Welcome, beginning: Option<Beginning>) -> Result<u64> {
    let (done, aligned) = oneshot::channel();
    let (session, cut) = (welcome.epoch, welcome.cut);
    if welcome.anew.is_some() && core.store.min_offset() != core.store.watermarks().written {
        let election = core.election(session);
        warn!(group = election.group, epoch = %session, %election, begin = cut, "nothing of this log can be gone on from: it is taken anew from the master's oldest byte");
    }
    core.submit_job(Job::Align(Align { welcome, beginning, done }));
    aligned.await.context("the log's writer has ended")?
}

async fn take_log(
    core: &Arc<Core>,
    config: &HaConfig,
    epoch: Epoch,
    mut from: BufReader<Reading>,
    echo: &AtomicU64,
    fail: &mpsc::Sender<anyhow::Error>,
) -> Result<()> {
    let room = Arc::new(Semaphore::new(MAX_PENDING_KIB));
    loop {
        let frame = read(&mut from, MAX_PAYLOAD_BYTES, config.master_silence).await?;
        core.upstream.read(if let Frame::Append(append) = &frame { append.bytes.len() as u64 } else { 0 });
        let piece = match frame {
            Frame::Append(append) => append,
            Frame::Heartbeat { session, confirm, pulse } => {
                // Only the confirm offset: in order with the pieces before it.
                let (written_in, bytes) = ((session, 0), bytes::Bytes::new());
                Append { session, written_in, from: 0, confirm, pulse, crc: 0, bytes }
            }
            Frame::Fenced(fenced) => bail!("the master ended it: {}", fenced.reason),
            other => bail!("the master sent {other:?}"),
        };
        if piece.session != epoch {
            bail!("a frame of epoch {} in a session of epoch {epoch}", piece.session);
        }
        echo.store(piece.pulse.at, Ordering::Relaxed);
        if piece.pulse.alive {
            core.heard_master(epoch);
        }
        let kib = u32::try_from(piece.bytes.len() / 1024 + 1)?;
        let permit = Arc::clone(&room).acquire_many_owned(kib).await?;
        let fail = fail.clone();
        let Append { session, written_in, from, confirm, bytes, .. } = piece;
        let done = Box::new(move |outcome: Result<u64>| {
            drop(permit);
            if let Err(error) = outcome
                && fail.try_send(error.context(format!("the piece at {from} can't be appended"))).is_err()
            {
                // An earlier piece's failure is being told already, or the session has ended.
            }
        });
        core.submit_job(Job::Raw(Raw { session, written_in, from, bytes, confirm, done }));
    }
}

/// Tells how far this log is, whenever it moved, and every so often.
async fn acknowledge(core: &Core, config: &HaConfig, epoch: Epoch, echo: &AtomicU64, mut to: Writing) -> Result<()> {
    let (mut written, mut moved) = (core.watch_written(), core.watch_moved());
    loop {
        written.borrow_and_update();
        moved.borrow_and_update();
        let Some(marks) = core.slave_marks(epoch) else { bail!("epoch {epoch} is over") };
        let flushed = marks.flushed.0.min(marks.written.0);
        let echo = echo.load(Ordering::Relaxed);
        let ack = Ack { session: epoch, written: marks.written.0, flushed, echo };
        write(&mut to, &Frame::Ack(ack), config.housekeeping).await?;
        core.upstream.wrote();
        tokio::select! {
            changed = written.changed() => changed?,
            changed = moved.changed() => changed?,
            () = sleep(config.heartbeat) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_ONCE: Duration = Duration::ZERO;

    fn slave_of(epoch: u64, address: &str) -> Standing {
        Standing::Slave { epoch: Epoch(epoch), ha_address: Some(address.to_owned()) }
    }

    #[test]
    fn a_master_that_goes_on_refusing_is_tried_ever_more_rarely() {
        let (mut back_off, master) = (BackOff::default(), slave_of(1, "r0:10912"));
        let waits: Vec<_> = (0..9).map(|_| back_off.after(&master, AT_ONCE).as_millis()).collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        assert_eq!(back_off.after(&master, STEADY), FIRST_BACK_OFF, "the last session was a good one");
    }

    #[test]
    fn a_new_master_that_is_not_ready_yet_does_not_pay_for_the_dead_ones_refusals() {
        let mut back_off = BackOff::default();
        for _ in 0..5 {
            back_off.after(&slave_of(1, "r0:10912"), AT_ONCE);
        }
        assert_eq!(back_off.after(&slave_of(2, "r1:10912"), AT_ONCE), FIRST_BACK_OFF);
    }
}
