//! One replica as the elector sees it: its session, its last report, what it was told.

use crate::Millis;
use crate::elector::SessionId;
use crate::wire::{CutTail, Directive, Hello, Report, Role};

#[derive(Debug)]
pub(super) struct Seat {
    pub(super) hello: Hello,
    pub(super) session: Option<SessionId>,
    pub(super) report: Report,
    pub(super) joined_at: Millis,
    pub(super) heard_at: Millis,
    /// When the session ended, if it did.
    pub(super) left_at: Option<Millis>,
    /// When its process was known to have ended, if it was.
    pub(super) died_at: Option<Millis>,
    /// The probe not answered yet.
    pub(super) probed_at: Option<Millis>,
    /// When the last probe was answered. What came before a probe says nothing about now.
    pub(super) answered_at: Option<Millis>,
    told: Option<(Directive, Millis)>,
    /// The number of the last cut that people heard of.
    told_cut: u64,
}

impl Seat {
    pub(super) fn taken(session: SessionId, hello: Hello, now: Millis, before: Option<&Self>) -> Self {
        let same_life = |seat: &&Self| seat.hello.member == hello.member && seat.hello.pid == hello.pid;
        let told_cut = before.filter(same_life).map_or(0, |seat| seat.told_cut);
        let report = hello.report.clone();
        Self {
            hello,
            session: Some(session),
            report,
            joined_at: now,
            heard_at: now,
            left_at: None,
            died_at: None,
            probed_at: None,
            answered_at: None,
            told: None,
            told_cut,
        }
    }

    pub(super) fn reported(&mut self, report: Report, now: Millis) {
        self.report = report;
        self.heard_at = now;
    }

    pub(super) fn answered(&mut self, report: Report, now: Millis) {
        self.reported(report, now);
        if self.probed_at.take().is_some() {
            self.answered_at = Some(now);
        }
    }

    /// A cut that nobody heard of yet; noted as told.
    pub(super) fn news_of_cut(&mut self) -> Option<CutTail> {
        let news = self.report.last_cut.clone().filter(|cut| cut.number > self.told_cut)?;
        self.told_cut = news.number;
        Some(news)
    }

    pub(super) fn left(&mut self, now: Millis) {
        self.session = None;
        self.left_at = Some(now);
    }

    pub(super) fn died(&mut self, now: Millis) {
        self.died_at.get_or_insert(now);
        self.left(self.left_at.unwrap_or(now));
    }

    /// It was made master by the record, and then came back with a torn log: what it was elected for it may have no more. Known by the
    /// session: `promoting` has that of the election, if this elector made it.
    pub(super) fn lost_since_elected(&self, promoting: Option<(Millis, Option<SessionId>)>) -> bool {
        !self.report.intact && promoting.is_none_or(|(_, session)| session != self.session)
    }

    /// Must `directive` be sent (again)? Notes that it is, if so.
    pub(super) fn needs(&mut self, directive: &Directive, now: Millis, repeat_ms: Millis) -> bool {
        let due = match &self.told {
            Some((told, at)) if same_order(told, directive) => {
                !self.obeys(directive) && now.saturating_sub(*at) >= repeat_ms
            }
            _ => true,
        };
        if due {
            self.told = Some((directive.clone(), now));
        }
        due
    }

    fn obeys(&self, directive: &Directive) -> bool {
        match directive {
            Directive::Slave { record, .. } => self.report.role == Role::Slave && self.report.promised == record.epoch,
            _ => false,
        }
    }
}

/// Whether two directives ask for the same. A changed in-sync set alone is no new order: it travels with the answers to reports.
fn same_order(a: &Directive, b: &Directive) -> bool {
    match (a, b) {
        (Directive::Master { record: a }, Directive::Master { record: b }) => a.epoch == b.epoch,
        (Directive::Slave { record: a, ha_address: x }, Directive::Slave { record: b, ha_address: y }) => {
            a.epoch == b.epoch && x == y
        }
        (a, b) => a == b,
    }
}
