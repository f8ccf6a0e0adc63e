//! A `BrokerGroup` that this operator can't read: a newer one's, or from before the schema was what it is. It says so and holds up no other;
//! what was kept of it before is kept.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::error_boundary::InvalidObject;
use kube::discovery::ApiResource;
use kube::{Api, Resource as _};
use serde_json::{Value, json};

use super::api::{CallError, call};
use super::reconcile::{Context, MANAGER};
use crate::api::{BrokerGroup, BrokerGroupSpec};
use crate::plan::kubernetes::{Standing, Step, conditions};

/// Writes it into the object's conditions, if it isn't there yet.
pub(super) async fn say_so(object: &InvalidObject, context: &Context) -> Result<(), CallError> {
    let metadata = &object.metadata;
    let (name, namespace) = (metadata.name.as_deref().unwrap_or_default(), metadata.namespace.as_deref());
    let resource = ApiResource::erase::<BrokerGroup>(&());
    let api: Api<DynamicObject> =
        Api::namespaced_with(context.client.clone(), namespace.unwrap_or_default(), &resource);
    let data = call(api.get(name)).await?.data;
    let before: Vec<Condition> = serde_json::from_value(data["status"]["conditions"].clone()).unwrap_or_default();
    let what = complaint(&data["spec"]).unwrap_or_else(|| object.error.clone());
    let why = format!("BrokerGroup {name} can't be read by this operator: {what}");
    let standing = Standing { invalid: Some(why), ..Standing::default() };
    let generation = metadata.generation.unwrap_or_default();
    let now = conditions(&standing, &Step::Settled, generation, &Time(Timestamp::now()), &before);
    if now == before {
        return Ok(());
    }
    let patch = json!({
        "apiVersion": BrokerGroup::api_version(&()), "kind": BrokerGroup::kind(&()), "metadata": {"name": name},
        "status": {"conditions": now, "observedGeneration": generation},
    });
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    context.leadership.check()?;
    call(api.patch_status(name, &params, &Patch::Merge(&patch))).await.map(drop)
}

/// The first field that can't be read, and why: the parser's own words don't say where it was.
fn complaint(spec: &Value) -> Option<String> {
    spec.as_object()?.iter().find_map(|(field, value)| {
        let alone = json!({field: value});
        let error = serde_json::from_value::<BrokerGroupSpec>(alone).err()?;
        Some(format!("spec.{field}: {error}"))
    })
}
