//! The stable master address: what a Service does on Kubernetes. Accepts on one port and forwards to whoever is master.
//!
//! While nobody is, accepted connections are held, so that clients see a pause and no error. When the master changes, new
//! connections go to the new one at once; those to the old one are left alone for [`Limits::grace`], so that a planned switchover
//! can send its clients away itself, and are cut then. Where the old master is lost ([`Forwarder::abandon`]) they are cut at once:
//! from a frozen or unreachable one no client would hear before its own time-outs.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{debug, warn};

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: u32 = 1024;

/// Of each direction of each connection. Untouched pages cost nothing.
const BUFFER_BYTES: usize = 256 << 10;

/// How long a connection attempt to the master may take before it counts as failed.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Between two attempts to connect to a master that refuses: it is starting, or dead and not yet known to be.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// After an accept that failed for want of file descriptors or memory.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// The bounds of a forwarder.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at most, held ones included; more are closed at once.
    pub connections: usize,
    /// Connections that are held at most while there is no master; more are closed at once.
    pub held: usize,
    /// How long a connection is held at most before it is closed.
    pub hold: Duration,
    /// How long connections to an old master are left alone once there is a new one.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 16_384, held: 4_096, hold: Duration::from_secs(10), grace: Duration::from_secs(5) }
    }
}

/// A listening forwarder. Dropped, it closes its port and all connections through it.
#[derive(Debug)]
pub struct Forwarder {
    address: SocketAddr,
    target: watch::Sender<Target>,
    accepting: JoinHandle<()>,
}

/// Where connections go. The generation grows when the address changes to another master's.
#[derive(Clone, Copy, Debug, Default)]
struct Target {
    generation: u64,
    /// Connections of earlier generations are worth nothing any more.
    abandoned: u64,
    /// The last master's address. Kept while there is none: its connections may still be of use.
    address: Option<SocketAddr>,
    /// Whether new connections may go there.
    open: bool,
}

impl Forwarder {
    /// Listens at `address` (port 0: given by the system) and holds connections until [`Forwarder::point_to`].
    pub fn bind(address: SocketAddr, limits: Limits) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        let address = listener.local_addr()?;
        let (target, watching) = watch::channel(Target::default());
        let accepting = tokio::spawn(accept(listener, watching, limits));
        Ok(Self { address, target, accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A new master serves at `master`: held and new connections go there.
    pub fn point_to(&self, master: SocketAddr) {
        self.target.send_modify(|target| {
            if target.address != Some(master) {
                target.generation += 1;
            }
            target.address = Some(master);
            target.open = true;
        });
    }

    /// The master is lost, whether it knows that or not, and another one is being made: connections to it end, new ones are held.
    pub fn abandon(&self) {
        self.target.send_modify(|target| {
            target.generation += 1;
            target.abandoned = target.generation;
            target.address = None;
            target.open = false;
        });
    }

    /// The master is gone and there is no other yet: new connections are held.
    pub fn hold(&self) {
        self.target.send_modify(|target| target.open = false);
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        // Ends with the listener; the connections end because the target's sender is gone.
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, target: watch::Receiver<Target>, limits: Limits) {
    let connections = Arc::new(Semaphore::new(limits.connections));
    let held = Arc::new(Semaphore::new(limits.held));
    loop {
        let (client, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "accept on the master port failed; trying again");
                sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&connections).try_acquire_owned() else {
            warn!(%peer, limit = limits.connections, "too many connections on the master port; closed");
            continue;
        };
        let (target, held) = (target.clone(), Arc::clone(&held));
        tokio::spawn(async move {
            if let Err(error) = forward(client, target, &held, limits, place).await {
                debug!(%peer, %error, "forwarded connection ended");
            }
        });
    }
}

async fn forward(
    mut client: TcpStream,
    mut target: watch::Receiver<Target>,
    held: &Arc<Semaphore>,
    limits: Limits,
    _place: OwnedSemaphorePermit,
) -> io::Result<()> {
    client.set_nodelay(true)?;
    let Some((mut master, generation)) = connect(&mut target, held, limits).await? else { return Ok(()) };
    master.set_nodelay(true)?;
    tokio::select! {
        copied = copy_bidirectional_with_sizes(&mut client, &mut master, BUFFER_BYTES, BUFFER_BYTES) => copied.map(|_| ()),
        () = outlived(&mut target, generation, limits.grace) => Ok(()),
    }
}

/// A connection to the master and the generation it belongs to; none if the forwarder has gone.
async fn connect(
    target: &mut watch::Receiver<Target>,
    held: &Arc<Semaphore>,
    limits: Limits,
) -> io::Result<Option<(TcpStream, u64)>> {
    let deadline = Instant::now() + limits.hold;
    let mut place = None;
    loop {
        let now = *target.borrow_and_update();
        if let Some(address) = now.address.filter(|_| now.open) {
            let connected = tokio::select! {
                connected = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)) => connected,
                // Another master, or none: this one isn't worth waiting for.
                Ok(()) = target.changed() => continue,
            };
            match connected {
                Ok(Ok(master)) => return Ok(Some((master, now.generation))),
                Ok(Err(error)) => debug!(%address, %error, "the master does not accept; holding"),
                Err(_elapsed) => debug!(%address, "the master does not accept in time; holding"),
            }
        }
        if place.is_none() {
            let taken = Arc::clone(held).try_acquire_owned();
            place = Some(taken.map_err(|_| io::Error::other("too many connections are held already"))?);
        }
        let changed = async {
            // Without an address there is nothing to try until it changes.
            let retry = if now.open { RETRY_INTERVAL } else { limits.hold };
            timeout(retry, target.changed()).await.unwrap_or(Ok(()))
        };
        match timeout_at(deadline, changed).await {
            Ok(Ok(())) => {}
            Ok(Err(_forwarder_gone)) => return Ok(None),
            Err(_elapsed) => return Err(io::Error::new(io::ErrorKind::TimedOut, "held until no master came")),
        }
        if Instant::now() >= deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "held until no master came"));
        }
    }
}

