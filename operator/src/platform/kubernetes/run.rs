//! `gantry-operator run`: waits until it leads, and then keeps every group until it doesn't.

use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::controller::{Action, Controller, Error as ControllerError};
use kube::runtime::events::{Event, Recorder, Reporter};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::{Event as WatchEvent, watcher};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{info, warn};

use super::api::{CallError, call, client, kind_of, watched};
use super::board::Board;
use super::evidence::{Death, Deaths};
use super::http::{Health, serve};
use super::lease::{Candidate, Leadership};
use super::nodes::Nodes;
use super::places::Places;
use super::reconcile::{Context, MANAGER};
use super::slices::lead_to_elector;
use super::watched::{follow, reconcile_watched};
use super::{declared, name_servers};
use crate::api::{BrokerGroup, ConsumerGroup, Topic};
use crate::elector::{ElectorServer, Listener};
use crate::observe::{Counted, Metrics};
use crate::plan::kubernetes::{BROKER, GROUP_LABEL, Site};

/// The lease that all operators of one installation want.
const LEASE: &str = "gantry-operator";

/// Before the API server is asked again for what it doesn't have yet.
pub(super) const RETRY: Duration = Duration::from_secs(2);

/// What this operator is told at its start.
#[derive(Clone, Debug)]
pub struct Options {
    /// The brokers' image where a group names none.
    pub image: String,
    /// Name servers: `host:port` with `;` between them.
    pub name_servers: String,
    /// The Service, without selector and in `namespace`, by which brokers find the elector.
    pub elector_service: String,
    /// Where the elector listens.
    pub elector_listen: SocketAddr,
    /// Where probes are answered and metrics are shown.
    pub http_listen: SocketAddr,
    /// Groups with series of their own at most.
    pub metrics_max_groups: usize,
    /// Namespaces whose groups it keeps; none: all.
    pub namespaces: Vec<String>,
    /// This pod's name.
    pub pod_name: String,
    /// This pod's namespace.
    pub namespace: String,
    /// This pod's address.
    pub pod_ip: IpAddr,
}

/// Runs until SIGTERM or SIGINT.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let client = client().await?;
    let api = Api::namespaced(client.clone(), &options.namespace);
    let mut candidate = Candidate::new(api, LEASE, &options.pod_name);
    let metrics = Arc::new(Metrics::new(options.metrics_max_groups).context("metrics can't be registered")?);
    let health = Health::new(candidate.leadership().clone(), Arc::clone(&metrics));
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let outcome = tokio::select! {
        outcome = lead_again_and_again(&client, &options, &mut candidate, &metrics) => outcome,
        outcome = serve(options.http_listen, health) => outcome,
        _signal = terminate.recv() => Ok(()),
        _signal = interrupt.recv() => Ok(()),
    };
    candidate.release().await;
    outcome
}

