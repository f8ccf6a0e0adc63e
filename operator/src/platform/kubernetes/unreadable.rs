//! A `BrokerGroup` that this operator can't read: a newer one's, or from before the schema was what it is. It says so and holds up no other;
//! what was kept of it before is kept.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::core::error_boundary::InvalidObject;
use serde_json::{Value, json};

use super::api::CallError;
use super::guard::write_conditions;
use super::reconcile::Context;
use crate::api::{BrokerGroup, BrokerGroupSpec};
use crate::plan::kubernetes::{Standing, Step, conditions};

/// Writes it into the object's conditions, if it isn't there yet.
pub(super) async fn say_so(object: &InvalidObject, context: &Context) -> Result<(), CallError> {
    let say = |data: &Value, before: &[Condition]| {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let what = complaint(&data["spec"]).unwrap_or_else(|| object.error.clone());
        let why = format!("BrokerGroup {name} can't be read by this operator: {what}");
        let standing = Standing { invalid: Some(why), ..Standing::default() };
        let generation = object.metadata.generation.unwrap_or_default();
        let now = conditions(&standing, &Step::Settled, generation, &Time(Timestamp::now()), before);
        (now != before).then_some(now)
    };
    write_conditions::<BrokerGroup>(object, context, say).await
}

/// The first field that can't be read, and why: the parser's own words don't say where it was.
fn complaint(spec: &Value) -> Option<String> {
    spec.as_object()?.iter().find_map(|(field, value)| {
        let alone = json!({field: value});
        let error = serde_json::from_value::<BrokerGroupSpec>(alone).err()?;
        Some(format!("spec.{field}: {error}"))
    })
}
