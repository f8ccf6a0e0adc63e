//! What others see of a broker: probes and metrics, over HTTP.
//!
//! Served by a thread and a runtime of its own: whoever looks takes nothing from those who send, and is answered when all others are
//! busy. It listens before the store is opened, which may take long after a crash, and tells how far that is.

mod health;
mod http;
mod metrics;

pub use metrics::document as document_metrics;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use anyhow::Result;
use gantry_store::RecoveryProgress;
use prometheus::proto::LabelPair;

use crate::config::BrokerConfig;
use crate::core::Core;
use crate::ha::HaServer;
use crate::services::Services;

/// What probes and metrics are answered from.
pub struct Observer {
    labels: Vec<LabelPair>,
    max_series: usize,
    min_in_sync: usize,
    recovery: RecoveryProgress,
    parts: OnceLock<Parts>,
}

/// What there is once the store is open.
struct Parts {
    core: Arc<Core>,
    services: Arc<Services>,
    ha: Arc<HaServer>,
}

impl Observer {
    fn new(config: &BrokerConfig) -> Self {
        Self {
            labels: metrics::labels(config),
            max_series: config.max_series,
            min_in_sync: config.master.min_in_sync,
            recovery: config.store.recovery.clone(),
            parts: OnceLock::new(),
        }
    }
}

/// Answers as long as it lives.
pub struct Exporter {
    observer: Arc<Observer>,
    server: Option<http::Server>,
}

impl Exporter {
    /// Listens, if that is configured. The store is about to be opened.
    pub fn start(config: &BrokerConfig) -> Result<Self> {
        let observer = Arc::new(Observer::new(config));
        let server = config.metrics.map(|address| http::Server::start(address, Arc::clone(&observer))).transpose()?;
        Ok(Self { observer, server })
    }

    /// The store is open.
    pub fn opened(&self, core: &Arc<Core>, services: &Arc<Services>, ha: &Arc<HaServer>) {
        let parts = || Parts { core: Arc::clone(core), services: Arc::clone(services), ha: Arc::clone(ha) };
        self.observer.parts.get_or_init(parts);
    }

    /// Where it listens.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.server.as_ref().map(http::Server::local_addr)
    }
}
