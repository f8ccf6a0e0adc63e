//! A `BrokerGroup` validated: what is here can be carried out.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::{
    BrokerGroup, FlushMode, IDENTITY_KEYS, MAX_GROUP_NAME_CHARS, MAX_REPLICAS, OnShortage, ReplicationMode,
};

/// One group, ready to be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupPlan {
    /// Its name, the RocketMQ broker name of all its replicas.
    pub name: String,
    /// The RocketMQ cluster it belongs to.
    pub cluster: String,
    /// Its replicas, at least one, by ordinal.
    pub replicas: Vec<ReplicaPlan>,
    /// When a message counts as acknowledged.
    pub mode: ReplicationMode,
    /// From 1 to the number of replicas.
    pub min_in_sync: u8,
    /// What happens below `min_in_sync`.
    pub on_shortage: OnShortage,
    /// Where an acknowledged message is on each replica.
    pub flush: FlushMode,
    /// One of `replicas`, if any is preferred as master.
    pub preferred_master: Option<String>,
    /// Further broker keys; none of them an identity key, none with a line break in its value.
    pub config: BTreeMap<String, String>,
}

/// One replica of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaPlan {
    /// `<group>-<ordinal>`.
    pub name: String,
    /// RocketMQ's broker id while it is a slave: its ordinal + 1. A master is 0.
    pub slave_id: u32,
}

/// A group that can't be carried out. Displays as one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("BrokerGroup {group}: {field}: {why}")]
pub struct Invalid {
    group: String,
    field: String,
    why: String,
}

/// Validates all groups of a manifest and checks that their names differ.
pub fn plan_groups(groups: &[BrokerGroup]) -> Result<Vec<GroupPlan>, Invalid> {
    let plans = groups.iter().map(GroupPlan::new).collect::<Result<Vec<_>, _>>()?;
    let mut names = BTreeSet::new();
    for plan in &plans {
        if !names.insert(&plan.name) {
            return Err(invalid(&plan.name, "metadata.name", "used by two groups of this manifest".to_owned()));
        }
    }
    Ok(plans)
}

impl GroupPlan {
    /// Validates one group, by the same rules as the schema of the CRD.
    pub fn new(group: &BrokerGroup) -> Result<Self, Invalid> {
        let spec = &group.spec;
        let name = group.metadata.name.clone().unwrap_or_default();
        check_name(&name)?;
        check_cluster(&name, &spec.cluster_name)?;
        if !(1..=MAX_REPLICAS).contains(&spec.replicas) {
            let why = format!("{} is not between 1 and {MAX_REPLICAS}", spec.replicas);
            return Err(invalid(&name, "spec.replicas", why));
        }
        let replicas: Vec<_> = (0..u32::from(spec.replicas))
            .map(|ordinal| ReplicaPlan { name: format!("{name}-{ordinal}"), slave_id: ordinal + 1 })
            .collect();
        check_preferred(&name, spec.preferred_master.as_deref(), &replicas)?;
        check_config(&name, &spec.config)?;
        Ok(Self {
            min_in_sync: min_in_sync(&name, spec.replication.min_in_sync, spec.replicas)?,
            name,
            cluster: spec.cluster_name.clone(),
            replicas,
            mode: spec.replication.mode,
            on_shortage: spec.replication.on_shortage,
            flush: spec.flush,
            preferred_master: spec.preferred_master.clone(),
            config: spec.config.clone(),
        })
    }
}

/// Where absent: 2, but never so many that the loss of one replica stops a group that had more than one.
fn min_in_sync(group: &str, asked: Option<u8>, replicas: u8) -> Result<u8, Invalid> {
    let Some(asked) = asked else { return Ok((replicas - 1).clamp(1, 2)) };
    if (1..=replicas).contains(&asked) {
        return Ok(asked);
    }
    let why = format!("{asked} is not between 1 and spec.replicas ({replicas})");
    Err(invalid(group, "spec.replication.minInSync", why))
}

fn check_name(name: &str) -> Result<(), Invalid> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let fits = name.len() <= MAX_GROUP_NAME_CHARS
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(inner)
        && !name.ends_with('-');
    if fits {
        return Ok(());
    }
    let why = format!(
        "must be 1 to {MAX_GROUP_NAME_CHARS} of a-z, 0-9 and '-', begin with a letter and not end with '-'; it is {name:?}"
    );
    Err(invalid(if name.is_empty() { "without a name" } else { name }, "metadata.name", why))
}

fn check_cluster(group: &str, cluster: &str) -> Result<(), Invalid> {
    let known = |c: char| c.is_ascii_alphanumeric() || "%|_-".contains(c);
    if (1..=127).contains(&cluster.len()) && cluster.chars().all(known) {
        return Ok(());
    }
    let why = format!("must be 1 to 127 letters, digits, '%', '|', '_' or '-'; it is {cluster:?}");
    Err(invalid(group, "spec.clusterName", why))
}

