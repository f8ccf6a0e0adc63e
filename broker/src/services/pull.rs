//! PULL_MESSAGE and LITE_PULL_MESSAGE: messages of one queue from an offset on, or a wait until there are some.

use super::Services;
use super::config::Adjustable;
use super::failure::Refusal;
use super::filter::{TagFilter, check_type};
use super::long_polling::Wanted;
use super::names;
use super::off_thread;
use super::seam::{NotServing, knows_go_away};
use super::topics::{Topic, perm};
use super::traffic::Outgoing;
use bytes::Bytes;
use gantry_remoting::code::response;
use gantry_remoting::headers::pull::{PullMessage, PullMessageResponse, sys_flag};
use gantry_remoting::{Body, Connection, Inbound, Ticket};
use gantry_store::{Dispatched, OldLimits, QueueOffset, ReadError, ReadLimits, ReadQueue, ReadStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A checked pull, which may wait.
pub(super) struct Pull {
    ticket: Ticket,
    topic: Arc<str>,
    queue: u32,
    from: QueueOffset,
    limits: ReadLimits,
    filter: TagFilter,
    /// Until when it may wait; `None`: it wants its answer now
    deadline: Option<Instant>,
    topic_sys_flag: i32,
    group_sys_flag: i32,
    /// Where what it gets is counted
    outgoing: Option<Arc<Outgoing>>,
}

/// Longest wait that a client gets; clients ask for 15 to 30 s and give up soon after.
const MAX_SUSPEND: Duration = Duration::from_mins(1);

impl Services {
    /// Answers a pull, or lets it wait.
    pub(super) fn pull(&self, inbound: Inbound) {
        let Inbound { request, ticket } = inbound;
        let checked = request.header::<PullMessage<'_>>().map_err(Refusal::from).and_then(|header| {
            self.role.serving().map_err(|why| why.refusal(ticket.client_version()))?;
            self.check_pull(&header)
        });
        match checked {
            Ok(checked) => self.answer_or_hold(checked.with(ticket)),
            Err(refusal) => ticket.reply_failure(refusal.code, refusal.remark),
        }
    }

    /// New messages: those who wait for them and want them are answered, off the dispatcher's thread.
    pub(super) fn wake_pulls(&self, batch: &[Dispatched]) {
        // A replica that has stepped down goes on with its successor's messages, and answers who waits when that one can be reached.
        if self.waiting.is_empty() || !self.leads() {
            return;
        }
        let mut woken = Vec::new();
        for message in batch {
            let accepts = |pull: &Pull| message.count > 1 || pull.filter.accepts(message.tags_code);
            let wants = |pull: &Pull| pull.from < message.next_offset() && accepts(pull);
            woken.extend(self.waiting.wake(&message.topic, message.queue_id, wants));
        }
        self.resume(woken);
    }

    /// Those whose time is up are looked at once more, and answered either way.
    pub(super) fn expire_pulls(&self, now: Instant) {
        let due = self.waiting.expired(now).into_iter().map(|pull| Pull { deadline: None, ..pull });
        self.resume(due.collect());
    }

    /// This replica doesn't serve any more: whoever waits is told to come back. The connections of those who don't leave by themselves.
    pub(super) fn refuse_held_pulls(&self) -> Vec<Arc<Connection>> {
        let mut clinging = Vec::new();
        for pull in self.waiting.clear() {
            if !knows_go_away(pull.ticket.client_version()) {
                clinging.push(Arc::clone(pull.ticket.connection()));
            }
            let refusal = NotServing::SwitchingOver.refusal(pull.ticket.client_version());
            pull.ticket.reply_failure(refusal.code, refusal.remark);
        }
        clinging
    }

    fn resume(&self, pulls: Vec<Pull>) {
        let Some(services) = self.me.upgrade().filter(|_| !pulls.is_empty()) else { return };
        self.runtime.spawn(async move {
            for pull in pulls {
                match services.role.serving() {
                    Ok(()) => services.answer_or_hold(pull),
                    Err(why) => {
                        let refusal = why.refusal(pull.ticket.client_version());
                        pull.ticket.reply_failure(refusal.code, refusal.remark);
                    }
                }
            }
        });
    }

    fn answer_or_hold(&self, mut pull: Pull) {
        loop {
            let filter = &pull.filter;
            let read = self
                .store
                .read_queue_cached(&pull.topic, pull.queue, pull.from, pull.limits, |code| filter.accepts(code));
            let read = match read {
                Ok(Some(read)) => read,
                Ok(None) => return self.answer_from_disk_later(pull),
                Err(problem) => return pull.fail(problem),
            };
            let code = code_of(read.status, pull.from);
            let Some(deadline) = pull.deadline.filter(|_| code == response::PULL_NOT_FOUND) else {
                return pull.answer(code, read);
            };
            match self.hold(pull, deadline, read) {
                None => return,
                Some(again) => pull = again,
            }
        }
    }

    /// What a consumer far behind wants has to come from the disk, and there is something: no network thread waits for it.
    fn answer_from_disk_later(&self, pull: Pull) {
        let later = self.off_thread(pull, |services, pull| {
            let filter = &pull.filter;
            let read =
                services.store.read_queue(&pull.topic, pull.queue, pull.from, pull.limits, |code| filter.accepts(code));
            match read {
                Ok(read) => {
                    let code = code_of(read.status, pull.from);
                    pull.answer(code, read);
                }
                Err(problem) => pull.fail(problem),
            }
        });
        if let Err(pull) = later {
            pull.ticket.reply_failure(response::SYSTEM_BUSY, off_thread::BUSY);
        }
    }

    /// Lets the pull wait. Gives it back when a message came while it went in; answers it when the mastership went meanwhile, since
    /// those that waited had been answered already.
    fn hold(&self, mut pull: Pull, deadline: Instant, read: ReadQueue) -> Option<Pull> {
        pull.ticket.waits_for_news();
        let (topic, queue, from) = (pull.topic.clone(), pull.queue, pull.from);
        let wanted = Wanted { topic: topic.clone(), queue, connection: pull.ticket.connection().id(), deadline };
        let id = match self.waiting.enter(wanted, pull) {
            Ok(id) => id,
            Err(pull) => {
                // No room to wait: the client asks again, after its own pause.
                pull.answer(response::PULL_NOT_FOUND, read);
                return None;
            }
        };
        if let Err(why) = self.role.serving() {
            if let Some(pull) = self.waiting.release(id) {
                let refusal = why.refusal(pull.ticket.client_version());
                pull.ticket.reply_failure(refusal.code, refusal.remark);
            }
            return None;
        }
        let now_max = self.store.queue_range(&topic, queue).max;
        if now_max > from { self.waiting.release(id) } else { None }
    }

    fn check_pull(&self, header: &PullMessage<'_>) -> Result<Checked, Refusal> {
        let settings = self.adjustable();
        if i32::from(settings.permission) & perm::READ == 0 {
            return Err(Refusal::new(response::NO_PERMISSION, "this broker's brokerPermission forbids pulling"));
        }
        let group = self.group(header.consumer_group)?;
        if !group.consume_enable {
            let text = format!("subscription group no permission, {}", header.consumer_group);
            return Err(Refusal::new(response::NO_PERMISSION, text));
        }
        let topic = self.topic_to_pull(header)?;
        let queue = readable_queue(&topic, header.queue_id)?;
        let filter = self.filter(header, group.consume_broadcast_enable)?;
        if header.sys_flag & sys_flag::COMMIT_OFFSET != 0 && header.commit_offset >= 0 {
            self.live.offsets.commit(&topic.name, header.consumer_group, queue, header.commit_offset);
        }
        let max_bytes = header.max_msg_bytes.filter(|bytes| *bytes > 0).map_or(u32::MAX, |bytes| bytes as u32);
        let max_count =
            header.max_msg_nums.clamp(1, i32::try_from(settings.max_pull_messages).unwrap_or(i32::MAX).max(1));
        Ok(Checked {
            topic_sys_flag: topic.config.topic_sys_flag,
            group_sys_flag: group.group_sys_flag,
            outgoing: self.deliveries.of(&topic.name, header.consumer_group),
            topic: topic.name.clone(),
            queue,
            // Below zero is before the first message.
            from: QueueOffset(u64::try_from(header.queue_offset).unwrap_or(0)),
            limits: ReadLimits {
                max_count: max_count as usize,
                max_bytes: max_bytes.min(settings.max_pull_bytes) as usize,
                old: Some(OldLimits {
                    behind_bytes: self.config.in_memory_bytes,
                    max_count: settings.max_old_pull_messages as usize,
                    max_bytes: settings.max_old_pull_bytes as usize,
                }),
            },
            filter,
            deadline: deadline(header, settings),
        })
    }

    fn topic_to_pull(&self, header: &PullMessage<'_>) -> Result<Arc<Topic>, Refusal> {
        if names::is_internal_topic(header.topic) {
            let text = format!("the topic[{}] is the broker's own", header.topic);
            return Err(Refusal::new(response::NO_PERMISSION, text));
        }
        let topic = self.live.topics.require(header.topic)?;
        if topic.is_readable() {
            return Ok(topic);
        }
        let text = format!("the topic[{}] pulling message is forbidden", header.topic);
        Err(Refusal::new(response::NO_PERMISSION, text))
    }

    /// The filter: from the request if it brings one, else from the group's heartbeats.
    fn filter(&self, header: &PullMessage<'_>, broadcast_allowed: bool) -> Result<TagFilter, Refusal> {
        check_type(header.expression_type)?;
        if header.sys_flag & sys_flag::SUBSCRIPTION != 0 {
            return TagFilter::parse(header.subscription.unwrap_or_default(), header.expression_type);
        }
        self.clients.filter(header.consumer_group, header.topic, header.sub_version, broadcast_allowed)
    }
}

