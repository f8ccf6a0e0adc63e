//! `gantry exchange`: sends messages and receives them again by the name server's route, as a client would. For whoever wants to
//! know whether a group can be used from where they are: the chart's test, or a person in a pod.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use clap::Args;
use gantry_remoting::body::{self, route::TopicRouteData};
use gantry_remoting::code::{request, response};
use gantry_remoting::headers::pull::{PullMessage, PullMessageResponse};
use gantry_remoting::headers::route::GetRouteInfo;
use gantry_remoting::headers::send::{SendMessage, SendMessageResponse};
use gantry_remoting::{Client, Command, Limits};
use gantry_store::record;
use tokio::time::{Instant, sleep};

use crate::services::now_ms;

/// How long one answer may take. Above what a broker waits for its slaves, so that its own answer comes first.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Between one attempt and the next.
const RETRY: Duration = Duration::from_millis(200);
/// The topic whose route leads to every master that creates topics by itself.
const AUTO_CREATE_TOPIC: &str = "TBW102";
/// Enough to have each disk and thread of a broker do something.
const MOST_QUEUES: i32 = 4;
const CLIENT_GROUP: &str = "gantry-exchange";

/// Arguments of `gantry exchange`.
#[derive(Args)]
pub struct ExchangeArgs {
    /// Name servers, `host:port` with `;` between them.
    #[arg(short = 'n', long = "namesrv", value_name = "ADDRESSES", env = "NAMESRV_ADDR")]
    name_servers: String,
    /// Created by the first send where the brokers allow it.
    #[arg(long, default_value = "GantryExchange")]
    topic: String,
    /// How many messages go to each group that has the topic.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    messages: u32,
    /// How many seconds may pass until all are sent and received: a group that just elects a master is waited for.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    within: u64,
}

/// Where a master is.
#[derive(Debug)]
struct Master {
    group: String,
    address: String,
    /// How many queues of the topic take messages there.
    queues: i32,
}

/// Sends and receives; a line for each group on standard output.
pub async fn run(args: &ExchangeArgs) -> Result<()> {
    // Waiting brings none.
    ensure!(name_servers(args).next().is_some(), "no name server was given: --namesrv host:port");
    let deadline = Instant::now() + Duration::from_secs(args.within);
    let masters = until(deadline, || masters(args)).await?;
    for master in masters {
        let told = until(deadline, || exchange(args, &master)).await;
        let told = told.with_context(|| format!("group {} at {}", master.group, master.address))?;
        writeln!(std::io::stdout(), "{told}").context("can't write to standard output")?;
    }
    Ok(())
}

/// Tries until it works or the time is over; the last failure is told then.
async fn until<T, F: Future<Output = Result<T>>>(deadline: Instant, mut attempt: impl FnMut() -> F) -> Result<T> {
    loop {
        match attempt().await {
            Err(_) if Instant::now() + RETRY < deadline => sleep(RETRY).await,
            done => return done,
        }
    }
}

fn name_servers(args: &ExchangeArgs) -> impl Iterator<Item = &str> {
    args.name_servers.split([';', ',']).map(str::trim).filter(|address| !address.is_empty())
}

/// The masters that have the topic, or else those that will create it: from the first name server that knows any.
async fn masters(args: &ExchangeArgs) -> Result<Vec<Master>> {
    let mut failures = Vec::new();
    for address in name_servers(args) {
        let name_server = Client::new(address, Limits::default(), None);
        for topic in [args.topic.as_str(), AUTO_CREATE_TOPIC] {
            match route(&name_server, topic).await {
                Ok(masters) if !masters.is_empty() => return Ok(masters),
                Ok(_) => failures.push(format!("{address} knows no master for {topic}")),
                Err(error) => failures.push(format!("{address}: {error:#}")),
            }
        }
    }
    bail!("no route for topic {}: {}. Is a group ready, and does it register there?", args.topic, failures.join("; "))
}

