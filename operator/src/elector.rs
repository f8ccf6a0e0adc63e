//! The server that brokers report to. One listening socket; behind it one task a group, which runs the pure elector
//! ([`gantry_replication::elector`]) over the platform's group record.
//!
//! - [`sessions`](self) takes requests off the wire: who opens a session must know the group and its token.
//! - A group's task alone touches its elector: events in by a queue, actions carried out in their order.
//!
//! Deliberately absent: any decision. What the elector wants is done, what happened is told to it.

mod configure;
mod controller;
mod group;
mod sessions;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gantry_remoting::{Handler, Limits, Server};
use gantry_replication::elector::{Facts, Notice, SwitchoverDone};
use gantry_replication::settings::Settings;
use gantry_replication::wire::{Hello, Report};
use gantry_replication::{Epoch, GroupRecord};
use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::platform::RecordStore;
pub use configure::Configured;
use group::Input;
use sessions::Sessions;

/// What a group's elector has to know.
#[derive(Clone, Debug)]
pub struct Group {
    /// What the platform calls it: unique in this elector.
    pub id: String,
    /// The group's name, which its brokers say. Two groups may have one name, in two namespaces; their tokens differ.
    pub name: String,
    /// The secret that its replicas show.
    pub token: String,
    /// The pure elector's settings, the names of the replicas among them.
    pub config: gantry_replication::elector::Config,
}

/// What the platform is told, with the group's id. Called on the group's task: it must not block.
pub trait Listener: Send + Sync + 'static {
    /// The master of this record serves at `address`: the group's stable address is to lead there from now on.
    fn serving(&self, group: &str, record: &GroupRecord, address: &str);

    /// Something that people should know.
    fn notice(&self, group: &str, notice: &Notice);

    /// The group record can't be read or written; it is tried again.
    fn record_trouble(&self, group: &str, why: &str);
}

/// A group as its elector sees it at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The record, none before the first election or while it could not be read yet.
    pub record: Option<GroupRecord>,
    /// Whether the record's master is known to serve.
    pub serving: bool,
    /// What is known of each replica with a session.
    pub replicas: BTreeMap<String, ReplicaView>,
}

/// What a replica said of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaView {
    /// When it joined.
    pub hello: Hello,
    /// Lately.
    pub report: Report,
    /// Whether it goes by the settings that are wanted.
    pub configured: Configured,
}

/// The running elector of any number of groups. Dropped, it closes all sessions; brokers go on without it.
pub struct ElectorServer {
    server: Server,
    sessions: Arc<Sessions>,
    listener: Arc<dyn Listener>,
    /// By id.
    groups: RwLock<BTreeMap<String, Handle>>,
}

impl fmt::Debug for ElectorServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ElectorServer").field("server", &self.server).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Handle {
    inputs: mpsc::UnboundedSender<Input>,
    view: watch::Receiver<View>,
    task: Option<JoinHandle<()>>,
}

/// Bounds of a broker's connection: it has a report or two, and a wish, under way.
fn limits() -> Limits {
    Limits {
        max_frame_bytes: 1 << 20,
        max_in_flight: 64,
        max_outbox_bytes: 4 << 20,
        max_connections: 4096,
        // A broker that says nothing for so long has hung; its silence is noticed long before.
        idle_timeout: Duration::from_secs(30),
        ..Limits::default()
    }
}

impl ElectorServer {
    /// Listens at `address` (port 0: given by the system) for the brokers of `groups`.
    pub async fn bind<S: RecordStore>(
        address: SocketAddr,
        groups: Vec<(Group, S)>,
        listener: Arc<dyn Listener>,
    ) -> io::Result<Self> {
        let elector = Self::listen(address, listener).await?;
        for (group, store) in groups {
            elector.add(group, store);
        }
        Ok(elector)
    }

