//! A reconcile with an end, and seen by whoever reads the metrics.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource as _;
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::runtime::reflector::Store;
use tokio::time::timeout;

use super::api::CallError;
use super::reconcile::{Context, reconcile};
use super::unreadable::say_so;
use crate::api::BrokerGroup;
use crate::plan::kubernetes::Step;

/// A reconcile that takes longer hangs: it is ended, told, and tried again. A switchover is the longest of what it may do.
const RECONCILE_PATIENCE: Duration = Duration::from_mins(1);

/// An object that can't be read is looked at again, changed or not.
pub(super) const UNREADABLE_AGAIN: Duration = Duration::from_mins(1);

/// A reconcile, ended after [`RECONCILE_PATIENCE`].
pub(super) async fn in_time<T>(reconcile: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
    timeout(RECONCILE_PATIENCE, reconcile).await.unwrap_or(Err(CallError::Hung(RECONCILE_PATIENCE)))
}

/// Reconciles a group; when to look again.
pub(super) async fn reconcile_watched(
    group: Arc<DeserializeGuard<BrokerGroup>>,
    context: Arc<Context>,
) -> Result<Action, CallError> {
    let (id, generation) = known(group.meta());
    // It is large.
    let reconcile = Box::pin(async {
        match &group.0 {
            Ok(group) => reconcile(group, &context).await,
            Err(unreadable) => {
                context.metrics.decided(&id, "unreadable");
                say_so(unreadable, &context).await.map(|()| UNREADABLE_AGAIN)
            }
        }
    });
    let describe = |error: &CallError| (error.kind(), error.retry_in());
    context.metrics.watch((&id, generation), describe, in_time(reconcile)).await.map(Action::requeue)
}

/// The groups of a controller, for the metrics.
pub(super) fn follow(groups: Store<DeserializeGuard<BrokerGroup>>, context: &Context) {
    context.metrics.follow(move || groups.state().iter().map(|group| known(group.meta())).collect());
}

fn known(metadata: &ObjectMeta) -> (String, i64) {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let id = format!("{}/{}", text(&metadata.namespace), text(&metadata.name));
    (id, metadata.generation.unwrap_or_default())
}

/// A step in one word, for a metric's label.
pub(super) fn label(step: &Step) -> &'static str {
    match step {
        Step::Create(_) => "create",
        Step::Delete { .. } => "delete",
        Step::Switchover { .. } => "switchover",
        Step::Requested { .. } => "requested_switchover",
        Step::DeleteClaim { .. } => "delete_claim",
        Step::Wait(_) => "wait",
        Step::Paused => "paused",
        Step::Hibernated => "hibernated",
        Step::Settled => "settled",
    }
}
