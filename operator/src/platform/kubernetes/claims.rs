//! The volumes of a group's replicas, as Kubernetes has them and as they shall be.

use std::collections::BTreeMap;
use std::time::Instant;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::{DeleteParams, ListParams, Preconditions};
use kube::{Api, Client};
use tracing::info;

use super::api::{CallError, call};
use super::apply::apply;
use super::lease::Leadership;
use super::reconcile::APPLY_AGAIN;
use crate::plan::kubernetes::{Blueprint, ClaimSeen, GROUP_LABEL, Object, REPLICA_LABEL, claim_name};

/// What was applied to each claim, when, and what Kubernetes refused of it.
#[derive(Debug, Default)]
pub(super) struct Applied {
    by_replica: BTreeMap<String, (Object, Instant, Option<String>)>,
}

impl Applied {
    /// What Kubernetes refused, if it did.
    pub(super) fn refused(&self) -> Option<String> {
        let refused: Vec<&str> = self.by_replica.values().filter_map(|(_, _, refused)| refused.as_deref()).collect();
        (!refused.is_empty()).then(|| refused.join("; "))
    }

    fn is_fresh(&self, replica: &str, object: &Object) -> bool {
        self.by_replica.get(replica).is_some_and(|(same, at, _)| same == object && at.elapsed() < APPLY_AGAIN)
    }

    fn note(&mut self, replica: &str, object: Object, refused: Option<String>) {
        self.by_replica.insert(replica.to_owned(), (object, Instant::now(), refused));
    }
}

/// The claims of one group.
pub(super) struct Claims<'a> {
    pub(super) client: &'a Client,
    pub(super) leadership: &'a Leadership,
    pub(super) blueprint: &'a Blueprint,
}

impl Claims<'_> {
    fn api(&self) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.client.clone(), &self.blueprint.namespace)
    }

    /// Those that there are, by replica.
    pub(super) async fn read(&self) -> Result<BTreeMap<String, ClaimSeen>, CallError> {
        let ours = ListParams::default().labels(&format!("{GROUP_LABEL}={}", self.blueprint.plan.name));
        let claims = call(self.api().list(&ours)).await?;
        let named = claims.items.iter().filter_map(|claim| {
            let replica = claim.metadata.labels.as_ref()?.get(REPLICA_LABEL)?;
            // Another claim with our labels is somebody's copy.
            (claim.metadata.name.as_deref() == Some(&claim_name(replica))).then(|| (replica.clone(), seen(claim)))
        });
        Ok(named.collect())
    }

    /// Lets those that there are grow, and stay or go with the group. What Kubernetes refuses keeps nothing else from being done. Volumes of
    /// replicas that are no more follow the deletion policy, too.
    pub(super) async fn keep(
        &self,
        present: &BTreeMap<String, ClaimSeen>,
        applied: &mut Applied,
    ) -> Result<(), CallError> {
        applied.by_replica.retain(|replica, _| present.contains_key(replica));
        for (replica, claim) in present.iter().filter(|(_, claim)| claim.is_usable()) {
            let grow = self.blueprint.plan.replicas.iter().any(|planned| planned.name == *replica);
            let object = self.blueprint.volume_claim(replica, Some(claim), grow);
            if applied.is_fresh(replica, &object) {
                continue;
            }
            let mut refused = self.apply(&object).await?;
            if let Some(why) = &refused {
                info!(replica, why, "its volume can't be as the group asks");
                let as_it_is = self.blueprint.volume_claim(replica, Some(claim), false);
                if as_it_is != object
                    && let Some(more) = self.apply(&as_it_is).await?
                    && more != *why
                {
                    refused = Some(format!("{why}; {more}"));
                }
            }
            applied.note(replica, object, refused);
        }
        Ok(())
    }

    /// Makes the claim of a replica that has none; whether it is there now.
    pub(super) async fn make(&self, replica: &str, applied: &mut Applied) -> Result<bool, CallError> {
        let object = self.blueprint.volume_claim(replica, None, true);
        info!(replica, "making its volume");
        let refused = self.apply(&object).await?;
        let made = refused.is_none();
        applied.note(replica, object, refused);
        Ok(made)
    }

    /// Deletes one that is lost, if it still is that one.
    pub(super) async fn delete(&self, replica: &str, uid: &str) -> Result<(), CallError> {
        info!(replica, "deleting its volume claim, whose volume is lost");
        let preconditions = Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None });
        self.leadership.check()?;
        let params = DeleteParams { preconditions, ..DeleteParams::default() };
        match call(self.api().delete(&claim_name(replica), &params)).await {
            Err(error) if !matches!(error.code(), Some(404 | 409)) => Err(error),
            _ => Ok(()),
        }
    }

    /// What Kubernetes refused, if it did.
    async fn apply(&self, object: &Object) -> Result<Option<String>, CallError> {
        apply((self.client, self.leadership), &self.blueprint.namespace, object).await
    }
}

fn seen(claim: &PersistentVolumeClaim) -> ClaimSeen {
    let (spec, status) = (claim.spec.as_ref(), claim.status.as_ref());
    let size = |sizes: &BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>| {
        sizes.get("storage").map(|size| size.0.clone())
    };
    ClaimSeen {
        uid: claim.metadata.uid.clone().unwrap_or_default(),
        deleting: claim.metadata.deletion_timestamp.is_some(),
        lost: status.and_then(|status| status.phase.as_deref()) == Some("Lost"),
        requested: spec.and_then(|spec| size(spec.resources.as_ref()?.requests.as_ref()?)),
        capacity: status.and_then(|status| size(status.capacity.as_ref()?)),
        class: spec.and_then(|spec| spec.storage_class_name.clone()),
    }
}