    /// Listens at `address` (port 0: given by the system), for groups that are [added](Self::add) later.
    pub async fn listen(address: SocketAddr, listener: Arc<dyn Listener>) -> io::Result<Self> {
        let sessions = Arc::new(Sessions::default());
        let server = Server::bind(address, limits(), Arc::clone(&sessions) as Arc<dyn Handler>).await?;
        Ok(Self { server, sessions, listener, groups: RwLock::default() })
    }

    /// Takes on a group. One of the same id is [removed](Self::remove) first: that is how a group's settings change. Its brokers come
    /// again at once, and the new task goes on from the record and from what they say.
    pub fn add<S: RecordStore>(&self, group: Group, store: S) {
        let id = group.id.clone();
        self.remove(&id);
        // Unbounded, yet bounded by what each connection may have in flight, and by the number of connections.
        let (inputs, queue) = mpsc::unbounded_channel();
        let (publish, view) = watch::channel(View::default());
        self.sessions.add(&group, inputs.clone(), view.clone());
        let task = group::spawn(group, store, (inputs.clone(), queue), publish, Arc::clone(&self.listener));
        self.groups.write().insert(id, Handle { inputs, view, task: Some(task) });
    }

    /// Decides nothing more for the group, and ends the sessions of its brokers.
    pub fn remove(&self, group: &str) {
        self.sessions.remove(group);
        let Some(mut handle) = self.groups.write().remove(group) else { return };
        if handle.inputs.send(Input::Stop).is_ok() {
            // It ends by itself, having closed its connections.
            handle.task.take();
        }
    }

    /// The ids of all groups.
    pub fn groups(&self) -> Vec<String> {
        self.groups.read().keys().cloned().collect()
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// The process of a replica has ended: known, not guessed. To be told before it is started again.
    pub fn died(&self, group: &str, replica: &str) {
        self.tell(group, Input::Died { name: replica.to_owned() });
    }

    /// The process of a replica has ended: known, but told late. It counts only while no process of that replica has a session: the next one
    /// may have come meanwhile.
    pub fn ended(&self, group: &str, replica: &str) {
        self.tell(group, Input::Ended { name: replica.to_owned() });
    }

    /// The platform says this of the group's replicas, from now on.
    pub fn facts(&self, group: &str, facts: Facts) {
        self.tell(group, Input::Facts(facts));
    }

    /// The group's brokers shall go by these settings, as soon as they are connected; [`ReplicaView::configured`] says whether they do.
    pub fn configure(&self, group: &str, settings: Settings) {
        self.tell(group, Input::Configure(settings));
    }

    /// A planned switchover; resolves when it is done, or with the reason why not.
    pub async fn switchover(&self, group: &str, to: &str) -> Result<SwitchoverDone, String> {
        let (answer, result) = oneshot::channel();
        self.tell(group, Input::Switchover { to: to.to_owned(), answer });
        result.await.unwrap_or_else(|_gone| Err("the elector has stopped".to_owned()))
    }

    /// Makes a replica master that may lack acknowledged messages, if the record is still of that epoch (0: there is none); resolves when
    /// the record says so, or with the reason why not.
    pub async fn elect_unclean(&self, group: &str, to: &str, epoch: Epoch) -> Result<SwitchoverDone, String> {
        let (answer, result) = oneshot::channel();
        self.tell(group, Input::ElectUnclean { to: to.to_owned(), epoch, answer });
        result.await.unwrap_or_else(|_gone| Err("the elector has stopped".to_owned()))
    }

    /// The group as it is seen now; none if this elector has no such group.
    pub fn view(&self, group: &str) -> Option<View> {
        self.groups.read().get(group).map(|handle| handle.view.borrow().clone())
    }

    /// Decides nothing any more; sessions stay open. Said before everything is stopped as planned, so that no stop is taken for a death.
    pub fn stop_deciding(&self) {
        self.groups.read().values().filter_map(|handle| handle.task.as_ref()).for_each(JoinHandle::abort);
    }

    fn tell(&self, group: &str, input: Input) {
        let groups = self.groups.read();
        let Some(handle) = groups.get(group) else { return };
        if handle.inputs.send(input).is_err() {
            tracing::debug!(group, "the group's elector has stopped");
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}
