//! How long answers take, by request and response code, with nothing that anybody could wait for.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::code::request;

/// Upper bounds in milliseconds, RocketMQ's.
pub const BOUNDS_MS: [u64; 9] = [1, 3, 5, 7, 10, 100, 1_000, 2_000, 3_000];

/// Kinds of answers that are told apart at most; a broker gives a few dozen.
const SLOTS: usize = 256;

/// What kind of answer it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AnswerKind {
    /// The request's code; 0 for one that has no name, so that nobody can make up kinds.
    pub request_code: i32,
    /// The answer's.
    pub response_code: i32,
    /// Whether the request was let wait for news.
    pub long_polling: bool,
    /// Whether it was handed to the connection; one that is closed takes none.
    pub written: bool,
}

/// Answers of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latency {
    /// Which.
    pub kind: AnswerKind,
    /// How many took at most so many milliseconds as [`BOUNDS_MS`] says, and more than the bound before.
    pub counts: [u64; BOUNDS_MS.len()],
    /// How many took longer than all bounds.
    pub above: u64,
    /// Of all of them.
    pub sum_us: u64,
}

/// Counts answers. Noting one is a look at a table and two additions.
pub struct Latencies {
    slots: Box<[Slot]>,
}

#[derive(Default)]
struct Slot {
    /// A packed [`AnswerKind`]; 0: free. Once taken it stays so.
    key: AtomicU64,
    counts: [AtomicU64; BOUNDS_MS.len() + 1],
    sum_us: AtomicU64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { slots: (0..SLOTS).map(|_| Slot::default()).collect() }
    }
}

impl fmt::Debug for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.snapshot()).finish()
    }
}

impl Latencies {
    /// An answer of this kind took so long.
    pub fn observe(&self, kind: AnswerKind, took: Duration) {
        let request_code = if request::name(kind.request_code).is_some() { kind.request_code } else { 0 };
        // None: as many kinds as there is room for have been seen.
        let Some(slot) = self.slot(AnswerKind { request_code, ..kind }.packed()) else { return };
        let micros = took.as_micros() as u64;
        let bucket = BOUNDS_MS.partition_point(|bound| bound * 1_000 < micros);
        slot.counts[bucket].fetch_add(1, Ordering::Relaxed);
        slot.sum_us.fetch_add(micros, Ordering::Relaxed);
    }

    /// All kinds of answers so far, in an order that stays.
    pub fn snapshot(&self) -> Vec<Latency> {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let seen = |slot: &Slot| {
            let kind = AnswerKind::unpacked(slot.key.load(Ordering::Acquire))?;
            let counts = std::array::from_fn(|bucket| load(&slot.counts[bucket]));
            Some(Latency { kind, counts, above: load(&slot.counts[BOUNDS_MS.len()]), sum_us: load(&slot.sum_us) })
        };
        let mut all: Vec<_> = self.slots.iter().filter_map(seen).collect();
        all.sort_unstable_by_key(|latency| latency.kind);
        all
    }

    fn slot(&self, key: u64) -> Option<&Slot> {
        let start = (key ^ (key >> 29)) as usize;
        for step in 0..SLOTS {
            let slot = &self.slots[start.wrapping_add(step) % SLOTS];
            let mut found = slot.key.load(Ordering::Acquire);
            if found == 0 {
                found = match slot.key.compare_exchange(0, key, Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => key,
                    Err(other) => other,
                };
            }
            if found == key {
                return Some(slot);
            }
        }
        None
    }
}

const TAKEN: u64 = 1 << 63;
const LONG_POLLING: u64 = 1 << 62;
const WRITTEN: u64 = 1 << 61;
const CODE_BITS: u32 = 30;
const CODE: u64 = (1 << CODE_BITS) - 1;

impl AnswerKind {
    /// Codes beyond 30 bits are nobody's.
    fn packed(self) -> u64 {
        let flag = |is: bool, bit: u64| if is { bit } else { 0 };
        let codes = ((self.request_code as u64 & CODE) << CODE_BITS) | (self.response_code as u64 & CODE);
        TAKEN | flag(self.long_polling, LONG_POLLING) | flag(self.written, WRITTEN) | codes
    }

    fn unpacked(key: u64) -> Option<Self> {
        (key & TAKEN != 0).then_some(Self {
            request_code: ((key >> CODE_BITS) & CODE) as i32,
            response_code: (key & CODE) as i32,
            long_polling: key & LONG_POLLING != 0,
            written: key & WRITTEN != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(request_code: i32, response_code: i32) -> AnswerKind {
        AnswerKind { request_code, response_code, long_polling: false, written: true }
    }

    #[test]
    fn answers_are_counted_by_their_kind_and_by_how_long_they_took() {
        let latencies = Latencies::default();
        let pull = AnswerKind { long_polling: true, ..kind(request::PULL_MESSAGE, 19) };
        for micros in [10, 1_000, 1_001, 3_500_000] {
            latencies.observe(pull, Duration::from_micros(micros));
        }
        latencies.observe(kind(request::PULL_MESSAGE, 0), Duration::ZERO);
        let seen = latencies.snapshot();
        assert_eq!(seen.iter().map(|latency| latency.kind).collect::<Vec<_>>(), [kind(11, 0), pull]);
        assert_eq!((seen[1].counts[0], seen[1].counts[1], seen[1].above), (2, 1, 1));
        assert_eq!(seen[1].sum_us, 3_502_011);
    }

    #[test]
    fn made_up_request_codes_are_one_kind_and_more_kinds_than_fit_are_not_counted() {
        let latencies = Latencies::default();
        for code in 50_000..60_000 {
            latencies.observe(kind(code, 3), Duration::ZERO);
        }
        assert_eq!(latencies.snapshot().len(), 1);
        for code in 0..1_000 {
            latencies.observe(kind(request::PULL_MESSAGE, code), Duration::ZERO);
        }
        let seen = latencies.snapshot();
        assert_eq!(seen.len(), SLOTS);
        assert_eq!((seen[0].kind, seen[0].counts[0]), (kind(0, 3), 10_000));
    }

    #[test]
    fn threads_that_see_a_kind_at_once_count_it_together() {
        let latencies = Latencies::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1_000).for_each(|code| latencies.observe(kind(11, code % 50), Duration::ZERO)));
            }
        });
        let seen = latencies.snapshot();
        assert_eq!(seen.len(), 50);
        assert!(seen.iter().all(|latency| latency.counts[0] == 80));
    }
}
