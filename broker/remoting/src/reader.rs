//! The task that reads a connection's socket, cuts frames, and hands requests to the handler in batches.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use thiserror::Error;
use tokio::net::tcp::OwnedReadHalf;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::connection::Connection;
use crate::frame::{self, FrameError};
use crate::handler::{Handler, Inbound};
use crate::ticket::Ticket;

/// Room for one read.
const READ_BYTES: usize = 64 * 1024;

/// Why reading ended.
#[derive(Debug, Error)]
enum End {
    #[error("closed by the peer")]
    Eof,
    #[error("closed by the peer in the middle of a frame: {0} bytes of it had come")]
    TornFrame(usize),
    #[error("malformed frame: {0}")]
    Frame(#[from] FrameError),
    #[error("read failed: {0}")]
    Io(#[from] io::Error),
    #[error("nothing was read or written within the idle time-out")]
    Idle,
}

/// Reads until either side closes, then closes the connection.
pub(crate) async fn run(connection: Arc<Connection>, socket: OwnedReadHalf, handler: Arc<dyn Handler>) {
    let _ended = Ended { connection: &connection, handler: &*handler };
    let mut session =
        Session { connection: &connection, handler: &*handler, buffer: BytesMut::new(), batch: Vec::new() };
    let end = tokio::select! {
        biased;
        () = connection.closed() => None,
        end = session.read_until_end(&socket) => end.err(),
    };
    if let Some(end) = end {
        log_end(&connection, &end);
        connection.close(&end.to_string());
    }
}

/// Closes the connection and tells the handler, however reading ends: also when the handler panics.
struct Ended<'a> {
    connection: &'a Arc<Connection>,
    handler: &'a dyn Handler,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.connection.close("reading has ended");
        self.handler.closed(self.connection);
    }
}

/// A peer that comes and goes is nothing to speak of; one that speaks nonsense is.
fn log_end(connection: &Connection, end: &End) {
    let (id, peer) = (connection.id(), connection.peer());
    match end {
        End::Frame(_) | End::TornFrame(_) => warn!(connection = id, %peer, "connection closed: {end}"),
        End::Eof | End::Io(_) | End::Idle => debug!(connection = id, %peer, "connection ended: {end}"),
    }
}

struct Session<'a> {
    connection: &'a Arc<Connection>,
    handler: &'a dyn Handler,
    buffer: BytesMut,
    batch: Vec<Inbound>,
}

impl Session<'_> {
    async fn read_until_end(&mut self, socket: &OwnedReadHalf) -> Result<(), End> {
        loop {
            self.read_some(socket).await?;
            self.handle_buffered().await?;
        }
    }

    /// Reads at least one byte.
    async fn read_some(&mut self, socket: &OwnedReadHalf) -> Result<(), End> {
        loop {
            // Grows with what has come, not with what a length field claims.
            let step = READ_BYTES.max(self.buffer.len());
            self.buffer.reserve(frame::missing_bytes(&self.buffer).clamp(READ_BYTES, step));
            match socket.try_read_buf(&mut self.buffer) {
                Ok(0) if self.buffer.is_empty() => return Err(End::Eof),
                Ok(0) => return Err(End::TornFrame(self.buffer.len())),
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait_readable(socket).await?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn wait_readable(&self, socket: &OwnedReadHalf) -> Result<(), End> {
        let idle_timeout = self.connection.limits().idle_timeout;
        let mut patience = idle_timeout;
        loop {
            if let Ok(ready) = timeout(patience, socket.readable()).await {
                return Ok(ready?);
            }
            let since_write = self.connection.since_last_write();
            if since_write >= idle_timeout {
                return Err(End::Idle);
            }
            patience = idle_timeout.saturating_sub(since_write);
        }
    }

    /// Hands over all whole frames of the buffer, waiting where the peer is ahead of its bounds.
    async fn handle_buffered(&mut self) -> Result<(), End> {
        loop {
            // Draining: answers of the peer are still taken; its requests can't be answered any more, it learns by the
            // end of this direction that they weren't.
            let draining = self.connection.is_closed();
            let room = self.connection.room();
            if room == 0 && !draining {
                self.connection.wait_for_room().await;
                continue;
            }
            let decoded = self.decode_up_to(room, draining);
            if !self.batch.is_empty() {
                self.handler.handle(self.connection, &mut self.batch);
                self.batch.clear();
            }
            if decoded? == Buffered::NoWholeFrame {
                return Ok(());
            }
        }
    }

    fn decode_up_to(&mut self, room: usize, draining: bool) -> Result<Buffered, FrameError> {
        // One look at the clock for all that came together.
        let received = Instant::now();
        while draining || self.batch.len() < room {
            let Some(command) = frame::decode(&mut self.buffer, self.connection.limits().max_frame_bytes)? else {
                return Ok(Buffered::NoWholeFrame);
            };
            if command.is_response() {
                self.connection.deliver(command);
            } else if !draining {
                let ticket = Ticket::new(Arc::clone(self.connection), &command, received);
                self.batch.push(Inbound { request: command, ticket });
            }
        }
        Ok(Buffered::MaybeMore)
    }
}

#[derive(PartialEq, Eq)]
enum Buffered {
    NoWholeFrame,
    MaybeMore,
}
