//! A load of our own with its history: synchronous producers, each with one message on its way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use tokio::task::JoinSet;

use crate::history::{Delivery, Event};
use crate::wait::now_us;
use crate::wire::{Kept, Outgoing, Sent, Wire};

/// The status of a send that ended in an error of the connection.
const NO_ANSWER: &str = "NO_ANSWER";

/// What to send.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Begins the producers' names: other loads of one history have others.
    pub name: String,
    /// The topic.
    pub topic: String,
    /// Its queues.
    pub queues: u32,
    /// Producers at once.
    pub producers: u32,
    /// Between two sends of one producer.
    pub pause: Duration,
}

/// Producers that send until they are told to stop, or until a send isn't acknowledged.
pub struct Load {
    tasks: JoinSet<Vec<Event>>,
    stop: Arc<AtomicBool>,
    acked: Arc<AtomicU64>,
}

impl Load {
    /// Begins to send; within a tokio runtime.
    pub fn start(address: &str, plan: &Plan) -> Self {
        let mut load = Self { tasks: JoinSet::new(), stop: Arc::default(), acked: Arc::default() };
        let wire = Arc::new(Wire::new(address));
        for number in 0..plan.producers {
            let producer = format!("{}.{number}", plan.name);
            let sender = Sender {
                wire: Arc::clone(&wire),
                queue: (number % plan.queues).cast_signed(),
                plan: plan.clone(),
                producer,
                acked: Arc::clone(&load.acked),
            };
            load.tasks.spawn(sender.run(Arc::clone(&load.stop)));
        }
        load
    }

    /// How many were acknowledged.
    pub fn acked(&self) -> u64 {
        self.acked.load(Ordering::Acquire)
    }

    /// Waits until each producer's send was refused, and gives what happened.
    pub async fn refused(mut self) -> anyhow::Result<Vec<Event>> {
        self.collect().await
    }

    /// Stops and gives what happened.
    pub async fn finish(mut self) -> anyhow::Result<Vec<Event>> {
        self.stop.store(true, Ordering::Release);
        self.collect().await
    }

    async fn collect(&mut self) -> anyhow::Result<Vec<Event>> {
        let mut events = Vec::new();
        while let Some(ended) = self.tasks.join_next().await {
            events.extend(ended.context("a producer")?);
        }
        Ok(events)
    }
}

struct Sender {
    wire: Arc<Wire>,
    queue: i32,
    plan: Plan,
    producer: String,
    acked: Arc<AtomicU64>,
}

impl Sender {
    async fn run(self, stop: Arc<AtomicBool>) -> Vec<Event> {
        let mut events = vec![Event::Producer { producer: self.producer.clone(), hidden: 0, t: now_us() }];
        for sequence in 0_u64.. {
            if stop.load(Ordering::Acquire) {
                break;
            }
            let id = format!("{}-{sequence}", self.producer);
            let message = Outgoing { properties: vec![("KEYS".into(), id.clone())], body: body_of(&id) };
            events.push(Event::Start { id: id.clone(), attempt: 1, tag: None, t: now_us() });
            let answer = self.wire.send(&self.plan.topic, self.queue, &message).await;
            let (status, place) = match answer {
                Ok(Sent::Ok(place)) => ("OK".to_owned(), Some(place)),
                Ok(Sent::Refused(code, remark)) => (format!("{code} {remark}"), None),
                Err(_) => (NO_ANSWER.to_owned(), None),
            };
            let acked = place.is_some();
            let (queue, offset, offset_msg_id) = place
                .map_or((None, None, None), |place| (Some(place.queue), Some(place.offset), Some(place.offset_msg_id)));
            events.push(Event::End { id, attempt: 1, status, queue, offset, offset_msg_id, t: now_us() });
            if !acked {
                break;
            }
            self.acked.fetch_add(1, Ordering::AcqRel);
            if !self.plan.pause.is_zero() {
                tokio::time::sleep(self.plan.pause).await;
            }
        }
        events
    }
}

/// A message's body: its id and what follows from it, of different lengths.
pub fn body_of(id: &str) -> Bytes {
    let sum = id.bytes().fold(7_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
    let line = format!("{id} ");
    line.bytes().cycle().take(line.len() + sum % 1500).collect()
}

/// A message that was found, as a delivery for the checker.
pub fn delivery(topic: &str, kept: &Kept) -> Event {
    let id = kept.properties.get("KEYS").cloned().unwrap_or_default();
    Event::Recv(Delivery {
        intact: kept.body == body_of(&id),
        id,
        consumer: "drain".into(),
        topic: topic.into(),
        queue: kept.queue,
        offset: kept.offset,
        reconsume_times: 0,
        later: false,
        t: now_us(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_tells_its_message() {
        assert!(body_of("p.0-17").starts_with(b"p.0-17 p.0"[..7].as_ref()));
        assert_ne!(body_of("p.0-17"), body_of("p.0-18"));
        assert_eq!(body_of("p.0-17"), body_of("p.0-17"));
    }
}