async fn lead_again_and_again(
    client: &Client,
    options: &Options,
    candidate: &mut Candidate,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<()> {
    loop {
        candidate.until_leading().await;
        let leadership = candidate.leadership().clone();
        tokio::select! {
            () = candidate.until_lost() => {}
            outcome = lead(client, options, leadership, metrics) => outcome?,
        }
        metrics.forget_leadership();
    }
}

/// For as long as it isn't dropped: with it end the elector, its sessions, and every reconcile.
pub(super) async fn lead(
    client: &Client,
    options: &Options,
    leadership: Leadership,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<()> {
    let (notices, told) = unbounded_channel();
    let board = Arc::new(Board::new(client.clone(), leadership.clone(), Arc::clone(metrics), notices));
    let listener = Counted::new(Arc::clone(&board) as Arc<dyn Listener>, Arc::clone(metrics));
    let elector = ElectorServer::listen(options.elector_listen, Arc::new(listener))
        .await
        .with_context(|| format!("the elector can't listen at {}", options.elector_listen))?;
    let port = elector.local_addr().port();
    let Options { namespace, elector_service, .. } = options;
    let context = Arc::new(Context {
        client: client.clone(),
        site: Site {
            image: options.image.clone(),
            name_servers: options.name_servers.clone(),
            elector: format!("{elector_service}.{namespace}.svc:{port}"),
        },
        leadership: leadership.clone(),
        elector,
        board,
        nodes: Arc::new(Nodes::default()),
        metrics: Arc::clone(metrics),
        places: Places::default(),
        known: parking_lot::Mutex::default(),
    });
    let mut tasks = JoinSet::new();
    let scopes = scopes(client, &options.namespaces);
    for scope in scopes {
        tasks.spawn(keep_groups(scope.clone(), Arc::clone(&context)));
        tasks.spawn(name_servers::keep(scope.clone(), Arc::clone(&context)));
        tasks.spawn(declared::keep::<Topic>(scope.clone(), Arc::clone(&context), options.pod_name.clone()));
        tasks.spawn(declared::keep::<ConsumerGroup>(scope.clone(), Arc::clone(&context), options.pod_name.clone()));
        tasks.spawn(follow_pods(scope, Arc::clone(&context)));
    }
    let (nodes, api) = (Arc::clone(&context.nodes), client.clone());
    tasks.spawn(async move { nodes.follow(api).await });
    tasks.spawn(write_events(client.clone(), options.pod_name.clone(), Arc::clone(&context), told));
    let own = options.clone();
    tasks.spawn(async move { keep_elector_address(&context, &leadership, &own, port).await });
    match tasks.join_next().await {
        Some(Ok(())) => bail!("a part of the operator has ended"),
        Some(Err(error)) => Err(error).context("a part of the operator has failed"),
        None => bail!("nothing to do"),
    }
}

/// One, or all, namespaces.
#[derive(Clone)]
pub(super) struct Scope {
    client: Client,
    namespace: Option<String>,
}

impl Scope {
    #[cfg(test)]
    pub(super) fn of(client: Client, namespace: &str) -> Self {
        Self { client, namespace: Some(namespace.to_owned()) }
    }

    pub(super) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }
}

fn scopes(client: &Client, namespaces: &[String]) -> Vec<Scope> {
    let scope = |namespace| Scope { client: client.clone(), namespace };
    if namespaces.is_empty() {
        return vec![scope(None)];
    }
    namespaces.iter().map(|namespace| scope(Some(namespace.clone()))).collect()
}

/// Until the API server has the CustomResourceDefinition. A watch that begins before would wait ever longer between its tries. Any other trouble
/// is the watch's own.
pub(super) async fn until_known<K>(objects: &Api<DeserializeGuard<K>>)
where
    K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let mut told = false;
    loop {
        match call(objects.list(&ListParams::default().limit(1))).await {
            Err(error) if error.code() == Some(404) && !told => {
                let (kind, definition) = (K::kind(&()), format!("{}.{}", K::plural(&()), K::group(&())));
                warn!(
                    %kind, definition,
                    "the API server doesn't know this kind: its CustomResourceDefinition is missing. The chart brings it, and so does kubectl apply -f crds/"
                );
                told = true;
            }
            Err(error) if error.code() == Some(404) => {}
            _ => return,
        }
        sleep(RETRY).await;
    }
}

/// Kube's controller queues each group once, runs groups beside each other, and lists anew after a 410.
async fn keep_groups(scope: Scope, context: Arc<Context>) {
    until_known::<BrokerGroup>(&scope.api()).await;
    let ours = || watched().labels(&format!("app.kubernetes.io/name={BROKER}"));
    let slices = watched().labels("endpointslice.kubernetes.io/managed-by=gantry-operator");
    let controller = Controller::new(scope.api::<DeserializeGuard<BrokerGroup>>(), watched())
        .owns(scope.api::<Pod>(), ours())
        .owns(scope.api::<Service>(), ours())
        // By their label: a volume that is to outlive its group has no owner.
        .watches(scope.api::<PersistentVolumeClaim>(), ours(), group_of)
        // Written when a master serves: the status is to say so at once.
        .owns(scope.api::<EndpointSlice>(), slices)
        .reconcile_all_on(context.nodes.changes());
    follow(controller.store(), &context);
    let again = |_, error: &CallError, _| Action::requeue(error.retry_in());
    let reconciled = controller.run(reconcile_watched, again, Arc::clone(&context));
    let told = reconciled.for_each(|done| {
        match done {
            Ok(_) => {}
            Err(ControllerError::ObjectNotFound(gone)) => {
                context.forget(&format!("{}/{}", gone.namespace.as_deref().unwrap_or_default(), gone.name));
            }
            Err(error) => warn!(%error, "a group is not as it shall be yet"),
        }
        std::future::ready(())
    });
    told.await;
}

