//! SEND_MESSAGE, SEND_MESSAGE_V2, SEND_BATCH_MESSAGE: checks, and the way to the log.

use super::Services;
use super::failure::Refusal;
use super::names;
use super::now_ms;
use super::seam::{Done, SendFailure, Submission, Wait};
use super::send_batch::{self, BatchMessage};
use super::send_properties::{self as props, Scan, key};
use super::send_reply::SendReply;
use super::topics::{Topic, WantedTopic};
use super::traffic::Incoming;
use bytes::{Bytes, BytesMut};
use gantry_remoting::code::{request, response};
use gantry_remoting::headers::send::SendMessage;
use gantry_remoting::{Command, Inbound};
use gantry_store::{Append, NewMessage, record};
use smallvec::SmallVec;
use std::net::SocketAddr;
use std::sync::Arc;

/// The sends of one socket read, on their way to becoming one hand-over to the log.
#[derive(Default)]
pub(super) struct Sends {
    submissions: Vec<Submission>,
    /// Properties of all messages lie in one allocation
    arena: BytesMut,
    /// The topic of the send before: mostly the next one's too
    last_topic: Option<Arc<Topic>>,
}

/// A checked send: where it goes, before its messages are built.
struct Checked {
    topic: Arc<Topic>,
    /// The queue the producer is told
    queue: u32,
    reconsume_times: i32,
    /// Beyond its retries: no delay any more
    dead: bool,
}

/// What is ready for the log, and what its producer will be told.
struct Prepared {
    append: Append,
    wait: Wait,
    queue_id: u32,
    unique_id: Option<Bytes>,
    batch_id: Option<Bytes>,
    incoming: Arc<Incoming>,
}

/// What a message that is alone in its record says in a batch queue. Apache's brokers show nothing to consumers that doesn't.
pub(super) const ALONE: (&str, &str) = (key::INNER_NUM, "1");
/// What the broker alone says of a record.
const BATCH_FLAGS: i32 = record::NEED_UNWRAP | record::INNER_BATCH;
/// RocketMQ's bits of a message's transaction state in `sysFlag`.
const TRANSACTION_BITS: i32 = 0xC;
/// `TopicSysFlag.buildSysFlag(unit, …)`
const UNIT_FLAG: i32 = 1;

impl Sends {
    /// Adds what another request has to append.
    pub(super) fn push(&mut self, submission: Submission) {
        self.submissions.push(submission);
    }
}

impl Services {
    /// Takes one send: it becomes a submission, or is refused at once.
    pub(super) fn send(&self, inbound: Inbound, sends: &mut Sends) {
        let Inbound { request, ticket } = inbound;
        match self.prepare(&request, ticket.connection().peer(), sends) {
            Ok(Prepared { append, wait, queue_id, unique_id, batch_id, incoming }) => {
                let (region, store_host) = (self.region.clone(), self.config.store_host);
                let reply = SendReply { ticket, queue_id, unique_id, batch_id, incoming, region, store_host };
                sends.submissions.push(Submission { append, wait, done: Done::Reply(reply) });
            }
            Err(refusal) => ticket.reply_failure(refusal.code, refusal.remark),
        }
    }

    /// Hands all of them to the log at once.
    pub(super) fn submit(&self, sends: Sends) {
        if !sends.submissions.is_empty() {
            self.log.submit(sends.submissions);
        }
    }

    fn prepare(&self, request: &Command, born_host: SocketAddr, sends: &mut Sends) -> Result<Prepared, Refusal> {
        let header = SendMessage::decode(request.code, &request.ext)?;
        let body = request.body.to_bytes();
        if body.len() > self.config.max_message_bytes as usize {
            return Err(self.too_large(body.len()));
        }
        let properties = header.properties.unwrap_or_default();
        let scan = Scan::of(properties);
        refuse_unsupported(&scan, header.sys_flag)?;
        let checked = self.check(&header, request.version, sends)?;
        let model = Model { header: &header, checked: &checked, born_host, store_host: self.config.store_host };
        let wait = if scan.no_wait { Wait::Written } else { Wait::Acked };
        if request.code == request::SEND_BATCH_MESSAGE || header.batch == Some(true) {
            let inner = batch_messages(&model, &scan, body.clone())?;
            // RocketMQ's rule: clients before 5.0 give their batches no id, and don't take them apart.
            let (append, batch_id) = match scan.unique_id.filter(|_| checked.topic.has_batch_queues()) {
                Some(id) => {
                    let record = self.whole_batch(&model, (properties, &scan), &inner, body, &mut sends.arena)?;
                    let id = shared(&record.properties, properties, id);
                    (Append::from(record), Some(id))
                }
                None => (self.batch(&model, inner, &mut sends.arena)?, None),
            };
            let incoming = Arc::clone(&checked.topic.incoming);
            return Ok(Prepared { append, wait, queue_id: checked.queue, unique_id: None, batch_id, incoming });
        }
        let message = self.single(&model, properties, &scan, body, &mut sends.arena)?;
        let unique_id = scan.unique_id.map(|id| shared(&message.properties, properties, id));
        let (append, incoming) = (Append::from(message), Arc::clone(&checked.topic.incoming));
        Ok(Prepared { append, wait, queue_id: checked.queue, unique_id, batch_id: None, incoming })
    }