fn check_preferred(group: &str, preferred: Option<&str>, replicas: &[ReplicaPlan]) -> Result<(), Invalid> {
    let Some(preferred) = preferred else { return Ok(()) };
    if replicas.iter().any(|replica| replica.name == preferred) {
        return Ok(());
    }
    let names: Vec<_> = replicas.iter().map(|replica| replica.name.as_str()).collect();
    let why = format!("{preferred:?} is no replica of this group ({})", names.join(", "));
    Err(invalid(group, "spec.preferredMaster", why))
}

fn check_config(group: &str, config: &BTreeMap<String, String>) -> Result<(), Invalid> {
    for (key, value) in config {
        let field = format!("spec.config.{key}");
        if IDENTITY_KEYS.contains(&key.as_str()) {
            let why =
                "is set by the operator: it gives a replica its identity, its addresses or its part in replication";
            return Err(invalid(group, &field, why.to_owned()));
        }
        let tail = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let fits = key.len() <= 127 && key.starts_with(|c: char| c.is_ascii_alphabetic()) && key.chars().all(tail);
        if !fits {
            let why = "a key is a letter followed by letters, digits, '.', '_' or '-', at most 127 characters";
            return Err(invalid(group, &field, why.to_owned()));
        }
        if value.chars().any(char::is_control) {
            return Err(invalid(
                group,
                &field,
                "a value must not hold line breaks or other control characters".to_owned(),
            ));
        }
    }
    Ok(())
}

fn invalid(group: &str, field: &str, why: String) -> Invalid {
    Invalid { group: group.to_owned(), field: field.to_owned(), why }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn plan(name: &str, spec: serde_json::Value) -> Result<GroupPlan, String> {
        let group = BrokerGroup::new(name, serde_json::from_value(spec).unwrap());
        GroupPlan::new(&group).map_err(|invalid| invalid.to_string())
    }

    #[test]
    fn replicas_are_named_by_ordinal_and_slaves_have_ids_from_one() {
        let plan = plan("broker-a", json!({})).unwrap();
        let replicas: Vec<_> = plan.replicas.iter().map(|r| (r.name.as_str(), r.slave_id)).collect();
        assert_eq!(replicas, [("broker-a-0", 1), ("broker-a-1", 2), ("broker-a-2", 3)]);
    }

    #[test]
    fn the_default_of_min_in_sync_survives_the_loss_of_one_replica() {
        for (replicas, expected) in [(1, 1), (2, 1), (3, 2), (5, 2), (9, 2)] {
            assert_eq!(plan("a", json!({"replicas": replicas})).unwrap().min_in_sync, expected, "{replicas} replicas");
        }
        assert_eq!(plan("a", json!({"replicas": 2, "replication": {"minInSync": 2}})).unwrap().min_in_sync, 2);
    }

    #[test]
    fn what_cannot_be_carried_out_is_refused_by_name_of_the_field() {
        let cases = [
            ("a", json!({"replicas": 0}), "BrokerGroup a: spec.replicas: 0 is not between 1 and 9"),
            ("a", json!({"replicas": 10}), "spec.replicas: 10 is not between 1 and 9"),
            (
                "a",
                json!({"replication": {"minInSync": 4}}),
                "spec.replication.minInSync: 4 is not between 1 and spec.replicas (3)",
            ),
            ("a", json!({"replication": {"minInSync": 0}}), "spec.replication.minInSync: 0"),
            (
                "a",
                json!({"preferredMaster": "a-3"}),
                "spec.preferredMaster: \"a-3\" is no replica of this group (a-0, a-1, a-2)",
            ),
            ("a", json!({"clusterName": "my cluster"}), "spec.clusterName: must be"),
            ("a", json!({"config": {"brokerId": "7"}}), "spec.config.brokerId: is set by the operator"),
            ("a", json!({"config": {"x": "1\nbrokerId=7"}}), "spec.config.x: a value must not hold line breaks"),
            ("a", json!({"config": {"x=1\nbrokerId": "7"}}), "a key is a letter"),
            ("Broker_A", json!({}), "metadata.name: must be 1 to 52"),
            ("", json!({}), "BrokerGroup without a name: metadata.name"),
            ("../../etc", json!({}), "metadata.name: must be"),
        ];
        for (name, spec, said) in cases {
            let line = plan(name, spec.clone()).unwrap_err();
            assert!(line.contains(said), "{spec}: {line}");
        }
    }

    #[test]
    fn every_identity_key_is_refused() {
        for key in IDENTITY_KEYS {
            assert!(plan("a", json!({"config": {*key: "1"}})).unwrap_err().contains(key));
        }
    }

    #[test]
    fn two_groups_of_one_name_are_refused() {
        let group = BrokerGroup::new("a", serde_json::from_value(json!({})).unwrap());
        let line = plan_groups(&[group.clone(), group]).unwrap_err().to_string();
        assert!(line.contains("BrokerGroup a: metadata.name: used by two groups"), "{line}");
    }
}
