//! CONSUMER_SEND_MSG_BACK: a message that couldn't be consumed goes to its group's retry topic, later each time, and in
//! the end to the dead letter topic.

use super::Services;
use super::failure::Refusal;
use super::names;
use super::offset_requests::damaged;
use super::seam::{Done, Submission, Wait};
use super::send::{Sends, max_reconsume_times, random_queue};
use super::send_properties::key;
use gantry_remoting::code::response;
use gantry_remoting::headers::send::ConsumerSendMsgBack;
use gantry_remoting::{Command, Inbound};
use gantry_store::properties::{self, Builder};
use gantry_store::record::{self, RecordView};
use gantry_store::{Append, NewMessage};

/// Delay level of a message's first retry when the consumer names none.
const FIRST_RETRY_LEVEL: i32 = 3;

impl Services {
    /// Takes a message back. It joins the sends of its socket read.
    pub(super) fn send_back(&self, inbound: Inbound, sends: &mut Sends) {
        let Inbound { request, ticket } = inbound;
        let message = self.master_only(&request).and_then(|()| self.message_back(&request));
        let message = match message {
            Ok(Some(message)) => message,
            Ok(None) => return ticket.reply_success(),
            Err(refusal) => return ticket.reply_failure(refusal.code, refusal.remark),
        };
        let done = Done::Call(Box::new(move |result| match result {
            Ok(_) => ticket.reply_success(),
            Err(failure) => {
                // It may be in the log; but the consumer then sends it by itself, and twice is better than never.
                let refusal = failure.refusal(ticket.client_version());
                let code = if failure.is_written() { response::SYSTEM_ERROR } else { refusal.code };
                ticket.reply_failure(code, refusal.remark);
            }
        }));
        sends.push(Submission { append: Append::from(message), wait: Wait::Acked, done });
    }

    /// The message as it is stored again; `None` if the group wants no retries.
    fn message_back(&self, request: &Command) -> Result<Option<NewMessage>, Refusal> {
        let header: ConsumerSendMsgBack<'_> = request.header()?;
        let Some(group) = self.live.groups.get(header.group) else {
            let text = format!("subscription group not exist, {}", header.group);
            return Err(Refusal::new(response::SUBSCRIPTION_GROUP_NOT_EXIST, text));
        };
        if group.retry_queue_nums <= 0 {
            return Ok(None);
        }
        let Some(bytes) = self.visible_record(header.offset) else {
            let text = format!("look message by offset failed, {}", header.offset);
            return Err(Refusal::new(response::SYSTEM_ERROR, text));
        };
        let origin = record::decode(&bytes).map_err(|reason| damaged("of a message sent back", &reason))?;
        if origin.sys_flag & record::NEED_UNWRAP != 0 {
            // As RocketMQ: the client then sends the one message again itself.
            let text = format!("the record at {} is a batch: a message of it can't be sent back alone", header.offset);
            return Err(Refusal::new(response::MESSAGE_ILLEGAL, text));
        }
        let max = max_reconsume_times(header.max_reconsume_times, request.version, group.retry_max_times);
        let dead = origin.reconsume_times >= max || header.delay_level < 0;
        let message = if dead {
            self.dead_letter(header.group, &origin)?
        } else {
            let retries = FIRST_RETRY_LEVEL.saturating_add(origin.reconsume_times);
            let level = if header.delay_level == 0 { retries } else { header.delay_level };
            self.retry(header.group, group.retry_queue_nums, level, &origin)?
        };
        Ok(Some(NewMessage { body: bytes.slice_ref(origin.body), ..message }))
    }

    fn dead_letter(&self, group: &str, origin: &RecordView<'_>) -> Result<NewMessage, Refusal> {
        let topic = self.derived_topic(&names::dlq_topic(group), 1)?;
        self.count_dead(&origin.topic.into(), group);
        tracing::debug!(
            group,
            topic = origin.topic,
            times = origin.reconsume_times,
            "message given up, to the dead letter topic"
        );
        let queue = random_queue(&topic)?;
        let mut properties = properties_back(origin);
        properties.remove(key::DELAY);
        Ok(self.again(origin, topic.name.clone(), queue, properties))
    }

    /// Into the schedule topic, from where it goes to the retry topic.
    fn retry(&self, group: &str, queues: i32, level: i32, origin: &RecordView<'_>) -> Result<NewMessage, Refusal> {
        let topic = self.derived_topic(&names::retry_topic(group), queues)?;
        if !topic.is_writable() {
            let text = format!("the topic[{}] sending message is forbidden", topic.name);
            return Err(Refusal::new(response::NO_PERMISSION, text));
        }
        let queue = random_queue(&topic)?;
        let level = self.delay_levels.clamp(level).unwrap_or(1);
        let mut properties = properties_back(origin);
        properties.set(key::DELAY, &level.to_string());
        properties.set(key::REAL_TOPIC, &topic.name).set(key::REAL_QUEUE, &queue.to_string());
        Ok(self.again(origin, self.schedule_topic.clone(), level - 1, properties))
    }

    /// The message once more, but for its body.
    fn again(
        &self,
        origin: &RecordView<'_>,
        topic: std::sync::Arc<str>,
        queue_id: u32,
        properties: Builder,
    ) -> NewMessage {
        NewMessage {
            topic,
            queue_id,
            flag: origin.flag,
            // Retry topics have no batch queues.
            sys_flag: origin.sys_flag & !record::INNER_BATCH,
            born_timestamp_ms: origin.born_timestamp_ms,
            born_host: origin.born_host,
            store_host: self.config.store_host,
            reconsume_times: origin.reconsume_times.saturating_add(1),
            prepared_offset: 0,
            body: bytes::Bytes::new(),
            properties: properties.build(),
        }
    }
}

/// The message's properties, and where it came from first.
fn properties_back(origin: &RecordView<'_>) -> Builder {
    let mut back = Builder::from_encoded(origin.properties);
    back.remove(key::WAIT);
    if properties::get(origin.properties, key::RETRY_TOPIC).is_none() {
        back.push(key::RETRY_TOPIC, origin.topic);
    }
    if properties::get(origin.properties, key::ORIGIN_MESSAGE_ID).is_none() {
        back.push(key::ORIGIN_MESSAGE_ID, &record::message_id(origin.store_host, origin.physical));
    }
    back
}
