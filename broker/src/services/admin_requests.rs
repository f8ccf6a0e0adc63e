//! What administration tools ask: connections, statistics, settings.

use super::clients::Member;
use super::failure::Refusal;
use super::names;
use super::{Services, json, now_ms};
use gantry_remoting::body::heartbeat::{ConsumeFromWhere, ConsumeType, MessageModel, SubscriptionData};
use gantry_remoting::body::kv_table::KvTable;
use gantry_remoting::body::topic_config::DataVersion;
use gantry_remoting::code::response;
use gantry_remoting::headers::admin::{
    GetConsumeStats, GetConsumerConnectionList, GetProducerConnectionList, GetTopicStatsInfo,
};
use gantry_remoting::{Command, Connection, Response};
use gantry_store::QueueOffset;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

/// RocketMQ's `Connection` body.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ConnectionView {
    client_id: String,
    client_addr: String,
    language: &'static str,
    version: i32,
}

/// RocketMQ's `ConsumerConnection`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ConsumerConnections {
    connection_set: Vec<ConnectionView>,
    subscription_table: BTreeMap<String, SubscriptionData>,
    consume_type: ConsumeType,
    message_model: MessageModel,
    consume_from_where: ConsumeFromWhere,
}

/// RocketMQ's `ProducerConnection`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProducerConnections {
    connection_set: Vec<ConnectionView>,
}

/// RocketMQ's `TopicList`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TopicList {
    topic_list: Vec<String>,
    broker_addr: String,
}

/// RocketMQ's `ConsumerOffsetSerializeWrapper` and `DelayOffsetSerializeWrapper`. Its slaves don't do without the version.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AllOffsets<K: Ord, V> {
    data_version: DataVersion,
    offset_table: BTreeMap<K, V>,
}

impl Services {
    /// GET_CONSUMER_CONNECTION_LIST.
    pub(super) fn consumer_connections(&self, request: &Command) -> Result<Response, Refusal> {
        let header: GetConsumerConnectionList<'_> = request.header()?;
        let Some(group) = self.clients.consumers(header.consumer_group) else {
            let text = format!("the consumer group[{}] not online", header.consumer_group);
            return Err(Refusal::new(response::CONSUMER_NOT_ONLINE, text));
        };
        json(&ConsumerConnections {
            connection_set: group.members.iter().map(connection_view).collect(),
            subscription_table: group.subscriptions.into_iter().map(|data| (data.topic.clone(), data)).collect(),
            consume_type: group.settings.consume_type,
            message_model: group.settings.message_model,
            consume_from_where: group.settings.consume_from_where,
        })
    }

    /// GET_PRODUCER_CONNECTION_LIST.
    pub(super) fn producer_connections(&self, request: &Command) -> Result<Response, Refusal> {
        let header: GetProducerConnectionList<'_> = request.header()?;
        let members = self.clients.producers(header.producer_group);
        if members.is_empty() {
            let text = format!("the producer group[{}] not exist", header.producer_group);
            return Err(Refusal::new(response::SYSTEM_ERROR, text));
        }
        json(&ProducerConnections { connection_set: members.iter().map(connection_view).collect() })
    }

