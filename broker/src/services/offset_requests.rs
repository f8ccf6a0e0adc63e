//! Offsets of consumers (14, 15) and of queues (29 to 32), and messages by their place in the log (33).

use super::Services;
use super::failure::Refusal;
use super::names;
use super::pull::readable_queue;
use gantry_remoting::code::response;
use gantry_remoting::headers::offset::{
    EarliestStoreTimeResponse, GetEarliestStoreTime, GetMaxOffset, GetMinOffset, OffsetResponse, QueryConsumerOffset,
    SearchOffset, UpdateConsumerOffset, ViewMessage,
};
use gantry_remoting::{Command, Response};
use gantry_store::{Boundary, PhysicalOffset, QueueOffset, ReadLimits, record};

impl Services {
    /// QUERY_CONSUMER_OFFSET: where a group goes on.
    pub(super) fn query_offset(&self, request: &Command) -> Result<Response, Refusal> {
        let header: QueryConsumerOffset<'_> = request.header()?;
        let queue = self.queue(header.topic, header.queue_id)?;
        if let Some(offset) = self.live.offsets.get(header.topic, header.consumer_group, queue) {
            return Ok(offset_response(offset));
        }
        let not_found = |text| Err(Refusal::new(response::QUERY_NOT_FOUND, text));
        if header.set_zero_if_not_found == Some(false) {
            return not_found("Not found, do not set to zero, maybe this group boot first");
        }
        if self.starts_in_memory(header.topic, queue)? {
            return Ok(offset_response(0));
        }
        not_found("Not found, V3_0_6_SNAPSHOT maybe this group consumer boot first")
    }

    /// UPDATE_CONSUMER_OFFSET.
    pub(super) fn update_offset(&self, request: &Command) -> Result<Response, Refusal> {
        let header: UpdateConsumerOffset<'_> = request.header()?;
        let topic = self.live.topics.require(header.topic)?;
        let queue = readable_queue(&topic, header.queue_id)?;
        self.group(header.consumer_group)?;
        if header.commit_offset < 0 {
            let text = format!("commitOffset {} of {} is negative", header.commit_offset, header.topic);
            return Err(Refusal::new(response::INVALID_PARAMETER, text));
        }
        self.live.offsets.commit(&topic.name, header.consumer_group, queue, header.commit_offset);
        Ok(Response::success())
    }

    /// GET_MAX_OFFSET.
    pub(super) fn max_offset(&self, request: &Command) -> Result<Response, Refusal> {
        let header: GetMaxOffset<'_> = request.header()?;
        let queue = self.queue(header.topic, header.queue_id)?;
        Ok(offset_response(self.store.queue_range(header.topic, queue).max.0 as i64))
    }

    /// GET_MIN_OFFSET.
    pub(super) fn min_offset(&self, request: &Command) -> Result<Response, Refusal> {
        let header: GetMinOffset<'_> = request.header()?;
        let queue = self.queue(header.topic, header.queue_id)?;
        Ok(offset_response(self.store.queue_range(header.topic, queue).min.0 as i64))
    }

    /// SEARCH_OFFSET_BY_TIMESTAMP.
    pub(super) fn search_offset(&self, request: &Command) -> Result<Response, Refusal> {
        let header: SearchOffset<'_> = request.header()?;
        let queue = self.queue(header.topic, header.queue_id)?;
        let boundary = match header.boundary_type {
            Some(text) if text.eq_ignore_ascii_case("upper") => Boundary::Upper,
            _ => Boundary::Lower,
        };
        let offset = self.store.offset_by_time(header.topic, queue, header.timestamp, boundary)?;
        Ok(offset_response(offset.0 as i64))
    }

    /// GET_EARLIEST_MSG_STORETIME.
    pub(super) fn earliest_store_time(&self, request: &Command) -> Result<Response, Refusal> {
        let header: GetEarliestStoreTime<'_> = request.header()?;
        let queue = self.queue(header.topic, header.queue_id)?;
        let timestamp = self.store.earliest_store_time(header.topic, queue)?.unwrap_or(-1);
        Ok(Response::success().with_header(&EarliestStoreTimeResponse { timestamp }))
    }

    /// VIEW_MESSAGE_BY_ID: the record at a physical offset, if consumers may see it yet.
    pub(super) fn view_message(&self, request: &Command) -> Result<Response, Refusal> {
        let header: ViewMessage<'_> = request.header()?;
        let Some(record) = self.visible_record(header.offset) else {
            let text = format!("can not find message by the offset, {}", header.offset);
            return Err(Refusal::new(response::SYSTEM_ERROR, text));
        };
        Ok(Response::success().with_body(record))
    }

    /// The record at an offset that a client names. Nothing above the confirm offset, nothing of the broker's own.
    pub(super) fn visible_record(&self, offset: i64) -> Option<bytes::Bytes> {
        let bytes = self.store.record_at(PhysicalOffset(u64::try_from(offset).ok()?))?;
        let internal = record::decode(&bytes).is_ok_and(|view| names::is_internal_topic(view.topic));
        (!internal).then_some(bytes)
    }

    /// The queue a client names, if the topic has it.
    fn queue(&self, topic: &str, queue: i32) -> Result<u32, Refusal> {
        let topic = self.live.topics.require(topic)?;
        readable_queue(&topic, queue)
    }

    /// Does the queue begin at 0, with a message so young that it is probably in memory (or with none)? Then a new
    /// group starts there: RocketMQ's rule, by which consumers of a new topic miss nothing.
    fn starts_in_memory(&self, topic: &str, queue: u32) -> Result<bool, Refusal> {
        let range = self.store.queue_range(topic, queue);
        if range.min.0 > 0 {
            return Ok(false);
        }
        let limits = ReadLimits::new(1, 1);
        let read = self.store.read_queue(topic, queue, QueueOffset(0), limits, |_| true)?;
        let Some(first) = read.messages.first() else { return Ok(true) };
        let physical = record::decode(first).map_err(|damage| damaged(topic, &damage))?.physical;
        Ok(self.store.watermarks().written.0.saturating_sub(physical.0) <= self.config.in_memory_bytes)
    }
}

fn offset_response(offset: i64) -> Response {
    Response::success().with_header(&OffsetResponse { offset })
}

/// A record that the store hands out and that can't be read: worth an alarm, and an answer.
pub(super) fn damaged(topic: &str, reason: &record::Reason) -> Refusal {
    let text = format!("a record of topic {topic} can't be read: {reason}");
    tracing::error!("{text}");
    Refusal::new(response::SYSTEM_ERROR, text)
}
