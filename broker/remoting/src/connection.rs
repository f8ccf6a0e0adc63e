//! One end of a socket. Both ends may ask, answer, and send one-way.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use smallvec::SmallVec;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use crate::command::{Command, ONEWAY_BIT};
use crate::frame::{EncodeError, Head};
use crate::handler::Handler;
use crate::header::Fields;
use crate::latencies::Latencies;
use crate::limits::Limits;
use crate::outbox::Outbox;
use crate::payload::Body;
use crate::{reader, writer};

/// A connection, shared by its two tasks and everybody who answers or asks on it.
pub struct Connection {
    id: u64,
    peer: SocketAddr,
    local: SocketAddr,
    limits: Arc<Limits>,
    outbox: Mutex<Outgoing>,
    /// Bytes that wait to be written, counting what the writer holds.
    unwritten_bytes: AtomicUsize,
    /// Tickets handed out and not yet answered.
    in_flight: AtomicUsize,
    /// The reader waits until `in_flight` and `unwritten_bytes` are low enough.
    reader_paused: AtomicBool,
    resume_reader: Notify,
    wake_writer: Notify,
    waiting: Mutex<HashMap<i32, oneshot::Sender<Command>>>,
    next_opaque: AtomicI32,
    /// When something was last written, in milliseconds since `started`.
    last_write_ms: AtomicU64,
    started: Instant,
    closed: watch::Sender<bool>,
    attachment: OnceLock<Box<dyn Any + Send + Sync>>,
    latencies: Option<Arc<Latencies>>,
}

#[derive(Debug, Default)]
struct Outgoing {
    frames: Outbox,
    state: State,
    /// The writer has been woken and hasn't looked yet: one wake is enough.
    writer_woken: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Open,
    /// What waits is written, nothing more is taken.
    Draining,
    Closed,
}

/// What the writer does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriterStep {
    /// Write what it was given.
    Write,
    /// Wait to be woken.
    Wait,
    /// There is nothing to write any more.
    End,
}

/// Why a command could not be sent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SendError {
    /// The connection is closed or closing.
    #[error("connection closed")]
    Closed,
    /// As many bytes as [`Limits::max_outbox_bytes`] wait for the peer already.
    #[error("{waiting_bytes} bytes wait for the peer to read already")]
    OutboxFull {
        /// How many.
        waiting_bytes: usize,
    },
    /// The command breaks a limit of the frame.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvokeError {
    /// The request could not be sent.
    #[error("{peer}: {source}")]
    Send {
        /// Who was asked.
        peer: SocketAddr,
        /// Why.
        source: SendError,
    },
    /// The connection ended before the answer came: whether the request was carried out is not known.
    #[error("{peer}: connection closed before the answer to request code {code} came")]
    Closed {
        /// Who was asked.
        peer: SocketAddr,
        /// The request's code.
        code: i32,
    },
    /// No answer in time: whether the request was or will be carried out is not known.
    #[error("{peer}: no answer to request code {code} within {after:?}")]
    Timeout {
        /// Who was asked.
        peer: SocketAddr,
        /// The request's code.
        code: i32,
        /// The time given.
        after: Duration,
    },
    /// As many requests as [`Limits::max_in_flight`] wait for their answers already.
    #[error("{peer}: {limit} requests in flight already")]
    TooManyInFlight {
        /// Who was to be asked.
        peer: SocketAddr,
        /// The limit.
        limit: usize,
    },
}

