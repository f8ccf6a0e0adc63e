//! Conditions of what not every group has: fenced replicas, settings that are taken while brokers run, an address outside.

use super::{Fact, Standing};

/// How the replicas' settings are, of those that change without a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configured {
    /// Replicas that go by others yet.
    pub pending: Vec<String>,
    /// Replicas that refuse them, with why.
    pub refused: Vec<String>,
}

pub(super) fn extras(standing: &Standing) -> impl Iterator<Item = Fact> {
    [Some(configured(standing)), fenced(standing), reachable_outside(standing)].into_iter().flatten()
}

fn configured(standing: &Standing) -> Fact {
    let Configured { pending, refused } = &standing.configured;
    match (refused.as_slice(), pending.as_slice()) {
        ([], []) => {
            let message = "every connected replica goes by the settings of spec.config";
            ("Configured", true, "AllReplicas", message.to_owned())
        }
        ([], pending) => ("Configured", false, "Pending", format!("not yet: {}", pending.join(", "))),
        (refused, _) => ("Configured", false, "Refused", refused.join("; ")),
    }
}

fn fenced(standing: &Standing) -> Option<Fact> {
    let join = |names: &std::collections::BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(", ");
    let (fenced, unknown) = (&standing.fencing.fenced, &standing.fencing.unknown);
    let mut message = format!("kept out of elections and of replication: {}", join(fenced));
    if !unknown.is_empty() {
        message = format!("the annotation gantry.rs/fenced names no replica of this group: {}", join(unknown));
        return Some(("Fenced", !fenced.is_empty(), "UnknownReplica", message));
    }
    if let Some(master) = standing.master.as_ref().filter(|master| fenced.contains(*master)) {
        message = format!("{message}; {master} is master until another one can be");
    }
    (!fenced.is_empty()).then_some(("Fenced", true, "ByAnnotation", message))
}

fn reachable_outside(standing: &Standing) -> Option<Fact> {
    Some(match standing.external.as_ref()? {
        Ok(address) => ("ReachableOutside", true, "HasAddress", format!("clients outside are told {address}")),
        Err(why) => ("ReachableOutside", false, "NoAddress", why.clone()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::kubernetes::Fencing;

    fn told(standing: &Standing) -> Vec<String> {
        extras(standing)
            .map(|(type_, status, reason, message)| format!("{type_}={status} {reason}: {message}"))
            .collect()
    }

    #[test]
    fn what_a_group_does_not_have_has_no_condition() {
        let plain = told(&Standing::default());
        assert_eq!(plain, ["Configured=true AllReplicas: every connected replica goes by the settings of spec.config"]);
    }

    #[test]
    fn each_says_what_is_and_of_whom() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let mut standing = Standing {
            master: Some("a-0".to_owned()),
            fencing: Fencing { fenced: names(&["a-0", "a-1"]), ..Fencing::default() },
            configured: Configured { pending: vec!["a-2".to_owned()], ..Configured::default() },
            external: Some(Err("no address yet".to_owned())),
            ..Standing::default()
        };
        let expected = [
            "Configured=false Pending: not yet: a-2",
            "Fenced=true ByAnnotation: kept out of elections and of replication: a-0, a-1; a-0 is master until another one can be",
            "ReachableOutside=false NoAddress: no address yet",
        ];
        assert_eq!(told(&standing), expected);
        standing.fencing = Fencing { unknown: ["b".to_owned()].into(), ..Fencing::default() };
        standing.configured.refused = vec!["a-2: no".to_owned()];
        standing.external = Some(Ok("h:1".to_owned()));
        let expected = [
            "Configured=false Refused: a-2: no",
            "Fenced=false UnknownReplica: the annotation gantry.rs/fenced names no replica of this group: b",
            "ReachableOutside=true HasAddress: clients outside are told h:1",
        ];
        assert_eq!(told(&standing), expected);
    }
}
