//! Server-side apply of what is planned.

use kube::api::{DynamicObject, Patch, PatchParams};
use kube::discovery::ApiResource;
use kube::{Api, Client};

use super::api::{CallError, call};
use super::lease::Leadership;
use super::reconcile::MANAGER;
use crate::plan::kubernetes::{Kind, Object};

/// Applies one; what Kubernetes refused, if it did: asked the same again, it would say the same.
pub(super) async fn apply(
    (client, leadership): (&Client, &Leadership),
    namespace: &str,
    object: &Object,
) -> Result<Option<String>, CallError> {
    let params = PatchParams::apply(MANAGER).force();
    leadership.check()?;
    match call(api_of(client, namespace, object.kind).patch(&object.name, &params, &Patch::Apply(&object.body))).await {
        Ok(_) => Ok(None),
        Err(error) if matches!(error.code(), Some(400 | 403 | 404 | 422)) => {
            Ok(Some(format!("{:?} {}: {error}", object.kind, object.name)))
        }
        Err(error) => Err(error),
    }
}

/// Objects of a kind that is known only as the program runs.
pub(super) fn api_of(client: &Client, namespace: &str, kind: Kind) -> Api<DynamicObject> {
    let (group, version, plural) = kind.api();
    let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let resource = ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version,
        kind: format!("{kind:?}"),
        plural: plural.to_owned(),
    };
    Api::namespaced_with(client.clone(), namespace, &resource)
}
