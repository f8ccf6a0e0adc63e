//! The checker: one judge for every history.
//!
//! What it holds against a broker:
//! - **lost**: a send was answered OK, consumption was drained, and the message never came;
//! - **phantom**: something was delivered that nobody sent, or with another body;
//! - **position**: one (topic, queue, offset) stood for two messages, in an acknowledgement or in a delivery;
//! - **send order**: a producer had an acknowledgement before it began the next send to the same queue, and the later
//!   one got the smaller offset;
//! - **delivery order**: a consumer that notes order got a queue's message after one with a larger offset, for the first time;
//! - **copy**: a message lies more often in the log than attempts of unknown outcome explain;
//! - **redelivery**: a message came twice from the same place without a fault, a rebalance or a request to retry;
//! - **unwanted**: a message came whose tag the consumer had not subscribed to;
//! - **empty**: nothing was acknowledged or nothing received, so nothing was judged.
//!
//! Time-outs, `FLUSH_*_TIMEOUT`, `SLAVE_NOT_AVAILABLE`, one-way sends and errors are *unknown*: the message may be there,
//! once an attempt, or not. Unknown is never held against the broker.

mod deliveries;
mod duplicates;
mod gaps;
mod ledger;
mod order;
mod verdict;
mod windows;

pub use gaps::{Gap, Pause};
pub use verdict::{Counts, Fault, Verdict, Violation};
pub use windows::{Span, Window};

use crate::history::Event;
use ledger::Ledger;

/// What the history alone doesn't tell.
#[derive(Clone, Debug, Default)]
pub struct Circumstances {
    /// Whether the consumers were given the time to receive everything: only then is a missing message a lost one.
    pub drained: bool,
    /// When something was killed, stopped or switched over, in the history's microseconds.
    pub faults_us: Vec<i64>,
    /// Rounds that are to be told apart within the history.
    pub spans: Vec<Span>,
    /// The tags subscribed to; `None` is all.
    pub tags: Option<Vec<String>>,
    /// Where one-way sends are all that there is, nothing can be acknowledged and receiving is enough to judge.
    pub oneway: bool,
}

/// Judges a history, whose events are in order of time.
pub fn check(events: &[Event], circumstances: &Circumstances) -> Verdict {
    let ledger = Ledger::read(events);
    let mut verdict = Verdict::new(&ledger);
    deliveries::check(&ledger, circumstances, &mut verdict);
    order::check_sends(&ledger, &mut verdict);
    order::check_deliveries(&ledger, &mut verdict);
    duplicates::check(&ledger, circumstances, &mut verdict);
    verdict.gaps = gaps::after_faults(&ledger, &circumstances.faults_us);
    verdict.longest_pause = gaps::longest(&ledger);
    verdict.windows = windows::within(&ledger, &circumstances.spans);
    if !circumstances.oneway && verdict.counts.acked == 0 {
        verdict.add(Fault::Empty, || "no send was acknowledged".into());
    }
    if circumstances.drained && verdict.counts.deliveries == 0 {
        verdict.add(Fault::Empty, || "nothing was received".into());
    }
    verdict
}

#[cfg(test)]
mod tests;
