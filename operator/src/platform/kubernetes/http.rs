//! Probes of the operator itself. It is alive while it answers; ready, as soon as it does: one that only waits is as ready as one that
//! leads, and a Deployment of two is complete.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tracing::debug;

use super::lease::Leadership;

/// For a request and its answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// A request's head is shorter.
const MAX_HEAD: usize = 4096;

/// What is answered from.
#[derive(Clone, Debug)]
pub(super) struct Health {
    leadership: Leadership,
}

impl Health {
    pub(super) fn new(leadership: Leadership) -> Self {
        Self { leadership }
    }

    fn answer(&self, path: &str) -> (&'static str, String) {
        match path {
            "/livez" | "/readyz" => ("200 OK", "ok\n".to_owned()),
            "/metrics" => {
                let leads = u8::from(self.leadership.holds());
                let help =
                    "# HELP gantry_operator_leads Whether this operator leads.\n# TYPE gantry_operator_leads gauge\n";
                ("200 OK", format!("{help}gantry_operator_leads {leads}\n"))
            }
            _ => ("404 Not Found", "there are /livez, /readyz and /metrics\n".to_owned()),
        }
    }
}

/// Answers for ever, one request a connection and one connection at a time.
pub(super) async fn serve(listen: SocketAddr, health: Health) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).await.with_context(|| format!("can't listen at {listen} for probes"))?;
    loop {
        let (stream, peer) = listener.accept().await.context("no connection can be accepted for probes")?;
        match timeout(PATIENCE, answer(stream, &health)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%peer, %error, "a probe was not answered"),
            Err(_elapsed) => debug!(%peer, "a probe took too long"),
        }
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
    let (status, body) = health.answer(path);
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
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
            let health = Health::new(Leadership::for_tests());
            loop {
                answer(listener.accept().await.unwrap().0, &health).await.ok();
            }
        });
        for (path, status, said) in [
            ("/livez", "HTTP/1.1 200 OK", "ok"),
            ("/readyz", "HTTP/1.1 200 OK", "ok"),
            ("/metrics", "HTTP/1.1 200 OK", "gantry_operator_leads 1"),
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
