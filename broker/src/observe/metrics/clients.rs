//! What clients do: RocketMQ's own metrics, as far as they are known here, and which sends were refused.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use gantry_store::QueueInfo;

use super::Parts;
use super::ha::metrics;
use super::page::{Kind, Metric, Page};
use crate::services::names;
use crate::services::seam::Role as _;

metrics! { METRICS:
    PERMISSION = Gauge "rocketmq_broker_permission" [] "brokerPermission: 6 read and write, 4 read, 2 write";
    WATERMARK = Gauge "rocketmq_processor_watermark" ["processor"] "Requests that wait: sends for the log's writer, pulls for messages";
    TOPICS = Gauge "rocketmq_topic_number" [] "Topics, the broker's own included";
    GROUPS = Gauge "rocketmq_consumer_group_number" [] "Subscription groups";
    MESSAGES_IN = Counter "rocketmq_messages_in_total" ["topic", "message_type", "is_system"]
        "On the master: messages that the topic's queues ever held. Unlike RocketMQ's it doesn't begin at 0 with each start";
    PRODUCERS = Gauge "rocketmq_producer_connections" ["language", "version"] "Producers that are connected";
    CONSUMERS = Gauge "rocketmq_consumer_connections" ["consumer_group", "language", "version", "is_system"] "Consumers that are connected";
    LAG = Gauge "rocketmq_consumer_lag_messages" ["consumer_group", "topic", "is_retry", "is_system"]
        "On the master: messages behind the group's committed offsets";
    REFUSED = Counter "rocketmq_sends_refused_total" ["reason", "code"]
        "Sends that were not acknowledged, by why, and by RocketMQ's response code. flush_*_timeout: the message is in the log all the same";
}

pub(super) fn collect(page: &mut Page, parts: &Parts) {
    let (services, core) = (&parts.services, &parts.core);
    page.one(&PERMISSION, f64::from(services.permission()));
    page.add(
        &WATERMARK,
        [(["SendMessage"], core.queued_sends() as f64), (["PullMessage"], services.held_pulls() as f64)],
    );
    page.one(&TOPICS, services.live().topics.all().1.len() as f64);
    page.one(&GROUPS, services.live().groups.all().1.len() as f64);
    page.add(
        &REFUSED,
        core.counters().refusals().map(|(reason, code, counter)| {
            ([reason.to_owned(), code.to_string()], counter.load(Ordering::Relaxed) as f64)
        }),
    );
    if core.serving().is_err() {
        return;
    }
    let queues = core.store.queues();
    messages_in(page, &queues);
    lags(page, parts, &queues);
    connections(page, parts);
}

fn messages_in(page: &mut Page, queues: &[QueueInfo]) {
    let topics = queues.chunk_by(|a, b| a.topic == b.topic);
    let shown = topics.filter(|queues| !names::is_internal_topic(&queues[0].topic));
    page.add(
        &MESSAGES_IN,
        shown.map(|queues| {
            let topic = &*queues[0].topic;
            let messages: u64 = queues.iter().map(|queue| queue.range.max.0).sum();
            ([topic, "normal", flag(names::is_system_topic(topic))], messages as f64)
        }),
    );
}

fn lags(page: &mut Page, parts: &Parts, queues: &[QueueInfo]) {
    let mut by_topic: HashMap<&str, &[QueueInfo]> = HashMap::new();
    by_topic.extend(queues.chunk_by(|a, b| a.topic == b.topic).map(|queues| (&*queues[0].topic, queues)));
    let mut lags: Vec<(Arc<str>, Arc<str>, u64)> = Vec::new();
    parts.services.live().offsets.for_each(|topic, group, offsets| {
        let queues = by_topic.get(&**topic).copied().unwrap_or_default();
        let behind = queues.iter().filter_map(|queue| {
            let next = u64::try_from(*offsets.get(&queue.queue_id)?).unwrap_or(0);
            Some(queue.range.max.0.saturating_sub(next.max(queue.range.min.0)))
        });
        lags.push((Arc::clone(group), Arc::clone(topic), behind.sum()));
    });
    // In the same order each time: if there are too many, the same ones are left out.
    lags.sort_unstable();
    page.add(
        &LAG,
        lags.iter().map(|(group, topic, lag)| {
            let (is_retry, is_system) = (topic.starts_with(names::RETRY_PREFIX), names::is_system_topic(topic));
            ([&**group, &**topic, flag(is_retry), flag(is_system)], *lag as f64)
        }),
    );
}

fn connections(page: &mut Page, parts: &Parts) {
    let census = parts.services.census();
    page.add(
        &PRODUCERS,
        census
            .producers
            .iter()
            .map(|((language, version), count)| ([(*language).to_owned(), version.to_string()], *count as f64)),
    );
    page.add(
        &CONSUMERS,
        census.consumers.iter().map(|((group, language, version), count)| {
            ([group.clone(), (*language).to_owned(), version.to_string(), "false".to_owned()], *count as f64)
        }),
    );
}

pub(super) fn flag(is: bool) -> &'static str {
    if is { "true" } else { "false" }
}
