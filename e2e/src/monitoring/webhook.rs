//! The one who is called when an alert rings.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::Context;
use serde::Deserialize;
use tiny_http::{Response, Server};

use crate::lab::{Lab, Node};
use crate::logs;

/// What Alertmanager posts, as far as it is looked at.
#[derive(Deserialize)]
struct Notification {
    alerts: Vec<Notice>,
}

#[derive(Deserialize)]
struct Notice {
    status: Status,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Status {
    Firing,
    Resolved,
}

/// An alert began to ring, or ended.
#[derive(Clone, Debug)]
pub struct Ring {
    /// When it was heard here.
    pub at: Instant,
    /// Or else it is resolved.
    pub firing: bool,
    /// The alert's, `alertname` and `severity` among them.
    pub labels: BTreeMap<String, String>,
    /// As they were rendered.
    pub annotations: BTreeMap<String, String>,
}

impl Ring {
    /// Which alert.
    pub fn alert(&self) -> &str {
        self.labels.get("alertname").map_or("", String::as_str)
    }
}

/// Listens until it is dropped.
pub(super) struct Webhook {
    server: Arc<Server>,
    address: SocketAddr,
    heard: Arc<Mutex<Vec<Ring>>>,
    thread: Option<JoinHandle<()>>,
}

impl Webhook {
    /// In a namespace, at a port given by the system.
    pub(super) fn start(node: Node) -> anyhow::Result<Self> {
        let server = Lab::inside(node, || {
            Server::http((node.address(), 0)).map_err(|error| anyhow::anyhow!("listening for Alertmanager: {error}"))
        })?;
        let address = server.server_addr().to_ip().context("the webhook has no address")?;
        let (server, heard) = (Arc::new(server), Arc::default());
        let (listening, told) = (Arc::clone(&server), Arc::clone(&heard));
        let thread = std::thread::spawn(move || listen(&listening, &told));
        Ok(Self { server, address, heard, thread: Some(thread) })
    }

    /// What Alertmanager is told.
    pub(super) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Everything so far, in its order.
    pub(super) fn heard(&self) -> Vec<Ring> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.server.unblock();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            logs::say("the webhook's thread panicked");
        }
    }
}

fn listen(server: &Server, heard: &Mutex<Vec<Ring>>) {
    for mut request in server.incoming_requests() {
        let at = Instant::now();
        let answer = match serde_json::from_reader::<_, Notification>(request.as_reader()) {
            Ok(notification) => {
                let rings = notification.alerts.into_iter().map(|notice| Ring {
                    at,
                    firing: notice.status == Status::Firing,
                    labels: notice.labels,
                    annotations: notice.annotations,
                });
                heard.lock().unwrap_or_else(PoisonError::into_inner).extend(rings);
                Response::empty(200)
            }
            Err(error) => {
                logs::say(&format!("a notification that isn't understood: {error}"));
                Response::empty(400)
            }
        };
        if let Err(error) = request.respond(answer) {
            logs::say(&format!("Alertmanager didn't wait for its answer: {error}"));
        }
    }
}
