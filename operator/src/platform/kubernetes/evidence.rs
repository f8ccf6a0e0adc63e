//! What kubelets say of containers that have ended. That is knowledge; a node that says nothing says nothing.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use crate::plan::kubernetes::{GROUP_LABEL, REPLICA_LABEL};

/// The containers that are known to have ended, the last of each pod.
#[derive(Debug, Default)]
pub(super) struct Deaths {
    /// By the pod's uid.
    ended: HashMap<String, String>,
}

/// A replica whose process has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Death {
    /// `<namespace>/<group>`
    pub(super) id: String,
    pub(super) replica: String,
}

impl Deaths {
    /// A pod as it is now: the death that it tells of, if that is news.
    ///
    /// The first look at a pod whose container runs again tells nothing: whoever follows pods only since now has not missed a process that
    /// he ever spoke to.
    pub(super) fn look(&mut self, pod: &Pod) -> Option<Death> {
        let uid = pod.metadata.uid.clone()?;
        let status = container(pod)?;
        let runs = status.state.as_ref().is_some_and(|state| state.running.is_some());
        let Some(ended) = ended_container(status) else {
            self.ended.entry(uid).or_default();
            return None;
        };
        let before = self.ended.insert(uid, ended.clone());
        let is_news = before.as_ref().map_or(!runs, |before| *before != ended);
        is_news.then(|| death(pod)).flatten()
    }

    /// The pod is gone: the last that was seen of it.
    pub(super) fn gone(&mut self, pod: &Pod) -> Option<Death> {
        let death = self.look(pod);
        if let Some(uid) = &pod.metadata.uid {
            self.ended.remove(uid);
        }
        death
    }
}

fn container(pod: &Pod) -> Option<&ContainerStatus> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses.iter().find(|status| status.name == "broker")
}

/// The id of the newest container that has ended.
fn ended_container(status: &ContainerStatus) -> Option<String> {
    let of = |state: &Option<_>| {
        let state: &k8s_openapi::api::core::v1::ContainerState = state.as_ref()?;
        state.terminated.as_ref()?.container_id.clone()
    };
    of(&status.state).or_else(|| of(&status.last_state))
}

fn death(pod: &Pod) -> Option<Death> {
    let labels = pod.metadata.labels.as_ref()?;
    let (group, replica) = (labels.get(GROUP_LABEL)?, labels.get(REPLICA_LABEL)?);
    Some(Death { id: format!("{}/{group}", pod.metadata.namespace.as_ref()?), replica: replica.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(state: &Value, last: &Value) -> Pod {
        let status = json!({
            "name": "broker", "image": "i", "imageID": "i", "ready": false, "restartCount": 0,
            "state": state, "lastState": last,
        });
        serde_json::from_value(json!({
            "metadata": {
                "name": "a-0", "namespace": "shop", "uid": "p1",
                "labels": {GROUP_LABEL: "a", REPLICA_LABEL: "a-0"},
            },
            "status": {"containerStatuses": [status]},
        }))
        .unwrap()
    }

    fn ended(id: &str) -> Value {
        json!({"terminated": {"containerID": id, "exitCode": 137}})
    }

    fn running() -> Value {
        json!({"running": {}})
    }

    #[test]
    fn a_container_that_ended_is_told_once_and_so_is_the_next() {
        let mut deaths = Deaths::default();
        let told = Some(Death { id: "shop/a".to_owned(), replica: "a-0".to_owned() });
        assert_eq!(deaths.look(&pod(&running(), &json!({}))), None);
        assert_eq!(deaths.look(&pod(&ended("c1"), &json!({}))), told);
        assert_eq!(deaths.look(&pod(&json!({"waiting": {}}), &ended("c1"))), None);
        assert_eq!(deaths.look(&pod(&running(), &ended("c1"))), None);
        // Between two looks it ended and was started again.
        assert_eq!(deaths.look(&pod(&running(), &ended("c2"))), told);
        assert_eq!(deaths.gone(&pod(&ended("c3"), &ended("c2"))), told);
    }

    #[test]
    fn an_operator_that_starts_takes_no_old_death_for_a_new_one() {
        assert_eq!(Deaths::default().look(&pod(&running(), &ended("c1"))), None);
        assert!(Deaths::default().look(&pod(&json!({"waiting": {}}), &ended("c1"))).is_some(), "it doesn't run now");
    }

    #[test]
    fn a_pod_that_is_gone_without_a_word_of_the_kubelet_is_not_known_dead() {
        let mut deaths = Deaths::default();
        deaths.look(&pod(&running(), &json!({})));
        assert_eq!(deaths.gone(&pod(&running(), &json!({}))), None);
    }
}
