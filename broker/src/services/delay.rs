//! Delivery of delayed messages: from the schedule topic's queue of their level to where they really go.
//!
//! The master's alone. A message is moved by appending it to its real queue, and the level's progress is logged after
//! that: should a failover lose the append, then the progress behind it in the log is lost too, and the next master
//! moves the message again. So none is lost, and one that was moved in the last half second before a failover may
//! come twice.

use super::seam::{Done, SendFailure, Submission, Wait};
use super::send::ALONE;
use super::send_properties::key;
use super::{Services, now_ms};
use bytes::Bytes;
use gantry_store::properties::{self, Builder};
use gantry_store::record::{self, RecordView};
use gantry_store::{Append, Appended, NewMessage, QueueOffset, ReadLimits, ReadStatus};
use std::collections::BTreeSet;
use std::sync::Weak;
use std::time::Duration;
use tokio::sync::oneshot;

/// Messages moved at once, of one level.
const BATCH: usize = 64;
/// Bytes read at once, of one level.
const BATCH_BYTES: usize = 1 << 20;
/// After a failure, and where nothing waits.
const REST: Duration = Duration::from_secs(1);

/// Delivers while this replica is the master and the services exist.
pub(super) async fn deliver(me: Weak<Services>) {
    let Some(services) = me.upgrade() else { return };
    let (mut mastership, delayed) = (services.mastership.subscribe(), services.delayed.clone());
    drop(services);
    loop {
        if mastership.wait_for(Option::is_some).await.is_err() {
            return;
        }
        let Some(services) = me.upgrade() else { return };
        let pause = services.deliver_due().await;
        drop(services);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = delayed.notified() => {}
            changed = mastership.changed() => if changed.is_err() { return },
        }
    }
}

/// What a level's first messages came to.
enum Level {
    /// All that was due has been moved; the next is due then (ms since 1970), if there is one
    Waits(Option<i64>),
    /// There may be more that is due
    More,
    /// It didn't work; the reason is in the log
    Failed,
}

impl Services {
    /// Moves all that is due, a batch of each level in turn: a long backlog of one level keeps no other waiting. Returns how long
    /// there is nothing to do.
    async fn deliver_due(&self) -> Duration {
        let mut failed = BTreeSet::new();
        loop {
            let (mut pause, mut more) = (REST, false);
            for level in (1..=self.delay_levels.max()).filter(|level| !failed.contains(level)).collect::<Vec<_>>() {
                match self.deliver_level(level).await {
                    Level::More => more = true,
                    Level::Failed => _ = failed.insert(level),
                    Level::Waits(None) => {}
                    Level::Waits(Some(due_ms)) => {
                        let ms = u64::try_from(due_ms - now_ms()).unwrap_or(0).max(1);
                        pause = pause.min(Duration::from_millis(ms));
                    }
                }
            }
            if !more {
                return pause;
            }
        }
    }

    async fn deliver_level(&self, level: u32) -> Level {
        let from = self.live.delay.get(level);
        let limits = ReadLimits::new(BATCH, BATCH_BYTES);
        let read = match self.store.read_queue(&self.schedule_topic, level - 1, QueueOffset(from), limits, |_| true) {
            Ok(read) => read,
            Err(problem) => {
                tracing::error!(level, from, %problem, "delayed messages can't be read");
                return Level::Failed;
            }
        };
        match read.status {
            ReadStatus::Found => {}
            ReadStatus::OffsetTooSmall | ReadStatus::MessageWasRemoved => {
                tracing::error!(level, from, to = read.next.0, "delayed messages are gone from the log undelivered");
                self.live.delay.advance(level, read.next.0);
                return Level::More;
            }
            // Above the end: the store of a new master is still catching up with its log.
            _ => return Level::Waits(None),
        }
        let (due, waits) = self.take_due(level, &read.messages);
        let end = due.len() as u64;
        if !self.move_all(level, due).await {
            return Level::Failed;
        }
        self.live.delay.advance(level, from + end);
        waits.map_or(Level::More, |due_ms| Level::Waits(Some(due_ms)))
    }

    /// The messages at the front that are due, as they are to be stored, and when the first that isn't will be.
    fn take_due(&self, level: u32, records: &[Bytes]) -> (Vec<Option<NewMessage>>, Option<i64>) {
        let (now_ms, delay_ms) = (now_ms(), self.delay_levels.delay_ms(level) as i64);
        let mut due = Vec::new();
        for bytes in records {
            let view = match record::decode(bytes) {
                Ok(view) => view,
                Err(damage) => {
                    tracing::error!(level, %damage, "a delayed message can't be read and is passed over");
                    due.push(None);
                    continue;
                }
            };
            let due_ms = view.store_timestamp_ms + delay_ms;
            // A store time in the future is a clock that was put back: then it is due now.
            if due_ms > now_ms && due_ms <= now_ms + delay_ms {
                return (due, Some(due_ms));
            }
            due.push(self.real(level, &view, bytes));
        }
        (due, None)
    }

    /// The message as its consumers shall see it.
    fn real(&self, level: u32, view: &RecordView<'_>, bytes: &Bytes) -> Option<NewMessage> {
        let topic = properties::get(view.properties, key::REAL_TOPIC);
        let queue = properties::get(view.properties, key::REAL_QUEUE).and_then(|queue| queue.parse().ok());
        let (Some(topic), Some(queue_id)) = (topic, queue) else {
            tracing::error!(
                level,
                offset = view.queue_offset.0,
                "a delayed message doesn't say where it goes and is passed over"
            );
            return None;
        };
        let mut properties = Builder::from_encoded(view.properties);
        properties.remove(key::DELAY);
        let known = self.live.topics.get(topic);
        let batch_queues = known.as_ref().is_some_and(|topic| topic.has_batch_queues());
        if batch_queues {
            properties.set(ALONE.0, ALONE.1);
        }
        Some(NewMessage {
            topic: known.map_or_else(|| topic.into(), |topic| topic.name.clone()),
            queue_id,
            flag: view.flag,
            sys_flag: view.sys_flag | if batch_queues { record::INNER_BATCH } else { 0 },
            born_timestamp_ms: view.born_timestamp_ms,
            born_host: view.born_host,
            store_host: self.config.store_host,
            reconsume_times: view.reconsume_times,
            prepared_offset: 0,
            body: bytes.slice_ref(view.body),
            properties: properties.build(),
        })
    }

    /// Appends them all. Were all of them written?
    async fn move_all(&self, level: u32, messages: Vec<Option<NewMessage>>) -> bool {
        let mut results = Vec::new();
        let mut submissions = Vec::new();
        for message in messages.into_iter().flatten() {
            let (sender, receiver) = oneshot::channel();
            let done = move |result: Result<Appended, SendFailure>| {
                // Nobody listens any more when the services are shutting down.
                let _unheard = sender.send(result.map(|_| ()));
            };
            let append = Append::from(message);
            submissions.push(Submission { append, wait: Wait::Written, done: Done::Call(Box::new(done)) });
            results.push(receiver);
        }
        if submissions.is_empty() {
            return true;
        }
        self.log.submit(submissions);
        for result in results {
            match result.await {
                Ok(Ok(())) => {}
                Ok(Err(failure)) if failure.is_written() => {}
                Ok(Err(failure)) => {
                    tracing::warn!(level, %failure, "delayed messages not delivered, tried again");
                    return false;
                }
                Err(_) => {
                    tracing::warn!(level, "delayed messages not delivered: the log's writer has gone");
                    return false;
                }
            }
        }
        true
    }
}
