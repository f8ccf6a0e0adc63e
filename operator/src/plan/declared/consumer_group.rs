//! A consumer group at one master.

use serde_json::{Map, Value, json};

use super::{Planned, differing};
use crate::api::ConsumerGroupSpec;

/// What to do at a master that has `seen`, or doesn't have the group. Settings are what RocketMQ's `SubscriptionGroupConfig` is in JSON: what
/// the declaration doesn't know stays as it is there.
pub fn plan_consumer_group(
    name: &str,
    spec: &ConsumerGroupSpec,
    seen: Option<&Map<String, Value>>,
) -> Planned<Map<String, Value>> {
    let declared = declared(name, spec);
    let mut becomes = seen.cloned().unwrap_or_default();
    let mut differs = Vec::new();
    for (field, value) in declared {
        if seen.is_some() {
            differing(&mut differs, &field, becomes.get(&field).unwrap_or(&Value::Null), &value);
        }
        becomes.insert(field, value);
    }
    Planned { becomes, needed: seen.is_none() || !differs.is_empty(), differs, cannot: Vec::new() }
}

/// By RocketMQ's names, which are the declaration's.
fn declared(name: &str, spec: &ConsumerGroupSpec) -> Map<String, Value> {
    let ConsumerGroupSpec {
        name: _,
        cluster_name: _,
        consume_enable,
        consume_from_min_enable,
        consume_broadcast_enable,
        consume_message_orderly,
        retry_queue_nums,
        retry_max_times,
        consume_timeout_minute,
        broker_id,
        which_broker_when_consume_slowly,
        notify_consumer_ids_changed_enable,
        deletion_policy: _,
    } = spec;
    let settings = [
        ("groupName", json!(name)),
        ("consumeEnable", json!(consume_enable)),
        ("consumeFromMinEnable", json!(consume_from_min_enable)),
        ("consumeBroadcastEnable", json!(consume_broadcast_enable)),
        ("consumeMessageOrderly", json!(consume_message_orderly)),
        ("retryQueueNums", json!(retry_queue_nums)),
        ("retryMaxTimes", json!(retry_max_times)),
        ("consumeTimeoutMinute", json!(consume_timeout_minute)),
        ("brokerId", json!(broker_id)),
        ("whichBrokerWhenConsumeSlowly", json!(which_broker_when_consume_slowly)),
        ("notifyConsumerIdsChangedEnable", json!(notify_consumer_ids_changed_enable)),
    ];
    settings.into_iter().map(|(field, value)| (field.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use gantry_remoting::body::subscription_group::SubscriptionGroupConfig;

    use super::*;

    fn plan(declared: Value, seen: Option<&Map<String, Value>>) -> Planned<Map<String, Value>> {
        plan_consumer_group("g", &serde_json::from_value(declared).unwrap(), seen)
    }

    #[test]
    fn a_group_that_is_not_there_is_made_and_rocketmq_understands_every_setting() {
        let planned = plan(json!({"retryMaxTimes": 3}), None);
        let made = planned.becomes;
        let typed: SubscriptionGroupConfig = serde_json::from_value(made.clone().into()).unwrap();
        let back = serde_json::to_value(&typed).unwrap();
        for (field, value) in &made {
            assert_eq!(back[field], *value, "{field}");
        }
        assert_eq!((typed.group_name.as_str(), typed.retry_max_times), ("g", 3));
        assert!(!plan(json!({"retryMaxTimes": 3}), Some(&made)).needed);
        assert!(planned.needed && planned.differs.is_empty() && planned.cannot.is_empty());
    }

    #[test]
    fn each_setting_that_somebody_changed_is_put_back_and_what_is_not_declared_stays() {
        let mut seen = plan(json!({}), None).becomes;
        seen.insert("groupRetryPolicy".to_owned(), json!({"type": "CUSTOMIZED"}));
        assert!(!plan(json!({}), Some(&seen)).needed);
        for (field, other) in [
            ("consumeEnable", json!(false)),
            ("consumeFromMinEnable", json!(false)),
            ("consumeBroadcastEnable", json!(false)),
            ("consumeMessageOrderly", json!(true)),
            ("retryQueueNums", json!(4)),
            ("retryMaxTimes", json!(2)),
            ("consumeTimeoutMinute", json!(3)),
            ("brokerId", json!(2)),
            ("whichBrokerWhenConsumeSlowly", json!(5)),
            ("notifyConsumerIdsChangedEnable", json!(false)),
        ] {
            let mut changed = seen.clone();
            let declared = changed.insert(field.to_owned(), other.clone()).unwrap();
            let planned = plan(json!({}), Some(&changed));
            assert_eq!(planned.differs, [format!("{field} {other} -> {declared}")]);
            assert_eq!(planned.becomes, seen);
            let declared_otherwise = plan(json!({field: other}), Some(&changed));
            assert!(!declared_otherwise.needed, "{field} is what is declared");
        }
    }
}
