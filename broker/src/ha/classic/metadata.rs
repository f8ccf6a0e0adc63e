//! What an Apache master keeps beside its log: topics, groups, consumed offsets, progress of delays. Its slaves ask for it now and then.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use gantry_remoting::body::{self, kv_table::KvTable, topic_config::TopicConfigs};
use gantry_remoting::code::{request, response};
use gantry_remoting::headers::admin::QueryConsumeQueue;
use gantry_remoting::headers::offset::{GetMaxOffset, OffsetResponse};
use gantry_remoting::{Client, Command};
use gantry_store::{QueueNumber, QueueOffset};
use tokio::time::sleep;
use tracing::{info, warn};

use crate::core::Core;
use crate::services::Services;
use crate::services::config_files::parse_bodies;

const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Between two rounds: what consumers of a master that was lost may get once more.
const PERIOD: Duration = Duration::from_secs(1);

/// What a broker says of itself.
pub(super) struct BrokerInfo {
    /// `brokerVersionDesc`
    pub(super) version: String,
    pub(super) min_offset: u64,
    pub(super) max_offset: u64,
    /// `mappedFileSizeCommitLog`
    pub(super) segment_bytes: u64,
}

/// Whether a broker is one of Gantry's, which speak their own HA protocol.
pub(crate) async fn is_gantry(client: &Client) -> Result<bool> {
    let table = runtime_info(client).await?;
    Ok(table.table.get("brokerVersionDesc").is_some_and(|version| version.starts_with("Gantry")))
}

/// Asks a broker for its version and its log's ends.
pub(super) async fn broker_info(client: &Client) -> Result<BrokerInfo> {
    let table = runtime_info(client).await?;
    let config = ask(client, request::GET_BROKER_CONFIG).await?;
    let config: std::collections::HashMap<String, String> =
        java_properties::read(&*config).context("GET_BROKER_CONFIG")?;
    let segment_bytes =
        config.get("mappedFileSizeCommitLog").context("no mappedFileSizeCommitLog in its configuration")?;
    Ok(BrokerInfo {
        version: table.table.get("brokerVersionDesc").cloned().unwrap_or_default(),
        min_offset: number(&table, "commitLogMinOffset")?,
        max_offset: number(&table, "commitLogMaxOffset")?,
        segment_bytes: segment_bytes.trim().parse().context("mappedFileSizeCommitLog")?,
    })
}

/// Follows the master's metadata. A round that fails is told and tried again: the log goes on meanwhile.
pub(super) async fn keep(client: &Client, core: &Core, services: &Services) -> Result<()> {
    let (mut failing, mut caught_up) = (false, false);
    loop {
        let round = round(client, core, services).await;
        match &round {
            Ok(()) if !caught_up => {
                caught_up = true;
                let end = core.store.watermarks().written.0;
                info!(master = client.addr(), end, "caught up with the master's log and metadata");
            }
            Err(error) if !failing => {
                warn!(
                    master = client.addr(),
                    reason = format!("{error:#}"),
                    "the master's metadata can't be had; trying again"
                );
            }
            Ok(()) if failing => info!(master = client.addr(), "the master's metadata is followed again"),
            _ => {}
        }
        failing = round.is_err();
        sleep(PERIOD).await;
    }
}

/// Invariant: metadata is never ahead of the log. Otherwise a delayed message could count as delivered (or a message as consumed)
/// of which this log, when the master dies, lacks the copy. So what the master says takes effect once this log has all that the
/// master's had afterwards.
async fn round(client: &Client, core: &Core, services: &Services) -> Result<()> {
    let topics = ask(client, request::GET_ALL_TOPIC_CONFIG).await?;
    let groups = ask(client, request::GET_ALL_SUBSCRIPTIONGROUP_CONFIG).await?;
    let offsets = ask(client, request::GET_ALL_CONSUMER_OFFSET).await?;
    let delay = ask(client, request::GET_ALL_DELAY_OFFSET).await?;
    let tables = parse_bodies(&topics, &groups, &offsets, &delay).context("the master's metadata")?;
    let reach = number(&runtime_info(client).await?, "commitLogMaxOffset")?;
    let mut written = core.watch_written();
    written.wait_for(|written| *written >= reach).await?;
    services.follow_foreign(tables);
    Ok(())
}

/// Queues whose last message lies before the log's oldest byte, and the numbers with which they go on: no record of the log tells.
pub(super) async fn drained_queues(client: &Client, oldest: u64) -> Result<Vec<QueueNumber>> {
    let topics: TopicConfigs = body::parse(&ask(client, request::GET_ALL_TOPIC_CONFIG).await?)?;
    let mut drained = Vec::new();
    for (topic, config) in &topics.topic_config_table {
        for queue_id in 0..config.read_queue_nums.max(config.write_queue_nums).max(0) {
            let header = GetMaxOffset { topic, queue_id, committed: None };
            let answer = invoke(client, Command::request(request::GET_MAX_OFFSET).with_header(&header)).await?;
            let next = answer.header::<OffsetResponse>()?.offset;
            if next > 0 && last_position(client, topic, queue_id, next - 1).await?.is_none_or(|last| last < oldest) {
                let next = QueueOffset(next as u64);
                drained.push(QueueNumber { topic: topic.as_str().into(), queue_id: queue_id as u32, next });
            }
        }
    }
    Ok(drained)
}

/// Where a queue's message lies in the log; none if the queue doesn't have it any more.
async fn last_position(client: &Client, topic: &str, queue_id: i32, index: i64) -> Result<Option<u64>> {
    #[derive(Default, serde::Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Body {
        queue_data: Option<Vec<Unit>>,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Unit {
        physic_offset: u64,
    }
    let header = QueryConsumeQueue { topic, queue_id, index, count: 1, consumer_group: None };
    let answer = invoke(client, Command::request(request::QUERY_CONSUME_QUEUE).with_header(&header)).await?;
    let body: Body = body::parse(&answer.body.to_bytes())?;
    Ok(body.queue_data.unwrap_or_default().first().map(|unit| unit.physic_offset))
}

async fn runtime_info(client: &Client) -> Result<KvTable> {
    Ok(body::parse(&ask(client, request::GET_BROKER_RUNTIME_INFO).await?)?)
}

fn number(table: &KvTable, key: &str) -> Result<u64> {
    let text = table.table.get(key).with_context(|| format!("its runtime info lacks {key}"))?;
    // An Apache broker without a log yet says -1.
    Ok(u64::try_from(text.trim().parse::<i64>().with_context(|| format!("{key}={text}"))?).unwrap_or(0))
}

async fn ask(client: &Client, code: i32) -> Result<Bytes> {
    Ok(invoke(client, Command::request(code)).await?.body.to_bytes())
}

async fn invoke(client: &Client, request: Command) -> Result<Command> {
    let code = request.code;
    let answer = client.invoke(request, ANSWER_WITHIN).await?;
    if answer.code != response::SUCCESS {
        let name = request::name(code).unwrap_or_default();
        bail!("{} refused {name} with code {}: {}", client.addr(), answer.code, answer.remark.unwrap_or_default());
    }
    Ok(answer)
}
