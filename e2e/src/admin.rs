//! The little administration that tests need, over the wire: topics and their routes.

use std::time::Duration;

use anyhow::{Context, bail};
use gantry_remoting::body::{self, kv_table::KvTable};
use gantry_remoting::code::{request, response};
use gantry_remoting::headers::route::GetRouteInfo;
use gantry_remoting::headers::topic::CreateTopic;
use gantry_remoting::{Client, Command, Limits};
use tokio::time::{Instant, sleep};

const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const ROUTE_WITHIN: Duration = Duration::from_secs(30);

/// Creates a topic at a master and waits until the name server knows its route.
pub fn create_topic(nameserver: &str, master: &str, topic: &str, queues: i32) -> anyhow::Result<()> {
    create_topic_with(nameserver, master, topic, queues, None)
}

/// The same with attributes, `+key=value`.
pub fn create_topic_with(
    nameserver: &str,
    master: &str,
    topic: &str,
    queues: i32,
    attributes: Option<&str>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let broker = Client::new(master, Limits::default(), None);
        let answer =
            broker.invoke(topic_request(topic, queues, attributes), ANSWER_WITHIN).await.context("creating a topic")?;
        if answer.code != response::SUCCESS {
            bail!("creating topic {topic} at {master}: code {} {}", answer.code, answer.remark.unwrap_or_default());
        }
        wait_for_route(nameserver, topic).await
    })
}

/// Asks a master for a topic with so many queues to read and to write.
pub(crate) fn topic_request(topic: &str, queues: i32, attributes: Option<&str>) -> Command {
    let header = CreateTopic {
        topic,
        default_topic: "TBW102",
        read_queue_nums: queues,
        write_queue_nums: queues,
        perm: 6,
        topic_filter_type: "SINGLE_TAG",
        topic_sys_flag: Some(0),
        order: Some(false),
        attributes,
        force: None,
    };
    Command::request(request::UPDATE_AND_CREATE_TOPIC).with_header(&header)
}

/// Where a broker's log ends, as it says itself.
pub fn log_end(broker: &str) -> anyhow::Result<u64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = Client::new(broker, Limits::default(), None);
        let answer = client.invoke(Command::request(request::GET_BROKER_RUNTIME_INFO), ANSWER_WITHIN).await?;
        let info: KvTable = body::parse(&answer.body.to_bytes())?;
        let end = info.table.get("commitLogMaxOffset").context("no commitLogMaxOffset in its runtime info")?;
        // An Apache broker without a log says -1.
        Ok(u64::try_from(end.trim().parse::<i64>()?).unwrap_or(0))
    })
}

async fn wait_for_route(nameserver: &str, topic: &str) -> anyhow::Result<()> {
    let client = Client::new(nameserver, Limits::default(), None);
    let deadline = Instant::now() + ROUTE_WITHIN;
    loop {
        let header = GetRouteInfo { topic, accept_standard_json_only: Some(true) };
        let ask = Command::request(request::GET_ROUTEINFO_BY_TOPIC).with_header(&header);
        let answer = client.invoke(ask, ANSWER_WITHIN).await.context("asking for a route")?;
        if answer.code == response::SUCCESS {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("no route for {topic} at {nameserver} after {ROUTE_WITHIN:?}: code {}", answer.code);
        }
        sleep(Duration::from_millis(20)).await;
    }
}
