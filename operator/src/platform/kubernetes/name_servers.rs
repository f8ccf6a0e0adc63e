//! `NameServer` objects: read, plan, apply, status.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::runtime::controller::{Action, Controller};
use serde_json::json;
use tracing::warn;

use super::api::{CallError, call, watched};
use super::apply::{api_of, apply};
use super::guard::{Guard, tell_unreadable};
use super::reconcile::{APPLY_AGAIN, Context, MANAGER};
use super::run::{Scope, until_known};
use super::watched::{UNREADABLE_AGAIN, in_time};
use crate::api::{NameServer, NameServerStatus};
use crate::plan::conditions::conditions;
use crate::plan::kubernetes::{NAME_SERVER, NameServerBlueprint, Object, ServersSeen, servers_facts};

/// All of them, for as long as this operator leads.
pub(super) async fn keep(scope: Scope, context: Arc<Context>) {
    until_known::<NameServer>(&scope.api()).await;
    let ours = || watched().labels(&format!("app.kubernetes.io/name={NAME_SERVER}"));
    let controller = Controller::new(scope.api::<Guard<NameServer>>(), watched())
        .owns(scope.api::<StatefulSet>(), ours())
        .owns(scope.api::<Service>(), ours());
    let reconciled = controller.run(
        |object, context| async move { in_time(reconcile(&object, &context)).await.map(Action::requeue) },
        |_, error, _| Action::requeue(error.retry_in()),
        context,
    );
    let told = reconciled.for_each(|done| {
        if let Err(error) = done {
            warn!(%error, "name servers are not as they shall be yet");
        }
        std::future::ready(())
    });
    told.await;
}

/// Reconciles one; after how long to look again.
async fn reconcile(guard: &Guard<NameServer>, context: &Context) -> Result<Duration, CallError> {
    context.leadership.check()?;
    let object = match &guard.0 {
        Ok(object) => object,
        Err(invalid) => {
            tell_unreadable::<NameServer>(invalid, context).await?;
            return Ok(UNREADABLE_AGAIN);
        }
    };
    if object.metadata.deletion_timestamp.is_some() {
        return Ok(APPLY_AGAIN);
    }
    One { context, object }.reconcile().await?;
    Ok(APPLY_AGAIN)
}

struct One<'a> {
    context: &'a Context,
    object: &'a NameServer,
}

impl One<'_> {
    fn namespace(&self) -> &str {
        self.object.metadata.namespace.as_deref().unwrap_or_default()
    }

    async fn reconcile(&self) -> Result<(), CallError> {
        let blueprint = match NameServerBlueprint::new(self.object, &self.context.site) {
            Ok(blueprint) => blueprint,
            Err(why) => {
                return self.write_status(None, &ServersSeen { invalid: Some(why), ..ServersSeen::default() }).await;
            }
        };
        let mut seen = ServersSeen { wanted: i32::from(self.object.spec.replicas), ..ServersSeen::default() };
        for object in blueprint.objects() {
            if let Some(refused) = self.apply(&object).await? {
                seen.refused = Some(refused);
                break;
            }
        }
        if seen.refused.is_none() {
            self.look(&blueprint, &mut seen).await?;
        }
        self.write_status(Some(&blueprint), &seen).await
    }

    /// What Kubernetes refused, if it did. An object that is somebody else's is left alone.
    async fn apply(&self, object: &Object) -> Result<Option<String>, CallError> {
        let api = api_of(&self.context.client, self.namespace(), object.kind);
        if let Some(there) = call(api.get_metadata_opt(&object.name)).await? {
            let owners = there.metadata.owner_references.unwrap_or_default();
            if !owners.iter().any(|owner| Some(&owner.uid) == self.object.metadata.uid.as_ref()) {
                let why =
                    "is there already and is not this NameServer's; delete it, or give the NameServer another name";
                return Ok(Some(format!("{:?} {} {why}", object.kind, object.name)));
            }
        }
        apply((&self.context.client, &self.context.leadership), self.namespace(), object).await
    }

    async fn look(&self, blueprint: &NameServerBlueprint, seen: &mut ServersSeen) -> Result<(), CallError> {
        let sets: Api<StatefulSet> = Api::namespaced(self.context.client.clone(), self.namespace());
        let Some(set) = call(sets.get_opt(&blueprint.service())).await? else { return Ok(()) };
        let generation = set.metadata.generation;
        if let Some(status) = set.status {
            seen.there = status.replicas;
            seen.ready = status.ready_replicas.unwrap_or(0);
            let updated = status.updated_replicas.unwrap_or(0) == status.replicas;
            seen.rolled_out = status.observed_generation == generation && updated;
        }
        Ok(())
    }

    async fn write_status(&self, blueprint: Option<&NameServerBlueprint>, seen: &ServersSeen) -> Result<(), CallError> {
        let before = self.object.status.clone().unwrap_or_default();
        let generation = self.object.metadata.generation.unwrap_or_default();
        let new = NameServerStatus {
            address: blueprint.map(NameServerBlueprint::address),
            addresses: blueprint.map(NameServerBlueprint::addresses).unwrap_or_default(),
            replicas: seen.there,
            ready_replicas: seen.ready,
            ready: Some(format!("{}/{}", seen.ready, seen.wanted)),
            conditions: conditions(servers_facts(seen), generation, &Time(Timestamp::now()), &before.conditions),
            observed_generation: Some(generation),
        };
        if new == before {
            return Ok(());
        }
        let name = self.object.metadata.name.as_deref().unwrap_or_default();
        let api: Api<NameServer> = Api::namespaced(self.context.client.clone(), self.namespace());
        let patch = json!({
            "apiVersion": "gantry.rs/v1alpha1", "kind": "NameServer", "metadata": {"name": name}, "status": new,
        });
        self.context.leadership.check()?;
        call(api.patch_status(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(patch))).await.map(drop)
    }
}

#[cfg(test)]
#[path = "name_servers_tests.rs"]
mod tests;
