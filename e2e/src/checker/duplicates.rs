//! Duplicates: counted, and explained or held against the broker.

use std::collections::{HashMap, HashSet};

use super::Circumstances;
use super::ledger::{Ledger, is_broker_written};
use super::verdict::{Fault, Verdict};

pub(super) fn check(ledger: &Ledger, circumstances: &Circumstances, verdict: &mut Verdict) {
    check_copies(ledger, verdict);
    check_redeliveries(ledger, circumstances, verdict);
    check_retries(ledger, circumstances, verdict);
}

/// Copies in the log: each needs an attempt.
fn check_copies(ledger: &Ledger, verdict: &mut Verdict) {
    let mut places: HashMap<&str, HashSet<(&str, i32, i64)>> = HashMap::new();
    for delivery in ledger.deliveries.iter().filter(|delivery| !is_broker_written(&delivery.topic)) {
        places.entry(&delivery.id).or_default().insert((&delivery.topic, delivery.queue, delivery.offset));
    }
    for (id, places) in places.iter().filter(|(_, places)| places.len() > 1) {
        let explained = ledger.explained_copies(id) as usize;
        verdict.counts.resent_copies += places.len().min(explained).saturating_sub(1) as u64;
        if places.len() > explained && ledger.sent.contains_key(id) {
            verdict.add(Fault::Copy, || format!("{id} lies in {places:?}, but was tried {explained} times"));
        }
    }
}

/// The same place twice: a fault before it explains that, or another consumer of the history that took the queue over.
fn check_redeliveries(ledger: &Ledger, circumstances: &Circumstances, verdict: &mut Verdict) {
    let first_fault_us = circumstances.faults_us.iter().min();
    let rebalances = ledger.ordered.len() > 1;
    let mut seen = HashSet::new();
    for delivery in &ledger.deliveries {
        if seen.insert((delivery.topic.as_str(), delivery.queue, delivery.offset)) {
            continue;
        }
        if rebalances || first_fault_us.is_some_and(|fault_us| *fault_us <= delivery.t) {
            verdict.counts.redelivered += 1;
        } else {
            verdict.add(Fault::Redelivery, || {
                format!(
                    "{} came again from {} queue {} offset {} without a fault",
                    delivery.id, delivery.topic, delivery.queue, delivery.offset
                )
            });
        }
    }
}

/// What comes from a retry topic was asked for by a consumer before. After a fault it may come once more: what was delivered shortly
/// before is delivered again.
fn check_retries(ledger: &Ledger, circumstances: &Circumstances, verdict: &mut Verdict) {
    let first_fault_us = circumstances.faults_us.iter().min();
    let mut asked: HashMap<&str, i64> = HashMap::new();
    for delivery in &ledger.deliveries {
        if delivery.topic.starts_with("%RETRY%") {
            let left = asked.entry(&delivery.id).or_default();
            *left -= 1;
            if *left >= 0 {
                verdict.counts.retried += 1;
            } else if first_fault_us.is_some_and(|fault_us| *fault_us <= delivery.t) {
                verdict.counts.redelivered += 1;
            } else {
                verdict.add(Fault::Redelivery, || format!("{} was retried, and nobody asked for it", delivery.id));
            }
        }
        if delivery.later {
            *asked.entry(&delivery.id).or_default() += 1;
        }
    }
}