/// Until when it waits for a message, if it is to wait.
fn deadline(header: &PullMessage<'_>, settings: Adjustable) -> Option<Instant> {
    if header.sys_flag & sys_flag::SUSPEND == 0 {
        return None;
    }
    let asked = u64::try_from(header.suspend_timeout_ms).unwrap_or(0);
    let ms = if settings.long_polling { asked } else { settings.short_polling_ms };
    Some(Instant::now() + Duration::from_millis(ms).min(MAX_SUSPEND))
}

/// All of a [`Pull`] but its ticket.
struct Checked {
    topic: Arc<str>,
    queue: u32,
    from: QueueOffset,
    limits: ReadLimits,
    filter: TagFilter,
    deadline: Option<Instant>,
    topic_sys_flag: i32,
    group_sys_flag: i32,
    /// Where what it gets is counted
    outgoing: Option<Arc<Outgoing>>,
}

impl Checked {
    fn with(self, ticket: Ticket) -> Pull {
        let Self { topic, queue, from, limits, filter, deadline, topic_sys_flag, group_sys_flag, outgoing } = self;
        Pull { ticket, topic, queue, from, limits, filter, deadline, topic_sys_flag, group_sys_flag, outgoing }
    }
}

impl Pull {
    fn fail(self, problem: ReadError) {
        let refusal = Refusal::from(problem);
        self.ticket.reply_failure(refusal.code, refusal.remark);
    }

