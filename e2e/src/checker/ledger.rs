//! A history turned into what the judgements ask for: messages with their sends, and deliveries.

use std::collections::HashMap;

use crate::history::{Delivery, Event, producer_of};

/// Everything known of one message that was sent.
#[derive(Debug, Default)]
pub(super) struct Sent<'a> {
    /// Its tag, where it has one.
    pub(super) tag: Option<&'a str>,
    /// Attempts that the program began.
    pub(super) attempts: u32,
    /// Attempts that failed inside the library, and that it told of.
    pub(super) inner_failures: u32,
    /// Those that were answered OK.
    pub(super) acks: Vec<Ack>,
    /// When the newest attempt began, in microseconds.
    started_us: i64,
}

/// One acknowledged attempt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ack {
    /// When the attempt began, in microseconds.
    pub(super) started_us: i64,
    /// When its answer was there, in microseconds.
    pub(super) ended_us: i64,
    /// Queue and offset, where the library tells them.
    pub(super) position: Option<(i32, i64)>,
}

/// The whole history, by message.
#[derive(Debug, Default)]
pub(super) struct Ledger<'a> {
    pub(super) sent: HashMap<&'a str, Sent<'a>>,
    pub(super) deliveries: Vec<&'a Delivery>,
    /// Producer → attempts that its library may hide.
    pub(super) hidden: HashMap<&'a str, u32>,
    /// Consumer → whether it notes order.
    pub(super) ordered: HashMap<&'a str, bool>,
    /// Sends answered by something else than OK, errors included.
    pub(super) unknown_ends: u64,
}

impl<'a> Ledger<'a> {
    pub(super) fn read(events: &'a [Event]) -> Self {
        let mut ledger = Self::default();
        for event in events {
            match event {
                Event::Producer { producer, hidden, .. } => {
                    ledger.hidden.insert(producer, *hidden);
                }
                Event::Consumer { consumer, ordered, .. } => {
                    ledger.ordered.insert(consumer, *ordered);
                }
                Event::Start { id, tag, t, .. } => {
                    let sent = ledger.sent.entry(id).or_default();
                    sent.attempts += 1;
                    sent.started_us = *t;
                    sent.tag = tag.as_deref();
                }
                Event::Inner { id, .. } => ledger.sent.entry(id).or_default().inner_failures += 1,
                Event::End { id, status, queue, offset, t, .. } => ledger.end(id, status, queue.zip(*offset), *t),
                Event::Recv(delivery) => ledger.deliveries.push(delivery),
            }
        }
        ledger
    }

    fn end(&mut self, id: &'a str, status: &str, position: Option<(i32, i64)>, ended_us: i64) {
        if status != "OK" {
            self.unknown_ends += 1;
            return;
        }
        let sent = self.sent.entry(id).or_default();
        sent.acks.push(Ack { started_us: sent.started_us, ended_us, position });
    }

    /// How many copies of a message the log may hold: one an attempt, told or hidden.
    pub(super) fn explained_copies(&self, id: &str) -> u32 {
        let hidden = producer_of(id).and_then(|producer| self.hidden.get(producer)).copied().unwrap_or(0);
        self.sent.get(id).map_or(0, |sent| sent.attempts * (1 + hidden) + sent.inner_failures)
    }

    /// All acknowledged attempts with their messages' ids.
    pub(super) fn acks(&self) -> impl Iterator<Item = (&'a str, Ack)> {
        self.sent.iter().flat_map(|(id, sent)| sent.acks.iter().map(move |ack| (*id, *ack)))
    }
}

/// Whether a topic is a consumer group's retry or dead-letter topic, where the broker itself writes.
pub(super) fn is_broker_written(topic: &str) -> bool {
    topic.starts_with("%RETRY%") || topic.starts_with("%DLQ%")
}
