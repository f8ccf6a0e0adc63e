//! Following an Apache master: one session.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use gantry_remoting::{Client, Limits};
use gantry_replication::Epoch;
use gantry_replication::epochs::EpochTable;
use gantry_replication::handshake::Welcome;
use gantry_store::{PhysicalOffset, ReadLog, Store};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::assembler::Assembler;
use super::begin::{Begin, Ends};
use super::metadata;
use super::wire::{HEADER_BYTES, Header};
use crate::core::{Align, Beginning, Core, Job, Raw};
use crate::registration::NamedMaster;
use crate::services::Services;

const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// Received and not yet appended, at most.
const MAX_PENDING_KIB: usize = 32 << 10;

/// What a session must know.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// How often this log's end is told when it doesn't move.
    pub(crate) heartbeat: Duration,
    /// A master silent for this long is given up.
    pub(crate) housekeeping: Duration,
    /// Acknowledge what is on disk (`SYNC_FLUSH`), not merely what is written.
    pub(crate) ack_flushed: bool,
}

/// Follows `master` until something ends it. `epoch` is this slave's own: RocketMQ's classic protocol has none.
pub(crate) async fn follow(
    core: &Arc<Core>,
    services: &Arc<Services>,
    settings: &Settings,
    master: &NamedMaster,
    epoch: Epoch,
) -> Result<()> {
    let client = Client::new(&master.address, Limits::default(), None);
    let info = metadata::broker_info(&client).await?;
    let segment_bytes = core.store.segment_bytes();
    if info.segment_bytes != segment_bytes {
        bail!(
            "its mappedFileSizeCommitLog is {}, this broker's {segment_bytes}: set this one's to the master's",
            info.segment_bytes
        );
    }
    let marks = core.store.watermarks();
    let own = Ends { oldest: core.store.min_offset().0, end: marks.written.0 };
    let begin = Begin::of(own, Ends { oldest: info.min_offset, end: info.max_offset })?;
    if begin.anew && own.oldest != own.end {
        warn!(own.end, begin = begin.end, "the master's log doesn't reach back to this one's end: it is taken anew");
    }
    let stream = timeout(CONNECT_WITHIN, TcpStream::connect(&master.ha_address)).await;
    let stream = stream.context("connecting took too long").and_then(|opened| Ok(opened?));
    let stream = stream.with_context(|| format!("its HA address {}", master.ha_address))?;
    stream.set_nodelay(true)?;
    core.upstream.opened(&master.ha_address);
    let beginning = if begin.anew { Some(beginning(&client, begin.end).await?) } else { None };
    let written_in = align(core, epoch, begin, own, info.max_offset, beginning).await?;
    let (from, mut to) = stream.into_split();
    write_offset(&mut to, begin.request, settings).await?;
    info!(master = master.address, version = info.version, from = begin.end, "following an Apache master");

    let (fail, mut failed) = mpsc::channel(1);
    let (first_heard, answered) = oneshot::channel();
    let log = Following { core, settings, begin, written_in, fail };
    tokio::select! {
        ended = log.take_pieces(from, first_heard) => ended,
        ended = acknowledge(core, settings, epoch, to, answered) => ended,
        Some(reason) = failed.recv() => Err(reason),
        never = metadata::keep(&client, core, services) => never,
    }
}

/// With which numbers queues go on of which the master's log has nothing left. Its metadata come with the first round, as always.
async fn beginning(client: &Client, oldest: u64) -> Result<Beginning> {
    Ok(Beginning { queue_numbers: metadata::drained_queues(client, oldest).await?, install: Box::new(|| Ok(())) })
}

/// Brings the log where it is to go on. Answers the epoch that the pieces are entered under, and where it began.
async fn align(
    core: &Core,
    epoch: Epoch,
    begin: Begin,
    own: Ends,
    masters_end: u64,
    beginning: Option<Beginning>,
) -> Result<(Epoch, u64)> {
    // An Apache master has no epochs; what this log has stays as it is known here, and nothing of it is a divergent tail.
    let (epochs, anew) = if begin.anew { (EpochTable::default(), Some(own.end)) } else { (core.epochs(), None) };
    let welcome = Welcome { epoch, epochs, cut: begin.end, anew, end: masters_end };
    let (done, aligned) = oneshot::channel();
    core.submit_job(Job::Align(Align { welcome, beginning, done }));
    let end = aligned.await.context("the log's writer has ended")??;
    assert_eq!(end, begin.end, "nobody else appends to a slave's log");
    let opened = core.epochs().last().filter(|last| last.epoch == epoch);
    Ok((epoch, opened.map_or(end, |last| last.start)))
}

struct Following<'a> {
    core: &'a Arc<Core>,
    settings: &'a Settings,
    begin: Begin,
    written_in: (Epoch, u64),
    fail: mpsc::Sender<anyhow::Error>,
}

