//! What a group's status says of how it is.

mod extras;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::{Fencing, Step, VolumesStanding};
use crate::plan::conditions::{Fact, conditions as told};
pub use extras::Configured;

/// What conditions are made from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Why the spec can't be carried out, if it can't.
    pub invalid: Option<String>,
    /// What Kubernetes refused, if it did.
    pub refused: Option<String>,
    /// `spec.nameServer`, where there is none of that name: then no client finds the group.
    pub name_server_missing: Option<String>,
    /// The replica that serves as master.
    pub master: Option<String>,
    /// In the record's set.
    pub in_sync: usize,
    /// `spec.replicas`
    pub replicas: usize,
    /// `minInSync`
    pub min_in_sync: usize,
    /// The master itself says that it goes on with fewer copies than asked for.
    pub degraded: bool,
    /// Pods that have not ended.
    pub current: u32,
    /// Pods that are ready.
    pub ready_pods: usize,
    /// Replicas kept out by hand.
    pub fencing: Fencing,
    /// The replicas' settings.
    pub configured: Configured,
    /// The address for clients outside, or why there is none; none where nobody asks for one.
    pub external: Option<Result<String, String>>,
    /// Why nobody is master or the record can't be written, in the elector's words.
    pub trouble: Option<String>,
    /// Nothing is planned, as somebody asked.
    pub paused: bool,
    /// No pod is to be there, as somebody asked.
    pub hibernates: bool,
    /// How its volumes are.
    pub volumes: VolumesStanding,
}

/// The conditions now. Where one has not changed, it keeps its time.
pub fn conditions(
    standing: &Standing,
    step: &Step,
    generation: i64,
    now: &Time,
    before: &[Condition],
) -> Vec<Condition> {
    let mut facts =
        vec![available(standing), in_sync(standing), degraded(standing), ready(standing), progressing(standing, step)];
    let (whole, reason, message) = standing.volumes.fact();
    facts.push(("VolumesReady", whole, reason, message));
    facts.extend(extras::extras(standing));
    // Rare orders of the day: there only while they are given.
    if standing.paused {
        let message = "nothing is planned while gantry.rs/paused is \"true\"; failover goes on".to_owned();
        facts.push(("Paused", true, "Annotation", message));
    }
    if standing.hibernates {
        let there = standing.current == 0;
        let message = if there { ASLEEP.to_owned() } else { format!("{} pods are still ending", standing.current) };
        facts.push(("Hibernated", there, if there { "NoPods" } else { "PodsEnding" }, message));
    }
    told(facts, generation, now, before)
}

const ASLEEP: &str = "no pods, as gantry.rs/hibernate asks; volumes and record wait for its removal";

fn available(standing: &Standing) -> Fact {
    if standing.hibernates {
        return ("Available", false, "Hibernated", ASLEEP.to_owned());
    }
    match (&standing.master, &standing.trouble) {
        (Some(master), _) => ("Available", true, "MasterServes", format!("{master} serves as master")),
        (None, Some(trouble)) => ("Available", false, "NoMaster", trouble.clone()),
        (None, None) => ("Available", false, "NoMaster", "no replica is known to serve as master".to_owned()),
    }
}

fn in_sync(standing: &Standing) -> Fact {
    let whole = standing.in_sync == standing.replicas;
    let message = format!("{} of {} replicas have every acknowledged message", standing.in_sync, standing.replicas);
    ("InSync", whole, if whole { "AllReplicas" } else { "SomeReplicas" }, message)
}

fn degraded(standing: &Standing) -> Fact {
    // Nobody sends to a group that sleeps.
    let short = standing.in_sync < standing.min_in_sync && !standing.hibernates;
    let message = format!("{} in sync, minInSync is {}", standing.in_sync, standing.min_in_sync);
    let reason = match (standing.degraded, short) {
        (true, _) => "FewerCopies",
        (false, true) => "BelowMinInSync",
        (false, false) => "EnoughInSync",
    };
    ("Degraded", standing.degraded || short, reason, message)
}

fn ready(standing: &Standing) -> Fact {
    let fact = |reason, message: String| ("Ready", false, reason, message);
    if let Some(why) = &standing.invalid {
        return fact("InvalidSpec", why.clone());
    }
    if let Some(why) = &standing.refused {
        return fact("Refused", why.clone());
    }
    if standing.hibernates {
        return fact("Hibernated", ASLEEP.to_owned());
    }
    if let Some(name) = &standing.name_server_missing {
        return fact("NoNameServer", format!("spec.nameServer: there is no NameServer {name} in this namespace"));
    }
    if standing.master.is_none() {
        return fact("NoMaster", standing.trouble.clone().unwrap_or_else(|| "nobody serves as master".to_owned()));
    }
    if standing.in_sync < standing.min_in_sync || standing.degraded {
        return fact("Degraded", format!("{} in sync, minInSync is {}", standing.in_sync, standing.min_in_sync));
    }
    if standing.ready_pods < standing.replicas {
        return fact("PodsNotReady", format!("{} of {} pods are ready", standing.ready_pods, standing.replicas));
    }
    (
        "Ready",
        true,
        "AllReady",
        format!("{} of {} replicas are ready and a master serves", standing.ready_pods, standing.replicas),
    )
}

