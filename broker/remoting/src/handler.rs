//! Where requests go.

use std::sync::Arc;

use crate::command::Command;
use crate::connection::Connection;
use crate::latencies::Latencies;
use crate::ticket::Ticket;

/// A request and the ticket that answers it.
#[derive(Debug)]
pub struct Inbound {
    /// The request.
    pub request: Command,
    /// Its answer-to-be.
    pub ticket: Ticket,
}

/// Handles the requests of connections.
pub trait Handler: Send + Sync + 'static {
    /// Takes all whole requests that one read of the socket held, in their order (at most
    /// [`max_in_flight`](crate::Limits::max_in_flight)); whatever stays in `batch` is dropped, that is, answered SYSTEM_ERROR.
    ///
    /// Called on the connection's read task: it must not block. Longer work is spawned and takes its ticket with it.
    fn handle(&self, connection: &Arc<Connection>, batch: &mut Vec<Inbound>);

    /// Where it is noted how long this handler's answers take; nowhere by default.
    fn latencies(&self) -> Option<Arc<Latencies>> {
        None
    }

    /// A connection begins, before its first request.
    fn opened(&self, _connection: &Arc<Connection>) {}

    /// A connection has ended, after its last request; once for each `opened`.
    fn closed(&self, _connection: &Arc<Connection>) {}
}
