//! Nodes that are cordoned: somebody is about to drain them, and masters leave before their pods are evicted.
//!
//! Nodes belong to no namespace. An operator that was installed for some namespaces only, without the right to see nodes, goes by the deletion of pods alone.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::{Stream, StreamExt as _, stream};
use k8s_openapi::api::core::v1::Node;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt as _};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

use super::api::watched;

/// Before an operator that may not see nodes tries again: somebody may have given it the right.
const FORBIDDEN_AGAIN: Duration = Duration::from_mins(5);

/// The cordoned nodes, as far as is known.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    cordoned: Mutex<BTreeSet<String>>,
    /// While all nodes are listed: those that were listed so far.
    listed: Mutex<BTreeSet<String>>,
    changed: watch::Sender<()>,
}

impl Nodes {
    /// Whether somebody has cordoned this node.
    pub(super) fn is_cordoned(&self, node: &str) -> bool {
        self.cordoned.lock().contains(node)
    }

    /// Something each time that a node is cordoned, or isn't any more.
    pub(super) fn changes(&self) -> impl Stream<Item = ()> + Send + Sync + use<> {
        stream::unfold(self.changed.subscribe(), |mut changed| async move {
            changed.changed().await.ok()?;
            Some(((), changed))
        })
    }

    /// Follows the nodes, for as long as it isn't dropped.
    pub(super) async fn follow(&self, client: Client) {
        // The API server leaves the others out.
        let cordoned = watched().fields("spec.unschedulable=true");
        let mut events = std::pin::pin!(watcher(Api::<Node>::all(client), cordoned).default_backoff());
        let mut forbidden = false;
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    forbidden = false;
                    self.take(event);
                }
                Err(error) if is_forbidden(&error) => {
                    if !std::mem::replace(&mut forbidden, true) {
                        info!(
                            "nodes can't be seen: masters leave a node when their pods are deleted, and not already when it is cordoned"
                        );
                    }
                    sleep(FORBIDDEN_AGAIN).await;
                }
                Err(error) => warn!(%error, "nodes can't be followed"),
            }
        }
    }

    fn take(&self, event: Event<Node>) {
        let changed = match event {
            Event::Apply(node) if is_cordoned(&node) => self.cordoned.lock().insert(node.name_any()),
            Event::Apply(node) | Event::Delete(node) => self.cordoned.lock().remove(&node.name_any()),
            Event::Init => {
                self.listed.lock().clear();
                false
            }
            Event::InitApply(node) => {
                if is_cordoned(&node) {
                    self.listed.lock().insert(node.name_any());
                }
                false
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut *self.listed.lock());
                let mut cordoned = self.cordoned.lock();
                let changed = *cordoned != listed;
                *cordoned = listed;
                changed
            }
        };
        if changed {
            self.changed.send_replace(());
        }
    }
}

fn is_cordoned(node: &Node) -> bool {
    node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false)
}

fn is_forbidden(error: &watcher::Error) -> bool {
    matches!(
        error,
        watcher::Error::InitialListFailed(kube::Error::Api(status)) | watcher::Error::WatchStartFailed(kube::Error::Api(status))
            if status.code == 403
    )
}

#[cfg(test)]
mod tests {
    use super::super::mock::Mock;
    use super::*;
    use futures::FutureExt as _;
    use serde_json::json;
    use std::sync::Arc;

    const NODE: &str = "/api/v1/nodes/a";

    /// Follows the nodes of a mock; what changes, and the nodes.
    fn follow(mock: &Mock) -> (watch::Receiver<()>, Arc<Nodes>) {
        let nodes = Arc::new(Nodes::default());
        let (changed, following) = (nodes.changed.subscribe(), Arc::clone(&nodes));
        let client = mock.client();
        tokio::spawn(async move { following.follow(client).await });
        (changed, nodes)
    }

    fn put(mock: &Mock, cordoned: bool) {
        let spec = json!({"unschedulable": cordoned});
        mock.put(NODE, json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}, "spec": spec}));
    }

    #[tokio::test(start_paused = true)]
    async fn nodes_are_followed_through_cordon_and_uncordon() {
        let mock = Mock::start();
        put(&mock, true);
        let (mut changed, nodes) = follow(&mock);
        changed.changed().await.unwrap();
        assert!(nodes.is_cordoned("a"));
        put(&mock, false);
        changed.changed().await.unwrap();
        assert!(!nodes.is_cordoned("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn an_operator_that_may_not_see_nodes_does_without_until_it_may() {
        let mock = Mock::start();
        put(&mock, true);
        mock.refuse_all_with(403);
        let (mut changed, nodes) = follow(&mock);
        tokio::time::timeout(FORBIDDEN_AGAIN * 3, changed.changed()).await.unwrap_err();
        assert!(!nodes.is_cordoned("a"));
        mock.refuse_nothing();
        tokio::time::timeout(FORBIDDEN_AGAIN * 2, changed.changed()).await.unwrap().unwrap();
        assert!(nodes.is_cordoned("a"));
    }

    fn node(name: &str, cordoned: bool) -> Node {
        let spec = if cordoned { json!({"unschedulable": true}) } else { json!({}) };
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap()
    }

    #[test]
    fn a_node_is_cordoned_until_it_is_not_seen_to_be_any_more() {
        let nodes = Nodes::default();
        let mut changes = std::pin::pin!(nodes.changes());
        let mut told = || changes.next().now_or_never().is_some();
        nodes.take(Event::Apply(node("a", true)));
        assert!(nodes.is_cordoned("a") && !nodes.is_cordoned("b"));
        assert!(told());
        nodes.take(Event::Apply(node("a", true)));
        assert!(!told(), "nothing new");
        // A watch that broke off begins with a list: what happened meanwhile is in it.
        nodes.take(Event::Init);
        nodes.take(Event::InitApply(node("b", true)));
        assert!(nodes.is_cordoned("a"), "not known yet");
        nodes.take(Event::InitDone);
        assert!(!nodes.is_cordoned("a") && nodes.is_cordoned("b"));
        assert!(told());
        nodes.take(Event::Delete(node("b", false)));
        assert!(!nodes.is_cordoned("b") && told());
    }
}