    fn answer(self, code: i32, read: ReadQueue) {
        let header = PullMessageResponse {
            suggest_which_broker_id: 0,
            next_begin_offset: read.next.0 as i64,
            min_offset: read.min.0 as i64,
            max_offset: read.max.0 as i64,
            offset_delta: None,
            topic_sys_flag: Some(self.topic_sys_flag),
            group_sys_flag: Some(self.group_sys_flag),
            forbidden_type: None,
        };
        let remark = (code != response::SUCCESS).then(|| format!("{:?}", read.status));
        let body: Vec<Bytes> = read.messages;
        if let Some(outgoing) = self.outgoing.filter(|_| !body.is_empty()) {
            outgoing.count(body.len(), body.iter().map(Bytes::len).sum());
        }
        self.ticket.reply_with(code, remark.as_deref(), &header, Body::from(body));
    }
}

/// RocketMQ's codes for what a read found. An unused queue asked at an offset above 0 is "moved": the client's offset
/// is of another life of the topic.
fn code_of(status: ReadStatus, from: QueueOffset) -> i32 {
    match status {
        ReadStatus::Found => response::SUCCESS,
        ReadStatus::NoMatchedMessage | ReadStatus::MessageWasRemoved => response::PULL_RETRY_IMMEDIATELY,
        ReadStatus::OffsetOverflowOne => response::PULL_NOT_FOUND,
        ReadStatus::NoMessageInQueue | ReadStatus::NoMatchedQueue if from.0 == 0 => response::PULL_NOT_FOUND,
        ReadStatus::NoMessageInQueue
        | ReadStatus::NoMatchedQueue
        | ReadStatus::OffsetTooSmall
        | ReadStatus::OffsetOverflowBadly => response::PULL_OFFSET_MOVED,
    }
}

/// The queue, if the topic has it for reading.
pub(super) fn readable_queue(topic: &Topic, queue: i32) -> Result<u32, Refusal> {
    let queues = topic.config.read_queue_nums;
    match u32::try_from(queue) {
        Ok(id) if queue < queues => Ok(id),
        _ => {
            let text =
                format!("queueId[{queue}] is illegal, topic:[{}] topicConfig.readQueueNums:[{queues}]", topic.name);
            Err(Refusal::new(response::INVALID_PARAMETER, text))
        }
    }
}
