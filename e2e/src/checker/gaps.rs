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

/// The longest time between two acknowledgements in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// When the last acknowledgement before it came, in the history's microseconds.
    pub from_us: i64,
    /// How long it took until the next one, in microseconds.
    pub length_us: i64,
}

pub(super) fn longest(ledger: &Ledger) -> Option<Pause> {
    let mut ended_us: Vec<i64> = ledger.acks().map(|(_, ack)| ack.ended_us).collect();
    ended_us.sort_unstable();
    let pauses = ended_us.windows(2).map(|pair| Pause { from_us: pair[0], length_us: pair[1] - pair[0] });
    pauses.max_by_key(|pause| pause.length_us)
}
