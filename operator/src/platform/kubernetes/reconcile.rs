//! One group, once: read, plan, apply, one step, status.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gantry_replication::elector::{Config, Facts};
use gantry_replication::master::Mode;
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use parking_lot::Mutex;
use tracing::{info, warn};

use super::api::{CallError, call};
use super::apply::apply;
use super::board::Board;
use super::claims::{Applied, Claims};
use super::lease::Leadership;
use super::nodes::Nodes;
use super::orders;
use super::places::Places;
use super::record_status::StatusRecord;
use super::slices::{Place, lead_nowhere};
use super::status::{is_news, observe, patch, pod_seen, recorded, standing, status};
use super::watched::label;
use crate::api::{BrokerGroup, NameServer, ReplicationMode};
use crate::elector::{ElectorServer, Group, View};
use crate::observe::Metrics;
use crate::plan::kubernetes::{
    Blueprint, GROUP_LABEL, Kind, Object, Observed, PodSeen, REPLICA_LABEL, Site, Standing, Step, VolumesStanding,
    Wanted, Wishes, next_step,
};

/// Who the API server says applied it.
pub(super) const MANAGER: &str = "gantry-operator";

/// Objects that have not changed are applied again after so long, should somebody have changed them.
pub(super) const APPLY_AGAIN: Duration = Duration::from_mins(1);
/// Offsets in the status are at most so old.
const STATUS_AGAIN: Duration = Duration::from_secs(10);
/// After a switchover that failed, unless the master is leaving.
const SWITCH_AGAIN: Duration = Duration::from_secs(30);

/// What all groups share.
pub(super) struct Context {
    pub(super) client: Client,
    pub(super) site: Site,
    pub(super) leadership: Leadership,
    pub(super) elector: ElectorServer,
    pub(super) board: Arc<Board>,
    pub(super) nodes: Arc<Nodes>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) places: Places,
    /// By id.
    pub(super) known: Mutex<BTreeMap<String, Known>>,
}

/// What is remembered of a group: nothing that isn't made anew by an operator that starts.
#[derive(Default)]
pub(super) struct Known {
    uid: String,
    /// As the elector has it.
    electorate: Option<(Vec<String>, ReplicationMode, u8, String)>,
    /// What was applied, and when.
    applied: BTreeMap<(Kind, String), (Object, Instant)>,
    claims: Applied,
    status_at: Option<Instant>,
    no_switch_before: Option<Instant>,
}

impl Known {
    /// The `BrokerGroup`'s own.
    pub(super) fn uid(&self) -> String {
        self.uid.clone()
    }
}

/// Reconciles a group; after how long to look again.
pub(super) async fn reconcile(group: &BrokerGroup, context: &Context) -> Result<Duration, CallError> {
    context.leadership.check()?;
    let one = One { context, namespace: group.metadata.namespace.clone().unwrap_or_default(), group };
    if group.metadata.deletion_timestamp.is_some() {
        context.forget(&one.id());
        return Ok(STATUS_AGAIN);
    }
    match Blueprint::new(group, &context.site) {
        Ok(blueprint) => one.reconcile(&blueprint).await,
        Err(invalid) => {
            context.metrics.decided(&one.id(), "invalid");
            let standing = Standing { invalid: Some(invalid.to_string()), ..Standing::default() };
            let view = context.elector.view(&one.id()).unwrap_or_default();
            one.write_status(&standing, &Step::Settled, &view).await?;
            Ok(APPLY_AGAIN)
        }
    }
}

impl Context {
    /// The group is gone.
    pub(super) fn forget(&self, id: &str) {
        if self.known.lock().remove(id).is_some() {
            info!(group = id, "the group is gone");
        }
        self.elector.remove(id);
        self.board.remove(id);
        self.metrics.forget(id);
    }
}

/// The address for clients outside, or why there is none; none where nobody asks for one.
type External = Option<Result<String, String>>;

