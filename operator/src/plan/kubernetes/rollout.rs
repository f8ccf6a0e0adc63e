//! Which step comes next. One at a time, from what is seen now alone: an operator that restarts between two steps goes on.
//!
//! Invariant: nothing that works is taken away while fewer than `minInSync` replicas would be left in sync, but in a group that has one
//! replica only. A master goes after a switchover, never before.

use std::collections::{BTreeMap, BTreeSet};

use super::volumes::{ClaimSeen, lost_volume, may_be_made};
use super::wishes::{Wishes, hibernation, requested_switchover};

/// A pod as it is seen.
#[expect(clippy::struct_excessive_bools, reason = "each is seen for itself, and any of them may go with any other")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodSeen {
    /// Kubernetes' own name for it: another pod of the same name has another.
    pub uid: String,
    /// What of the spec it was made from.
    pub hash: String,
    /// It says that it is ready.
    pub ready: bool,
    /// Somebody has told it to end.
    pub deleting: bool,
    /// It has ended for good: evicted, or its node was shut down.
    pub ended: bool,
    /// Its node is cordoned: it will be drained.
    pub cordoned: bool,
    /// Its replica is kept out by hand, and to stay as it is.
    pub fenced: bool,
    /// Where it runs.
    pub node: Option<String>,
}

/// A group as it is seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// All pods of the group, by replica.
    pub pods: BTreeMap<String, PodSeen>,
    /// The replica that serves as master, if one is known to.
    pub master: Option<String>,
    /// Replicas in the record's in-sync set whose own session says that they are that member, with the end of their logs.
    pub in_sync: BTreeMap<String, u64>,
    /// The volumes, by replica.
    pub claims: BTreeMap<String, ClaimSeen>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make the pods of these replicas.
    Create(Vec<String>),
    /// Delete this pod.
    Delete {
        /// The replica.
        replica: String,
        /// The pod's.
        uid: String,
        /// Why, in words.
        why: &'static str,
    },
    /// Make this replica master, as planned.
    Switchover {
        /// The replica.
        to: String,
        /// Why, in words.
        why: &'static str,
        /// The master will go whatever comes of it: a try that fails is repeated at once.
        urgent: bool,
    },
    /// Make this replica master because somebody asked for it, and take that as done whatever comes of it.
    Requested {
        /// The replica.
        to: String,
        /// Why it can't be, if that is known beforehand.
        refusal: Option<String>,
    },
    /// Delete this volume, which is lost.
    DeleteClaim {
        /// The replica.
        replica: String,
        /// The claim's.
        uid: String,
    },
    /// Something has to come first.
    Wait(String),
    /// Somebody asked for nothing to be done.
    Paused,
    /// There are no pods, as somebody asked.
    Hibernated,
    /// All is as it shall be.
    Settled,
}

/// What a group shall be.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Its replicas.
    pub replicas: &'a BTreeSet<String>,
    /// What of the spec their pods are to be made from.
    pub hash: &'a str,
    /// Replicas that have to be in sync.
    pub min_in_sync: usize,
    /// Who shall be master, if it matters.
    pub preferred: Option<&'a str>,
    /// What its annotations ask for.
    pub wishes: &'a Wishes,
    /// The record's master, whether it serves or not.
    pub record_master: Option<&'a str>,
    /// Replicas that the record counts as in sync, whether they live or not: what they have may be the last copy.
    pub counted: &'a BTreeSet<String>,
}

/// The next step from what is `seen` to what is `wanted`.
pub fn next_step(wanted: Wanted<'_>, seen: &Observed) -> Step {
    if wanted.wishes.paused {
        // Who deletes a master's pod while the group is paused has its clients in mind no less.
        return leaving_master(wanted, seen).unwrap_or(Step::Paused);
    }
    if wanted.wishes.hibernate {
        return hibernation(wanted, seen);
    }
    leaving_master(wanted, seen)
        .or_else(|| requested_switchover(wanted, seen))
        .or_else(|| fenced_master(wanted, seen))
        .or_else(|| ended_pod(seen))
        .or_else(|| missing_pods(wanted, seen))
        .or_else(|| lost_volume(wanted, seen))
        .or_else(|| held_back(wanted, seen))
        .or_else(|| superfluous_pod(wanted, seen))
        .or_else(|| stale_pod(wanted, seen))
        .or_else(|| preferred_master(wanted, seen))
        .unwrap_or(Step::Settled)
}

