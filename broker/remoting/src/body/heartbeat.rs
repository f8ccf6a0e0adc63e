//! HEART_BEAT: who a client is and what it subscribes to.

use serde::{Deserialize, Deserializer, Serialize, de};

use super::null_as_default;

/// Body of HEART_BEAT (34).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HeartbeatData {
    /// `ip@pid#…`, the same on all connections of one client.
    #[serde(rename = "clientID")]
    pub client_id: String,
    /// Producer groups in it.
    #[serde(deserialize_with = "null_as_default")]
    pub producer_data_set: Vec<ProducerData>,
    /// Consumer groups in it.
    #[serde(deserialize_with = "null_as_default")]
    pub consumer_data_set: Vec<ConsumerData>,
    /// Heartbeat V2: hash of the whole; 0: not used.
    pub heartbeat_fingerprint: i32,
    /// Heartbeat V2: subscriptions were left out, they haven't changed.
    pub without_sub: bool,
}

/// A producer group.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProducerData {
    /// Its name.
    pub group_name: String,
}

/// A consumer group of one client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerData {
    /// Its name.
    pub group_name: String,
    /// How it gets its messages.
    #[serde(default, deserialize_with = "lenient_enum")]
    pub consume_type: ConsumeType,
    /// Whether its members share the messages.
    #[serde(default, deserialize_with = "lenient_enum")]
    pub message_model: MessageModel,
    /// Where a new group begins.
    #[serde(default, deserialize_with = "lenient_enum")]
    pub consume_from_where: ConsumeFromWhere,
    /// Its topics.
    #[serde(default, deserialize_with = "null_as_default")]
    pub subscription_data_set: Vec<SubscriptionData>,
    /// RocketMQ's unit mode.
    #[serde(default)]
    pub unit_mode: bool,
}

/// A subscription to one topic.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubscriptionData {
    /// Class filter (obsolete).
    pub class_filter_mode: bool,
    /// The topic.
    pub topic: String,
    /// The expression: `*`, `a || b`, or SQL.
    #[serde(deserialize_with = "null_as_default")]
    pub sub_string: String,
    /// Tags of the expression; empty for `*`.
    #[serde(deserialize_with = "null_as_default")]
    pub tags_set: Vec<String>,
    /// Java hash codes of the tags.
    #[serde(deserialize_with = "numbers_or_texts")]
    pub code_set: Vec<i32>,
    /// Grows when the subscription changes (milliseconds since 1970).
    pub sub_version: i64,
    /// `TAG` or `SQL92`.
    #[serde(deserialize_with = "null_as_default")]
    pub expression_type: String,
}

/// Declares an enum of RocketMQ's names that is read in any case and also by other names that clients use.
macro_rules! named {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $text:literal $(| $alias:literal)*),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
        pub enum $name {
            $($(#[$variant_meta])* #[serde(rename = $text)] $variant,)*
        }

        impl Named for $name {
            fn from_name(name: &str) -> Option<Self> {
                $(if [$text $(, $alias)*].iter().any(|known| known.eq_ignore_ascii_case(name)) { return Some(Self::$variant); })*
                None
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                lenient_enum(deserializer)
            }
        }
    };
}

trait Named: Sized + Default {
    fn from_name(name: &str) -> Option<Self>;
}

/// Null is the default.
fn lenient_enum<'de, D: Deserializer<'de>, T: Named>(deserializer: D) -> Result<T, D::Error> {
    match Option::<String>::deserialize(deserializer)? {
        None => Ok(T::default()),
        Some(name) => T::from_name(&name).ok_or_else(|| de::Error::custom(format_args!("unknown name `{name}`"))),
    }
}

named! {
    /// How a consumer gets its messages.
    ConsumeType {
        /// The application pulls.
        Actively = "CONSUME_ACTIVELY" | "PULL",
        /// The library pulls and calls the application.
        #[default]
        Passively = "CONSUME_PASSIVELY" | "PUSH",
        /// POP.
        Pop = "CONSUME_POP" | "POP",
    }
}

