//! Which names topics and groups may have, and which topics are the broker's own.
//!
//! The rules are RocketMQ's (`TopicValidator`): what it refuses is refused here, so that a store directory stays
//! exchangeable with an Apache broker's.

use super::failure::Refusal;
use gantry_remoting::code::response;

/// The topic whose settings an automatically created topic inherits (`createTopicKey` of the clients).
pub const AUTO_CREATE_KEY: &str = "TBW102";
/// Where messages with a delay level wait; queue id = level - 1.
pub const SCHEDULE_TOPIC: &str = "SCHEDULE_TOPIC_XXXX";
/// The internal topic that carries changes of topics, groups and offsets. Its queue is 0.
pub const METADATA_TOPIC: &str = "GANTRY_SYS_METADATA";
/// The internal topic of the heartbeat records by which a master proves that its log still takes writes.
pub const HEARTBEAT_TOPIC: &str = "GANTRY_SYS_HEARTBEAT";
/// Prefix of a group's retry topic.
pub const RETRY_PREFIX: &str = "%RETRY%";
/// Prefix of a group's dead letter topic.
pub const DLQ_PREFIX: &str = "%DLQ%";

const INTERNAL_PREFIX: &str = "GANTRY_SYS_";
const TOPIC_MAX_LEN: usize = 127;
const RETRY_TOPIC_MAX_LEN: usize = 255;
const GROUP_MAX_LEN: usize = 120;
const SYSTEM_TOPICS: [&str; 10] = [
    AUTO_CREATE_KEY,
    SCHEDULE_TOPIC,
    "BenchmarkTest",
    "RMQ_SYS_TRANS_HALF_TOPIC",
    "RMQ_SYS_TRACE_TOPIC",
    "RMQ_SYS_TRANS_OP_HALF_TOPIC",
    "TRANS_CHECK_MAX_TIME_TOPIC",
    "SELF_TEST_TOPIC",
    "OFFSET_MOVED_EVENT",
    "CHECKPOINT_TOPIC",
];
const NO_SEND_TOPICS: [&str; 6] = [
    SCHEDULE_TOPIC,
    "RMQ_SYS_TRANS_HALF_TOPIC",
    "RMQ_SYS_TRANS_OP_HALF_TOPIC",
    "TRANS_CHECK_MAX_TIME_TOPIC",
    "SELF_TEST_TOPIC",
    "OFFSET_MOVED_EVENT",
];

/// Is `topic` a name that RocketMQ allows? Length limit 127, or 255 for retry and dead letter topics.
pub fn check_topic(topic: &str) -> Result<(), Refusal> {
    let derived = topic.starts_with(RETRY_PREFIX) || topic.starts_with(DLQ_PREFIX);
    check("topic", topic, if derived { RETRY_TOPIC_MAX_LEN } else { TOPIC_MAX_LEN })
}

/// Is `group` a name that RocketMQ allows? Length limit 120, so that `%RETRY%group` still fits a topic.
pub fn check_group(group: &str) -> Result<(), Refusal> {
    check("group", group, GROUP_MAX_LEN)
}

/// Topics that exist for the broker itself; clients may not create or delete them.
pub fn is_system_topic(topic: &str) -> bool {
    SYSTEM_TOPICS.contains(&topic) || topic.starts_with("rmq_sys_") || is_internal_topic(topic)
}

/// Gantry's own topics: no client sees them, reads them or writes to them.
pub fn is_internal_topic(topic: &str) -> bool {
    topic.starts_with(INTERNAL_PREFIX)
}

/// Topics that a client may read (or list) but not send to.
pub fn is_send_forbidden(topic: &str) -> bool {
    NO_SEND_TOPICS.contains(&topic) || is_internal_topic(topic)
}

/// RocketMQ's list of system topics, without what depends on the broker's configuration.
pub fn system_topics() -> &'static [&'static str] {
    &SYSTEM_TOPICS
}

/// `%RETRY%group`.
pub fn retry_topic(group: &str) -> String {
    format!("{RETRY_PREFIX}{group}")
}

/// `%DLQ%group`.
pub fn dlq_topic(group: &str) -> String {
    format!("{DLQ_PREFIX}{group}")
}

fn check(kind: &str, name: &str, max_len: usize) -> Result<(), Refusal> {
    if name.trim().is_empty() {
        return Err(illegal(format!("The specified {kind} is blank.")));
    }
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"%|-_".contains(&b)) {
        let text =
            format!("The specified {kind}: {name:?} contains illegal characters, only % | - _ a-z A-Z 0-9 are allowed");
        return Err(illegal(text));
    }
    if name.len() > max_len {
        return Err(illegal(format!("The specified {kind}: {name} is longer than the limit of {max_len} characters")));
    }
    Ok(())
}

/// RocketMQ answers a bad name with its general error code.
fn illegal(remark: String) -> Refusal {
    Refusal::new(response::SYSTEM_ERROR, remark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_rocketmq() {
        check_topic("a-b_C|9%").unwrap();
        check_topic(&format!("{RETRY_PREFIX}{}", "g".repeat(200))).unwrap();
        for bad in ["", "  ", "a b", "a.b", "tópico", &"t".repeat(128)] {
            check_topic(bad).unwrap_err();
        }
        check_group(&"g".repeat(120)).unwrap();
        check_group(&"g".repeat(121)).unwrap_err();
    }

    #[test]
    fn gantrys_own_topics_are_closed_to_clients() {
        for topic in [METADATA_TOPIC, HEARTBEAT_TOPIC] {
            assert!(is_internal_topic(topic) && is_system_topic(topic) && is_send_forbidden(topic));
        }
        assert!(!is_send_forbidden("BenchmarkTest"));
    }
}
