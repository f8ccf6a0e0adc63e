//! Objects of which some may not be readable: of a newer operator's schema, or from before a field's rule. Such an object says so, is left
//! alone, and holds up no other. Groups have words of their own for that: [`super::unreadable`].

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::core::error_boundary::InvalidObject;
use kube::discovery::ApiResource;
use kube::{Api, Resource};
use serde_json::{Value, json};
use tracing::warn;

use super::api::{CallError, call};
use super::reconcile::{Context, MANAGER};
use crate::plan::conditions::conditions;

/// An object, or what could be read of it.
pub(super) type Guard<K> = DeserializeGuard<K>;

/// Writes it into the object's condition `Ready`, if it isn't there yet.
pub(super) async fn tell_unreadable<K>(object: &InvalidObject, context: &Context) -> Result<(), CallError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    let metadata = &object.metadata;
    let (name, namespace) = (metadata.name.as_deref().unwrap_or_default(), metadata.namespace.as_deref());
    let (kind, error) = (K::kind(&()), &object.error);
    let say = |_: &Value, before: &[Condition]| {
        let fact = ("Ready", false, "Unreadable", format!("{kind} {name} can't be read by this operator: {error}"));
        let generation = metadata.generation.unwrap_or_default();
        let mut now = conditions([fact], generation, &Time(Timestamp::now()), before);
        now.extend(before.iter().filter(|condition| condition.type_ != "Ready").cloned());
        let stand = now.iter().all(|condition| before.contains(condition));
        if !stand {
            warn!(%kind, namespace, name, error, "this object can't be read; it is left as it is");
        }
        (!stand).then_some(now)
    };
    write_conditions::<K>(object, context, say).await
}

/// Writes the conditions that `say` makes of the object as it is and its conditions so far; none: they stand.
pub(super) async fn write_conditions<K>(
    object: &InvalidObject,
    context: &Context,
    say: impl FnOnce(&Value, &[Condition]) -> Option<Vec<Condition>>,
) -> Result<(), CallError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    let metadata = &object.metadata;
    let (name, namespace) = (metadata.name.as_deref().unwrap_or_default(), metadata.namespace.as_deref());
    let resource = ApiResource::erase::<K>(&());
    let api: Api<DynamicObject> =
        Api::namespaced_with(context.client.clone(), namespace.unwrap_or_default(), &resource);
    let data = call(api.get(name)).await?.data;
    let before: Vec<Condition> = serde_json::from_value(data["status"]["conditions"].clone()).unwrap_or_default();
    let Some(now) = say(&data, &before) else { return Ok(()) };
    let generation = metadata.generation.unwrap_or_default();
    let patch = json!({"status": {"conditions": now, "observedGeneration": generation}});
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    context.leadership.check()?;
    call(api.patch_status(name, &params, &Patch::Merge(&patch))).await.map(drop)
}
