//! A topic at one master.

use std::collections::BTreeMap;

use gantry_remoting::body::topic_config::TopicConfig;

use super::{Planned, differing};
use crate::api::{Perm, TopicSpec};

/// The attribute that says which kind of queues a topic has. It is decided when the topic is made.
const QUEUE_TYPE: &str = "queue.type";
/// Its value where a topic has none.
const SIMPLE_QUEUES: &str = "SimpleCQ";

/// What to ask a master for.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicChange {
    /// What the topic will be.
    pub becomes: TopicConfig,
    /// The attributes' changes, as RocketMQ writes them: `+key=value,-key`.
    pub attributes: String,
}

/// What to do at a master that has `seen`, or doesn't have the topic.
pub fn plan_topic(name: &str, spec: &TopicSpec, seen: Option<&TopicConfig>) -> Planned<TopicChange> {
    let declared = TopicConfig {
        topic_name: name.to_owned(),
        read_queue_nums: spec.read_queues,
        write_queue_nums: spec.write_queues,
        perm: bits(spec.perm),
        order: spec.order,
        attributes: spec.attributes.clone(),
        ..TopicConfig::default()
    };
    let Some(seen) = seen else {
        let attributes = changes(&BTreeMap::new(), &declared.attributes);
        let becomes = TopicChange { becomes: declared, attributes };
        return Planned { becomes, needed: true, differs: Vec::new(), cannot: Vec::new() };
    };
    let mut cannot = Vec::new();
    let becomes = TopicConfig {
        // Messages may be in the others, and nobody would read them.
        read_queue_nums: declared.read_queue_nums.max(seen.read_queue_nums),
        attributes: attributes(seen, &declared, &mut cannot),
        topic_filter_type: seen.topic_filter_type.clone(),
        topic_sys_flag: seen.topic_sys_flag,
        ..declared.clone()
    };
    if seen.read_queue_nums > declared.read_queue_nums {
        cannot.push(format!(
            "{} read queues are there, {} are declared, and messages may be in the others; once they are consumed, make them fewer with \
             mqadmin updateTopic -r {} -w {}",
            seen.read_queue_nums, declared.read_queue_nums, declared.read_queue_nums, declared.write_queue_nums
        ));
    }
    let differs = differences(seen, &becomes);
    let attributes = changes(&seen.attributes, &becomes.attributes);
    Planned { becomes: TopicChange { becomes, attributes }, needed: !differs.is_empty(), differs, cannot }
}

/// The declared ones, with the kind of queues that is there.
fn attributes(seen: &TopicConfig, declared: &TopicConfig, cannot: &mut Vec<String>) -> BTreeMap<String, String> {
    let kind = |config: &TopicConfig| config.attributes.get(QUEUE_TYPE).cloned().unwrap_or(SIMPLE_QUEUES.to_owned());
    let (there, wanted) = (kind(seen), kind(declared));
    let mut attributes = declared.attributes.clone();
    if there != wanted {
        cannot.push(format!(
            "its queues are {there}, {wanted} is declared, and a topic keeps its kind of queues: messages of that kind are in them"
        ));
    }
    attributes.remove(QUEUE_TYPE);
    attributes.extend(seen.attributes.get(QUEUE_TYPE).map(|kind| (QUEUE_TYPE.to_owned(), kind.clone())));
    attributes
}

fn differences(seen: &TopicConfig, becomes: &TopicConfig) -> Vec<String> {
    let mut differs = Vec::new();
    differing(&mut differs, "readQueues", &seen.read_queue_nums, &becomes.read_queue_nums);
    differing(&mut differs, "writeQueues", &seen.write_queue_nums, &becomes.write_queue_nums);
    differing(&mut differs, "perm", &seen.perm, &becomes.perm);
    differing(&mut differs, "order", &seen.order, &becomes.order);
    if seen.attributes != becomes.attributes {
        differs.push(format!("attributes {}", changes(&seen.attributes, &becomes.attributes)));
    }
    differs
}

/// From one set of attributes to the other.
fn changes(from: &BTreeMap<String, String>, to: &BTreeMap<String, String>) -> String {
    let set =
        to.iter().filter(|(key, value)| from.get(*key) != Some(value)).map(|(key, value)| format!("+{key}={value}"));
    let removed = from.keys().filter(|key| !to.contains_key(*key)).map(|key| format!("-{key}"));
    set.chain(removed).collect::<Vec<_>>().join(",")
}

