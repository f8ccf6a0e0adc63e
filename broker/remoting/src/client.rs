//! Connections to others.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::code::response;
use crate::command::Command;
use crate::connection::{Connection, InvokeError, SendError};
use crate::handler::{Handler, Inbound};
use crate::limits::Limits;

/// Connects to `host:port`, trying each address that the name has, within [`Limits::connect_timeout`] in all.
/// Requests of the peer go to `handler`; without one they are answered REQUEST_CODE_NOT_SUPPORTED.
pub async fn connect(addr: &str, limits: Limits, handler: Option<Arc<dyn Handler>>) -> io::Result<Arc<Connection>> {
    let within = limits.connect_timeout;
    let stream = timeout(within, TcpStream::connect(addr))
        .await
        .unwrap_or_else(|_elapsed| {
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {within:?}")))
        })
        .map_err(|error| io::Error::new(error.kind(), format!("can't connect to {addr}: {error}")))?;
    Connection::start(stream, Arc::new(limits), handler.unwrap_or_else(|| Arc::new(NoRequests)))
}

/// One address; connects when it is needed, and again after the connection was lost.
pub struct Client {
    addr: String,
    limits: Limits,
    handler: Option<Arc<dyn Handler>>,
    current: Mutex<Option<Arc<Connection>>>,
    /// Held while connecting: one attempt at a time, the others use its connection.
    connecting: tokio::sync::Mutex<()>,
}

/// Why a client's request has no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] io::Error),
    /// There was one.
    #[error(transparent)]
    Invoke(#[from] InvokeError),
    /// A one-way request could not be sent.
    #[error("{addr}: {source}")]
    Send {
        /// To whom.
        addr: String,
        /// Why.
        source: SendError,
    },
}

impl Client {
    /// A client of `host:port`; connects to nobody yet.
    pub fn new(addr: impl Into<String>, limits: Limits, handler: Option<Arc<dyn Handler>>) -> Self {
        Self {
            addr: addr.into(),
            limits,
            handler,
            current: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
        }
    }

    /// The address as given.
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// The open connection if there is one.
    pub fn current(&self) -> Option<Arc<Connection>> {
        self.current.lock().clone().filter(|connection| !connection.is_closed())
    }

    /// The open connection, or a new one.
    pub async fn connection(&self) -> io::Result<Arc<Connection>> {
        if let Some(connection) = self.current() {
            return Ok(connection);
        }
        let _one_at_a_time = self.connecting.lock().await;
        if let Some(connection) = self.current() {
            return Ok(connection);
        }
        let connection = connect(&self.addr, self.limits.clone(), self.handler.clone()).await?;
        *self.current.lock() = Some(Arc::clone(&connection));
        Ok(connection)
    }

    /// Asks and waits for the answer, connecting if need be. `within` bounds the wait for the answer;
    /// connecting has its own bound.
    pub async fn invoke(&self, command: Command, within: Duration) -> Result<Command, ClientError> {
        Ok(self.connection().await?.invoke(command, within).await?)
    }

    /// Sends one-way, connecting if need be.
    pub async fn send(&self, command: Command) -> Result<(), ClientError> {
        self.connection().await?.send(command).map_err(|source| ClientError::Send { addr: self.addr.clone(), source })
    }

    /// Closes the connection if there is one; the next request opens another.
    pub fn close(&self, reason: &str) {
        if let Some(connection) = self.current.lock().take() {
            connection.close(reason);
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.close("client dropped");
    }
}

/// Answers every request that it isn't supported.
struct NoRequests;

impl Handler for NoRequests {
    fn handle(&self, _: &Arc<Connection>, batch: &mut Vec<Inbound>) {
        for Inbound { request, ticket } in batch.drain(..) {
            let remark = format!("request code {} is not supported by this client", request.code);
            ticket.reply_failure(response::REQUEST_CODE_NOT_SUPPORTED, remark);
        }
    }
}