fn progressing(standing: &Standing, step: &Step) -> Fact {
    if standing.invalid.is_some() {
        return ("Progressing", false, "InvalidSpec", "nothing is done until the spec is valid".to_owned());
    }
    let fact = |reason, message: String| ("Progressing", true, reason, message);
    match step {
        Step::Create(replicas) => fact("Creating", format!("making the pods of {}", replicas.join(", "))),
        Step::Delete { replica, why, .. } => fact("Rolling", format!("{replica} is deleted: {why}")),
        Step::Switchover { to, why, .. } => fact("SwitchingOver", format!("to {to}: {why}")),
        Step::Requested { to, .. } => fact("SwitchingOver", format!("to {to}: an annotation asks for it")),
        Step::DeleteClaim { replica, .. } => fact("ReplacingVolume", format!("{replica}'s volume is lost")),
        Step::Paused => ("Progressing", false, "Paused", "nothing is planned".to_owned()),
        Step::Hibernated => ("Progressing", false, "Hibernated", ASLEEP.to_owned()),
        Step::Wait(why) => fact("Waiting", why.clone()),
        Step::Settled => ("Progressing", false, "Settled", "all is as the spec says".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn standing() -> Standing {
        Standing {
            master: Some("a-0".to_owned()),
            in_sync: 3,
            replicas: 3,
            min_in_sync: 2,
            ready_pods: 3,
            ..Standing::default()
        }
    }

    fn facts(standing: &Standing, step: &Step) -> Vec<String> {
        let now = Time(Timestamp::UNIX_EPOCH);
        let all = conditions(standing, step, 7, &now, &[]);
        assert!(all.iter().all(|condition| condition.observed_generation == Some(7) && !condition.message.is_empty()));
        all.into_iter().map(|it| format!("{}={} {}", it.type_, it.status, it.reason)).collect()
    }

    #[test]
    fn conditions_say_how_a_group_is() {
        let whole = [
            "Available=True MasterServes",
            "InSync=True AllReplicas",
            "Degraded=False EnoughInSync",
            "Ready=True AllReady",
            "Progressing=False Settled",
            "VolumesReady=True AsSpecified",
            "Configured=True AllReplicas",
        ];
        assert_eq!(facts(&standing(), &Step::Settled), whole);
        let one_left = facts(&Standing { in_sync: 1, ready_pods: 1, ..standing() }, &Step::Wait("x".to_owned()));
        let expected = [
            "Available=True MasterServes",
            "InSync=False SomeReplicas",
            "Degraded=True BelowMinInSync",
            "Ready=False Degraded",
            "Progressing=True Waiting",
            "VolumesReady=True AsSpecified",
            "Configured=True AllReplicas",
        ];
        assert_eq!(one_left, expected);
        let none = facts(&Standing { master: None, ..standing() }, &Step::Settled);
        assert_eq!((none[0].as_str(), none[3].as_str()), ("Available=False NoMaster", "Ready=False NoMaster"));
        let nameless = facts(&Standing { name_server_missing: Some("main".to_owned()), ..standing() }, &Step::Settled);
        assert_eq!(
            (nameless[0].as_str(), nameless[3].as_str()),
            ("Available=True MasterServes", "Ready=False NoNameServer")
        );
        let invalid = facts(&Standing { invalid: Some("bad".to_owned()), ..standing() }, &Step::Settled);
        assert_eq!(
            (invalid[3].as_str(), invalid[4].as_str()),
            ("Ready=False InvalidSpec", "Progressing=False InvalidSpec")
        );
    }

    #[test]
    fn a_paused_group_says_so_and_how_it_is_all_the_same() {
        let paused = facts(&Standing { paused: true, ..standing() }, &Step::Paused);
        assert_eq!(paused[3..5], ["Ready=True AllReady", "Progressing=False Paused"]);
        assert_eq!(paused.last().unwrap(), "Paused=True Annotation");
        assert!(!facts(&standing(), &Step::Settled).iter().any(|fact| fact.starts_with("Paused")));
    }

    #[test]
    fn a_group_that_sleeps_is_not_ready_and_not_degraded() {
        let falls_asleep = Standing { hibernates: true, current: 1, master: None, in_sync: 0, ..standing() };
        assert_eq!(facts(&falls_asleep, &Step::Wait("x".to_owned())).last().unwrap(), "Hibernated=False PodsEnding");
        let asleep = facts(&Standing { current: 0, ..falls_asleep }, &Step::Hibernated);
        let expected = [
            "Available=False Hibernated",
            "InSync=False SomeReplicas",
            "Degraded=False EnoughInSync",
            "Ready=False Hibernated",
            "Progressing=False Hibernated",
            "VolumesReady=True AsSpecified",
            "Configured=True AllReplicas",
            "Hibernated=True NoPods",
        ];
        assert_eq!(asleep, expected);
    }

    #[test]
    fn a_condition_that_has_not_changed_keeps_its_time() {
        let (first, later) = (Time(Timestamp::UNIX_EPOCH), Time(Timestamp::from_second(60).unwrap()));
        let before = conditions(&standing(), &Step::Settled, 1, &first, &[]);
        let now = conditions(&Standing { in_sync: 2, ..standing() }, &Step::Settled, 2, &later, &before);
        let times: Vec<_> = now.iter().map(|it| (it.type_.as_str(), it.last_transition_time.clone())).collect();
        assert_eq!(times[0], ("Available", first.clone()));
        assert_eq!(times[1], ("InSync", later));
    }
}
