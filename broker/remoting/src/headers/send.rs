//! Sending: SEND_MESSAGE, SEND_MESSAGE_V2, SEND_BATCH_MESSAGE, CONSUMER_SEND_MSG_BACK.

use crate::code::request;
use crate::ext_fields::ExtFields;
use crate::header::{FieldSink, FieldValue, Fields, HeaderError, field};
use crate::headers;

/// A send's header, the same for all three codes: 10 writes long keys, 310 and 320 one-letter ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendMessage<'a> {
    /// `a` or `producerGroup`.
    pub producer_group: &'a str,
    /// `b` or `topic`.
    pub topic: &'a str,
    /// `c` or `defaultTopic`: the topic whose settings an automatically created one inherits (TBW102).
    pub default_topic: &'a str,
    /// `d` or `defaultTopicQueueNums`: queues of an automatically created topic.
    pub default_topic_queue_nums: i32,
    /// `e` or `queueId`: negative lets the broker choose.
    pub queue_id: i32,
    /// `f` or `sysFlag`: compression, transaction.
    pub sys_flag: i32,
    /// `g` or `bornTimestamp`, in milliseconds since 1970.
    pub born_timestamp: i64,
    /// `h` or `flag`: the application's own.
    pub flag: i32,
    /// `i` or `properties`: name `\u{1}` value `\u{2}` …
    pub properties: Option<&'a str>,
    /// `j` or `reconsumeTimes`: for a message sent back to a retry topic.
    pub reconsume_times: Option<i32>,
    /// `k` or `unitMode`.
    pub unit_mode: Option<bool>,
    /// `l` or `maxReconsumeTimes`.
    pub max_reconsume_times: Option<i32>,
    /// `m` or `batch`: the body holds several messages.
    pub batch: Option<bool>,
    /// `n` or `bname`.
    pub broker_name: Option<&'a str>,
}

/// Calls `$each!(field, short key, long key)` for all fields, so that reading and writing can't differ.
macro_rules! send_fields {
    ($each:ident) => {
        $each! {
            producer_group "a" "producerGroup", topic "b" "topic", default_topic "c" "defaultTopic",
            default_topic_queue_nums "d" "defaultTopicQueueNums", queue_id "e" "queueId", sys_flag "f" "sysFlag",
            born_timestamp "g" "bornTimestamp", flag "h" "flag", properties "i" "properties",
            reconsume_times "j" "reconsumeTimes", unit_mode "k" "unitMode", max_reconsume_times "l" "maxReconsumeTimes",
            batch "m" "batch", broker_name "n" "bname",
        }
    };
}

impl<'a> SendMessage<'a> {
    /// A plain message, for a topic that is created with four queues if it is missing. Whatever else there is to say of it, its time
    /// of birth for one, is the caller's.
    pub fn new(producer_group: &'a str, topic: &'a str, queue_id: i32) -> Self {
        Self {
            producer_group,
            topic,
            default_topic: "TBW102",
            default_topic_queue_nums: 4,
            queue_id,
            sys_flag: 0,
            born_timestamp: 0,
            flag: 0,
            properties: None,
            reconsume_times: None,
            unit_mode: None,
            max_reconsume_times: None,
            batch: None,
            broker_name: None,
        }
    }

    /// Reads the header of a request with this code.
    pub fn decode(code: i32, ext: &'a ExtFields) -> Result<Self, HeaderError> {
        macro_rules! read {
            ($($name:ident $short:literal $long:literal,)*) => {
                if code == request::SEND_MESSAGE {
                    Ok(Self { $($name: field(ext, "SendMessage", $long, $long)?,)* })
                } else {
                    Ok(Self { $($name: field(ext, "SendMessageV2", $short, concat!($short, " (", $long, ")"))?,)* })
                }
            };
        }
        send_fields!(read)
    }

    /// The header with long keys, for code 10.
    pub fn long(&self) -> LongSend<'_> {
        LongSend(self)
    }
}

/// With one-letter keys, for codes 310 and 320.
impl Fields for SendMessage<'_> {
    fn encode(&self, out: &mut impl FieldSink) {
        macro_rules! write {
            ($($name:ident $short:literal $long:literal,)*) => { $(self.$name.put($short, out);)* };
        }
        send_fields!(write);
    }
}

/// Writes a [`SendMessage`] with long keys.
pub struct LongSend<'a>(&'a SendMessage<'a>);

impl Fields for LongSend<'_> {
    fn encode(&self, out: &mut impl FieldSink) {
        macro_rules! write {
            ($($name:ident $short:literal $long:literal,)*) => { $(self.0.$name.put($long, out);)* };
        }
        send_fields!(write);
    }
}

headers! {
    /// Answer to a send: where the message lies.
    pub struct SendMessageResponse<'a> {
        "msgId" => msg_id: &'a str,
        "queueId" => queue_id: i32,
        "queueOffset" => queue_offset: i64,
        "transactionId" => transaction_id: Option<&'a str>,
        "batchUniqId" => batch_uniq_id: Option<&'a str>,
        "recallHandle" => recall_handle: Option<&'a str>,
        "MSG_REGION" => region: Option<&'a str>,
        "TRACE_ON" => trace_on: Option<bool>,
    }

    /// CONSUMER_SEND_MSG_BACK (36): a message that couldn't be consumed, to be delivered again later.
    pub struct ConsumerSendMsgBack<'a> {
        /// Its physical offset in the commit log.
        "offset" => offset: i64,
        "group" => group: &'a str,
        /// 0: by the number of attempts; negative: to the dead letter queue at once.
        "delayLevel" => delay_level: i32,
        "originMsgId" => origin_msg_id: Option<&'a str>,
        "originTopic" => origin_topic: Option<&'a str>,
        "unitMode" => unit_mode: Option<bool>,
        "maxReconsumeTimes" => max_reconsume_times: Option<i32>,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample<'a>() -> SendMessage<'a> {
        SendMessage {
            producer_group: "group",
            topic: "topic",
            default_topic: "TBW102",
            default_topic_queue_nums: 4,
            queue_id: -1,
            sys_flag: 1,
            born_timestamp: 1_700_000_000_000,
            flag: 0,
            properties: Some("KEYS\u{1}k\u{2}"),
            reconsume_times: Some(0),
            unit_mode: Some(false),
            max_reconsume_times: None,
            batch: Some(true),
            broker_name: None,
        }
    }

    #[test]
    fn long_and_short_keys_give_the_same_header() {
        let (mut short, mut long) = (ExtFields::new(), ExtFields::new());
        sample().encode(&mut short);
        sample().long().encode(&mut long);
        assert_eq!(SendMessage::decode(request::SEND_MESSAGE_V2, &short).unwrap(), sample());
        assert_eq!(SendMessage::decode(request::SEND_BATCH_MESSAGE, &short).unwrap(), sample());
        assert_eq!(SendMessage::decode(request::SEND_MESSAGE, &long).unwrap(), sample());
        assert_eq!((short.get("b"), long.get("topic"), short.get("topic")), (Some("topic"), Some("topic"), None));
    }

    #[test]
    fn a_missing_field_is_named_by_both_its_keys() {
        let ext = ExtFields::from_iter([("a", "group")]);
        let error = SendMessage::decode(request::SEND_MESSAGE_V2, &ext).unwrap_err().to_string();
        assert_eq!(error, "SendMessageV2: the required field `b (topic)` is missing");
    }
}
