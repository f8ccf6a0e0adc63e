//! The name server: where brokers say what they have, and clients ask where a topic is.
//!
//! It keeps nothing that its brokers don't say again every half minute, apart from the KV configuration. It speaks to
//! Apache's brokers and clients (4.9, 5.x) and to Gantry's. Four things are Gantry's own, by extra ext fields of a
//! registration that an Apache name server ignores:
//! - a master with `gantryEpoch` has a *stable address*: it stays in the routes when its connection closes, until it is
//!   replaced or expires, because the next master of the group will serve at the same address;
//! - an epoch below the known one of that broker name is refused: an old master can't take the route back;
//! - a replica with `gantryReplica` has one entry whatever ids and addresses it had before;
//! - a master with `gantryExternalMaster` is in the routes of clients outside the cluster, who ask at a port of their own.

mod brokers;
mod handler;
mod kv;
mod outside;
mod refusal;
mod table;
#[cfg(test)]
mod tests;
mod topics;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use gantry_remoting::{Handler, Limits, Server};
use tokio::task::JoinHandle;
use tracing::info;

use handler::Names;
use kv::KvConfigs;
use outside::Outside;

/// How a name server runs.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen; port 0: given by the system.
    pub listen: SocketAddr,
    /// Where clients outside the cluster are answered; `None`: nowhere.
    pub listen_outside: Option<SocketAddr>,
    /// Silence after which a broker is forgotten that didn't say itself how long (RocketMQ: 120 s).
    pub default_expiry: Duration,
    /// How often silent brokers are looked for (RocketMQ: 5 s).
    pub scan_interval: Duration,
    /// Where the KV configuration (100, 101, 102, 219) is kept, in the shape of RocketMQ's `kvConfig.json`;
    /// `None`: in memory only.
    pub kv_config_path: Option<PathBuf>,
    /// Bounds of its connections.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 9876)),
            listen_outside: None,
            default_expiry: Duration::from_mins(2),
            scan_interval: Duration::from_secs(5),
            kv_config_path: None,
            limits: Limits::default(),
        }
    }
}

/// A running name server. Dropped, it stops at once.
#[derive(Debug)]
pub struct NameServer {
    server: Server,
    outside: Option<Server>,
    scanning: Scan,
}

/// Starts a name server; it serves when this returns.
pub async fn run(config: Config) -> anyhow::Result<NameServer> {
    let kv = KvConfigs::open(config.kv_config_path)?;
    let names = Arc::new(Names::new(config.default_expiry, kv));
    let server = Server::bind(config.listen, config.limits.clone(), Arc::clone(&names) as Arc<dyn Handler>)
        .await
        .with_context(|| format!("the name server can't start at {}", config.listen))?;
    let outside = match config.listen_outside {
        Some(address) => {
            let handler = Arc::new(Outside(Arc::clone(&names)));
            let bound = Server::bind(address, config.limits, handler).await;
            Some(bound.with_context(|| format!("the name server can't listen for clients outside at {address}"))?)
        }
        None => None,
    };
    let at = outside.as_ref().map(|server| server.local_addr().to_string());
    info!(listen = %server.local_addr(), outside = at, "name server ready");
    Ok(NameServer { server, outside, scanning: Scan(tokio::spawn(scan(names, config.scan_interval))) })
}

impl NameServer {
    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// Where it listens for clients outside, if it does.
    pub fn outside_addr(&self) -> Option<SocketAddr> {
        self.outside.as_ref().map(Server::local_addr)
    }

    /// Answers what it has taken, closes its connections, and stops; within this time in any case.
    pub async fn shutdown(self, within: Duration) {
        drop(self.scanning);
        if let Some(outside) = self.outside {
            outside.shutdown(within).await;
        }
        self.server.shutdown(within).await;
    }
}

/// The task that forgets silent brokers; ends when dropped.
#[derive(Debug)]
struct Scan(JoinHandle<()>);

impl Drop for Scan {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn scan(names: Arc<Names>, every: Duration) {
    let mut ticks = tokio::time::interval(every);
    loop {
        ticks.tick().await;
        names.expire(Instant::now());
    }
}
