//! Requests and messages that went through this broker since its start, by RocketMQ's names.

use std::borrow::Cow;

use gantry_remoting::code::{request, response};
use gantry_remoting::{LATENCY_BOUNDS_MS, Latency};
use gantry_store::{HistogramSnapshot, record};

use super::Parts;
use super::clients::flag;
use super::ha::metrics;
use super::page::{Kind, Metric, Page};
use crate::services::{names, now_ms};

metrics! { METRICS:
    RPC = Histogram "rocketmq_rpc_latency" ["protocol_type", "request_code", "response_code", "is_long_polling", "result"]
        "Milliseconds from a request's arrival to its answer; is_long_polling=true: it waited for messages, as it asked for";
    SIZE = Histogram "rocketmq_message_size" ["topic", "message_type", "is_system"]
        "Bytes of messages as they lie in the log; a batch counts as one of its average size. message_type is always normal";
    BYTES_IN = Counter "rocketmq_throughput_in_total" ["topic", "message_type", "is_system"] "Bytes of messages that came in";
    OUT = Counter "rocketmq_messages_out_total" ["topic", "consumer_group", "is_retry", "is_system"] "Messages that consumers pulled";
    BYTES_OUT = Counter "rocketmq_throughput_out_total" ["topic", "consumer_group", "is_retry", "is_system"] "Bytes that consumers pulled";
    DEAD = Counter "rocketmq_send_to_dlq_messages_total" ["consumer_group", "topic", "is_system"]
        "Messages that were given up and went to their group's dead letter topic";
    RESERVED = Gauge "rocketmq_storage_message_reserve_time" ["storage_type", "storage_medium"]
        "Milliseconds since the oldest message in the log came";
}

pub(super) fn collect(page: &mut Page, parts: &Parts) {
    let latencies = parts.services.answer_latencies().snapshot();
    page.histograms(&RPC, latencies.iter().map(|latency| (labels(latency), in_micros(latency))), 1_000.0);
    let topics = parts.services.live().topics.all().1;
    let busy = || topics.iter().filter(|topic| topic.incoming.bytes() > 0 && !names::is_internal_topic(&topic.name));
    let of = |topic: &str| [topic.to_owned(), "normal".to_owned(), flag(names::is_system_topic(topic)).to_owned()];
    page.histograms(&SIZE, busy().map(|topic| (of(&topic.name), topic.incoming.sizes())), 1.0);
    page.add(&BYTES_IN, busy().map(|topic| (of(&topic.name), topic.incoming.bytes() as f64)));
    deliveries(page, parts);
    if let Some(ms) = reserved_ms(parts) {
        page.add(&RESERVED, [(super::storage::LOCAL, ms as f64)]);
    }
}

fn deliveries(page: &mut Page, parts: &Parts) {
    let all = parts.services.deliveries();
    let rows = || {
        all.iter().map(|(topic, group, out)| {
            let (is_retry, is_system) = (topic.starts_with(names::RETRY_PREFIX), names::is_system_topic(topic));
            ([&**topic, &**group, flag(is_retry), flag(is_system)], out.totals())
        })
    };
    page.add(&OUT, rows().map(|(labels, (messages, _, _))| (labels, messages as f64)));
    page.add(&BYTES_OUT, rows().map(|(labels, (_, bytes, _))| (labels, bytes as f64)));
    let dead = rows().filter(|(_, (_, _, dead))| *dead > 0);
    page.add(&DEAD, dead.map(|([topic, group, _, system], (_, _, dead))| ([group, topic, system], dead as f64)));
}

/// As RocketMQ: codes by their names in small letters.
fn labels(latency: &Latency) -> [Cow<'static, str>; 5] {
    let kind = latency.kind;
    let name = |code: i32, name: Option<&'static str>| {
        Cow::Owned(name.map_or_else(|| code.to_string(), str::to_ascii_lowercase))
    };
    let request_code = match kind.request_code {
        0 => "unknown".into(),
        code => name(code, request::name(code)),
    };
    let result = if kind.written { "success" } else { "write_channel_failed" };
    let response_code = name(kind.response_code, response::name(kind.response_code));
    ["remoting".into(), request_code, response_code, flag(kind.long_polling).into(), result.into()]
}

fn in_micros(latency: &Latency) -> HistogramSnapshot {
    let bounds = LATENCY_BOUNDS_MS.iter().map(|bound| bound * 1_000);
    HistogramSnapshot { buckets: bounds.zip(latency.counts).collect(), above: latency.above, sum: latency.sum_us }
}

/// None while the log is empty.
fn reserved_ms(parts: &Parts) -> Option<u64> {
    let store = &parts.core.store;
    let oldest = store.record_at(store.min_offset())?;
    let stored_ms = record::decode(&oldest).ok()?.store_timestamp_ms;
    Some(u64::try_from(now_ms().saturating_sub(stored_ms)).unwrap_or(0))
}
