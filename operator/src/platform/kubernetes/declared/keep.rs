//! All objects of a kind, for as long as this operator leads.

use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use kube::runtime::controller::{Action, Config, Controller, Error as ControllerError};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::watcher::watcher;
use kube::runtime::{PredicateConfig, WatchStreamExt as _, predicates};
use kube::{Api, ResourceExt as _};
use parking_lot::Mutex;
use tracing::warn;

use super::groups::Groups;
use super::kinds::Declared;
use super::masters::Masters;
use super::reconcile::{Shared, reconcile};
use crate::api::BrokerGroup;
use crate::platform::kubernetes::api::watched;
use crate::platform::kubernetes::guard::Guard;
use crate::platform::kubernetes::reconcile::{Context, MANAGER};
use crate::platform::kubernetes::run::{Scope, until_known};
use crate::platform::kubernetes::watched::in_time;

/// Objects that are looked after at a time: each may wait for brokers.
const AT_A_TIME: u16 = 16;

/// Kube's controller queues each object once. A broker group that comes, or another cluster's name in one, has all objects looked at: a new
/// group gets what is declared within a moment.
pub(in crate::platform::kubernetes) async fn keep<T: Declared>(scope: Scope, context: Arc<Context>, instance: String) {
    until_known::<T>(&scope.api()).await;
    let client = context.client.clone();
    let groups = Arc::new(Groups::new(client.clone()));
    let controller = Controller::new(scope.api::<Guard<T>>(), watched())
        .with_config(Config::default().concurrency(AT_A_TIME))
        .reconcile_all_on(new_groups(scope.api(), Arc::clone(&groups)));
    let shared = Arc::new(Shared {
        groups,
        masters: Masters::<T>::new(),
        objects: controller.store(),
        recorder: Recorder::new(client, Reporter { controller: MANAGER.to_owned(), instance: Some(instance) }),
        amiss: Mutex::default(),
        context,
    });
    let reconciled = controller.run(
        |object, shared| async move { in_time(reconcile(&object, &shared)).await.map(Action::requeue) },
        |_, error, _| Action::requeue(error.retry_in()),
        Arc::clone(&shared),
    );
    let kind = T::kind(&());
    let told = reconciled.for_each(|done| {
        match done {
            Ok(_) => {}
            Err(ControllerError::ObjectNotFound(_)) => shared.forget(),
            Err(error) => warn!(%kind, %error, "an object is not as it shall be yet"),
        }
        std::future::ready(())
    });
    told.await;
}

/// A word for each broker group whose spec is new. Their status changes all the time, and doesn't matter here.
fn new_groups(api: Api<Guard<BrokerGroup>>, known: Arc<Groups>) -> impl Stream<Item = ()> + Send + 'static {
    let groups = watcher(api, watched()).default_backoff().applied_objects();
    groups.predicate_filter(predicates::generation, PredicateConfig::default()).filter_map(move |group| {
        let new = group.ok().map(|group| known.forget(group.namespace().as_deref().unwrap_or_default()));
        std::future::ready(new)
    })
}
