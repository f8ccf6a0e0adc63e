//! What the elector says of its groups: their slices follow at once, people read it in Events, and the status remembers it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gantry_replication::elector::Notice;
use gantry_replication::{Election, GroupRecord};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::sleep;
use tracing::{info, warn};

use super::lease::Leadership;
use super::slices::{Place, lead_to_master};
use crate::api::LastFailover;
use crate::elector::Listener;
use crate::observe::Metrics;
use crate::plan::kubernetes::MasterAt;

/// Before a slice that could not be written is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// Of one group, by its id.
#[derive(Debug)]
struct Entry {
    master: watch::Sender<Option<MasterAt>>,
    writer: AbortHandle,
    last_failover: Option<LastFailover>,
    trouble: Option<String>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.writer.abort();
    }
}

/// All groups.
pub(super) struct Board {
    client: Client,
    leadership: Leadership,
    metrics: Arc<Metrics>,
    groups: Mutex<BTreeMap<String, Entry>>,
    notices: mpsc::UnboundedSender<(String, Notice)>,
}

impl Board {
    pub(super) fn new(
        client: Client,
        leadership: Leadership,
        metrics: Arc<Metrics>,
        notices: mpsc::UnboundedSender<(String, Notice)>,
    ) -> Self {
        Self { client, leadership, metrics, groups: Mutex::default(), notices }
    }

    /// Follows a group from now on.
    pub(super) fn add(&self, id: &str, place: Place) {
        let (master, mut masters) = watch::channel(None);
        let (client, leadership) = (self.client.clone(), self.leadership.clone());
        let metrics = Arc::clone(&self.metrics);
        let writer = tokio::spawn(async move {
            while masters.changed().await.is_ok() {
                loop {
                    let Some(master) = masters.borrow_and_update().clone() else { break };
                    match lead_to_master(&client, &leadership, &place, &master).await {
                        Ok(()) => {
                            let (group, epoch) = (&place.group, master.epoch);
                            let election = Election { group, epoch };
                            info!(group, %epoch, %election, replica = master.replica, ip = %master.ip, "the master's Service leads to it");
                            break;
                        }
                        Err(error) => {
                            metrics.failed("master_service", error.kind());
                            warn!(group = place.group, %error, "the slice of the master's Service can't be written");
                            sleep(RETRY).await;
                        }
                    }
                }
            }
        });
        let writer = writer.abort_handle();
        self.groups.lock().insert(id.to_owned(), Entry { master, writer, last_failover: None, trouble: None });
    }

    pub(super) fn remove(&self, id: &str) {
        self.groups.lock().remove(id);
    }

    pub(super) fn last_failover(&self, id: &str) -> Option<LastFailover> {
        self.groups.lock().get(id)?.last_failover.clone()
    }

    pub(super) fn trouble(&self, id: &str) -> Option<String> {
        self.groups.lock().get(id)?.trouble.clone()
    }
}

impl Listener for Board {
    fn serving(&self, id: &str, record: &GroupRecord, address: &str) {
        let mut groups = self.groups.lock();
        let Some(entry) = groups.get_mut(id) else { return };
        let replica = record.master.name.clone();
        match address.parse::<SocketAddr>() {
            Ok(address) => {
                entry.trouble = None;
                entry.master.send_replace(Some(MasterAt { epoch: record.epoch, replica, ip: address.ip() }));
            }
            Err(error) => entry.trouble = Some(format!("{replica} says that it serves at {address:?}: {error}")),
        }
    }

    fn notice(&self, id: &str, notice: &Notice) {
        if let Some(entry) = self.groups.lock().get_mut(id) {
            match notice {
                Notice::Elected { from, to, epoch, cause, .. } => {
                    entry.trouble = None;
                    entry.last_failover = Some(LastFailover {
                        time: Time(Timestamp::now()),
                        from: Some(from.name.clone()),
                        to: to.name.clone(),
                        epoch: epoch.0,
                        reason: cause.to_string(),
                    });
                }
                Notice::Stuck(_) | Notice::CutOff { .. } => entry.trouble = Some(notice.to_string()),
                _ => {}
            }
        }
        // Whoever writes Events may have stopped.
        self.notices.send((id.to_owned(), notice.clone())).ok();
    }

    fn record_trouble(&self, id: &str, why: &str) {
        if let Some(entry) = self.groups.lock().get_mut(id) {
            entry.trouble = Some(why.to_owned());
        }
    }
}