/// The group that a volume belongs to.
fn group_of(claim: PersistentVolumeClaim) -> Option<ObjectRef<DeserializeGuard<BrokerGroup>>> {
    let name = claim.metadata.labels?.remove(GROUP_LABEL)?;
    Some(ObjectRef::new(&name).within(&claim.metadata.namespace?))
}

/// Tells the elector what kubelets say of ended containers.
async fn follow_pods(scope: Scope, context: Arc<Context>) {
    let ours = watched().labels(&format!("app.kubernetes.io/name={BROKER}"));
    let mut deaths = Deaths::default();
    let mut events = std::pin::pin!(watcher(scope.api::<Pod>(), ours).default_backoff());
    while let Some(event) = events.next().await {
        let death = match event {
            Ok(WatchEvent::Apply(pod) | WatchEvent::InitApply(pod)) => deaths.look(&pod),
            Ok(WatchEvent::Delete(pod)) => deaths.gone(&pod),
            Ok(WatchEvent::Init | WatchEvent::InitDone) => None,
            Err(error) => {
                context.metrics.failed("pods", "watch");
                warn!(%error, "pods can't be followed");
                None
            }
        };
        if let Some(Death { id, replica }) = death {
            info!(group = id, replica, "its container has ended");
            context.elector.ended(&id, &replica);
        }
    }
}

async fn write_events(
    client: Client,
    instance: String,
    context: Arc<Context>,
    mut told: UnboundedReceiver<(String, Event)>,
) {
    let recorder = Recorder::new(client, Reporter { controller: MANAGER.to_owned(), instance: Some(instance) });
    while let Some((id, event)) = told.recv().await {
        let Some((namespace, name)) = id.split_once('/') else { continue };
        let uid = context.known.lock().get(&id).map(super::reconcile::Known::uid);
        let regarding = ObjectReference {
            api_version: Some("gantry.rs/v1alpha1".to_owned()),
            kind: Some("BrokerGroup".to_owned()),
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            uid,
            ..ObjectReference::default()
        };
        if let Err(error) = recorder.publish(&event, &regarding).await {
            context.metrics.failed("event", kind_of(&error));
            warn!(group = id, note = event.note, %error, "an Event was not written");
        }
    }
}

/// Brokers find the elector by a Service without selector: its slice is written as soon as this operator leads, and mended if somebody
/// changes it. Readiness would be slower by a kubelet's probe, and a lost node's operator would stay in it for most of a minute.
async fn keep_elector_address(context: &Context, leadership: &Leadership, options: &Options, port: u16) {
    let place = (options.namespace.as_str(), options.elector_service.as_str());
    loop {
        let pause = match lead_to_elector(&context.client, leadership, place, (options.pod_ip, port)).await {
            Ok(()) => Duration::from_secs(10),
            Err(error) => {
                context.metrics.failed("elector_service", error.kind());
                warn!(service = options.elector_service, %error, "brokers can't be told where the elector is");
                Duration::from_millis(500)
            }
        };
        sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::mock::Mock;
    use super::*;
    use tokio::time::timeout;

    #[tokio::test(start_paused = true)]
    async fn groups_are_followed_once_the_api_server_has_their_definition() {
        let mock = Mock::start();
        mock.refuse_all_with(404);
        let groups: Api<DeserializeGuard<BrokerGroup>> = Api::all(mock.client());
        timeout(RETRY * 100, until_known(&groups)).await.unwrap_err();
        mock.refuse_nothing();
        timeout(RETRY * 2, until_known(&groups)).await.unwrap();
        mock.refuse_all_with(403);
        timeout(RETRY * 2, until_known(&groups)).await.unwrap();
    }
}
