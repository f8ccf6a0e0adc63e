//! What the status of a declared thing says.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::api::{AtGroup, GroupState};
use crate::plan::conditions::{Fact, conditions as told};

/// How a declared thing is, all groups taken together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// An older object declares the same, and its name.
    Duplicate(String),
    /// At each group of the cluster.
    At(Vec<AtGroup>),
    /// The object is being deleted, and what of it is left at which group.
    Deleting(Vec<AtGroup>),
}

/// On how many groups it is as declared, of how many.
pub fn on_groups(groups: &[AtGroup]) -> String {
    let synced = groups.iter().filter(|at| at.state == GroupState::Synced).count();
    format!("{synced}/{}", groups.len())
}

/// The conditions now. Where one has not changed, it keeps its time.
pub fn conditions(
    standing: &Standing,
    cluster: &str,
    generation: i64,
    now: &Time,
    before: &[Condition],
) -> Vec<Condition> {
    let both = |reason: &'static str, message: &str| {
        [("Ready", false, reason, message.to_owned()), ("Synced", false, reason, message.to_owned())]
    };
    let facts: [Fact; 2] = match standing {
        Standing::Duplicate(other) => {
            both("Duplicate", &format!("{other} is older and declares the same; delete one of the two"))
        }
        Standing::Deleting(left) => both("Deleting", &format!("not deleted yet at {}", list(left.iter()))),
        Standing::At(groups) if groups.is_empty() => {
            both("NoGroup", &format!("no BrokerGroup of this namespace is of cluster {cluster}"))
        }
        Standing::At(groups) => [ready(groups), synced(groups)],
    };
    told(facts, generation, now, before)
}

/// What differs where it is there is no matter of readiness.
fn ready(groups: &[AtGroup]) -> Fact {
    let there = |at: &&AtGroup| matches!(at.state, GroupState::Synced | GroupState::Drifted);
    match worst(groups.iter().filter(|at| !there(at))) {
        None => ("Ready", true, "OnAllGroups", format!("it is on {} of {} groups", groups.len(), groups.len())),
        Some((reason, message)) => ("Ready", false, reason, message),
    }
}

fn synced(groups: &[AtGroup]) -> Fact {
    match worst(groups.iter().filter(|at| at.state != GroupState::Synced)) {
        None => ("Synced", true, "AsDeclared", format!("as declared on {} of {} groups", groups.len(), groups.len())),
        Some((reason, message)) => ("Synced", false, reason, message),
    }
}

/// The reason is the first of its kinds; the message names all groups.
fn worst<'a>(groups: impl Iterator<Item = &'a AtGroup> + Clone) -> Option<(&'static str, String)> {
    let reason = match groups.clone().map(|at| at.state).min()? {
        GroupState::Synced => "AsDeclared",
        GroupState::Drifted => "Drifted",
        GroupState::Refused => "Refused",
        GroupState::NoMaster => "NoMaster",
        GroupState::Unreachable => "Unreachable",
    };
    Some((reason, list(groups)))
}

fn list<'a>(groups: impl Iterator<Item = &'a AtGroup>) -> String {
    groups.map(|at| format!("{}: {}", at.name, at.message)).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn at(name: &str, state: GroupState) -> AtGroup {
        AtGroup { name: name.to_owned(), state, message: "words".to_owned() }
    }

    fn facts(standing: &Standing) -> [String; 2] {
        let all = conditions(standing, "shop", 7, &Time(Timestamp::UNIX_EPOCH), &[]);
        let line = |it: &Condition| format!("{}={} {}: {}", it.type_, it.status, it.reason, it.message);
        [line(&all[0]), line(&all[1])]
    }

    #[test]
    fn conditions_say_where_it_is_and_where_it_is_not() {
        use GroupState::{Drifted, NoMaster, Refused, Synced, Unreachable};
        let groups = vec![at("a", Synced), at("b", Synced)];
        assert_eq!(on_groups(&groups), "2/2");
        let whole =
            ["Ready=True OnAllGroups: it is on 2 of 2 groups", "Synced=True AsDeclared: as declared on 2 of 2 groups"];
        assert_eq!(facts(&Standing::At(groups)), whole);
        let drifted = vec![at("a", Synced), at("b", Drifted)];
        assert_eq!(on_groups(&drifted), "1/2");
        assert_eq!(
            facts(&Standing::At(drifted)),
            ["Ready=True OnAllGroups: it is on 2 of 2 groups", "Synced=False Drifted: b: words"]
        );
        for (state, reason) in [(NoMaster, "NoMaster"), (Unreachable, "Unreachable"), (Refused, "Refused")] {
            let facts = facts(&Standing::At(vec![at("a", Synced), at("b", state)]));
            assert_eq!(facts, [format!("Ready=False {reason}: b: words"), format!("Synced=False {reason}: b: words")]);
        }
        let both = facts(&Standing::At(vec![at("a", Unreachable), at("b", Refused)]));
        assert_eq!(both[0], "Ready=False Refused: a: words; b: words", "what a person has to see to comes first");
    }

    #[test]
    fn conditions_say_why_nothing_can_be_done() {
        for (standing, said) in [
            (Standing::Duplicate("t2".to_owned()), "Duplicate: t2 is older"),
            (Standing::At(Vec::new()), "NoGroup: no BrokerGroup of this namespace is of cluster shop"),
            (Standing::Deleting(vec![at("a", GroupState::NoMaster)]), "Deleting: not deleted yet at a: words"),
        ] {
            let [ready, synced] = facts(&standing);
            assert!(ready.starts_with("Ready=False ") && ready.contains(said), "{ready}");
            assert!(synced.starts_with("Synced=False ") && synced.contains(said), "{synced}");
        }
    }
}
