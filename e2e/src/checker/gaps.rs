//! How long nothing was acknowledged.

use std::fmt;

use super::ledger::Ledger;

/// The time from a fault to the next acknowledgement of a send that began after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// When the fault was, in the history's microseconds.
    pub fault_us: i64,
    /// From the fault to the acknowledgement, in microseconds; `None` where there was no such acknowledgement.
    pub to_next_ack_us: Option<i64>,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_next_ack_us {
            Some(gap_us) => write!(f, "fault to next acknowledged send: {} ms", gap_us / 1000),
            None => write!(f, "fault to next acknowledged send: never"),
        }
    }
}

pub(super) fn after_faults(ledger: &Ledger, faults_us: &[i64]) -> Vec<Gap> {
    let gap = |&fault_us: &i64| {
        let after = ledger.acks().filter(|(_, ack)| ack.started_us > fault_us).map(|(_, ack)| ack.ended_us - fault_us);
        Gap { fault_us, to_next_ack_us: after.min() }
    };
    faults_us.iter().map(gap).collect()
}

pub(super) fn longest(ledger: &Ledger) -> Option<i64> {
    let mut ended_us: Vec<i64> = ledger.acks().map(|(_, ack)| ack.ended_us).collect();
    ended_us.sort_unstable();
    ended_us.windows(2).map(|pair| pair[1] - pair[0]).max()
}
