//! The switchover that an annotation asks for: done or refused, told, and the annotation removed.

use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType};
use serde_json::json;
use tracing::info;

use super::api::{CallError, call};
use super::reconcile::{Context, MANAGER};
use crate::api::BrokerGroup;
use crate::plan::kubernetes::SWITCHOVER_ANNOTATION;

/// Writes of others, between reading and writing, that are put up with.
const TRIES: usize = 5;

/// Carries it out, for the group `id` of this namespace and name.
pub(super) async fn carry_out(
    context: &Context,
    (namespace, name): (&str, &str),
    to: &str,
    refusal: Option<&str>,
) -> Result<(), CallError> {
    let id = format!("{namespace}/{name}");
    let outcome = match refusal {
        Some(why) => Err(why.to_owned()),
        None => context.elector.switchover(&id, to).await,
    };
    let event = match outcome {
        Ok(done) => {
            let note = format!("{to} is master of epoch {}, {} ms after the request", done.epoch, done.pause_ms);
            told(EventType::Normal, "SwitchedOver", &note)
        }
        Err(why) => told(EventType::Warning, "SwitchoverRefused", &format!("no switchover to {to}: {why}")),
    };
    info!(group = id, note = event.note, "a switchover was asked for");
    context.board.tell(&id, event);
    remove_annotation(context, (namespace, name), to).await
}

fn told(type_: EventType, reason: &str, note: &str) -> Event {
    let note = Some(note.chars().take(1000).collect());
    Event { type_, reason: reason.to_owned(), note, action: "Switchover".to_owned(), secondary: None }
}

/// Another order that came meanwhile stays.
async fn remove_annotation(context: &Context, (namespace, name): (&str, &str), to: &str) -> Result<(), CallError> {
    let api: Api<BrokerGroup> = Api::namespaced(context.client.clone(), namespace);
    let mut tries = TRIES;
    loop {
        let Some(group) = call(api.get_opt(name)).await? else { return Ok(()) };
        let stands = group.metadata.annotations.as_ref().and_then(|all| all.get(SWITCHOVER_ANNOTATION));
        if stands.map(|value| value.trim()) != Some(to) {
            return Ok(());
        }
        let patch = json!({"metadata": {
            "resourceVersion": group.metadata.resource_version,
            "annotations": {SWITCHOVER_ANNOTATION: null},
        }});
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        context.leadership.check()?;
        match call(api.patch(name, &params, &Patch::Merge(&patch))).await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_conflict() && tries > 1 => tries -= 1,
            Err(error) => return Err(error),
        }
    }
}