/// Resolves `grace` after another master than that of `generation` has come; at once when that master is lost, or the
/// forwarder has gone.
async fn outlived(target: &mut watch::Receiver<Target>, generation: u64, grace: Duration) {
    if target.wait_for(|target| target.generation != generation).await.is_ok() {
        // In time, and out of time, the connection ends.
        timeout(grace, target.wait_for(|target| target.abandoned > generation)).await.ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    const LIMITS: Limits =
        Limits { connections: 64, held: 8, hold: Duration::from_secs(20), grace: Duration::from_millis(50) };

    /// A master that answers each byte with its own name.
    async fn master(name: u8) -> (SocketAddr, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                connections.spawn(async move {
                    let mut byte = [0];
                    while stream.read_exact(&mut byte).await.is_ok() {
                        stream.write_all(&[name]).await.unwrap();
                    }
                    // The other side is done sending; say so only after a last word.
                    stream.write_all(b"!").await.ok();
                });
            }
        });
        (address, serving)
    }

    fn forwarder(limits: Limits) -> Forwarder {
        Forwarder::bind("127.0.0.1:0".parse().unwrap(), limits).unwrap()
    }

    async fn ask(stream: &mut TcpStream) -> io::Result<u8> {
        stream.write_all(b"?").await?;
        timeout(Duration::from_secs(20), stream.read_u8()).await.expect("an answer or an end in time")
    }

    #[tokio::test]
    async fn bytes_go_both_ways_and_a_half_close_goes_through() {
        let (a, _serving) = master(b'a').await;
        let forwarder = forwarder(LIMITS);
        forwarder.point_to(a);
        let mut client = TcpStream::connect(forwarder.address()).await.unwrap();
        assert_eq!(ask(&mut client).await.unwrap(), b'a');
        client.shutdown().await.unwrap();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"!");
    }

    #[tokio::test]
    async fn megabytes_arrive_whole() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let forwarder = forwarder(LIMITS);
        forwarder.point_to(listener.local_addr().unwrap());
        let sent: Vec<u8> = (0..8_000_000u32).map(|n| (n % 251) as u8).collect();
        let copy = sent.clone();
        let address = forwarder.address();
        let sending = tokio::spawn(async move {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(&copy).await.unwrap();
            client.shutdown().await.unwrap();
        });
        let (mut end, _) = listener.accept().await.unwrap();
        let mut received = Vec::new();
        end.read_to_end(&mut received).await.unwrap();
        sending.await.unwrap();
        assert!(received == sent, "{} bytes of {} arrived", received.len(), sent.len());
    }

    #[tokio::test]
    async fn a_connection_is_held_until_a_master_serves() {
        let (a, _serving) = master(b'a').await;
        let forwarder = forwarder(LIMITS);
        let mut client = TcpStream::connect(forwarder.address()).await.unwrap();
        client.write_all(b"?").await.unwrap();
        let early = timeout(Duration::from_millis(50), client.read_u8()).await;
        assert!(early.is_err(), "answered by nobody: {early:?}");
        forwarder.point_to(a);
        assert_eq!(client.read_u8().await.unwrap(), b'a');
    }

    #[tokio::test]
    async fn a_held_connection_is_closed_when_no_master_comes_in_time() {
        let forwarder = forwarder(Limits { hold: Duration::from_millis(30), ..LIMITS });
        let mut client = TcpStream::connect(forwarder.address()).await.unwrap();
        assert!(ask(&mut client).await.is_err());
    }

    #[tokio::test]
    async fn no_more_connections_are_held_than_allowed() {
        let (a, _serving) = master(b'a').await;
        let forwarder = forwarder(Limits { held: 1, ..LIMITS });
        let mut clients = Vec::new();
        for _ in 0..3 {
            clients.push(TcpStream::connect(forwarder.address()).await.unwrap());
        }
        // Which one is held is open; the two others end before any master comes.
        let mut asking: tokio::task::JoinSet<bool> = tokio::task::JoinSet::new();
        for mut client in clients {
            asking.spawn(async move { ask(&mut client).await.is_ok() });
        }
        for _ in 0..2 {
            assert!(!asking.join_next().await.unwrap().unwrap(), "held, though the place was taken");
        }
        forwarder.point_to(a);
        assert!(asking.join_next().await.unwrap().unwrap(), "the held one is served");
    }

    #[tokio::test]
    async fn connections_beyond_the_limit_are_closed() {
        let (a, _serving) = master(b'a').await;
        let forwarder = forwarder(Limits { connections: 1, ..LIMITS });
        forwarder.point_to(a);
        let mut first = TcpStream::connect(forwarder.address()).await.unwrap();
        assert_eq!(ask(&mut first).await.unwrap(), b'a');
        let mut second = TcpStream::connect(forwarder.address()).await.unwrap();
        assert!(ask(&mut second).await.is_err());
        assert_eq!(ask(&mut first).await.unwrap(), b'a');
    }

    #[tokio::test]
    async fn connections_to_a_lost_master_end_at_once_and_new_ones_wait_for_the_next() {
        let ((a, _serving_a), (b, _serving_b)) = (master(b'a').await, master(b'b').await);
        let forwarder = forwarder(Limits { grace: Duration::from_mins(1), ..LIMITS });
        forwarder.point_to(a);
        let mut old = TcpStream::connect(forwarder.address()).await.unwrap();
        assert_eq!(ask(&mut old).await.unwrap(), b'a');
        forwarder.abandon();
        let end = timeout(Duration::from_secs(20), old.read_u8()).await.expect("an end in time");
        assert!(end.is_err(), "{end:?}");
        let mut new = TcpStream::connect(forwarder.address()).await.unwrap();
        new.write_all(b"?").await.unwrap();
        assert!(timeout(Duration::from_millis(50), new.read_u8()).await.is_err(), "answered by nobody");
        forwarder.point_to(b);
        assert_eq!(new.read_u8().await.unwrap(), b'b');
        forwarder.point_to(a);
        assert_eq!(ask(&mut new).await.unwrap(), b'b', "left alone for now");
        forwarder.abandon();
        let end = timeout(Duration::from_secs(20), new.read_u8()).await.expect("an end in time");
        assert!(end.is_err(), "a lost master also ends those of the one before: {end:?}");
    }

    #[tokio::test]
    async fn after_a_flip_new_connections_go_to_the_new_master_and_old_ones_get_their_grace() {
        let ((a, _serving_a), (b, _serving_b)) = (master(b'a').await, master(b'b').await);
        let forwarder = forwarder(Limits { grace: Duration::from_mins(1), ..LIMITS });
        forwarder.point_to(a);
        let mut old = TcpStream::connect(forwarder.address()).await.unwrap();
        assert_eq!(ask(&mut old).await.unwrap(), b'a');
        forwarder.point_to(b);
        let mut new = TcpStream::connect(forwarder.address()).await.unwrap();
        assert_eq!(ask(&mut new).await.unwrap(), b'b');
        assert_eq!(ask(&mut old).await.unwrap(), b'a', "left alone for now");
    }

    #[tokio::test]
    async fn an_old_master_that_keeps_its_connections_loses_them_after_the_grace() {
        let ((a, _serving_a), (b, _serving_b)) = (master(b'a').await, master(b'b').await);
        let forwarder = forwarder(LIMITS);
        forwarder.point_to(a);
        let mut old = TcpStream::connect(forwarder.address()).await.unwrap();
        assert_eq!(ask(&mut old).await.unwrap(), b'a');
        forwarder.point_to(b);
        while ask(&mut old).await.is_ok() {}
        let mut new = TcpStream::connect(forwarder.address()).await.unwrap();
        assert_eq!(ask(&mut new).await.unwrap(), b'b');
    }

    #[tokio::test]
    async fn the_same_master_again_keeps_its_connections() {
        let (a, _serving) = master(b'a').await;
        let forwarder = forwarder(LIMITS);
        forwarder.point_to(a);
        let mut client = TcpStream::connect(forwarder.address()).await.unwrap();
        assert_eq!(ask(&mut client).await.unwrap(), b'a');
        forwarder.hold();
        forwarder.point_to(a);
        let cut = timeout(LIMITS.grace * 4, client.read_u8()).await;
        assert!(cut.is_err(), "cut: {cut:?}");
        assert_eq!(ask(&mut client).await.unwrap(), b'a');
    }

    #[tokio::test]
    async fn a_dead_master_ends_its_connections_and_new_ones_wait_for_the_next() {
        let ((a, serving_a), (b, _serving_b)) = (master(b'a').await, master(b'b').await);
        let forwarder = forwarder(LIMITS);
        forwarder.point_to(a);
        let mut old = TcpStream::connect(forwarder.address()).await.unwrap();
        assert_eq!(ask(&mut old).await.unwrap(), b'a');
        serving_a.abort();
        assert!(serving_a.await.is_err());
        while ask(&mut old).await.is_ok() {}
        // Its port refuses now, and nobody has said that it is dead.
        let mut new = TcpStream::connect(forwarder.address()).await.unwrap();
        new.write_all(b"?").await.unwrap();
        assert!(timeout(Duration::from_millis(50), new.read_u8()).await.is_err());
        forwarder.point_to(b);
        assert_eq!(new.read_u8().await.unwrap(), b'b');
    }

    #[tokio::test]
    async fn a_dropped_forwarder_leaves_no_connection_behind() {
        let (a, _serving) = master(b'a').await;
        let forwarder = forwarder(LIMITS);
        forwarder.point_to(a);
        let mut client = TcpStream::connect(forwarder.address()).await.unwrap();
        assert_eq!(ask(&mut client).await.unwrap(), b'a');
        let address = forwarder.address();
        drop(forwarder);
        while ask(&mut client).await.is_ok() {}
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_taken_port_is_an_error() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let error = Forwarder::bind(taken.local_addr().unwrap(), LIMITS).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