impl Connection {
    /// Takes over a connected socket and starts its two tasks.
    pub(crate) fn start(
        stream: TcpStream,
        limits: Arc<Limits>,
        handler: Arc<dyn Handler>,
    ) -> std::io::Result<Arc<Self>> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        stream.set_nodelay(true)?;
        let connection = Arc::new(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            peer: stream.peer_addr()?,
            local: stream.local_addr()?,
            limits,
            outbox: Mutex::default(),
            unwritten_bytes: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            reader_paused: AtomicBool::new(false),
            resume_reader: Notify::new(),
            wake_writer: Notify::new(),
            waiting: Mutex::default(),
            next_opaque: AtomicI32::new(0),
            last_write_ms: AtomicU64::new(0),
            started: Instant::now(),
            closed: watch::Sender::new(false),
            attachment: OnceLock::new(),
            latencies: handler.latencies(),
        });
        let (read_half, write_half) = stream.into_split();
        handler.opened(&connection);
        tokio::spawn(writer::run(Arc::clone(&connection), write_half));
        tokio::spawn(reader::run(Arc::clone(&connection), read_half, handler));
        Ok(connection)
    }

    /// A number that no other connection of this process has or had.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The other end.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// This end.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Its bounds.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether it is closed or takes no more because it is closing.
    pub fn is_closed(&self) -> bool {
        self.outbox.lock().state != State::Open
    }

    /// Resolves when the connection has been closed, by whichever side.
    pub async fn closed(&self) {
        let mut state = self.closed.subscribe();
        while !*state.borrow_and_update() {
            // An error would mean that the sender is gone, but `self` owns it.
            if state.changed().await.is_err() {
                return;
            }
        }
    }

    /// Sends a request one-way: written in its turn, answered by nobody.
    pub fn send(&self, mut command: Command) -> Result<(), SendError> {
        command.flag |= ONEWAY_BIT;
        command.opaque = self.take_opaque();
        self.push_request(command)
    }

    /// Sends a request and waits for its answer.
    pub async fn invoke(&self, mut command: Command, within: Duration) -> Result<Command, InvokeError> {
        let (peer, code) = (self.peer, command.code);
        let (answer, opaque) = self.expect_answer()?;
        let _forget = Forget { connection: self, opaque };
        command.opaque = opaque;
        self.push_request(command).map_err(|source| InvokeError::Send { peer, source })?;
        match timeout(within, answer).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(_dropped)) => Err(InvokeError::Closed { peer, code }),
            Err(_elapsed) => Err(InvokeError::Timeout { peer, code, after: within }),
        }
    }

    /// Closes at once; what waits to be written is lost. The reason goes to the log.
    pub fn close(&self, reason: &str) {
        {
            let mut outbox = self.outbox.lock();
            if outbox.state == State::Closed {
                return;
            }
            outbox.state = State::Closed;
        }
        debug!(connection = self.id, peer = %self.peer, reason, "connection closed");
        self.closed.send_replace(true);
        self.wake_writer.notify_one();
        // Whoever waits for an answer learns of the end by the drop of its sender.
        drop(std::mem::take(&mut *self.waiting.lock()));
    }

    /// Takes nothing more, writes what waits, and ends its own direction; closes when the peer has ended too, so that
    /// nothing on its way to the peer is lost by a reset, or after `within`. Tickets still held then answer nobody.
    pub async fn close_after_flush(&self, reason: &str, within: Duration) {
        {
            let mut outbox = self.outbox.lock();
            if outbox.state == State::Open {
                outbox.state = State::Draining;
            }
        }
        self.wake_writer.notify_one();
        // The reader must not wait for answers that can't come any more.
        self.resume_reader.notify_one();
        if timeout(within, self.closed()).await.is_err() {
            warn!(connection = self.id, peer = %self.peer, ?within, "what waited could not be written in time");
        }
        self.close(reason);
    }

    /// Where it is noted how long answers take.
    pub(crate) fn latencies(&self) -> Option<&Latencies> {
        self.latencies.as_deref()
    }

    /// A slot for what a handler keeps with the connection, set once by whoever comes first.
    pub fn attachment(&self) -> &OnceLock<Box<dyn Any + Send + Sync>> {
        &self.attachment
    }

    /// Encodes a frame into the outbox and wakes the writer if need be. From any thread.
    pub(crate) fn push(&self, head: &Head<'_>, fields: &impl Fields, body: Body) -> Result<(), SendError> {
        let mut outbox = self.outbox.lock();
        if outbox.state != State::Open {
            return Err(SendError::Closed);
        }
        let before = outbox.frames.bytes();
        outbox.frames.push(head, fields, body, self.limits.max_frame_bytes)?;
        self.unwritten_bytes.fetch_add(outbox.frames.bytes() - before, Ordering::SeqCst);
        let wake = !std::mem::replace(&mut outbox.writer_woken, true);
        drop(outbox);
        if wake {
            self.wake_writer.notify_one();
        }
        Ok(())
    }

    /// Gives the writer what waits, and tells it what to do.
    pub(crate) fn take_outgoing(&self, into: &mut SmallVec<[Bytes; 8]>) -> WriterStep {
        let mut outbox = self.outbox.lock();
        outbox.writer_woken = false;
        let state = outbox.state;
        match state {
            State::Closed => WriterStep::End,
            _ if outbox.frames.take(into) > 0 => WriterStep::Write,
            State::Open => WriterStep::Wait,
            State::Draining => WriterStep::End,
        }
    }

    pub(crate) async fn wait_for_outgoing(&self) {
        self.wake_writer.notified().await;
    }

    /// The writer wrote so much.
    pub(crate) fn wrote(&self, bytes: usize) {
        let before = self.unwritten_bytes.fetch_sub(bytes, Ordering::SeqCst);
        assert!(before >= bytes, "wrote {bytes} bytes, only {before} were waiting");
        self.last_write_ms.store(self.started.elapsed().as_millis() as u64, Ordering::Relaxed);
        self.resume_if_low();
    }

    /// How long ago something was written.
    pub(crate) fn since_last_write(&self) -> Duration {
        self.started.elapsed().saturating_sub(Duration::from_millis(self.last_write_ms.load(Ordering::Relaxed)))
    }

    /// How many more requests may be taken from the peer now.
    pub(crate) fn room(&self) -> usize {
        if self.unwritten_bytes.load(Ordering::SeqCst) >= self.limits.max_outbox_bytes {
            return 0;
        }
        self.limits.max_in_flight.saturating_sub(self.in_flight.load(Ordering::SeqCst))
    }

    /// Waits until there is room, once there is none. `room()` may be 0 again when this returns.
    pub(crate) async fn wait_for_room(&self) {
        // Stored before looking, and looked at after changing (`resume_if_low`): one of the two sees the other.
        self.reader_paused.store(true, Ordering::SeqCst);
        if self.is_low() {
            self.reader_paused.store(false, Ordering::SeqCst);
            return;
        }
        self.resume_reader.notified().await;
    }

    pub(crate) fn ticket_taken(&self) {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn ticket_settled(&self) {
        let before = self.in_flight.fetch_sub(1, Ordering::SeqCst);
        assert!(before > 0, "more tickets settled than taken");
        self.resume_if_low();
    }

    /// Requests taken and not answered yet.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Gives a response to whoever waits for it.
    pub(crate) fn deliver(&self, response: Command) {
        let waiter = self.waiting.lock().remove(&response.opaque);
        let (opaque, code) = (response.opaque, response.code);
        if waiter.is_none_or(|waiter| waiter.send(response).is_err()) {
            debug!(connection = self.id, peer = %self.peer, opaque, code, "answer that nobody waits for any more");
        }
    }

    /// Answers are bounded by the requests in flight; what this side asks for is bounded here.
    fn push_request(&self, mut command: Command) -> Result<(), SendError> {
        let waiting_bytes = self.unwritten_bytes.load(Ordering::SeqCst);
        if waiting_bytes >= self.limits.max_outbox_bytes {
            return Err(SendError::OutboxFull { waiting_bytes });
        }
        let body = std::mem::take(&mut command.body);
        self.push(&Head::of(&command), &command.ext, body)
    }

    fn resume_if_low(&self) {
        if self.reader_paused.load(Ordering::SeqCst) && self.is_low() {
            self.reader_paused.store(false, Ordering::SeqCst);
            self.resume_reader.notify_one();
        }
    }

    /// A quarter below the limits, so that the reader doesn't stop and go with each request.
    fn is_low(&self) -> bool {
        let (in_flight, bytes) = (self.limits.max_in_flight, self.limits.max_outbox_bytes);
        self.in_flight.load(Ordering::SeqCst) <= (in_flight - in_flight.div_ceil(4))
            && self.unwritten_bytes.load(Ordering::SeqCst) <= bytes - bytes.div_ceil(4)
    }

    fn take_opaque(&self) -> i32 {
        self.next_opaque.fetch_add(1, Ordering::Relaxed)
    }

    /// Reserves an opaque that no other request waits with.
    fn expect_answer(&self) -> Result<(oneshot::Receiver<Command>, i32), InvokeError> {
        let limit = self.limits.max_in_flight;
        let mut waiting = self.waiting.lock();
        if waiting.len() >= limit {
            return Err(InvokeError::TooManyInFlight { peer: self.peer, limit });
        }
        let mut opaque = self.take_opaque();
        while waiting.contains_key(&opaque) {
            opaque = self.take_opaque();
        }
        let (sender, answer) = oneshot::channel();
        waiting.insert(opaque, sender);
        Ok((answer, opaque))
    }
}

/// Takes a request off the waiting ones however its wait ends, also when the waiting future is dropped.
struct Forget<'a> {
    connection: &'a Connection,
    opaque: i32,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.connection.waiting.lock().remove(&self.opaque);
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("id", &self.id).field("peer", &self.peer).finish_non_exhaustive()
    }
}