named! {
    /// Whether a group's members share the messages.
    MessageModel {
        /// Each message to one of them.
        #[default]
        Clustering = "CLUSTERING",
        /// Each message to each of them.
        Broadcasting = "BROADCASTING",
    }
}

named! {
    /// Where a group without offsets begins.
    ConsumeFromWhere {
        /// At the end.
        #[default]
        LastOffset = "CONSUME_FROM_LAST_OFFSET" | "CONSUME_FROM_LAST_OFFSET_AND_FROM_MIN_WHEN_BOOT_FIRST" | "CONSUME_FROM_MAX_OFFSET",
        /// At the beginning.
        FirstOffset = "CONSUME_FROM_FIRST_OFFSET" | "CONSUME_FROM_MIN_OFFSET",
        /// At a time.
        Timestamp = "CONSUME_FROM_TIMESTAMP",
    }
}

/// Go writes hash codes as texts.
fn numbers_or_texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<i32>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Code {
        Number(i32),
        Text(String),
    }
    let codes = Option::<Vec<Code>>::deserialize(deserializer)?.unwrap_or_default();
    codes
        .into_iter()
        .map(|code| match code {
            Code::Number(code) => Ok(code),
            Code::Text(text) => {
                text.parse().map_err(|_| de::Error::custom(format_args!("`{text}` is not a hash code")))
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::{parse, to_json};

    const JAVA: &str = r#"{"clientID":"10.0.0.1@1#2","consumerDataSet":[{"consumeFromWhere":"CONSUME_FROM_FIRST_OFFSET",
        "consumeType":"CONSUME_PASSIVELY","groupName":"g","messageModel":"CLUSTERING","subscriptionDataSet":[{
        "classFilterMode":false,"codeSet":[65,-66],"expressionType":"TAG","subString":"A || B","subVersion":7,
        "tagsSet":["A","B"],"topic":"t"}],"unitMode":false}],"heartbeatFingerprint":0,"producerDataSet":[
        {"groupName":"CLIENT_INNER_PRODUCER"}],"withoutSub":false}"#;

    #[test]
    fn a_java_heartbeat_is_read_whole() {
        let heartbeat: HeartbeatData = parse(JAVA.as_bytes()).unwrap();
        let consumer = &heartbeat.consumer_data_set[0];
        assert_eq!((consumer.consume_type, consumer.message_model), (ConsumeType::Passively, MessageModel::Clustering));
        assert_eq!(consumer.consume_from_where, ConsumeFromWhere::FirstOffset);
        assert_eq!(consumer.subscription_data_set[0].code_set, [65, -66]);
        assert_eq!(heartbeat.producer_data_set[0].group_name, "CLIENT_INNER_PRODUCER");
        assert_eq!(parse::<HeartbeatData>(&to_json(&heartbeat).unwrap()).unwrap(), heartbeat);
    }

    #[test]
    fn other_clients_habits_are_understood() {
        let go = r#"{"clientID":"c","producerDataSet":null,"consumerDataSet":[{"groupName":"g","consumeType":"PUSH",
            "messageModel":"Clustering","consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","subscriptionDataSet":[{
            "topic":"t","subString":"*","tagsSet":null,"codeSet":["65"],"subVersion":1,"expressionType":"TAG"}]}]}"#;
        let heartbeat: HeartbeatData = parse(go.as_bytes()).unwrap();
        assert_eq!(heartbeat.consumer_data_set[0].subscription_data_set[0].code_set, [65]);
        assert_eq!(heartbeat.consumer_data_set[0].message_model, MessageModel::Clustering);
    }

    #[test]
    fn an_unknown_name_is_named() {
        let error = parse::<HeartbeatData>(&JAVA.replace("CLUSTERING", "SHARED").into_bytes()).unwrap_err();
        assert!(error.to_string().starts_with("body is not a HeartbeatData: unknown name `SHARED`"), "{error}");
    }
}
