//! Where replicas run: the zones and addresses of their nodes. Looked up by name, and remembered for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client};
use parking_lot::Mutex;
use tracing::warn;

use super::api::call;

/// What is remembered of a node is at most so old.
const LOOK_AGAIN: Duration = Duration::from_mins(1);
/// A node that could not be looked at is tried again after this.
const TRY_AGAIN: Duration = Duration::from_secs(10);
/// A node that nobody has asked for is forgotten after this.
const FORGET: Duration = Duration::from_mins(10);

/// The well-known label.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// A node as it was last seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NodeSeen {
    pub(super) zone: Option<String>,
    /// For the outside if there is one, else inside.
    pub(super) address: Option<String>,
}

/// All nodes that replicas run on.
#[derive(Default)]
pub(super) struct Places {
    known: Mutex<BTreeMap<String, Known>>,
}

#[derive(Clone, Default)]
struct Known {
    seen: NodeSeen,
    asked: Option<Instant>,
    look_again: Option<Instant>,
}

impl Places {
    /// These nodes, as far as anything is known of them. A node that can't be looked at is as it was: unknown is not gone.
    pub(super) async fn look(&self, client: &Client, names: &BTreeSet<String>) -> BTreeMap<String, NodeSeen> {
        let mut found = BTreeMap::new();
        for name in names {
            let now = Instant::now();
            let mut known = self.known.lock().get(name).cloned().unwrap_or_default();
            known.asked = Some(now);
            if known.look_again.is_none_or(|at| now >= at) {
                match call(Api::<Node>::all(client.clone()).get(name)).await {
                    Ok(node) => (known.seen, known.look_again) = (seen(&node), Some(now + LOOK_AGAIN)),
                    Err(error) => {
                        if known.look_again.is_none() {
                            warn!(node = name, %error, "its zone and address are not known");
                        }
                        known.look_again = Some(now + TRY_AGAIN);
                    }
                }
            }
            found.insert(name.clone(), known.seen.clone());
            self.known.lock().insert(name.clone(), known);
        }
        self.known.lock().retain(|_, known| known.asked.is_some_and(|at| at.elapsed() < FORGET));
        found
    }
}

fn seen(node: &Node) -> NodeSeen {
    let addresses = node.status.as_ref().and_then(|status| status.addresses.as_deref()).unwrap_or_default();
    let of = |kind: &str| addresses.iter().find(|it| it.type_ == kind).map(|it| it.address.clone());
    NodeSeen {
        zone: node.metadata.labels.as_ref().and_then(|labels| labels.get(ZONE_LABEL)).cloned(),
        address: of("ExternalIP").or_else(|| of("InternalIP")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::mock::Mock;
    use super::*;

    #[tokio::test]
    async fn a_node_is_looked_at_once_in_a_while_and_one_that_is_not_there_is_unknown() {
        let mock = Mock::start();
        let addresses = json!([
            {"type": "InternalIP", "address": "10.0.0.1"}, {"type": "ExternalIP", "address": "198.51.100.1"},
            {"type": "Hostname", "address": "n1"},
        ]);
        let node = json!({"metadata": {"name": "n1", "labels": {ZONE_LABEL: "z"}}, "status": {"addresses": addresses}});
        mock.put("/api/v1/nodes/n1", node);
        let (nodes, names) = (Places::default(), ["n1".to_owned(), "n2".to_owned()].into());
        let seen = nodes.look(&mock.client(), &names).await;
        let n1 = NodeSeen { zone: Some("z".to_owned()), address: Some("198.51.100.1".to_owned()) };
        assert_eq!((&seen["n1"], &seen["n2"]), (&n1, &NodeSeen::default()));
        mock.refuse_all_with(403);
        assert_eq!(nodes.look(&mock.client(), &names).await["n1"], n1, "it is remembered");
    }
}
