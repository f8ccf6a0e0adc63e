//! The broker groups of a namespace, and where their masters are.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::{Api, Client, Resource as _, ResourceExt as _};
use parking_lot::Mutex;

use crate::api::BrokerGroup;
use crate::elector::ElectorServer;
use crate::platform::kubernetes::api::{CallError, call};

/// So long a list is good for everything but deletions.
const GOOD_FOR: Duration = Duration::from_secs(5);

/// A broker group that is to have what is declared for its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: String,
    /// Unknown where the object can't be read.
    pub(super) cluster: Option<String>,
}

/// Lists, by namespace.
pub(super) struct Groups {
    client: Client,
    listed: Mutex<BTreeMap<String, (Instant, Vec<Member>)>>,
}

impl Groups {
    pub(super) fn new(client: Client) -> Self {
        Self { client, listed: Mutex::default() }
    }

    /// All that aren't being deleted; at most some seconds old.
    pub(super) async fn all(&self, namespace: &str) -> Result<Vec<Member>, CallError> {
        let known = self.listed.lock().get(namespace).filter(|(at, _)| at.elapsed() < GOOD_FOR).cloned();
        match known {
            Some((_, all)) => Ok(all),
            None => self.all_now(namespace).await,
        }
    }

    /// There may be others now.
    pub(super) fn forget(&self, namespace: &str) {
        self.listed.lock().remove(namespace);
    }

    /// The same, as they are now.
    pub(super) async fn all_now(&self, namespace: &str) -> Result<Vec<Member>, CallError> {
        let api: Api<DeserializeGuard<BrokerGroup>> = Api::namespaced(self.client.clone(), namespace);
        let list = call(api.list(&ListParams::default())).await?;
        let stays = list.items.into_iter().filter(|group| group.meta().deletion_timestamp.is_none());
        let members: Vec<_> = stays
            .map(|group| Member { name: group.name_any(), cluster: group.0.ok().map(|group| group.spec.cluster_name) })
            .collect();
        self.listed.lock().insert(namespace.to_owned(), (Instant::now(), members.clone()));
        Ok(members)
    }
}

/// Where the master of a group is that serves.
pub(super) fn master_of(elector: &ElectorServer, namespace: &str, group: &str) -> Option<String> {
    let view = elector.view(&format!("{namespace}/{group}"))?;
    let master = view.record.filter(|_| view.serving)?.master.name;
    view.replicas.get(&master).map(|seen| seen.hello.client_address.clone())
}
