//! What a group's annotations ask for: orders of the day, which are no part of what the group is.

use std::collections::BTreeMap;

use super::{Observed, Step, Wanted};

/// `true`: nothing is planned. Failover goes on.
pub const PAUSED_ANNOTATION: &str = "gantry.rs/paused";
/// `true`: no pods. Volumes and the record stay.
pub const HIBERNATE_ANNOTATION: &str = "gantry.rs/hibernate";
/// A replica that shall become master now, once. The operator removes it when that is done or refused.
pub const SWITCHOVER_ANNOTATION: &str = "gantry.rs/switchover-to";

/// What the annotations say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Nothing is to be planned.
    pub paused: bool,
    /// No pod is to be there.
    pub hibernate: bool,
    /// Who is to be master, once.
    pub switchover_to: Option<String>,
}

impl Wishes {
    /// Reads them.
    pub fn of(annotations: Option<&BTreeMap<String, String>>) -> Self {
        let value = |key: &str| annotations.and_then(|all| all.get(key)).map(|value| value.trim());
        Self {
            paused: value(PAUSED_ANNOTATION) == Some("true"),
            hibernate: value(HIBERNATE_ANNOTATION) == Some("true"),
            switchover_to: value(SWITCHOVER_ANNOTATION).map(str::to_owned),
        }
    }
}

/// Slaves go first, and then the master, which therefore has nobody to hand over to and ends at once. Nobody decides about the group
/// meanwhile, so the record stays as it is: all who were in sync are in sync when the group wakes up.
pub(super) fn hibernation(wanted: Wanted<'_>, seen: &Observed) -> Step {
    let is_master = |name: &&String| wanted.record_master == Some(name.as_str());
    let delete = |name: &String| Step::Delete {
        replica: name.clone(),
        uid: seen.pods[name].uid.clone(),
        why: "the group is to hibernate",
    };
    let slaves = || seen.pods.iter().filter(|(name, _)| !is_master(name));
    if let Some((name, _)) = slaves().find(|(_, pod)| !pod.deleting) {
        return delete(name);
    }
    let going: Vec<&str> = slaves().map(|(name, _)| name.as_str()).collect();
    if !going.is_empty() {
        return Step::Wait(format!("{} end first, and then the master", going.join(", ")));
    }
    match seen.pods.iter().next() {
        Some((name, pod)) if !pod.deleting => delete(name),
        Some((name, _)) => Step::Wait(format!("{name} is ending")),
        None => Step::Hibernated,
    }
}

/// The switchover that an annotation asks for.
pub(super) fn requested_switchover(wanted: Wanted<'_>, seen: &Observed) -> Option<Step> {
    let to = wanted.wishes.switchover_to.clone()?;
    let refusal = why_not(&to, wanted, seen);
    Some(Step::Requested { to, refusal })
}

/// What the elector doesn't know. Whether the replica is in sync it does know.
fn why_not(to: &str, wanted: Wanted<'_>, seen: &Observed) -> Option<String> {
    if !wanted.replicas.contains(to) {
        let names: Vec<&str> = wanted.replicas.iter().map(String::as_str).collect();
        return Some(format!("{to:?} is no replica of this group ({})", names.join(", ")));
    }
    if let Some(preferred) = wanted.preferred.filter(|preferred| *preferred != to) {
        return Some(format!("spec.preferredMaster is {preferred}: the group would switch back; change that instead"));
    }
    match seen.pods.get(to) {
        Some(pod) if pod.deleting || pod.ended => Some(format!("{to}'s pod is ending")),
        Some(pod) if pod.cordoned => Some(format!("{to}'s node is cordoned: the group would switch back")),
        Some(_) => None,
        None => Some(format!("{to} has no pod")),
    }
}

#[cfg(test)]
#[path = "wishes_tests.rs"]
mod tests;
