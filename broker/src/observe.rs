//! What others see of a broker: probes and metrics, over HTTP.
//!
//! Served by a thread and a runtime of its own: whoever looks takes nothing from those who send, and is answered when all others are
//! busy. It listens before the store is opened, which may take long after a crash, and tells how far that is.

mod health;
mod http;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use anyhow::Result;
use gantry_store::RecoveryProgress;

use crate::core::Core;

/// What probes and metrics are answered from.
pub struct Observer {
    recovery: RecoveryProgress,
    parts: OnceLock<Parts>,
}

/// What there is once the store is open.
struct Parts {
    core: Arc<Core>,
}

/// Answers as long as it lives.
pub struct Exporter {
    observer: Arc<Observer>,
    server: Option<http::Server>,
}

impl Exporter {
    /// Listens at `address`, if there is one. The store is about to be opened, as `recovery` shows.
    pub fn start(address: Option<SocketAddr>, recovery: RecoveryProgress) -> Result<Self> {
        let observer = Arc::new(Observer { recovery, parts: OnceLock::new() });
        let server = address.map(|address| http::Server::start(address, Arc::clone(&observer))).transpose()?;
        Ok(Self { observer, server })
    }

    /// The store is open.
    pub fn opened(&self, core: &Arc<Core>) {
        self.observer.parts.get_or_init(|| Parts { core: Arc::clone(core) });
    }

    /// Where it listens.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.server.as_ref().map(http::Server::local_addr)
    }
}
