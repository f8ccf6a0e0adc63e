//! What an Apache master keeps beside its log: topics, groups, consumed offsets, progress of delays. Its slaves ask for it now and then.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use gantry_remoting::body::{self, kv_table::KvTable};
use gantry_remoting::code::{request, response};
use gantry_remoting::{Client, Command};
use tokio::time::sleep;
use tracing::{info, warn};

use crate::core::Core;
use crate::services::Services;
use crate::services::config_files::parse_bodies;

const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Between two rounds: what consumers of a master that was lost may get once more.
const PERIOD: Duration = Duration::from_secs(1);

/// What a broker says of itself.
pub(crate) struct BrokerInfo {
    /// `brokerVersionDesc`
    pub(crate) version: String,
    pub(crate) min_offset: u64,
    pub(crate) max_offset: u64,
    /// `mappedFileSizeCommitLog`
    pub(crate) segment_bytes: u64,
}

/// Asks a broker for its version and its log's ends.
pub(crate) async fn broker_info(client: &Client) -> Result<BrokerInfo> {
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

async fn runtime_info(client: &Client) -> Result<KvTable> {
    Ok(body::parse(&ask(client, request::GET_BROKER_RUNTIME_INFO).await?)?)
}

fn number(table: &KvTable, key: &str) -> Result<u64> {
    let text = table.table.get(key).with_context(|| format!("its runtime info lacks {key}"))?;
    // An Apache broker without a log yet says -1.
    Ok(u64::try_from(text.trim().parse::<i64>().with_context(|| format!("{key}={text}"))?).unwrap_or(0))
}

async fn ask(client: &Client, code: i32) -> Result<Bytes> {
    let answer = client.invoke(Command::request(code), ANSWER_WITHIN).await?;
    if answer.code != response::SUCCESS {
        let name = request::name(code).unwrap_or_default();
        bail!("{} refused {name} with code {}: {}", client.addr(), answer.code, answer.remark.unwrap_or_default());
    }
    Ok(answer.body.to_bytes())
}
