//! A client of our own over the remoting protocol, for what needs thousands of sends in a second and no JVM: the same for any broker.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use gantry_remoting::code::{request, response};
use gantry_remoting::headers::offset::{GetMaxOffset, GetMinOffset, OffsetResponse};
use gantry_remoting::headers::pull::{PullMessage, PullMessageResponse};
use gantry_remoting::headers::send::{SendMessage, SendMessageResponse};
use gantry_remoting::{Client, Command, Limits};
use gantry_store::{properties, record};
use tokio::time::{Instant, sleep};

const ANSWER_WITHIN: Duration = Duration::from_secs(30);
const AGAIN_AFTER: Duration = Duration::from_millis(20);
const GROUP: &str = "gantry-e2e";
const PULL_MESSAGES: i32 = 32;

/// A connection to one broker, made when it is needed.
pub struct Wire {
    client: Client,
}

/// What is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outgoing {
    /// Name and value; names of RocketMQ's own included (`TAGS`, `KEYS`, `DELAY`, …).
    pub properties: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

/// Where a sent message lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The queue.
    pub queue: i32,
    /// The number in it; of a batch, the first one's.
    pub offset: i64,
    /// The offset message id; of a batch, all of them with `,` between.
    pub offset_msg_id: String,
}

/// How a send was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Acknowledged.
    Ok(Place),
    /// With this code and remark.
    Refused(i32, String),
}

/// A message as a broker keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its queue.
    pub queue: i32,
    /// Its number in the queue.
    pub offset: i64,
    /// Where its record begins in the log.
    pub physical: u64,
    /// When it was stored, ms since 1970.
    pub stored_ms: i64,
    /// All properties.
    pub properties: BTreeMap<String, String>,
    /// The body.
    pub body: Bytes,
}

impl Wire {
    /// A client of `host:port`.
    pub fn new(address: &str) -> Self {
        Self { client: Client::new(address, Limits::default(), None) }
    }

    /// Sends one message to a queue of a topic, which is created with four queues if missing.
    pub async fn send(&self, topic: &str, queue: i32, message: &Outgoing) -> anyhow::Result<Sent> {
        self.send_as(request::SEND_MESSAGE_V2, topic, queue, &encode(&message.properties), message.body.clone()).await
    }

    /// Sends several messages as one batch.
    pub async fn send_batch(&self, topic: &str, queue: i32, messages: &[Outgoing]) -> anyhow::Result<Sent> {
        self.send_batch_with(topic, queue, &[], messages).await
    }

    /// The same with properties of the batch's own.
    pub async fn send_batch_with(
        &self,
        topic: &str,
        queue: i32,
        properties_of_all: &[(String, String)],
        messages: &[Outgoing],
    ) -> anyhow::Result<Sent> {
        let mut body = BytesMut::new();
        for message in messages {
            let properties = encode(&message.properties);
            let size = 22 + message.body.len() + properties.len();
            body.put_u32(u32::try_from(size)?);
            body.put_bytes(0, 12);
            body.put_u32(u32::try_from(message.body.len())?);
            body.put_slice(&message.body);
            body.put_u16(u16::try_from(properties.len())?);
            body.put_slice(properties.as_bytes());
        }
        let properties = encode(properties_of_all);
        self.send_as(request::SEND_BATCH_MESSAGE, topic, queue, &properties, body.freeze()).await
    }

    async fn send_as(&self, code: i32, topic: &str, queue: i32, properties: &str, body: Bytes) -> anyhow::Result<Sent> {
        let header = SendMessage {
            born_timestamp: crate::wait::now_us() / 1000,
            properties: Some(properties),
            reconsume_times: Some(0),
            unit_mode: Some(false),
            batch: Some(code == request::SEND_BATCH_MESSAGE),
            ..SendMessage::new(GROUP, topic, queue)
        };
        let answer = self.invoke_once(Command::request(code).with_header(&header).with_body(body)).await?;
        if answer.code != response::SUCCESS {
            return Ok(Sent::Refused(answer.code, answer.remark.unwrap_or_default()));
        }
        let place: SendMessageResponse<'_> = answer.header()?;
        let offset_msg_id = place.msg_id.to_owned();
        Ok(Sent::Ok(Place { queue: place.queue_id, offset: place.queue_offset, offset_msg_id }))
    }

