//! As much of HTTP/1.1 as probes and Prometheus need: one GET a connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, error, info};

use super::Observer;
use super::health::Verdict;
use super::metrics::CONTENT_TYPE;
use crate::fatal::Fatal;

/// For a request and its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// A request's head is shorter.
const MAX_HEAD: usize = 8 << 10;
/// At once; who comes when so many are there waits.
const MAX_CONNECTIONS: usize = 32;
/// After the process ran out of file descriptors, say.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// Answers on a thread of its own until it is dropped.
pub(super) struct Server {
    local: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(super) fn start(address: SocketAddr, observer: Arc<Observer>) -> Result<Self> {
        let failed = || format!("can't listen at {address} for probes and metrics (metricsPromExporterPort)");
        let listener = std::net::TcpListener::bind(address).with_context(failed)?;
        listener.set_nonblocking(true)?;
        let local = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new().name("metrics".to_owned()).spawn(move || {
            let _fatal = Fatal("probes and metrics");
            runtime.block_on(async {
                tokio::select! {
                    Err(error) = serve(listener, observer) => error!(%error, "no probes and metrics any more"),
                    _dropped = stopped => {}
                }
            });
        })?;
        info!(address = %local, "probes and metrics");
        Ok(Self { local, stop: Some(stop), thread: Some(thread) })
    }

    pub(super) fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("the thread of probes and metrics panicked");
        }
    }
}

async fn serve(listener: std::net::TcpListener, observer: Arc<Observer>) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            Some(_ended) = open.join_next() => {}
            accepted = listener.accept(), if open.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, peer)) => {
                    open.spawn(take(stream, peer, Arc::clone(&observer)));
                }
                Err(error) => {
                    debug!(%error, "no connection can be accepted for probes and metrics");
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
            },
        }
    }
}

async fn take(stream: TcpStream, peer: SocketAddr, observer: Arc<Observer>) {
    match timeout(PATIENCE, answer(stream, &observer)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%peer, %error, "a request for probes or metrics was not answered"),
        Err(_elapsed) => debug!(%peer, "a request for probes or metrics took too long"),
    }
}

async fn answer(mut stream: TcpStream, observer: &Observer) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.len() > MAX_HEAD || stream.read_buf(&mut head).await? == 0 {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
    }
    let head = String::from_utf8_lossy(&head);
    let mut words = head.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    let (status, kind, body) = match (method, path) {
        ("GET" | "HEAD", "/livez") => probe(observer.is_alive()),
        ("GET" | "HEAD", "/readyz") => probe(observer.is_ready()),
        ("GET" | "HEAD", "/leavez") => probe(observer.may_leave()),
        ("GET" | "HEAD", "/metrics") => metrics(observer),
        ("GET" | "HEAD", _) => ("404 Not Found", TEXT, "there are /livez, /readyz, /leavez and /metrics\n".to_owned()),
        _ => ("405 Method Not Allowed", TEXT, "only GET\n".to_owned()),
    };
    let length = body.len();
    let mut answer =
        format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    if method != "HEAD" {
        answer.push_str(&body);
    }
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

const TEXT: &str = "text/plain; charset=utf-8";

fn metrics(observer: &Observer) -> (&'static str, &'static str, String) {
    match observer.metrics() {
        Ok(text) => ("200 OK", CONTENT_TYPE, text),
        Err(error) => ("500 Internal Server Error", TEXT, format!("the metrics can't be shown: {error}\n")),
    }
}

fn probe(verdict: Verdict) -> (&'static str, &'static str, String) {
    match verdict {
        Ok(why) => ("200 OK", TEXT, why + "\n"),
        Err(why) => ("503 Service Unavailable", TEXT, why + "\n"),
    }
}
