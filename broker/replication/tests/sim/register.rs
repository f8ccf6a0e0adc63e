//! The record's store: one compare-and-set decides. Requests and answers get lost, and a lost request may still arrive.

use gantry_replication::elector::{Event as Told, SetOutcome};
use gantry_replication::record::Recorded;
use gantry_replication::{GroupRecord, Version};

use crate::env::{Env, Event};
use crate::net::Node;

/// What an elector asks.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Read,
    CompareAndSet(Version, GroupRecord),
}

/// What it hears.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Read(Recorded),
    Set(SetOutcome),
    /// The read failed; it is tried again.
    ReadAgain,
}

impl From<Outcome> for Option<Told> {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Read(recorded) => Some(Told::Read(recorded)),
            Outcome::Set(outcome) => Some(Told::Set(outcome)),
            Outcome::ReadAgain => None,
        }
    }
}

/// The store.
#[derive(Debug, Default)]
pub(crate) struct Register {
    pub(crate) record: Option<GroupRecord>,
    version: u64,
    /// All that stood there.
    pub(crate) past: Vec<GroupRecord>,
    pub(crate) away_until: u64,
    pub(crate) lossy_until: u64,
}

impl Register {
    fn version(&self) -> Version {
        Version(self.version.to_string())
    }

    /// Somebody restores a backup.
    pub(crate) fn restore(&mut self, record: GroupRecord) {
        self.version += 1;
        self.record = Some(record);
    }
}

impl Env {
    /// An elector asks the record's store.
    pub(crate) fn ask_register(&mut self, node: Node, life: u64, op: Op) {
        let lossy = self.now < self.register.lossy_until;
        if self.now < self.register.away_until || (lossy && self.rng.u32(..4) == 0) {
            let wait = self.setup.ms(500);
            self.after(wait, Event::FromRegister { node, life, outcome: unknown(&op) });
            // It may only be late: then it is carried out after its sender has given it up.
            if self.rng.u32(..3) == 0 {
                let late = self.rng.u64(..self.setup.ms(3_000));
                self.after(late, Event::ToRegister { node, life: 0, op });
            }
            return;
        }
        let wait = self.rng.u64(1..=self.setup.max_delay_ms.max(10));
        self.after(wait, Event::ToRegister { node, life, op });
    }

    /// A request arrives there. Life 0: nobody waits for its answer.
    pub(crate) fn serve_register(&mut self, node: Node, life: u64, op: &Op) {
        let outcome = match op {
            Op::Read => {
                let recorded = Recorded { record: self.register.record.clone(), version: self.register.version() };
                Outcome::Read(recorded)
            }
            Op::CompareAndSet(expected, _) if *expected != self.register.version() => {
                Outcome::Set(SetOutcome::Conflict)
            }
            Op::CompareAndSet(_, record) => {
                let before = self.register.record.clone();
                self.register.version += 1;
                self.register.record = Some(record.clone());
                self.register.past.push(record.clone());
                self.trace.mix(&[1, record.epoch.0, record.revision]);
                self.note(|| {
                    format!("record: {} {} {} {:?}", record.epoch, record.revision, record.master, names(record))
                });
                self.record_changed(before.as_ref());
                Outcome::Set(SetOutcome::Done(self.register.version()))
            }
        };
        if life == 0 {
            return;
        }
        let lost = self.now < self.register.lossy_until && self.rng.u32(..3) == 0;
        let (wait, outcome) = if lost {
            (self.setup.ms(500), unknown(op))
        } else {
            (self.rng.u64(1..=self.setup.max_delay_ms.max(10)), outcome)
        };
        self.after(wait, Event::FromRegister { node, life, outcome });
    }
}

/// The names in a record's set, for the trace.
pub(crate) fn names(record: &GroupRecord) -> Vec<&str> {
    record.in_sync.iter().map(|member| member.name.as_str()).collect()
}

fn unknown(op: &Op) -> Outcome {
    match op {
        Op::Read => Outcome::ReadAgain,
        Op::CompareAndSet(..) => Outcome::Set(SetOutcome::Unknown),
    }
}