    /// May this producer send there? Creates the topic if that's allowed, and picks the queue.
    fn check(&self, header: &SendMessage<'_>, client_version: i32, sends: &mut Sends) -> Result<Checked, Refusal> {
        if i32::from(self.permission()) & super::topics::perm::WRITE == 0 {
            return Err(Refusal::new(response::NO_PERMISSION, "this broker's brokerPermission forbids sending"));
        }
        let mut topic = self.topic_to_send(header, sends)?;
        if !topic.is_writable() {
            let text = format!("the topic[{}] sending message is forbidden", topic.name);
            return Err(Refusal::new(response::NO_PERMISSION, text));
        }
        let queue = pick_queue(&topic, header.queue_id)?;
        let reconsume_times = header.reconsume_times.unwrap_or(0).max(0);
        let group = topic.name.strip_prefix(names::RETRY_PREFIX).map(str::to_owned);
        let dead = match &group {
            Some(group) => self.beyond_retries(group, reconsume_times, header.max_reconsume_times, client_version)?,
            None => false,
        };
        if let (true, Some(group)) = (dead, &group) {
            self.count_dead(&topic.name, group);
            topic = self.derived_topic(&names::dlq_topic(group), 1)?;
            return Ok(Checked { topic, queue: 0, reconsume_times, dead });
        }
        Ok(Checked { topic, queue, reconsume_times, dead })
    }

    fn topic_to_send(&self, header: &SendMessage<'_>, sends: &mut Sends) -> Result<Arc<Topic>, Refusal> {
        let name = header.topic;
        if let Some(last) = sends.last_topic.as_ref().filter(|last| &*last.name == name) {
            return Ok(last.clone());
        }
        if names::is_send_forbidden(name) {
            let text = format!("Sending message to topic[{name}] is forbidden.");
            return Err(Refusal::new(response::NO_PERMISSION, text));
        }
        let topic = match self.live.topics.get(name) {
            Some(topic) => topic,
            None => self.create_for_send(header)?,
        };
        sends.last_topic = Some(topic.clone());
        Ok(topic)
    }

    fn create_for_send(&self, header: &SendMessage<'_>) -> Result<Arc<Topic>, Refusal> {
        // A slave must not invent topics that its master doesn't know.
        self.role.serving().map_err(|why| why.refusal(0))?;
        if header.topic.starts_with(names::RETRY_PREFIX) {
            return self.derived_topic(header.topic, 1);
        }
        let sys_flag = if header.unit_mode == Some(true) { UNIT_FLAG } else { 0 };
        let (name, model) = (header.topic, header.default_topic);
        let wanted = WantedTopic { name, model, queues: header.default_topic_queue_nums, sys_flag };
        let (topic, new) = self.live.topics.get_or_create(wanted, now_ms())?;
        if new {
            // Before the send in the log: whoever has the message also has its topic.
            self.metadata.flush();
        }
        Ok(topic)
    }

    /// A group's retry or dead letter topic, created if need be.
    pub(super) fn derived_topic(&self, name: &str, queues: i32) -> Result<Arc<Topic>, Refusal> {
        let (topic, new) = self.live.topics.get_or_create_derived(name, queues, now_ms())?;
        if new {
            self.metadata.flush();
        }
        Ok(topic)
    }