/// RocketMQ's.
fn bits(perm: Perm) -> i32 {
    match perm {
        Perm::ReadWrite => 6,
        Perm::ReadOnly => 4,
        Perm::WriteOnly => 2,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec(spec: Value) -> TopicSpec {
        serde_json::from_value(spec).unwrap()
    }

    /// A topic as the defaults declare it.
    fn there() -> TopicConfig {
        TopicConfig { topic_name: "t".to_owned(), read_queue_nums: 8, write_queue_nums: 8, ..TopicConfig::default() }
    }

    fn plan(declared: Value, seen: &TopicConfig) -> Planned<TopicChange> {
        plan_topic("t", &spec(declared), Some(seen))
    }

    #[test]
    fn a_topic_that_is_not_there_is_made_with_every_field_of_its_declaration() {
        let declared = json!({
            "readQueues": 16, "writeQueues": 4, "perm": "ReadOnly", "order": true, "attributes": {"queue.type": "BatchCQ", "a": "1"},
        });
        let planned = plan_topic("T", &spec(declared), None);
        let TopicChange { becomes, attributes } = planned.becomes;
        assert_eq!(becomes.topic_name, "T");
        assert_eq!((becomes.read_queue_nums, becomes.write_queue_nums, becomes.perm, becomes.order), (16, 4, 4, true));
        assert_eq!(attributes, "+a=1,+queue.type=BatchCQ");
        assert!(planned.needed && planned.differs.is_empty() && planned.cannot.is_empty());
    }

    #[test]
    fn what_is_as_declared_is_left_alone() {
        let flags = TopicConfig { topic_sys_flag: 1, topic_filter_type: "MULTI_TAG".to_owned(), ..there() };
        for seen in [there(), flags] {
            let planned = plan(json!({}), &seen);
            assert_eq!(planned.becomes, TopicChange { becomes: seen, attributes: String::new() });
            assert!(!planned.needed && planned.differs.is_empty() && planned.cannot.is_empty());
        }
        let simple = BTreeMap::from([("queue.type".to_owned(), "SimpleCQ".to_owned())]);
        assert!(!plan(json!({}), &TopicConfig { attributes: simple, ..there() }).needed, "it is the default");
        assert!(!plan(json!({"attributes": {"queue.type": "SimpleCQ"}}), &there()).needed);
    }

    #[test]
    fn each_field_that_somebody_changed_is_put_back() {
        let attribute = |key: &str| BTreeMap::from([(key.to_owned(), "1".to_owned())]);
        for (seen, declared, differs) in [
            (
                TopicConfig { read_queue_nums: 4, write_queue_nums: 4, ..there() },
                json!({}),
                vec!["readQueues 4 -> 8", "writeQueues 4 -> 8"],
            ),
            (TopicConfig { write_queue_nums: 16, ..there() }, json!({}), vec!["writeQueues 16 -> 8"]),
            (TopicConfig { perm: 4, ..there() }, json!({}), vec!["perm 4 -> 6"]),
            (there(), json!({"perm": "WriteOnly"}), vec!["perm 6 -> 2"]),
            (TopicConfig { order: true, ..there() }, json!({}), vec!["order true -> false"]),
            (TopicConfig { attributes: attribute("x"), ..there() }, json!({}), vec!["attributes -x"]),
            (
                TopicConfig { attributes: attribute("x"), ..there() },
                json!({"attributes": {"x": "2", "y": "3"}}),
                vec!["attributes +x=2,+y=3"],
            ),
        ] {
            let planned = plan(declared.clone(), &seen);
            assert_eq!(planned.differs, differs, "{declared}");
            assert!(planned.needed && planned.cannot.is_empty());
            assert!(!plan(declared, &planned.becomes.becomes).needed, "once is enough");
        }
    }

    #[test]
    fn queues_to_read_are_never_made_fewer_and_those_to_write_to_are() {
        let planned = plan(json!({}), &TopicConfig { read_queue_nums: 16, write_queue_nums: 16, ..there() });
        let becomes = planned.becomes.becomes;
        assert_eq!((becomes.read_queue_nums, becomes.write_queue_nums), (16, 8));
        assert!(planned.cannot[0].starts_with("16 read queues are there, 8 are declared"), "{:?}", planned.cannot);
        let again = plan(json!({}), &becomes);
        assert!(!again.needed && again.cannot.len() == 1, "told for as long as it is so");
    }

    #[test]
    fn a_topic_keeps_its_kind_of_queues_and_all_else_is_put_right() {
        let batch = BTreeMap::from([("queue.type".to_owned(), "BatchCQ".to_owned())]);
        for (seen, declared) in [
            (TopicConfig { attributes: batch, perm: 4, ..there() }, json!({})),
            (TopicConfig { perm: 4, ..there() }, json!({"attributes": {"queue.type": "BatchCQ"}})),
        ] {
            let planned = plan(declared, &seen);
            assert!(planned.cannot[0].contains("keeps its kind of queues"), "{:?}", planned.cannot);
            let change = planned.becomes;
            assert_eq!((change.becomes.perm, change.attributes.as_str()), (6, ""));
        }
    }
}
