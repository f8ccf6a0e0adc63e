//! Order: of a producer's sends to one queue, and of a queue's deliveries to one consumer.

use std::collections::{HashMap, HashSet};

use super::ledger::{Ack, Ledger, is_broker_written};
use super::verdict::{Fault, Verdict};
use crate::history::producer_of;

/// An acknowledged message with its offset.
type Placed<'a> = (&'a str, Ack, i64);

/// Two acknowledged sends of one producer to one queue, where the first had its answer before the second began, have
/// growing offsets. Asynchronous sends that overlap have no order to keep.
pub(super) fn check_sends(ledger: &Ledger, verdict: &mut Verdict) {
    let mut by_queue: HashMap<(&str, i32), Vec<Placed>> = HashMap::new();
    for (id, ack) in ledger.acks() {
        if let (Some(producer), Some((queue, offset))) = (producer_of(id), ack.position) {
            by_queue.entry((producer, queue)).or_default().push((id, ack, offset));
        }
    }
    for ((producer, queue), mut begun) in by_queue {
        begun.sort_by_key(|(_, ack, _)| ack.started_us);
        let mut answered = begun.clone();
        answered.sort_by_key(|(_, ack, _)| ack.ended_us);
        let mut answered = answered.iter().peekable();
        let mut largest: Option<(&str, i64)> = None;
        for (id, ack, offset) in &begun {
            while let Some((earlier, _, offset)) = answered.next_if(|(_, before, _)| before.ended_us < ack.started_us) {
                if largest.is_none_or(|(_, largest)| *offset > largest) {
                    largest = Some((earlier, *offset));
                }
            }
            if let Some((earlier, larger)) = largest.filter(|(_, largest)| largest >= offset) {
                verdict.add(Fault::SendOrder, || {
                    format!("{producer} sent {id} to queue {queue} after {earlier} was acknowledged, but has offset {offset}, not above {larger}")
                });
            }
        }
    }
}

/// What an ordered consumer sees of a queue grows, except for what had come to somebody before.
pub(super) fn check_deliveries(ledger: &Ledger, verdict: &mut Verdict) {
    let mut largest: HashMap<(&str, &str, i32), i64> = HashMap::new();
    let mut seen: HashSet<(&str, i32, i64)> = HashSet::new();
    for delivery in &ledger.deliveries {
        let first_time = seen.insert((&delivery.topic, delivery.queue, delivery.offset));
        let ordered = ledger.ordered.get(delivery.consumer.as_str()).copied().unwrap_or(false);
        if !ordered || is_broker_written(&delivery.topic) {
            continue;
        }
        let newest = largest.entry((&delivery.consumer, &delivery.topic, delivery.queue)).or_insert(delivery.offset);
        if first_time && delivery.offset < *newest {
            verdict.add(Fault::DeliveryOrder, || {
                format!(
                    "{} got {} of {} queue {} at offset {} after offset {newest}",
                    delivery.consumer, delivery.id, delivery.topic, delivery.queue, delivery.offset
                )
            });
        }
        *newest = delivery.offset.max(*newest);
    }
}