    /// A consumer's own send to its retry topic: has the message been tried often enough?
    fn beyond_retries(&self, group: &str, times: i32, max: Option<i32>, client_version: i32) -> Result<bool, Refusal> {
        let Some(config) = self.live.groups.get(group) else {
            let text = format!("subscription group not exist, {group}");
            return Err(Refusal::new(response::SUBSCRIPTION_GROUP_NOT_EXIST, text));
        };
        let max = max_reconsume_times(max, client_version, config.retry_max_times);
        // Who holds queue locks consumes in order, and sends here only what it has given up.
        Ok(times > max || self.locks.any_alive(group, now_ms() as u64))
    }

    fn single(
        &self,
        model: &Model<'_>,
        properties: &str,
        scan: &Scan<'_>,
        body: Bytes,
        arena: &mut BytesMut,
    ) -> Result<NewMessage, Refusal> {
        let checked = model.checked;
        let level =
            if checked.dead { None } else { scan.delay_level().and_then(|level| self.delay_levels.clamp(level)) };
        let cluster = (key::CLUSTER, self.config.cluster_name.as_str());
        let message = match level {
            None => {
                let stored = props::store(properties, scan, &self.said_of_one(&checked.topic), arena);
                model.message(checked.topic.name.clone(), checked.queue, model.header.flag, body, stored)
            }
            Some(level) => {
                let (queue, level_text) = (checked.queue.to_string(), level.to_string());
                let delay = (key::DELAY, level_text.as_str());
                let real = [(key::REAL_TOPIC, &*checked.topic.name), (key::REAL_QUEUE, queue.as_str())];
                let stored = props::store(properties, scan, &[cluster, delay, real[0], real[1]], arena);
                model.message(self.schedule_topic.clone(), level - 1, model.header.flag, body, stored)
            }
        };
        check_properties(&message.properties)?;
        Ok(message)
    }

    /// What this broker says of a message in a record of its own.
    fn said_of_one(&self, topic: &Topic) -> SmallVec<[(&'static str, &str); 2]> {
        let cluster = (key::CLUSTER, self.config.cluster_name.as_str());
        if topic.has_batch_queues() { SmallVec::from_buf([cluster, ALONE]) } else { SmallVec::from_slice(&[cluster]) }
    }

    /// A record for each message of a batch.
    fn batch(&self, model: &Model<'_>, inner: Vec<BatchMessage>, arena: &mut BytesMut) -> Result<Append, Refusal> {
        let extra = self.said_of_one(&model.checked.topic);
        let topic = &model.checked.topic.name;
        let mut messages = SmallVec::with_capacity(inner.len());
        for part in inner {
            let text = part.properties();
            let stored = props::store(text, &may_be_in_batch(text)?, &extra, arena);
            check_properties(&stored)?;
            messages.push(model.message(topic.clone(), model.checked.queue, part.flag, part.body, stored));
        }
        Ok(Append { messages })
    }

    /// One record for the whole batch, whose consumers take it apart.
    fn whole_batch(
        &self,
        model: &Model<'_>,
        (properties, scan): (&str, &Scan<'_>),
        inner: &[BatchMessage],
        body: Bytes,
        arena: &mut BytesMut,
    ) -> Result<NewMessage, Refusal> {
        for part in inner {
            may_be_in_batch(part.properties())?;
        }
        let count = inner.len().to_string();
        let extra = [(key::CLUSTER, self.config.cluster_name.as_str()), (key::INNER_NUM, &count)];
        let stored = props::store(properties, scan, &extra, arena);
        check_properties(&stored)?;
        let Model { header, checked, .. } = model;
        let message = model.message(checked.topic.name.clone(), checked.queue, header.flag, body, stored);
        Ok(NewMessage { sys_flag: message.sys_flag | record::NEED_UNWRAP, ..message })
    }

    fn too_large(&self, size: usize) -> Refusal {
        let limit = self.config.max_message_bytes;
        let text = format!(
            "the message is illegal, maybe msg body or properties length not matched. msg body of {size}B, limit {limit}B"
        );
        illegal(text)
    }
}

/// The messages of a batch, which may be stored as one.
fn batch_messages(model: &Model<'_>, scan: &Scan<'_>, body: Bytes) -> Result<Vec<BatchMessage>, Refusal> {
    let topic = &model.checked.topic.name;
    if topic.starts_with(names::RETRY_PREFIX) || topic.starts_with(names::DLQ_PREFIX) {
        return Err(illegal(format!("batch request does not support retry group {topic}")));
    }
    if scan.delay.is_some() {
        return Err(illegal("a batch can't be delayed"));
    }
    send_batch::decode(body).map_err(|bad| illegal(bad.to_string()))
}

/// What is to be known of the properties of a message in a batch; refuses what can't be in one.
fn may_be_in_batch(properties: &str) -> Result<Scan<'_>, Refusal> {
    let scan = Scan::of(properties);
    refuse_unsupported(&scan, 0)?;
    if scan.delay.is_some() {
        return Err(illegal("a message of a batch can't be delayed"));
    }
    Ok(scan)
}

fn illegal(text: impl Into<String>) -> Refusal {
    Refusal::new(response::MESSAGE_ILLEGAL, text.into())
}

/// What all messages of one request share.
struct Model<'a> {
    header: &'a SendMessage<'a>,
    checked: &'a Checked,
    born_host: SocketAddr,
    store_host: SocketAddr,
}