/// Where a group's replicas run.
struct Whereabouts {
    /// By replica, where known.
    zones: BTreeMap<String, String>,
    /// Of their nodes, in the replicas' order.
    addresses: Vec<String>,
}

struct One<'a> {
    context: &'a Context,
    namespace: String,
    group: &'a BrokerGroup,
}

impl One<'_> {
    fn name(&self) -> &str {
        self.group.metadata.name.as_deref().unwrap_or_default()
    }

    fn id(&self) -> String {
        format!("{}/{}", self.namespace, self.name())
    }

    fn place(&self, blueprint: &Blueprint) -> Place {
        Place { namespace: self.namespace.clone(), group: self.name().to_owned(), uid: blueprint.uid.clone() }
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.context.client.clone(), &self.namespace)
    }

    async fn reconcile(&self, blueprint: &Blueprint) -> Result<Duration, CallError> {
        let wishes = Wishes::of(self.group.metadata.annotations.as_ref());
        let volumes = self.claims(blueprint);
        let (mut pods, claims) = tokio::try_join!(self.read_pods(), volumes.read())?;
        for (replica, pod) in &mut pods {
            pod.fenced = blueprint.fencing.fenced.contains(replica);
        }
        let places = self.look_at_nodes(&pods).await;
        // A paused group stays as it is: asleep or awake.
        let sleeps = wishes.hibernate && (!wishes.paused || pods.is_empty());
        if sleeps {
            self.let_sleep();
        } else {
            let token = self.token(blueprint).await?;
            let facts = Facts { fenced: blueprint.fencing.fenced.clone(), zones: places.zones };
            self.let_elect(blueprint, &pods, &token, &facts);
            self.context.elector.facts(&self.id(), facts);
        }
        let mut refused = None;
        let mut external = self.group.status.as_ref().and_then(|status| status.external_address.clone()).map(Ok);
        if !wishes.paused {
            (refused, external) = self.apply_all(blueprint, &places.addresses).await?;
            self.with_claims(async |applied| volumes.keep(&claims, applied).await).await?;
        }
        let view = self.context.elector.view(&self.id()).unwrap_or_default();
        let seen = observe(pods, claims, &view);
        let replicas: BTreeSet<_> = blueprint.plan.replicas.iter().map(|replica| replica.name.clone()).collect();
        let (record_master, counted) = recorded(self.group, &view);
        let hash = blueprint.spec_hash();
        let wanted = Wanted {
            replicas: &replicas,
            hash: &hash,
            min_in_sync: usize::from(blueprint.plan.min_in_sync),
            preferred: blueprint.plan.preferred_master.as_deref(),
            wishes: &wishes,
            record_master: record_master.as_deref(),
            counted: &counted,
        };
        let step = if refused.is_some() {
            Step::Wait("Kubernetes refused an object".to_owned())
        } else {
            next_step(wanted, &seen)
        };
        self.context.metrics.decided(&self.id(), label(&step));
        let trouble = self.context.board.trouble(&self.id());
        let name_server_missing = self.missing_name_server().await?;
        let standing = Standing {
            refused,
            external,
            name_server_missing,
            in_sync: counted.len(),
            paused: wishes.paused,
            hibernates: sleeps,
            volumes: VolumesStanding::new(wanted, &blueprint.spec.storage.size, &seen, self.claims_refused()),
            ..standing(blueprint, &seen, &view, trouble)
        };
        self.write_status(&standing, &step, &view).await?;
        self.take(blueprint, &seen, &step).await
    }

    fn claims<'a>(&'a self, blueprint: &'a Blueprint) -> Claims<'a> {
        Claims { client: &self.context.client, leadership: &self.context.leadership, blueprint }
    }

    /// Gives what was applied to claims to whoever applies more. One reconcile of a group runs at a time; what one that is given up took
    /// along is applied once more.
    async fn with_claims<T>(
        &self,
        work: impl AsyncFnOnce(&mut Applied) -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        let mut applied = std::mem::take(&mut self.context.known.lock().entry(self.id()).or_default().claims);
        let done = work(&mut applied).await;
        if let Some(known) = self.context.known.lock().get_mut(&self.id()) {
            known.claims = applied;
        }
        done
    }

    fn claims_refused(&self) -> Option<String> {
        self.context.known.lock().get(&self.id())?.claims.refused()
    }

    /// Nobody decides about a group that sleeps: its pods' ends are no reason to.
    fn let_sleep(&self) {
        let id = self.id();
        if self.context.known.lock().entry(id.clone()).or_default().electorate.take().is_some() {
            info!(group = id, "the group is to hibernate: the elector decides for it no more");
        }
        self.context.elector.remove(&id);
    }

    async fn read_pods(&self) -> Result<BTreeMap<String, PodSeen>, CallError> {
        let ours = ListParams::default().labels(&format!("{GROUP_LABEL}={}", self.name()));
        let pods = call(self.pods().list(&ours)).await?;
        let named = pods.items.iter().filter_map(|pod| {
            let replica = pod.metadata.labels.as_ref()?.get(REPLICA_LABEL)?;
            Some((replica.clone(), pod_seen(pod, |node| self.context.nodes.is_cordoned(node))))
        });
        Ok(named.collect())
    }

    /// The name server that the group names, if there is none of that name.
    async fn missing_name_server(&self) -> Result<Option<String>, CallError> {
        let Some(name) = &self.group.spec.name_server else { return Ok(None) };
        let api: Api<NameServer> = Api::namespaced(self.context.client.clone(), &self.namespace);
        let there = call(api.get_metadata_opt(name)).await?.is_some();
        Ok((!there).then(|| name.clone()))
    }

    /// The group's secret, made if it isn't there.
    async fn token(&self, blueprint: &Blueprint) -> Result<String, CallError> {
        let api: Api<Secret> = Api::namespaced(self.context.client.clone(), &self.namespace);
        let name = blueprint.token_secret_name();
        loop {
            if let Some(secret) = call(api.get_opt(&name)).await? {
                let bytes = secret.data.and_then(|mut data| data.remove("token"));
                let text = bytes.and_then(|bytes| String::from_utf8(bytes.0).ok());
                return text.filter(|text| !text.is_empty()).ok_or(CallError::NoToken(name));
            }
            let token = crate::platform::token::random().map_err(CallError::Random)?;
            let secret = serde_json::from_value(blueprint.token_secret(&token)).map_err(kube::Error::SerdeError)?;
            self.context.leadership.check()?;
            match call(api.create(&PostParams::default(), &secret)).await {
                Ok(_) => return Ok(token),
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The elector decides for the replicas that there shall be, and for those that there still are.
    fn let_elect(&self, blueprint: &Blueprint, pods: &BTreeMap<String, PodSeen>, token: &str, facts: &Facts) {
        let (plan, id) = (&blueprint.plan, self.id());
        let planned = plan.replicas.iter().map(|replica| replica.name.clone());
        let names: BTreeSet<_> = planned.chain(pods.keys().cloned()).collect();
        let names: Vec<_> = names.into_iter().collect();
        let electorate = Some((names.clone(), plan.mode, plan.min_in_sync, token.to_owned()));
        {
            let mut known = self.context.known.lock();
            let known = known.entry(id.clone()).or_default();
            if known.uid == blueprint.uid && known.electorate == electorate {
                return;
            }
            if known.uid != blueprint.uid {
                *known = Known { uid: blueprint.uid.clone(), ..Known::default() };
                self.context.board.add(&id, self.place(blueprint));
            }
            known.electorate = electorate;
        }
        let mode = match plan.mode {
            ReplicationMode::Sync => Mode::Sync,
            ReplicationMode::Async => Mode::Async,
        };
        let config = Config { facts: facts.clone(), ..Config::new(names, mode, usize::from(plan.min_in_sync)) };
        let api = Api::namespaced(self.context.client.clone(), &self.namespace);
        let store = StatusRecord::new(api, self.group, self.context.leadership.clone());
        info!(group = id, "the elector decides for this group");
        self.context.elector.add(Group { id, name: plan.name.clone(), token: token.to_owned(), config }, store);
    }

    /// Applies everything but pods, and lets brokers go by the settings of now; what Kubernetes refused, if it did, and the address outside.
    async fn apply_all(
        &self,
        blueprint: &Blueprint,
        nodes: &[String],
    ) -> Result<(Option<String>, External), CallError> {
        let services: Api<Service> = Api::namespaced(self.context.client.clone(), &self.namespace);
        let name = blueprint.master_service_name();
        let master_ip = |service: &Service| service.spec.as_ref()?.cluster_ip.as_ref()?.parse::<IpAddr>().ok();
        let service = call(services.get_opt(&name)).await?;
        let before = self.group.status.as_ref().and_then(|status| status.external_address.as_deref());
        let external = blueprint.external_address(service.as_ref(), nodes, before);
        let mut ip = service.as_ref().and_then(master_ip);
        if ip.is_none() {
            // Where this one has gone, others may have: all are looked at again.
            if let Some(known) = self.context.known.lock().get_mut(&self.id()) {
                known.applied.clear();
            }
            let service = blueprint.objects(None, None).into_iter().find(|object| object.name == name);
            if let Some(refused) = self.apply(service.as_slice()).await? {
                return Ok((Some(refused), external));
            }
            ip = call(services.get_opt(&name)).await?.as_ref().and_then(master_ip);
        }
        if ip.is_none() {
            let refused = format!("Service {name} has no cluster IP; delete it, and it is made anew");
            return Ok((Some(refused), external));
        }
        // Brokers keep an address that can't be found out just now.
        let address = external.as_ref().and_then(|now| now.as_deref().ok().or(before));
        let refused = self.apply(&blueprint.objects(ip, address)).await?;
        self.context.elector.configure(&self.id(), blueprint.live_settings(address));
        Ok((refused, external))
    }

    async fn look_at_nodes(&self, pods: &BTreeMap<String, PodSeen>) -> Whereabouts {
        let names: BTreeSet<_> = pods.values().filter_map(|pod| pod.node.clone()).collect();
        let nodes = self.context.places.look(&self.context.client, &names).await;
        let of = |pod: &PodSeen| nodes.get(pod.node.as_ref()?);
        let zone = |(replica, pod): (&String, &PodSeen)| Some((replica.clone(), of(pod)?.zone.clone()?));
        Whereabouts {
            zones: pods.iter().filter_map(zone).collect(),
            addresses: pods.values().filter_map(|pod| of(pod)?.address.clone()).collect(),
        }
    }

    /// One that is refused doesn't keep the others from being applied.
    async fn apply(&self, objects: &[Object]) -> Result<Option<String>, CallError> {
        let mut refused = Vec::new();
        for object in objects {
            let key = (object.kind, object.name.clone());
            let fresh = self.context.known.lock().get(&self.id()).is_some_and(|known| {
                known.applied.get(&key).is_some_and(|(same, at)| same == object && at.elapsed() < APPLY_AGAIN)
            });
            if fresh {
                continue;
            }
            match apply((&self.context.client, &self.context.leadership), &self.namespace, object).await? {
                Some(why) => refused.push(why),
                None => {
                    if let Some(known) = self.context.known.lock().get_mut(&self.id()) {
                        known.applied.insert(key, (object.clone(), Instant::now()));
                    }
                }
            }
        }
        Ok((!refused.is_empty()).then(|| refused.join("; ")))
    }

    async fn write_status(&self, standing: &Standing, step: &Step, view: &View) -> Result<(), CallError> {
        let id = self.id();
        let new = status(self.group, standing, step, view, self.context.board.last_failover(&id));
        let due = |known: &Known| known.status_at.is_none_or(|at| at.elapsed() >= STATUS_AGAIN);
        let due = self.context.known.lock().get(&id).is_none_or(due);
        if !due && !is_news(&new, self.group.status.as_ref()) {
            return Ok(());
        }
        let api: Api<BrokerGroup> = Api::namespaced(self.context.client.clone(), &self.namespace);
        let params = PatchParams::apply(MANAGER).force();
        self.context.leadership.check()?;
        call(api.patch_status(self.name(), &params, &Patch::Apply(patch(self.name(), &new)))).await?;
        if let Some(known) = self.context.known.lock().get_mut(&id) {
            known.status_at = Some(Instant::now());
        }
        Ok(())
    }

    /// Takes the step; after how long to look again.
    async fn take(&self, blueprint: &Blueprint, seen: &Observed, step: &Step) -> Result<Duration, CallError> {
        self.context.leadership.check()?;
        match step {
            Step::Create(replicas) => {
                for replica in replicas {
                    self.create(blueprint, replica, seen.claims.contains_key(replica)).await?;
                }
            }
            Step::DeleteClaim { replica, uid } => self.claims(blueprint).delete(replica, uid).await?,
            Step::Requested { to, refusal } => {
                orders::carry_out(self.context, (&self.namespace, self.name()), to, refusal.as_deref()).await?;
            }
            Step::Hibernated => {
                lead_nowhere(&self.context.client, &self.context.leadership, &self.place(blueprint)).await?;
                return Ok(STATUS_AGAIN);
            }
            Step::Delete { replica, uid, why } => {
                info!(group = self.id(), replica, why, "deleting its pod");
                let preconditions = Some(Preconditions { uid: Some(uid.clone()), resource_version: None });
                let params = DeleteParams { preconditions, ..DeleteParams::default() };
                match call(self.pods().delete(replica, &params)).await {
                    Err(error) if !matches!(error.code(), Some(404 | 409)) => return Err(error),
                    _ => {}
                }
            }
            Step::Switchover { to, why, urgent } => self.switch_over(to, why, *urgent).await,
            Step::Wait(_) => return Ok(Duration::from_secs(2)),
            Step::Settled | Step::Paused => return Ok(STATUS_AGAIN),
        }
        Ok(Duration::from_secs(1))
    }

    /// A replica's volume, if it has none, and its pod.
    async fn create(&self, blueprint: &Blueprint, replica: &str, has_volume: bool) -> Result<(), CallError> {
        if !has_volume && !self.with_claims(async |applied| self.claims(blueprint).make(replica, applied).await).await?
        {
            return Ok(());
        }
        info!(group = self.id(), replica, "making its pod");
        let pod = serde_json::from_value(blueprint.pod(replica).body).map_err(kube::Error::SerdeError)?;
        match call(self.pods().create(&PostParams::default(), &pod)).await {
            Err(error) if !error.is_conflict() => Err(error),
            _ => Ok(()),
        }
    }

    async fn switch_over(&self, to: &str, why: &str, urgent: bool) {
        let id = self.id();
        let held = |known: &Known| known.no_switch_before.is_some_and(|at| Instant::now() < at);
        if !urgent && self.context.known.lock().get(&id).is_some_and(held) {
            return;
        }
        info!(group = id, to, why, "switching over");
        let switched = self.context.elector.switchover(&id, to).await;
        self.context.metrics.switched(&id, &switched);
        if let Err(reason) = switched {
            warn!(group = id, to, reason, "not switched over");
            if let Some(known) = self.context.known.lock().get_mut(&id) {
                known.no_switch_before = Some(Instant::now() + SWITCH_AGAIN);
            }
        }
    }
}

#[cfg(test)]
#[path = "reconcile_tests.rs"]
pub(super) mod tests;

#[cfg(test)]
#[path = "life_tests.rs"]
mod life_tests;
