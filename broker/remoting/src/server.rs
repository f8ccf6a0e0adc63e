//! Accepts connections.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tracing::warn;

use crate::connection::Connection;
use crate::handler::{Handler, Inbound};
use crate::latencies::Latencies;
use crate::limits::Limits;

/// Connections that the kernel holds until they are accepted.
const BACKLOG: u32 = 1024;

/// How long accepting rests after a failure (out of file descriptors), so that it doesn't spin.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// A listening socket and its connections. Dropped, it closes them all at once.
#[derive(Debug)]
pub struct Server {
    local: SocketAddr,
    accepting: JoinHandle<()>,
    connections: Arc<Registry>,
}

impl Server {
    /// Listens at `addr` (port 0: given by the system) and serves until it is shut down or dropped.
    #[expect(clippy::unused_async, reason = "it needs a tokio runtime, and binding may come to wait")]
    pub async fn bind(addr: SocketAddr, limits: Limits, handler: Arc<dyn Handler>) -> io::Result<Self> {
        let listener =
            listen(addr).map_err(|error| io::Error::new(error.kind(), format!("can't listen at {addr}: {error}")))?;
        let local = listener.local_addr()?;
        let connections = Arc::new(Registry::default());
        let tracked = Arc::new(Tracked { inner: handler, connections: Arc::clone(&connections) });
        let accepting = tokio::spawn(accept_all(listener, Arc::new(limits), tracked));
        Ok(Self { local, accepting, connections })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The connections that are open now.
    pub fn connections(&self) -> Vec<Arc<Connection>> {
        self.connections.open.lock().values().cloned().collect()
    }

    /// Stops listening, writes what waits on all connections, and closes them; after `within` in any case.
    pub async fn shutdown(self, within: Duration) {
        self.accepting.abort();
        let mut closing = JoinSet::new();
        for connection in self.connections() {
            closing.spawn(async move { connection.close_after_flush("server stops", within).await });
        }
        closing.join_all().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
        self.connections().iter().for_each(|connection| connection.close("server stopped"));
    }
}

#[derive(Debug, Default)]
struct Registry {
    open: Mutex<HashMap<u64, Arc<Connection>>>,
}

/// The server's handler with its connections written down.
struct Tracked {
    inner: Arc<dyn Handler>,
    connections: Arc<Registry>,
}

impl Handler for Tracked {
    fn handle(&self, connection: &Arc<Connection>, batch: &mut Vec<Inbound>) {
        self.inner.handle(connection, batch);
    }

    fn latencies(&self) -> Option<Arc<Latencies>> {
        self.inner.latencies()
    }

    fn opened(&self, connection: &Arc<Connection>) {
        self.connections.open.lock().insert(connection.id(), Arc::clone(connection));
        self.inner.opened(connection);
    }

    fn closed(&self, connection: &Arc<Connection>) {
        self.connections.open.lock().remove(&connection.id());
        self.inner.closed(connection);
    }
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

async fn accept_all(listener: TcpListener, limits: Arc<Limits>, handler: Arc<Tracked>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => admit(stream, peer, &limits, &handler),
            Err(error) => {
                warn!(%error, "accept failed; trying again");
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
}

fn admit(stream: TcpStream, peer: SocketAddr, limits: &Arc<Limits>, handler: &Arc<Tracked>) {
    let open = handler.connections.open.lock().len();
    if open >= limits.max_connections {
        warn!(%peer, limit = limits.max_connections, "connection refused: too many are open");
        return;
    }
    if let Err(error) = Connection::start(stream, Arc::clone(limits), Arc::clone(handler) as Arc<dyn Handler>) {
        warn!(%peer, %error, "connection lost as it came");
    }
}