/// Those that may be master next: in sync, not about to go, and not kept out by hand.
fn candidates<'a>(wanted: Wanted<'a>, seen: &'a Observed) -> impl Iterator<Item = (&'a String, &'a PodSeen)> {
    let others =
        seen.in_sync.keys().filter(move |name| Some(*name) != seen.master.as_ref() && wanted.replicas.contains(*name));
    let with_pods = others.filter_map(|name| seen.pods.get_key_value(name));
    with_pods.filter(|(_, pod)| pod.ready && !pod.deleting && !pod.ended && !pod.fenced)
}

/// The one that should be master next, of those that stay: made from the newest spec if possible, preferred if possible, the one with the most then,
/// and the first of equals.
pub(super) fn best_candidate(wanted: Wanted<'_>, seen: &Observed) -> Option<String> {
    best_of(wanted, seen, candidates(wanted, seen).filter(|(_, pod)| !pod.cordoned))
}

fn best_of<'a>(
    wanted: Wanted<'_>,
    seen: &Observed,
    candidates: impl Iterator<Item = (&'a String, &'a PodSeen)>,
) -> Option<String> {
    let rank = |(name, pod): &(&String, &PodSeen)| {
        let fresh = pod.hash == wanted.hash;
        (fresh, wanted.preferred == Some(name.as_str()), seen.in_sync.get(*name).copied())
    };
    // The last of equals is the first by name.
    let backwards: Vec<_> = candidates.collect();
    backwards.into_iter().rev().max_by_key(rank).map(|(name, _)| name.clone())
}

/// Somebody deletes the master's pod, or is about to drain its node: its clients are to notice nothing.
fn leaving_master(wanted: Wanted<'_>, seen: &Observed) -> Option<Step> {
    let pod = seen.pods.get(seen.master.as_ref()?)?;
    let best = best_candidate(wanted, seen);
    let (to, why) = if pod.deleting {
        // One that has to leave soon is better than none.
        let to = best.or_else(|| best_of(wanted, seen, candidates(wanted, seen)))?;
        (to, "the master's pod is being deleted")
    } else if pod.cordoned {
        (best?, "the master's node is cordoned")
    } else {
        return None;
    };
    Some(Step::Switchover { to, why, urgent: pod.deleting })
}

/// It serves until somebody else does. While nobody can, the rest of the group is looked after all the same.
fn fenced_master(wanted: Wanted<'_>, seen: &Observed) -> Option<Step> {
    let master = seen.master.as_ref()?;
    seen.pods.get(master).filter(|pod| pod.fenced)?;
    let to = best_candidate(wanted, seen)?;
    Some(Step::Switchover { to, why: "the master is fenced", urgent: false })
}

fn ended_pod(seen: &Observed) -> Option<Step> {
    let (replica, pod) = seen.pods.iter().find(|(_, pod)| pod.ended && !pod.deleting && !pod.fenced)?;
    Some(delete(replica, pod, "it has ended for good"))
}

/// Those whose pods are not there.
fn missing<'a>(wanted: Wanted<'a>, seen: &Observed) -> impl Iterator<Item = &'a String> {
    wanted.replicas.iter().filter(|name| !seen.pods.contains_key(*name))
}

fn missing_pods(wanted: Wanted<'_>, seen: &Observed) -> Option<Step> {
    let missing: Vec<_> =
        missing(wanted, seen).filter(|name| may_be_made(name, wanted, seen).is_ok()).cloned().collect();
    (!missing.is_empty()).then_some(Step::Create(missing))
}

fn held_back(wanted: Wanted<'_>, seen: &Observed) -> Option<Step> {
    missing(wanted, seen).find_map(|name| may_be_made(name, wanted, seen).err()).map(Step::Wait)
}

