//! What happened within a span of time: one of several rounds that share a history.

use std::collections::HashSet;

use super::ledger::Ledger;

/// A span of time, in the history's microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its beginning.
    pub from_us: i64,
    /// Its end.
    pub to_us: i64,
}

/// What the clients saw in a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Messages whose first acknowledgement came in it.
    pub acked: u64,
    /// Those of them that never came.
    pub lost: u64,
    /// The longest time in it without an acknowledgement, in microseconds.
    pub longest_pause_us: i64,
}

pub(super) fn within(ledger: &Ledger, spans: &[Span]) -> Vec<Window> {
    if spans.is_empty() {
        return Vec::new();
    }
    let received: HashSet<&str> = ledger.deliveries.iter().map(|delivery| delivery.id.as_str()).collect();
    let first = |acks: &[super::ledger::Ack]| acks.iter().map(|ack| ack.ended_us).min();
    let mut acks: Vec<(i64, &str)> =
        ledger.sent.iter().filter_map(|(id, sent)| Some((first(&sent.acks)?, *id))).collect();
    acks.sort_unstable();
    let window = |span: &Span| {
        let from = acks.partition_point(|(at_us, _)| *at_us < span.from_us);
        let to = acks.partition_point(|(at_us, _)| *at_us <= span.to_us).max(from);
        let inside = &acks[from..to];
        let points: Vec<i64> =
            [span.from_us].into_iter().chain(inside.iter().map(|(at_us, _)| *at_us)).chain([span.to_us]).collect();
        Window {
            acked: inside.len() as u64,
            lost: inside.iter().filter(|(_, id)| !received.contains(id)).count() as u64,
            longest_pause_us: points.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0),
        }
    };
    spans.iter().map(window).collect()
}