    /// GET_TOPIC_STATS_INFO: each queue's first and last offset.
    pub(super) fn topic_stats(&self, request: &Command) -> Result<Response, Refusal> {
        let header: GetTopicStatsInfo<'_> = request.header()?;
        let topic = self.live.topics.require(header.topic)?;
        let queues = topic.config.read_queue_nums.max(topic.config.write_queue_nums).max(0) as u32;
        let mut table = Vec::new();
        for queue in 0..queues {
            let range = self.store.queue_range(&topic.name, queue);
            let last = range.max.0.checked_sub(1).filter(|last| *last >= range.min.0);
            let stored = match last {
                Some(last) => self.store.store_time_of(&topic.name, queue, QueueOffset(last))?.unwrap_or(0),
                None => 0,
            };
            let (max, min) = (range.max, range.min);
            let stats = format!(r#"{{"lastUpdateTimestamp":{stored},"maxOffset":{max},"minOffset":{min}}}"#);
            table.push((self.queue_key(&topic.name, queue), stats));
        }
        Ok(Response::success().with_body(format!(r#"{{"offsetTable":{}}}"#, object_keyed(&table)).into_bytes()))
    }

    /// GET_CONSUME_STATS: how far a group is, queue by queue.
    pub(super) fn consume_stats(&self, request: &Command) -> Result<Response, Refusal> {
        let header: GetConsumeStats<'_> = request.header()?;
        let topics: Vec<Arc<str>> = match header.topic.filter(|topic| !topic.is_empty()) {
            Some(topic) => vec![topic.into()],
            None => self.live.offsets.topics_of(header.consumer_group),
        };
        let mut table = Vec::new();
        for name in topics {
            let Some(topic) = self.live.topics.get(&name) else { continue };
            let offsets = self.live.offsets.queues(&name, header.consumer_group);
            for queue in 0..topic.config.read_queue_nums.max(0) as u32 {
                let max = self.store.queue_range(&name, queue).max;
                let consumed = offsets.get(&queue).copied().unwrap_or(0);
                let last = u64::try_from(consumed - 1).ok();
                let stored = match last {
                    Some(last) => self.store.store_time_of(&name, queue, QueueOffset(last))?.unwrap_or(0),
                    None => 0,
                };
                let wrapper = format!(
                    r#"{{"brokerOffset":{max},"consumerOffset":{consumed},"lastTimestamp":{stored},"pullOffset":{consumed}}}"#
                );
                table.push((self.queue_key(&name, queue), wrapper));
            }
        }
        let body = format!(r#"{{"consumeTps":0.0,"offsetTable":{}}}"#, object_keyed(&table));
        Ok(Response::success().with_body(body.into_bytes()))
    }

    /// GET_SYSTEM_TOPIC_LIST_FROM_BROKER.
    pub(super) fn system_topics(&self) -> Result<Response, Refusal> {
        let own = [self.config.cluster_name.clone(), self.config.broker_name.clone()];
        let topic_list = names::system_topics().iter().map(ToString::to_string).chain(own).collect();
        json(&TopicList { topic_list, broker_addr: self.config.store_host.to_string() })
    }

    /// GET_ALL_CONSUMER_OFFSET.
    pub(super) fn all_offsets(&self) -> Result<Response, Refusal> {
        let all = self.live.offsets.all();
        let offset_table = all.into_iter().map(|(topic, group, queues)| (format!("{topic}@{group}"), queues)).collect();
        json(&AllOffsets { data_version: version_of_now(), offset_table })
    }

    /// GET_ALL_DELAY_OFFSET: what the log says, so that whoever follows it never takes a message for delivered whose copy it lacks.
    pub(super) fn all_delay_offsets(&self) -> Result<Response, Refusal> {
        json(&AllOffsets { data_version: version_of_now(), offset_table: self.metadata.confirmed_delay() })
    }

    /// GET_BROKER_CONFIG: what the services go by, as properties text.
    pub(super) fn broker_config(&self) -> Response {
        let (config, settings) = (&self.config, self.adjustable());
        let mut text = String::new();
        let mut line = |key: &str, value: &dyn std::fmt::Display| {
            // Writing to a string can't fail.
            let _written = writeln!(text, "{key}={value}");
        };
        line("brokerClusterName", &config.cluster_name);
        line("brokerName", &config.broker_name);
        line("autoCreateTopicEnable", &config.auto_create_topics);
        line("autoCreateSubscriptionGroup", &self.live.groups.auto_creates());
        line("defaultTopicQueueNums", &config.default_topic_queues);
        line("brokerPermission", &settings.permission);
        line("maxMessageSize", &config.max_message_bytes);
        line("messageDelayLevel", &config.delay_levels);
        line("longPollingEnable", &settings.long_polling);
        line("maxTransferCountOnMessageInMemory", &settings.max_pull_messages);
        line("maxTransferBytesOnMessageInMemory", &settings.max_pull_bytes);
        if let Some(level) = gantry_logging::level() {
            line("logLevel", &level);
        }
        Response::success().with_body(text.into_bytes())
    }

    /// GET_BROKER_RUNTIME_INFO.
    pub(super) fn runtime_info(&self) -> Result<Response, Refusal> {
        let marks = self.store.watermarks();
        let mut table = BTreeMap::new();
        let mut put = |key: &str, value: String| table.insert(key.to_owned(), value);
        put("brokerVersionDesc", concat!("Gantry ", env!("CARGO_PKG_VERSION")).to_owned());
        put("brokerVersion", gantry_remoting::version::CURRENT.to_string());
        put("bootTimestamp", self.started_ms.to_string());
        put("runtime", format!("{} s", (now_ms() - self.started_ms) / 1000));
        put("commitLogMinOffset", self.store.min_offset().to_string());
        put("commitLogMaxOffset", marks.written.to_string());
        put("confirmOffset", marks.confirmed.to_string());
        put("dispatchBehindBytes", (marks.written - marks.dispatched).to_string());
        put("remainHowManyDataToFlush", format!("{} B", marks.written - marks.flushed));
        let disk = self.store.disk();
        let ratio = |percent: Option<u16>| percent.map_or(-1.0, |percent| f64::from(percent) / 100.0).to_string();
        put("commitLogDiskRatio", ratio(disk.log_percent));
        put("consumeQueueDiskRatio", ratio(disk.queues_percent));
        put("waitingPulls", self.waiting.len().to_string());
        put("brokerActive", self.role.serving().is_ok().to_string());
        json(&KvTable { table })
    }

    fn queue_key(&self, topic: &str, queue: u32) -> String {
        let broker = serde_json::Value::from(self.config.broker_name.as_str());
        let topic = serde_json::Value::from(topic);
        format!(r#"{{"brokerName":{broker},"queueId":{queue},"topic":{topic}}}"#)
    }
}

/// Of tables that change all the time and count no changes.
fn version_of_now() -> DataVersion {
    DataVersion { timestamp: now_ms(), ..DataVersion::default() }
}

fn connection_view(member: &Member<Arc<Connection>>) -> ConnectionView {
    ConnectionView {
        client_id: member.client.id.clone(),
        client_addr: member.client.peer.peer().to_string(),
        language: member.client.language.name(),
        version: member.client.version,
    }
}

/// fastjson's way with maps whose keys are objects: `{{key}:{value},…}`. No other JSON writer does that, but RocketMQ's
/// tools expect it.
fn object_keyed(entries: &[(String, String)]) -> String {
    let entries: Vec<_> = entries.iter().map(|(key, value)| format!("{key}:{value}")).collect();
    format!("{{{}}}", entries.join(","))
}
