//! What the elector says of its groups: their slices follow at once, people read it in Events, and the status remembers it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gantry_replication::elector::{Cause, Notice};
use gantry_replication::{Election, Epoch, GroupRecord, Member, Millis};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::runtime::events::{Event, EventType};
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
    last_failover: Option<Failover>,
    trouble: Option<String>,
}

/// A change of master, on two clocks.
#[derive(Debug)]
struct Failover {
    told: LastFailover,
    /// The first sign of it.
    since: Instant,
}

impl Failover {
    fn new(from: &Member, to: &Member, epoch: Epoch, cause: Cause, decision_ms: Millis) -> Self {
        let now = Instant::now();
        let told = LastFailover {
            time: Time(Timestamp::now()),
            from: Some(from.name.clone()),
            to: to.name.clone(),
            epoch: epoch.0,
            cause: word(cause).to_owned(),
            message: cause.to_string(),
            detection_ms: Some(decision_ms),
            total_ms: None,
        };
        Self { told, since: now.checked_sub(Duration::from_millis(decision_ms)).unwrap_or(now) }
    }

    /// The master of this epoch serves, and is told so once.
    fn serves(&mut self, epoch: Epoch) {
        if self.told.epoch == epoch.0 && self.told.total_ms.is_none() {
            self.told.time = Time(Timestamp::now());
            self.told.total_ms = Some(self.since.elapsed().as_millis() as u64);
        }
    }
}

/// As Kubernetes has reasons.
fn word(cause: Cause) -> &'static str {
    match cause {
        Cause::Switchover => "Planned",
        Cause::ProcessEnded => "MasterDied",
        Cause::DataPlane => "MasterStuck",
        Cause::Silent => "MasterSilent",
        Cause::PastRecord => "RecordRestored",
    }
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
    notices: mpsc::UnboundedSender<(String, Event)>,
}

impl Board {
    pub(super) fn new(
        client: Client,
        leadership: Leadership,
        metrics: Arc<Metrics>,
        notices: mpsc::UnboundedSender<(String, Event)>,
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
        Some(self.groups.lock().get(id)?.last_failover.as_ref()?.told.clone())
    }

    /// People are to read this of the group.
    pub(super) fn tell(&self, id: &str, event: Event) {
        // Whoever writes Events may have stopped.
        self.notices.send((id.to_owned(), event)).ok();
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
                if let Some(failover) = &mut entry.last_failover {
                    failover.serves(record.epoch);
                }
                entry.master.send_replace(Some(MasterAt { epoch: record.epoch, replica, ip: address.ip() }));
            }
            Err(error) => entry.trouble = Some(format!("{replica} says that it serves at {address:?}: {error}")),
        }
    }

    fn notice(&self, id: &str, notice: &Notice) {
        if let Some(entry) = self.groups.lock().get_mut(id) {
            match notice {
                Notice::Elected { from, to, epoch, cause, decision_ms } => {
                    entry.trouble = None;
                    entry.last_failover = Some(Failover::new(from, to, *epoch, *cause, *decision_ms));
                }
                Notice::Stuck(_) | Notice::CutOff { .. } => entry.trouble = Some(notice.to_string()),
                _ => {}
            }
        }
        self.tell(id, event(notice));
    }

    fn record_trouble(&self, id: &str, why: &str) {
        if let Some(entry) = self.groups.lock().get_mut(id) {
            entry.trouble = Some(why.to_owned());
        }
    }
}

fn event(notice: &Notice) -> Event {
    let (type_, reason) = match notice {
        Notice::Started { .. } => (EventType::Normal, "FirstMaster"),
        Notice::Elected { .. } if notice.is_failover() => (EventType::Warning, "Failover"),
        Notice::Elected { .. } => (EventType::Normal, "Switchover"),
        Notice::Unclean { .. } => (EventType::Warning, "UncleanElection"),
        Notice::CutOff { .. } => (EventType::Warning, "ElectorCutOff"),
        Notice::Degraded { .. } => (EventType::Warning, "Degraded"),
        Notice::Restored { .. } => (EventType::Normal, "Restored"),
        Notice::Cut { .. } => (EventType::Warning, "DivergentTailCut"),
        Notice::Stuck(_) => (EventType::Warning, "NoMaster"),
    };
    let note = notice.to_string().chars().take(1000).collect();
    Event { type_, reason: reason.to_owned(), note: Some(note), action: "Elect".to_owned(), secondary: None }
}