impl Model<'_> {
    fn message(&self, topic: Arc<str>, queue_id: u32, flag: i32, body: Bytes, properties: Bytes) -> NewMessage {
        // A delayed message lies in another topic first.
        let in_batch_queue = self.checked.topic.has_batch_queues() && topic == self.checked.topic.name;
        NewMessage {
            sys_flag: self.header.sys_flag & !BATCH_FLAGS | if in_batch_queue { record::INNER_BATCH } else { 0 },
            topic,
            queue_id,
            flag,
            born_timestamp_ms: self.header.born_timestamp,
            born_host: self.born_host,
            store_host: self.store_host,
            reconsume_times: self.checked.reconsume_times,
            prepared_offset: 0,
            body,
            properties,
        }
    }
}

/// The queue the producer asks for, or any if it leaves that to the broker.
fn pick_queue(topic: &Topic, wanted: i32) -> Result<u32, Refusal> {
    let config = &topic.config;
    let Ok(queue) = u32::try_from(wanted) else { return random_queue(topic) };
    if wanted >= config.write_queue_nums.max(config.read_queue_nums) {
        let (write, read) = (config.write_queue_nums, config.read_queue_nums);
        let text =
            format!("request queueId[{wanted}] is illegal, topic[{}] has {write} to write, {read} to read", topic.name);
        return Err(Refusal::new(response::SYSTEM_ERROR, text));
    }
    Ok(queue)
}

/// A queue of the topic that may be written, any.
pub(super) fn random_queue(topic: &Topic) -> Result<u32, Refusal> {
    match u32::try_from(topic.config.write_queue_nums) {
        Ok(queues) if queues > 0 => Ok(fastrand::u32(..queues)),
        _ => Err(Refusal::new(response::NO_PERMISSION, format!("the topic[{}] has no queue to write", topic.name))),
    }
}

/// Clients since 3.4.9 say themselves how often a message may be retried.
pub(super) fn max_reconsume_times(client: Option<i32>, client_version: i32, group: i32) -> i32 {
    const V3_4_9: i32 = 121;
    client.filter(|_| client_version >= V3_4_9).unwrap_or(group)
}

/// What can't be done as asked is refused, never done otherwise: not delivered at once, not delivered uncommitted.
fn refuse_unsupported(scan: &Scan<'_>, sys_flag: i32) -> Result<(), Refusal> {
    let what = if scan.transaction || sys_flag & TRANSACTION_BITS != 0 {
        "a transaction message".to_owned()
    } else if let Some(timer) = scan.timer {
        format!("{timer} (delivery at any time; use a delay level)")
    } else {
        return Ok(());
    };
    Err(illegal(format!("this broker does not support {what} yet")))
}

/// The record's length field is a signed short.
fn check_properties(stored: &Bytes) -> Result<(), Refusal> {
    const LIMIT: usize = gantry_store::properties::MAX_BYTES;
    if stored.len() <= LIMIT {
        return Ok(());
    }
    let failure = SendFailure::TooLarge(format!("its properties have {} bytes, the limit is {LIMIT}", stored.len()));
    Err(failure.refusal(0))
}

/// The slice of `stored` that says `text`, shared instead of copied. `text` is part of `original`, of which `stored` was
/// made, mostly without moving anything.
fn shared(stored: &Bytes, original: &str, text: &str) -> Bytes {
    let at = (text.as_ptr() as usize).wrapping_sub(original.as_ptr() as usize);
    let unmoved = at..at.saturating_add(text.len());
    if stored.get(unmoved.clone()) == Some(text.as_bytes()) {
        stored.slice(unmoved)
    } else {
        Bytes::copy_from_slice(text.as_bytes())
    }
}