fn superfluous_pod(wanted: Wanted<'_>, seen: &Observed) -> Option<Step> {
    let extra = |name: &String| !wanted.replicas.contains(name);
    let mut extras = seen.pods.iter().filter(|(name, pod)| extra(name) && !pod.deleting);
    let (replica, pod) = extras.next_back()?;
    if let Some((going, _)) = seen.pods.iter().find(|(name, pod)| extra(name) && pod.deleting) {
        return Some(Step::Wait(format!("{going} is going first")));
    }
    if let Some(master) = seen.master.as_ref().filter(|master| extra(master)) {
        return Some(match best_candidate(wanted, seen) {
            Some(to) => Step::Switchover { to, why: "the master is to be removed", urgent: false },
            None => Step::Wait(format!("{master} is to be removed, but no other replica could be master")),
        });
    }
    if pod.fenced {
        return Some(Step::Wait(format!("{replica} is to be removed, but it is fenced")));
    }
    let left = seen.in_sync.keys().filter(|name| wanted.replicas.contains(*name)).count();
    if left < wanted.min_in_sync {
        return Some(Step::Wait(format!("{replica} is to be removed when {} others are in sync", wanted.min_in_sync)));
    }
    Some(delete(replica, pod, "the group is to have fewer replicas"))
}

fn stale_pod(wanted: Wanted<'_>, seen: &Observed) -> Option<Step> {
    let is_master = |name: &String| seen.master.as_ref() == Some(name);
    let works = |name: &String, pod: &PodSeen| pod.ready && !pod.deleting && seen.in_sync.contains_key(name);
    let ours = || seen.pods.iter().filter(|(name, _)| wanted.replicas.contains(*name));
    let stale = || ours().filter(|(_, pod)| pod.hash != wanted.hash && !pod.deleting);
    stale().next()?;
    if let Some((replica, _)) = ours().find(|(_, pod)| pod.fenced) {
        return Some(Step::Wait(format!("the spec has changed; nothing is rolled while {replica} is fenced")));
    }
    // What doesn't work anyway goes first: it may be the old spec that it doesn't work with.
    if let Some((replica, pod)) = stale().find(|(name, pod)| !works(name, pod) && !is_master(name) && !pod.ready) {
        return Some(delete(replica, pod, "the spec has changed, and it is not ready"));
    }
    if let Some((replica, _)) = ours().find(|(name, pod)| !works(name, pod)) {
        return Some(Step::Wait(format!("{replica} is to be ready and in sync before the next one is rolled")));
    }
    if let Some((replica, pod)) = stale().rfind(|(name, _)| !is_master(name)) {
        return Some(if seen.in_sync.len() > wanted.min_in_sync {
            delete(replica, pod, "the spec has changed")
        } else {
            let needed = wanted.min_in_sync;
            Step::Wait(format!(
                "{replica} can't be rolled: without it fewer than minInSync ({needed}) would be in sync"
            ))
        });
    }
    let (master, pod) = stale().next()?;
    Some(match best_candidate(wanted, seen) {
        Some(to) => Step::Switchover { to, why: "the spec has changed, and the master comes last", urgent: false },
        None if wanted.replicas.len() == 1 => {
            delete(master, pod, "the spec has changed, and there is no other replica")
        }
        None => Step::Wait(format!("{master} is to be rolled, but no other replica could be master")),
    })
}

fn preferred_master(wanted: Wanted<'_>, seen: &Observed) -> Option<Step> {
    let preferred = wanted.preferred?;
    let master = seen.master.as_deref()?;
    let fit = candidates(wanted, seen).any(|(name, pod)| name == preferred && !pod.cordoned);
    (master != preferred && fit).then(|| Step::Switchover {
        to: preferred.to_owned(),
        why: "spec.preferredMaster asks for it",
        urgent: false,
    })
}

pub(super) fn delete(replica: &str, pod: &PodSeen, why: &'static str) -> Step {
    Step::Delete { replica: replica.to_owned(), uid: pod.uid.clone(), why }
}

#[cfg(test)]
#[path = "rollout_tests.rs"]
mod tests;
