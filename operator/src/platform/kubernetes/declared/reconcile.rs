//! One declared object, once: read, compare at every group, change, status.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder};
use kube::runtime::reflector::Store;
use kube::{Api, Resource as _};
use parking_lot::Mutex;
use serde_json::json;
use tracing::{info, warn};

use super::groups::{Groups, Member, master_of};
use super::kinds::Declared;
use super::masters::{Masters, Trouble};
use crate::api::{AtGroup, DeclaredStatus, DeletionPolicy, GroupState};
use crate::plan::declared::{Standing, conditions, on_groups};
use crate::platform::kubernetes::api::{CallError, call};
use crate::platform::kubernetes::guard::{Guard, tell_unreadable};
use crate::platform::kubernetes::reconcile::{Context, MANAGER};
use crate::platform::kubernetes::watched::UNREADABLE_AGAIN;

/// What keeps an object there until the brokers' side is deleted.
pub(super) const FINALIZER: &str = "gantry.rs/delete-at-brokers";

/// Between two looks at what somebody may have changed at the brokers.
const LOOK_AGAIN: Duration = Duration::from_secs(15);
/// After a look that found something amiss; doubled with each further one.
const RETRY: Duration = Duration::from_secs(2);
/// At most.
const RETRY_AT_MOST: Duration = Duration::from_mins(1);

/// What all objects of a kind share.
pub(super) struct Shared<T: Declared> {
    pub(super) context: Arc<Context>,
    pub(super) groups: Arc<Groups>,
    pub(super) masters: Masters<T>,
    pub(super) objects: Store<Guard<T>>,
    pub(super) recorder: Recorder,
    /// How often in a row something was amiss, by the object's uid.
    pub(super) amiss: Mutex<BTreeMap<String, u32>>,
}

/// Reconciles an object; after how long to look again.
pub(super) async fn reconcile<T: Declared>(guard: &Guard<T>, shared: &Shared<T>) -> Result<Duration, CallError> {
    shared.context.leadership.check()?;
    match &guard.0 {
        Ok(object) => One { shared, object }.reconcile().await,
        Err(invalid) => {
            tell_unreadable::<T>(invalid, &shared.context).await?;
            Ok(UNREADABLE_AGAIN)
        }
    }
}

impl<T: Declared> Shared<T> {
    /// After how long to look again at an object in which something is amiss, or isn't any more.
    fn pace(&self, uid: &str, amiss: bool) -> Duration {
        let mut all = self.amiss.lock();
        if !amiss {
            all.remove(uid);
            return LOOK_AGAIN;
        }
        let times = all.entry(uid.to_owned()).or_default();
        *times = times.saturating_add(1);
        RETRY.saturating_mul(1 << (*times - 1).min(16)).min(RETRY_AT_MOST)
    }

    /// Forgets those that are gone.
    pub(super) fn forget(&self) {
        let uids: BTreeSet<_> = self.objects.state().iter().filter_map(|object| object.meta().uid.clone()).collect();
        self.amiss.lock().retain(|uid, _| uids.contains(uid));
    }
}

struct One<'a, T: Declared> {
    shared: &'a Shared<T>,
    object: &'a T,
}