async fn route(name_server: &Client, topic: &str) -> Result<Vec<Master>> {
    let header = GetRouteInfo { topic, accept_standard_json_only: Some(true) };
    let ask = Command::request(request::GET_ROUTEINFO_BY_TOPIC).with_header(&header);
    let answer = name_server.invoke(ask, ANSWER_WITHIN).await?;
    match answer.code {
        response::SUCCESS => {}
        response::TOPIC_NOT_EXIST => return Ok(Vec::new()),
        _ => bail!(refusal(&answer)),
    }
    let route: TopicRouteData = body::parse(&answer.body.to_bytes()).context("its route can't be read")?;
    let masters = route.broker_datas.into_iter().filter_map(|mut broker| {
        let address = broker.broker_addrs.remove(&0)?;
        let queues = route.queue_datas.iter().find(|queues| queues.broker_name == broker.broker_name)?;
        // A topic that is yet to be created gets no more than the one that it is made after.
        let queues = queues.write_queue_nums.min(MOST_QUEUES);
        (queues > 0).then_some(Master { group: broker.broker_name, address, queues })
    });
    Ok(masters.collect())
}

/// One whole exchange with a master, and what is to be said of it.
async fn exchange(args: &ExchangeArgs, master: &Master) -> Result<String> {
    let broker = Client::new(&master.address, Limits::default(), None);
    let begun = Instant::now();
    let run = now_ms();
    let mut places = Vec::new();
    for number in 0..args.messages {
        let body = Bytes::from(format!("gantry exchange {run}-{number}"));
        let place = send(&broker, &args.topic, number.cast_signed() % master.queues, body.clone()).await?;
        places.push((place, body));
    }
    let (sent, begun) = (begun.elapsed(), Instant::now());
    for ((queue, offset), body) in places {
        let found = receive(&broker, &args.topic, queue, offset).await?;
        ensure!(
            found == body,
            "queue {queue} offset {offset} of topic {} holds {found:?}, acknowledged there was {body:?}",
            args.topic
        );
    }
    Ok(format!(
        "{}: {} messages sent to {} in {} ms, and received in {} ms",
        master.group,
        args.messages,
        master.address,
        sent.as_millis(),
        begun.elapsed().as_millis()
    ))
}

/// The queue and the offset in it that were acknowledged.
async fn send(broker: &Client, topic: &str, queue: i32, body: Bytes) -> Result<(i32, i64)> {
    let header = SendMessage {
        default_topic: AUTO_CREATE_TOPIC,
        default_topic_queue_nums: MOST_QUEUES,
        born_timestamp: now_ms(),
        reconsume_times: Some(0),
        unit_mode: Some(false),
        batch: Some(false),
        ..SendMessage::new(CLIENT_GROUP, topic, queue)
    };
    let command = Command::request(request::SEND_MESSAGE_V2).with_header(&header).with_body(body);
    let answer = broker.invoke(command, ANSWER_WITHIN).await?;
    ensure!(answer.code == response::SUCCESS, "a message for topic {topic} was refused: {}", refusal(&answer));
    let place: SendMessageResponse<'_> = answer.header()?;
    Ok((place.queue_id, place.queue_offset))
}

/// The body of the message at a place.
async fn receive(broker: &Client, topic: &str, queue: i32, offset: i64) -> Result<Bytes> {
    let header = PullMessage { max_msg_nums: 1, ..PullMessage::new(CLIENT_GROUP, topic, queue, offset) };
    let answer = broker.invoke(Command::request(request::PULL_MESSAGE).with_header(&header), ANSWER_WITHIN).await?;
    let what = || format!("queue {queue} offset {offset} of topic {topic}");
    ensure!(answer.code == response::SUCCESS, "{} can't be received: {}", what(), refusal(&answer));
    answer.header::<PullMessageResponse>().with_context(what)?;
    let bytes = answer.body.to_bytes();
    let size = bytes.first_chunk().map_or(0, |size| u32::from_be_bytes(*size) as usize);
    ensure!((1..=bytes.len()).contains(&size), "{}: a record of {size} bytes in an answer of {}", what(), bytes.len());
    let record = record::decode(&bytes[..size]).map_err(|reason| anyhow::anyhow!("{}: {reason}", what()))?;
    ensure!(record.queue_offset.0 == offset.cast_unsigned(), "{}: offset {} came", what(), record.queue_offset.0);
    Ok(Bytes::copy_from_slice(record.body))
}

fn refusal(answer: &Command) -> String {
    format!("code {} {}", answer.code, answer.remark.as_deref().unwrap_or_default())
}