    /// Everything in a queue from `from` on.
    pub async fn drain(&self, topic: &str, queue: i32, from: i64) -> anyhow::Result<Vec<Kept>> {
        let (mut next, end) = (from, self.max_offset(topic, queue).await?);
        let mut messages = Vec::new();
        while next < end {
            let (kept, after) = self.pull(topic, queue, next).await?;
            ensure!(after > next, "{topic} queue {queue}: a pull from {next} goes on at {after}, the end is {end}");
            messages.extend(kept);
            next = after;
        }
        Ok(messages)
    }

    /// One pull: messages, and where the next one begins.
    async fn pull(&self, topic: &str, queue: i32, from: i64) -> anyhow::Result<(Vec<Kept>, i64)> {
        let header = PullMessage { max_msg_nums: PULL_MESSAGES, ..PullMessage::new(GROUP, topic, queue, from) };
        let answer = self.invoke(Command::request(request::PULL_MESSAGE).with_header(&header)).await?;
        let found: PullMessageResponse = match answer.header() {
            Ok(found) => found,
            Err(_) => bail!("pulling {topic} queue {queue} from {from}: {}", refusal(&answer)),
        };
        if !matches!(answer.code, response::SUCCESS | response::PULL_NOT_FOUND | response::PULL_OFFSET_MOVED) {
            bail!("pulling {topic} queue {queue} from {from}: {}", refusal(&answer));
        }
        let messages = if answer.code == response::SUCCESS { decode(&answer.body.to_bytes())? } else { Vec::new() };
        Ok((messages, found.next_begin_offset))
    }

    /// The number that a queue's next message gets.
    pub async fn max_offset(&self, topic: &str, queue: i32) -> anyhow::Result<i64> {
        let header = GetMaxOffset { topic, queue_id: queue, committed: None };
        self.offset(Command::request(request::GET_MAX_OFFSET).with_header(&header)).await
    }

    /// A queue's first message.
    pub async fn min_offset(&self, topic: &str, queue: i32) -> anyhow::Result<i64> {
        let header = GetMinOffset { topic, queue_id: queue };
        self.offset(Command::request(request::GET_MIN_OFFSET).with_header(&header)).await
    }

    async fn offset(&self, command: Command) -> anyhow::Result<i64> {
        let answer = self.invoke(command).await?;
        ensure!(answer.code == response::SUCCESS, "asking for an offset: {}", refusal(&answer));
        Ok(answer.header::<OffsetResponse>()?.offset)
    }

    /// Any request but a send; an answer of whatever code. As stock clients do it asks again while the broker can't serve yet.
    pub async fn invoke(&self, command: Command) -> anyhow::Result<Command> {
        let deadline = Instant::now() + ANSWER_WITHIN;
        loop {
            let answer = self.invoke_once(command.clone()).await?;
            if answer.code != response::GO_AWAY || Instant::now() > deadline {
                return Ok(answer);
            }
            sleep(AGAIN_AFTER).await;
        }
    }

    async fn invoke_once(&self, command: Command) -> anyhow::Result<Command> {
        let code = command.code;
        let answer = self.client.invoke(command, ANSWER_WITHIN).await;
        answer.with_context(|| format!("request {code} to {}", self.client.addr()))
    }
}

fn refusal(answer: &Command) -> String {
    format!("code {} {}", answer.code, answer.remark.as_deref().unwrap_or_default())
}

fn encode(properties: &[(String, String)]) -> String {
    properties.iter().flat_map(|(name, value)| [name, "\u{1}", value, "\u{2}"]).collect()
}

/// Records one behind the other, as a pull or a query answers them.
pub fn decode(mut bytes: &[u8]) -> anyhow::Result<Vec<Kept>> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let size = bytes.first_chunk().map_or(0, |size| u32::from_be_bytes(*size) as usize);
        ensure!((1..=bytes.len()).contains(&size), "a record of {size} bytes in {}", bytes.len());
        let (one, rest) = bytes.split_at(size);
        let record = record::decode(one).map_err(|reason| anyhow::anyhow!("an answer holds no record: {reason}"))?;
        messages.push(Kept {
            queue: record.queue_id.cast_signed(),
            offset: record.queue_offset.0.cast_signed(),
            physical: record.physical.0,
            stored_ms: record.store_timestamp_ms,
            properties: properties::iter(record.properties).map(|(name, value)| (name.into(), value.into())).collect(),
            body: Bytes::copy_from_slice(record.body),
        });
        bytes = rest;
    }
    Ok(messages)
}
