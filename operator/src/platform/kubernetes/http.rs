//! Probes and metrics of the operator itself. It is alive while it answers; ready, as soon as it does: one that only waits is as ready as one that
//! leads, and a Deployment of two is complete.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::debug;

use super::lease::Leadership;
use crate::observe::Metrics;

/// For a request and its answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// A request's head is shorter.
const MAX_HEAD: usize = 4096;

/// At once; who comes when so many are there waits.
const MAX_CONNECTIONS: usize = 32;

/// What is answered from.
#[derive(Clone)]
pub(super) struct Health {
    leadership: Leadership,
    metrics: Arc<Metrics>,
}

const TEXT: &str = "text/plain; charset=utf-8";

impl Health {
    pub(super) fn new(leadership: Leadership, metrics: Arc<Metrics>) -> Self {
        Self { leadership, metrics }
    }

    /// Status, content type and body.
    fn answer(&self, path: &str) -> (&'static str, &'static str, String) {
        match path {
            "/livez" | "/readyz" => ("200 OK", TEXT, "ok\n".to_owned()),
            "/metrics" => match self.metrics.text(self.leadership.holds()) {
                Ok(text) => ("200 OK", prometheus::TEXT_FORMAT, text),
                Err(error) => ("500 Internal Server Error", TEXT, format!("the metrics can't be shown: {error}\n")),
            },
            _ => ("404 Not Found", TEXT, "there are /livez, /readyz and /metrics\n".to_owned()),
        }
    }
}

/// Answers for ever, one request a connection. Who holds a connection keeps nobody else waiting.
pub(super) async fn serve(listen: SocketAddr, health: Health) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).await.with_context(|| format!("can't listen at {listen} for probes"))?;
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            Some(_ended) = open.join_next() => {}
            accepted = listener.accept(), if open.len() < MAX_CONNECTIONS => {
                let (stream, peer) = accepted.context("no connection can be accepted for probes")?;
                open.spawn(take(stream, peer, health.clone()));
            }
        }
    }
}

async fn take(stream: TcpStream, peer: SocketAddr, health: Health) {
    match timeout(PATIENCE, answer(stream, &health)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%peer, %error, "a probe was not answered"),
        Err(_elapsed) => debug!(%peer, "a probe took too long"),
    }
}

async fn answer(mut stream: TcpStream, health: &Health) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.len() > MAX_HEAD || stream.read_buf(&mut head).await? == 0 {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
    }
    let head = String::from_utf8_lossy(&head);
    let path = head.split(' ').nth(1).unwrap_or_default();
    let (status, kind, body) = health.answer(path.split('?').next().unwrap_or_default());
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all((head + &body).as_bytes()).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn probes_are_answered_and_strangers_are_told_what_there_is() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let health = Health::new(Leadership::for_tests(), Arc::new(Metrics::new(10).unwrap()));
            loop {
                answer(listener.accept().await.unwrap().0, &health).await.ok();
            }
        });
        for (path, status, said) in [
            ("/livez", "HTTP/1.1 200 OK", "ok"),
            ("/readyz", "HTTP/1.1 200 OK", "ok"),
            ("/metrics?", "HTTP/1.1 200 OK", "gantry_operator_leads 1"),
            ("/", "HTTP/1.1 404 Not Found", "there are /livez"),
        ] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            assert!(text.starts_with(status) && text.contains(said), "{path}: {text}");
        }
    }
}
