//! A token bucket: how long to wait so that a rate is kept.

use crate::Millis;

/// What flows is taken at once and may leave a debt; the debt says how long to wait. So a piece larger than the burst passes, too.
#[derive(Clone, Debug)]
pub struct Bucket {
    bytes_per_s: u64,
    burst_bytes: u64,
    /// In thousandths of a byte, so that nothing is lost in a millisecond at a low rate; negative: a debt.
    level: i128,
    at: Millis,
}

impl Bucket {
    /// A full bucket. A rate of 0 counts as 1.
    pub fn new(bytes_per_s: u64, burst_bytes: u64, now: Millis) -> Self {
        let level = i128::from(burst_bytes) * 1000;
        Self { bytes_per_s: bytes_per_s.max(1), burst_bytes, level, at: now }
    }

    /// Bytes each second.
    pub fn rate(&self) -> u64 {
        self.bytes_per_s
    }

    /// Another rate from now on. A debt stays one.
    pub fn set_rate(&mut self, bytes_per_s: u64, now: Millis) {
        self.refill(now);
        self.bytes_per_s = bytes_per_s.max(1);
    }

    /// Takes `bytes`; answers for how long nothing more should be taken, in milliseconds.
    pub fn take(&mut self, bytes: u64, now: Millis) -> Millis {
        self.refill(now);
        self.level -= i128::from(bytes) * 1000;
        self.debt_ms()
    }

    /// How long until the debt is paid.
    pub fn wait_ms(&mut self, now: Millis) -> Millis {
        self.refill(now);
        self.debt_ms()
    }

    fn debt_ms(&self) -> Millis {
        let debt = u128::try_from(-self.level).unwrap_or(0);
        Millis::try_from(debt.div_ceil(u128::from(self.bytes_per_s))).unwrap_or(Millis::MAX)
    }

    fn refill(&mut self, now: Millis) {
        let passed = now.saturating_sub(self.at);
        self.at = self.at.max(now);
        let full = i128::from(self.burst_bytes) * 1000;
        self.level = (self.level + i128::from(self.bytes_per_s) * i128::from(passed)).min(full);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_burst_passes_and_then_the_rate_is_kept() {
        let mut bucket = Bucket::new(1_000, 500, 0);
        assert_eq!(bucket.take(500, 0), 0);
        assert_eq!(bucket.take(100, 0), 100);
        assert_eq!(bucket.wait_ms(60), 40);
        assert_eq!(bucket.wait_ms(100), 0);
        assert_eq!(bucket.take(5_000, 100), 5_000, "larger than the burst: a debt");
    }

    #[test]
    fn low_rates_lose_nothing_between_the_milliseconds() {
        let mut bucket = Bucket::new(3, 0, 0);
        assert_eq!(bucket.take(3, 0), 1_000);
        for now in 1..1_000 {
            assert_eq!(bucket.wait_ms(now), 1_000 - now);
        }
    }

    #[test]
    fn a_clock_that_stands_or_goes_back_gives_nothing() {
        let mut bucket = Bucket::new(1_000, 0, 500);
        assert_eq!(bucket.take(10, 500), 10);
        assert_eq!(bucket.wait_ms(400), 10);
        assert_eq!(bucket.wait_ms(505), 5);
    }

    proptest! {
        /// Whoever waits as told sends no more than the burst and the rate allow, and no less than the rate but for one piece.
        #[test]
        fn the_rate_is_kept(rate in 1_000u64..1_000_000, burst in 0u64..100_000, pieces in prop::collection::vec(1u64..10_000, 1..200)) {
            let mut bucket = Bucket::new(rate, burst, 0);
            let (mut now, mut sent) = (0, 0);
            for piece in pieces {
                prop_assert!(sent <= burst + rate * now / 1000 + 1, "{sent} in {now} ms");
                sent += piece;
                now += bucket.take(piece, now);
            }
            let least = sent.saturating_sub(burst);
            prop_assert!(rate * now / 1000 <= least + rate * 200 / 1000 + 200, "waited {now} ms for {sent}");
        }
    }
}
