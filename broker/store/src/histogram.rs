//! Counts by size, with nothing that anybody could wait for.

use std::sync::atomic::{AtomicU64, Ordering};

/// How often values fell between fixed bounds. Observing is two additions.
#[derive(Debug)]
pub struct Histogram {
    /// Upper bounds, included, ascending.
    bounds: &'static [u64],
    /// One more than bounds.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// A [`Histogram`] at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistogramSnapshot {
    /// Each bound with how many values were at or below it, and above the one before.
    pub buckets: Vec<(u64, u64)>,
    /// How many were above all bounds.
    pub above: u64,
    /// Of all values.
    pub sum: u64,
}

impl Histogram {
    /// With these upper bounds, ascending.
    pub fn new(bounds: &'static [u64]) -> Self {
        assert!(bounds.is_sorted(), "bounds of a histogram ascend");
        Self { bounds, counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(), sum: AtomicU64::new(0) }
    }

    /// One more value.
    pub fn observe(&self, value: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// All so far.
    pub fn snapshot(&self) -> HistogramSnapshot {
        let count = |at: usize| self.counts[at].load(Ordering::Relaxed);
        HistogramSnapshot {
            buckets: self.bounds.iter().enumerate().map(|(at, bound)| (*bound, count(at))).collect(),
            above: count(self.bounds.len()),
            sum: self.sum.load(Ordering::Relaxed),
        }
    }
}

/// What syncs of the log were like.
#[derive(Debug)]
pub struct Flushes {
    /// How long each took.
    pub micros: Histogram,
    /// Bytes that each made durable.
    pub bytes: Histogram,
}

impl Default for Flushes {
    fn default() -> Self {
        const MICROS: &[u64] = &[
            100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
            2_500_000, 10_000_000,
        ];
        const BYTES: &[u64] = &[1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20];
        Self { micros: Histogram::new(MICROS), bytes: Histogram::new(BYTES) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_at_the_first_bound_that_is_not_below_it() {
        let histogram = Histogram::new(&[10, 20]);
        for value in [0, 10, 11, 20, 21] {
            histogram.observe(value);
        }
        let seen = histogram.snapshot();
        assert_eq!(seen, HistogramSnapshot { buckets: vec![(10, 2), (20, 2)], above: 1, sum: 62 });
    }
}
