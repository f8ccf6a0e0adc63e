//! What the checker found, and how it is told.

use std::collections::BTreeMap;
use std::fmt;

use super::gaps::{Gap, Pause};
use super::ledger::Ledger;
use super::windows::Window;

/// Kinds of what can be held against a broker; the module's page says what each is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "described on the module's page")]
pub enum Fault {
    Lost,
    Phantom,
    Position,
    SendOrder,
    DeliveryOrder,
    Copy,
    Redelivery,
    Unwanted,
    Empty,
}

/// One finding: its kind, and what happened to which message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The kind.
    pub fault: Fault,
    /// Which message, queue and offset, and what is wrong.
    pub what: String,
}

/// How much was judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Different messages that were sent.
    pub sent: u64,
    /// Different messages with at least one OK.
    pub acked: u64,
    /// Sends that ended in anything but OK.
    pub unknown_ends: u64,
    /// Attempts that failed inside a library that tells of it, and that it made up for or not.
    pub inner_failures: u64,
    /// Deliveries, repeated ones included.
    pub deliveries: u64,
    /// Different messages delivered.
    pub received: u64,
    /// Messages without an OK that are in the log all the same.
    pub unknown_present: u64,
    /// Further copies in the log, explained by attempts of unknown outcome.
    pub resent_copies: u64,
    /// Deliveries from a place that had been delivered before, explained by a fault or a rebalance.
    pub redelivered: u64,
    /// Deliveries from retry topics that a consumer had asked for.
    pub retried: u64,
}

/// The judgement.
#[derive(Debug)]
pub struct Verdict {
    /// How much was judged.
    pub counts: Counts,
    /// The first findings of each kind; `totals` has how many there are.
    pub violations: Vec<Violation>,
    /// All findings by kind.
    pub totals: BTreeMap<Fault, u64>,
    /// For each fault that was named: the time to the next acknowledged send.
    pub gaps: Vec<Gap>,
    /// For each span that was named, what the clients saw.
    pub windows: Vec<Window>,
    /// The longest time between two acknowledgements in a row; `None` with fewer than two.
    pub longest_pause: Option<Pause>,
}

/// Findings of one kind that are told in full.
const TOLD_OF_A_KIND: u64 = 5;

impl Verdict {
    pub(super) fn new(ledger: &Ledger) -> Self {
        let counts = Counts {
            sent: ledger.sent.len() as u64,
            acked: ledger.sent.values().filter(|sent| !sent.acks.is_empty()).count() as u64,
            unknown_ends: ledger.unknown_ends,
            inner_failures: ledger.sent.values().map(|sent| u64::from(sent.inner_failures)).sum(),
            deliveries: ledger.deliveries.len() as u64,
            ..Counts::default()
        };
        let (violations, totals) = (Vec::new(), BTreeMap::new());
        Self { counts, violations, totals, gaps: Vec::new(), windows: Vec::new(), longest_pause: None }
    }

    pub(super) fn add(&mut self, fault: Fault, what: impl FnOnce() -> String) {
        let total = self.totals.entry(fault).or_default();
        *total += 1;
        if *total <= TOLD_OF_A_KIND {
            self.violations.push(Violation { fault, what: what() });
        }
    }

    /// Whether nothing is held against the broker.
    pub fn is_clean(&self) -> bool {
        self.totals.is_empty()
    }

    /// Whether there is a finding of this kind.
    pub fn has(&self, fault: Fault) -> bool {
        self.totals.contains_key(&fault)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = &self.counts;
        writeln!(
            f,
            "sent {} acked {} unknown ends {} (present all the same: {}) and {} inside the library, received {} in {} deliveries; \
             copies {} redelivered {} retried {}, all explained",
            c.sent,
            c.acked,
            c.unknown_ends,
            c.unknown_present,
            c.inner_failures,
            c.received,
            c.deliveries,
            c.resent_copies,
            c.redelivered,
            c.retried
        )?;
        for gap in &self.gaps {
            writeln!(f, "{gap}")?;
        }
        if let Some(longest) = self.longest_pause {
            writeln!(f, "longest time between two acknowledgements: {} ms", longest.length_us / 1000)?;
        }
        for (fault, total) in &self.totals {
            writeln!(f, "VIOLATION {fault:?}: {total}")?;
        }
        for violation in &self.violations {
            writeln!(f, "  {:?}: {}", violation.fault, violation.what)?;
        }
        write!(f, "{}", if self.is_clean() { "verdict: clean" } else { "verdict: VIOLATED" })
    }
}
