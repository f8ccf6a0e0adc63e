//! Lost, phantom, unwanted, and one place for one message.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use super::Circumstances;
use super::ledger::{Ledger, is_broker_written};
use super::verdict::{Fault, Verdict};

pub(super) fn check(ledger: &Ledger, circumstances: &Circumstances, verdict: &mut Verdict) {
    let received: HashSet<&str> = ledger.deliveries.iter().map(|delivery| delivery.id.as_str()).collect();
    verdict.counts.received = received.len() as u64;
    verdict.counts.unknown_present =
        received.iter().filter(|id| ledger.sent.get(**id).is_some_and(|sent| sent.acks.is_empty())).count() as u64;
    if circumstances.drained {
        check_lost(ledger, circumstances, &received, verdict);
    }
    for delivery in &ledger.deliveries {
        let place = format_args!("{} queue {} offset {}", delivery.topic, delivery.queue, delivery.offset);
        match ledger.sent.get(delivery.id.as_str()) {
            None => verdict.add(Fault::Phantom, || format!("{:?} came from {place} and was never sent", delivery.id)),
            Some(_) if !delivery.intact => {
                verdict.add(Fault::Phantom, || format!("{} came from {place} with another body", delivery.id));
            }
            Some(sent) if !is_subscribed(sent.tag, circumstances) => {
                verdict.add(Fault::Unwanted, || format!("{} with tag {:?} came from {place}", delivery.id, sent.tag));
            }
            Some(_) => {}
        }
    }
    check_positions(ledger, verdict);
}

fn check_lost(ledger: &Ledger, circumstances: &Circumstances, received: &HashSet<&str>, verdict: &mut Verdict) {
    let mut lost: Vec<_> = ledger
        .sent
        .iter()
        .filter(|(id, sent)| !sent.acks.is_empty() && is_subscribed(sent.tag, circumstances) && !received.contains(*id))
        .collect();
    lost.sort_by_key(|(_, sent)| sent.acks[0].ended_us);
    for (id, sent) in lost {
        let ack = sent.acks[0];
        verdict.add(Fault::Lost, || {
            format!(
                "{id} was acknowledged at {} us with queue and offset {:?}, and never came",
                ack.ended_us, ack.position
            )
        });
    }
}

fn is_subscribed(tag: Option<&str>, circumstances: &Circumstances) -> bool {
    circumstances.tags.as_ref().is_none_or(|tags| tags.iter().any(|wanted| Some(wanted.as_str()) == tag))
}

/// Acknowledgements don't name their topic; a history has one topic that clients write to.
fn check_positions(ledger: &Ledger, verdict: &mut Verdict) {
    let mut owners: HashMap<(&str, i32, i64), &str> = HashMap::new();
    let mut topics = ledger.deliveries.iter().map(|delivery| delivery.topic.as_str());
    let main_topic = topics.find(|topic| !is_broker_written(topic)).unwrap_or("(topic)");
    let acked =
        ledger.acks().filter_map(|(id, ack)| ack.position.map(|(queue, offset)| (main_topic, queue, offset, id)));
    let delivered = ledger.deliveries.iter().map(|d| (d.topic.as_str(), d.queue, d.offset, d.id.as_str()));
    for (topic, queue, offset, id) in acked.chain(delivered) {
        match owners.entry((topic, queue, offset)) {
            Entry::Vacant(place) => {
                place.insert(id);
            }
            Entry::Occupied(owner) if *owner.get() != id => verdict
                .add(Fault::Position, || format!("{topic} queue {queue} offset {offset} is {id} and {}", owner.get())),
            Entry::Occupied(_) => {}
        }
    }
}