impl Following<'_> {
    async fn take_pieces(&self, from: OwnedReadHalf, first_heard: oneshot::Sender<()>) -> Result<()> {
        let (begin, epoch) = (self.begin, self.written_in.0);
        let mut from = BufReader::with_capacity(256 << 10, from);
        let mut assembler = Assembler::new(begin.end, self.core.store.segment_bytes());
        if begin.request > begin.end {
            assembler.push(&[0]);
        }
        let room = Arc::new(Semaphore::new(MAX_PENDING_KIB));
        let (mut expected, mut first_heard) = (begin.request, Some(first_heard));
        let mut piece = Vec::new();
        loop {
            let header = timeout(self.settings.housekeeping, read_piece(&mut from, &mut piece)).await;
            let header = header.with_context(|| format!("it said nothing for {:?}", self.settings.housekeeping))??;
            if header.offset != expected {
                bail!("it sent what belongs at {}; expected at {expected}", header.offset);
            }
            self.core.heard_master(epoch);
            self.core.upstream.read(piece.len() as u64);
            // Only now: in one read with the first report a second one would be taken for it.
            if let Some(heard) = first_heard.take()
                && heard.send(()).is_err()
            {
                bail!("the acknowledging half has ended");
            }
            expected += piece.len() as u64;
            let known = begin.end.saturating_sub(header.offset).min(piece.len() as u64) as usize;
            compare(&self.core.store, header.offset, &piece[..known])?;
            assembler.push(&piece[known..]);
            while let Some((at, records)) = assembler.take().context("the master's log")? {
                self.append(&room, at, records).await?;
            }
        }
    }

    async fn append(&self, room: &Arc<Semaphore>, from: u64, bytes: Bytes) -> Result<()> {
        let kib = u32::try_from(bytes.len() / 1024 + 1)?.min(MAX_PENDING_KIB as u32);
        let permit = Arc::clone(room).acquire_many_owned(kib).await?;
        let fail = self.fail.clone();
        let done = Box::new(move |outcome: Result<u64>| {
            drop(permit);
            if let Err(error) = outcome
                && fail.try_send(error.context(format!("the piece at {from} can't be appended"))).is_err()
            {
                // An earlier piece's failure is being told already, or the session has ended.
            }
        });
        // Apache's slaves show all that they have, and so must this one: what is sent is not taken back.
        let confirm = from + bytes.len() as u64;
        let (session, written_in) = (self.written_in.0, self.written_in);
        self.core.submit_job(Job::Raw(Raw { session, written_in, from, bytes, confirm, done }));
        Ok(())
    }
}

async fn read_piece(from: &mut BufReader<OwnedReadHalf>, piece: &mut Vec<u8>) -> Result<Header> {
    let mut header = [0; HEADER_BYTES];
    from.read_exact(&mut header).await.context("the master closed the connection")?;
    let header = Header::decode(header)?;
    piece.resize(header.len as usize, 0);
    from.read_exact(piece).await.context("the master closed the connection")?;
    Ok(header)
}

/// What both logs have must be the same.
fn compare(store: &Store, mut at: u64, mut theirs: &[u8]) -> Result<()> {
    while !theirs.is_empty() {
        let ReadLog::Bytes { bytes: own, .. } = store.read_bytes(PhysicalOffset(at), theirs.len())? else {
            bail!("this log lacks what it had at {at}");
        };
        let differs = own.iter().zip(theirs).position(|(own, theirs)| own != theirs);
        if let Some(differs) = differs {
            bail!(
                "this log and the master's differ at {}: one of them is of another history. If the master is the right one, \
                 empty the store directory to take its log anew",
                at + differs as u64
            );
        }
        at += own.len() as u64;
        theirs = &theirs[own.len()..];
    }
    Ok(())
}

/// Tells how far this log is, whenever it moved, and every so often.
async fn acknowledge(
    core: &Core,
    settings: &Settings,
    epoch: Epoch,
    mut to: OwnedWriteHalf,
    answered: oneshot::Receiver<()>,
) -> Result<()> {
    answered.await.context("the session has ended")?;
    let (mut written, mut moved) = (core.watch_written(), core.watch_moved());
    loop {
        written.borrow_and_update();
        moved.borrow_and_update();
        let Some(marks) = core.slave_marks(epoch) else { bail!("this replica is no slave of this master any more") };
        let end = if settings.ack_flushed { marks.flushed.min(marks.written) } else { marks.written };
        write_offset(&mut to, end.0, settings).await?;
        core.upstream.wrote();
        tokio::select! {
            changed = written.changed() => changed?,
            changed = moved.changed() => changed?,
            () = sleep(settings.heartbeat) => {}
        }
    }
}

async fn write_offset(to: &mut OwnedWriteHalf, offset: u64, settings: &Settings) -> Result<()> {
    match timeout(settings.housekeeping, to.write_all(&offset.to_be_bytes())).await {
        Ok(written) => written.context("the master closed the connection"),
        Err(_elapsed) => bail!("the master took nothing for {:?}", settings.housekeeping),
    }
}
