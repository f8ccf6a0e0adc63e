//! Replicas kept out by hand: their pods and volumes stay as they are, for whoever looks at them.

use std::collections::BTreeSet;

use crate::api::BrokerGroup;

/// On a group: the names of fenced replicas, with `,` between them.
pub const FENCED_ANNOTATION: &str = "gantry.rs/fenced";

/// What the annotation says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fencing {
    /// Replicas of the group, also of before it was scaled in.
    pub fenced: BTreeSet<String>,
    /// What is no name of a replica of this group.
    pub unknown: BTreeSet<String>,
}

impl Fencing {
    /// Of a group as it is written.
    pub fn of(group: &BrokerGroup) -> Self {
        let name = group.metadata.name.as_deref().unwrap_or_default();
        let annotation = group.metadata.annotations.as_ref().and_then(|all| all.get(FENCED_ANNOTATION));
        let names = annotation.into_iter().flat_map(|text| text.split(',')).map(str::trim);
        let is_replica = |text: &String| {
            let ordinal = text.strip_prefix(name).and_then(|rest| rest.strip_prefix('-'));
            ordinal.is_some_and(|ordinal| ordinal.parse::<u8>().is_ok_and(|number| number.to_string() == ordinal))
        };
        let (fenced, unknown) = names.filter(|text| !text.is_empty()).map(str::to_owned).partition(is_replica);
        Self { fenced, unknown }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(annotation: &str) -> (Vec<String>, Vec<String>) {
        let mut group = BrokerGroup::new("a-b", serde_json::from_value(serde_json::json!({})).unwrap());
        group.metadata.annotations = Some([(FENCED_ANNOTATION.to_owned(), annotation.to_owned())].into());
        let Fencing { fenced, unknown } = Fencing::of(&group);
        (fenced.into_iter().collect(), unknown.into_iter().collect())
    }

    #[test]
    fn replicas_are_told_from_what_only_looks_like_one() {
        assert_eq!(of(" a-b-2, a-b-0,,"), (vec!["a-b-0".to_owned(), "a-b-2".to_owned()], vec![]));
        let (fenced, unknown) = of("a-b,a-b-,a-b-x,a-b-01,a-0,a-b-300");
        assert_eq!((fenced.len(), unknown.len()), (0, 6));
        assert_eq!(of(""), (vec![], vec![]));
    }
}