impl<T: Declared> One<'_, T> {
    fn namespace(&self) -> &str {
        self.object.meta().namespace.as_deref().unwrap_or_default()
    }

    fn object_name(&self) -> &str {
        self.object.meta().name.as_deref().unwrap_or_default()
    }

    fn uid(&self) -> &str {
        self.object.meta().uid.as_deref().unwrap_or_default()
    }

    fn api(&self) -> Api<T> {
        Api::namespaced(self.shared.context.client.clone(), self.namespace())
    }

    async fn reconcile(&self) -> Result<Duration, CallError> {
        if self.object.meta().deletion_timestamp.is_some() {
            return self.delete().await;
        }
        self.keep_finalizer(self.object.deletion_policy() == DeletionPolicy::Delete).await?;
        if let Some(older) = self.same_declared().iter().find(|other| age(other.meta()) < age(self.object.meta())) {
            let older = older.meta().name.clone().unwrap_or_default();
            self.write_status(&Standing::Duplicate(older)).await?;
            return Ok(self.shared.pace(self.uid(), true));
        }
        let all = self.shared.groups.all(self.namespace()).await?;
        self.shared.masters.keep_only(self.namespace(), |group| all.iter().any(|member| member.name == group));
        let ours = all.iter().filter(|member| member.cluster.as_deref() == Some(self.object.cluster()));
        let at = join_all(ours.map(|member| self.settle(&member.name))).await;
        let at = at.into_iter().collect::<Result<Vec<_>, _>>()?;
        // What can't be changed is looked at as seldom as what is right.
        let amiss = at.is_empty() || at.iter().any(|at| !matches!(at.state, GroupState::Synced | GroupState::Drifted));
        self.write_status(&Standing::At(at)).await?;
        Ok(self.shared.pace(self.uid(), amiss))
    }

    /// Other objects of this namespace that are of the same name at the same brokers.
    fn same_declared(&self) -> Vec<T> {
        let same = |other: &&T| {
            let meta = other.meta();
            meta.namespace == self.object.meta().namespace
                && meta.uid != self.object.meta().uid
                && meta.deletion_timestamp.is_none()
                && (other.name(), other.cluster()) == (self.object.name(), self.object.cluster())
        };
        let objects = self.shared.objects.state();
        objects.iter().filter_map(|object| object.0.as_ref().ok()).filter(same).cloned().collect()
    }

    /// Makes one group as declared. A group that can't be doesn't keep others from it.
    async fn settle(&self, group: &str) -> Result<AtGroup, CallError> {
        self.shared.context.leadership.check()?;
        let at = |state, message| AtGroup { name: group.to_owned(), state, message };
        Ok(match self.settle_at_master(group).await {
            Ok((seen, cannot)) if cannot.is_empty() => at(GroupState::Synced, T::words(&seen)),
            Ok((_, cannot)) => at(GroupState::Drifted, cannot.join("; ")),
            Err(Trouble { state, message }) => at(state, message),
        })
    }

    /// What the master has then, and what of it can't be as declared.
    async fn settle_at_master(&self, group: &str) -> Result<(T::Seen, Vec<String>), Trouble> {
        let (id, address) = self.master(group)?;
        let masters = &self.shared.masters;
        let seen = masters.seen(&id, &address, self.object.name()).await?;
        let unwritable =
            |error| Trouble { state: GroupState::Refused, message: format!("can't be asked for: {error}") };
        let planned = self.object.plan(seen.as_ref()).map_err(unwritable)?;
        let asked = planned.becomes;
        if planned.needed {
            let becomes = (self.object.name(), Some(asked.becomes.clone()));
            masters.change(&id, &address, asked.command, becomes).await?;
            self.tell_change(group, &planned.differs).await;
        }
        Ok((asked.becomes, planned.cannot))
    }

    fn master(&self, group: &str) -> Result<(String, String), Trouble> {
        let none =
            || Trouble { state: GroupState::NoMaster, message: "no replica is known to serve as master".to_owned() };
        let address = master_of(&self.shared.context.elector, self.namespace(), group).ok_or_else(none)?;
        Ok((format!("{}/{group}", self.namespace()), address))
    }

    /// What was as declared before, and is again, somebody else had changed.
    async fn tell_change(&self, group: &str, differs: &[String]) {
        let kind = T::kind(&());
        if differs.is_empty() {
            info!(%kind, name = self.object.name(), group, "made at a broker group");
            return;
        }
        let was_synced = self.object.status().is_some_and(|status| {
            let generation = status.observed_generation == self.object.meta().generation;
            generation && status.groups.iter().any(|at| at.name == group && at.state == GroupState::Synced)
        });
        let (type_, reason) =
            if was_synced { (EventType::Warning, "DriftCorrected") } else { (EventType::Normal, "Changed") };
        let note: String = format!("{group}: {}", differs.join(", ")).chars().take(1000).collect();
        info!(%kind, name = self.object.name(), reason, note, "changed at a broker group");
        let event =
            Event { type_, reason: reason.to_owned(), note: Some(note), action: "Apply".to_owned(), secondary: None };
        if let Err(error) = self.shared.recorder.publish(&event, &self.object.object_ref(&())).await {
            warn!(%kind, name = self.object.name(), reason, %error, "an Event was not written");
        }
    }

    /// The brokers' side goes first, if it is to go; then the object may.
    async fn delete(&self) -> Result<Duration, CallError> {
        let last = self.same_declared().is_empty();
        if self.object.deletion_policy() == DeletionPolicy::Delete && last && self.has_finalizer() {
            let members = self.shared.groups.all_now(self.namespace()).await?;
            let left = join_all(members.iter().map(|member| self.delete_at(member))).await;
            let left: Vec<_> = left.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
            if !left.is_empty() {
                self.write_status(&Standing::Deleting(left)).await?;
                return Ok(self.shared.pace(self.uid(), true));
            }
            info!(kind = %T::kind(&()), name = self.object.name(), cluster = self.object.cluster(), "deleted at all broker groups");
        }
        self.keep_finalizer(false).await?;
        self.shared.pace(self.uid(), false);
        Ok(LOOK_AGAIN)
    }

    /// What is left at a group, if something is. Whether a group that can't be read is of this cluster isn't known.
    async fn delete_at(&self, member: &Member) -> Result<Option<AtGroup>, CallError> {
        let at = |state, message| Some(AtGroup { name: member.name.clone(), state, message });
        match member.cluster.as_deref() {
            None => return Ok(at(GroupState::Refused, "the BrokerGroup can't be read".to_owned())),
            Some(cluster) if cluster != self.object.cluster() => return Ok(None),
            Some(_) => {}
        }
        self.shared.context.leadership.check()?;
        let deleted = async {
            let (id, address) = self.master(&member.name)?;
            self.shared.masters.change(&id, &address, self.object.delete(), (self.object.name(), None)).await
        };
        Ok(deleted.await.err().and_then(|Trouble { state, message }| at(state, message)))
    }

    fn has_finalizer(&self) -> bool {
        self.object.meta().finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
    }

    /// Others' finalizers stay.
    async fn keep_finalizer(&self, wanted: bool) -> Result<(), CallError> {
        if self.has_finalizer() == wanted {
            return Ok(());
        }
        let mut finalizers = self.object.meta().finalizers.clone().unwrap_or_default();
        finalizers.retain(|finalizer| finalizer != FINALIZER);
        finalizers.extend(wanted.then(|| FINALIZER.to_owned()));
        let version = &self.object.meta().resource_version;
        let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": version}});
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        self.shared.context.leadership.check()?;
        match call(self.api().patch_metadata(self.object_name(), &params, &Patch::Merge(patch))).await {
            // Gone already, or changed: then there is a newer one to look at.
            Err(error) if !matches!(error.code(), Some(404)) => Err(error),
            _ => Ok(()),
        }
    }

    async fn write_status(&self, standing: &Standing) -> Result<(), CallError> {
        let before = self.object.status().cloned().unwrap_or_default();
        let generation = self.object.meta().generation.unwrap_or_default();
        let groups = match standing {
            Standing::At(groups) | Standing::Deleting(groups) => groups.clone(),
            Standing::Duplicate(_) => Vec::new(),
        };
        let now = Time(Timestamp::now());
        let new = DeclaredStatus {
            name: Some(self.object.name().to_owned()),
            on_groups: Some(on_groups(&groups)),
            conditions: conditions(standing, self.object.cluster(), generation, &now, &before.conditions),
            groups,
            observed_generation: Some(generation),
        };
        if new == before {
            return Ok(());
        }
        let (api_version, kind) = (T::api_version(&()), T::kind(&()));
        let patch =
            json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": self.object_name()}, "status": new});
        let params = PatchParams::apply(MANAGER).force();
        self.shared.context.leadership.check()?;
        call(self.api().patch_status(self.object_name(), &params, &Patch::Apply(patch))).await.map(drop)
    }
}

/// Who was first has it.
fn age(meta: &ObjectMeta) -> (Option<&Time>, Option<&String>) {
    (meta.creation_timestamp.as_ref(), meta.uid.as_ref())
}
