//! Lag as back-pressure: in `Async` mode producers are slowed when slaves fall behind, before the in-sync set suffers.
//!
//! Up to half of the bound nobody notices. From there on the rate at which producers are let in comes down, smoothly, from twice what
//! the slowest in-sync slave takes to just below it at the bound, so that the lag stays below the bound as long as the slave goes on.
//! A slave that stands still slows producers to [`FLOOR_BYTES_PER_S`] and no further: it leaves the in-sync set by its own rules, and
//! then nobody waits for it.
//!
//! In `Sync` mode acknowledgements that wait do all this by themselves.

use crate::Millis;
use crate::bucket::Bucket;

/// Producers are never slowed below this.
pub const FLOOR_BYTES_PER_S: u64 = 64 << 10;
/// How often the slave's speed is measured.
const MEASURE_MS: Millis = 200;
/// What is let in at once, in milliseconds of the rate: a tick of the clock.
const BURST_MS: u64 = 50;

/// The settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// `haBackPressureLagBytes`: the lag that shall not be passed.
    pub lag_bytes: u64,
}

/// How producers are slowed.
#[derive(Clone, Debug)]
pub struct Pressure {
    config: Config,
    /// None: nobody is slowed.
    bucket: Option<Bucket>,
    speed: Speed,
}

/// The speed of the slowest slave.
#[derive(Clone, Copy, Debug, Default)]
struct Speed {
    /// Its position at the last measure, and when that was.
    last: Option<(u64, Millis)>,
    bytes_per_s: u64,
}

impl Pressure {
    /// Nobody is slowed yet.
    pub fn new(config: Config) -> Self {
        Self { config, bucket: None, speed: Speed::default() }
    }

    /// The log ends at `end`, and the slowest in-sync slave's at `slowest`; none: nobody is waited for. To be called often.
    pub fn observe(&mut self, end: u64, slowest: Option<u64>, now: Millis) {
        let Some(slowest) = slowest else {
            *self = Self::new(self.config);
            return;
        };
        self.speed.measure(slowest, now);
        match (self.rate(end.saturating_sub(slowest)), &mut self.bucket) {
            (None, bucket) => *bucket = None,
            (Some(rate), Some(bucket)) => bucket.set_rate(rate, now),
            (Some(rate), none) => *none = Some(Bucket::new(rate, rate * BURST_MS / 1000, now)),
        }
    }

    /// Bytes each second that producers may send now, if they are slowed.
    pub fn limit(&self) -> Option<u64> {
        self.bucket.as_ref().map(Bucket::rate)
    }

    /// For how long producers must wait before anything of theirs is let in.
    pub fn wait_ms(&mut self, now: Millis) -> Millis {
        self.bucket.as_mut().map_or(0, |bucket| bucket.wait_ms(now))
    }

    /// So much was let in.
    pub fn let_in(&mut self, bytes: u64, now: Millis) {
        if let Some(bucket) = &mut self.bucket {
            bucket.take(bytes, now);
        }
    }

    /// None: unlimited.
    fn rate(&self, lag: u64) -> Option<u64> {
        let (bound, speed) = (self.config.lag_bytes.max(2), self.speed.bytes_per_s);
        let start = bound / 2;
        if lag <= start {
            return None;
        }
        // In thousandths of the slave's speed: 2000 at the start, 900 at the bound, 450 at twice the bound and beyond.
        let over = u128::from(lag - start) * 1000 / u128::from(bound - start);
        let permille =
            if over <= 1000 { 2000 - over * 1100 / 1000 } else { 900 - (over - 1000).min(2000) * 450 / 2000 };
        let rate = u128::from(speed) * permille / 1000;
        Some(u64::try_from(rate).unwrap_or(u64::MAX).max(FLOOR_BYTES_PER_S))
    }
}

impl Speed {
    fn measure(&mut self, position: u64, now: Millis) {
        let Some((last, at)) = self.last else {
            self.last = Some((position, now));
            return;
        };
        let passed = now.saturating_sub(at);
        // Another slave is the slowest now, or the same one began anew: its speed is measured from here on.
        if position < last {
            self.last = Some((position, now));
        } else if passed >= MEASURE_MS {
            let measured = u64::try_from(u128::from(position - last) * 1000 / u128::from(passed)).unwrap_or(u64::MAX);
            self.bytes_per_s = self.bytes_per_s / 2 + measured / 2;
            self.last = Some((position, now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const BOUND: u64 = 64 * MIB;

    /// Producers that send `offered` bytes each second, and a slave that takes `speed` of it, for a while. Answers the worst lag and what
    /// was let in.
    fn run(offered: u64, speed: impl Fn(Millis) -> u64, ms: Millis) -> (u64, u64, Pressure) {
        let mut pressure = Pressure::new(Config { lag_bytes: BOUND });
        let (mut end, mut slave, mut worst, mut waiting) = (0, 0, 0, 0);
        for now in 0..ms {
            waiting += offered / 1000;
            if now % 50 == 0 {
                pressure.observe(end, Some(slave), now);
            }
            if pressure.wait_ms(now) == 0 {
                pressure.let_in(waiting.min(MIB), now);
                end += waiting.min(MIB);
                // What waits longer is refused, not collected.
                waiting = 0;
            }
            slave = end.min(slave + speed(now) / 1000);
            worst = worst.max(end - slave);
        }
        (worst, end, pressure)
    }

    #[test]
    fn a_slave_that_keeps_up_slows_nobody() {
        let (_, sent, pressure) = run(50 * MIB, |_| 60 * MIB, 10_000);
        assert!(sent > 490 * MIB, "{sent}");
        assert_eq!(pressure.limit(), None);
    }

    #[test]
    fn a_slower_slave_sets_the_speed_and_the_lag_stays_below_the_bound() {
        let (worst, sent, pressure) = run(100 * MIB, |_| 20 * MIB, 60_000);
        assert!(worst < BOUND, "{worst}");
        let limit = pressure.limit().expect("slowed");
        assert!((15 * MIB..30 * MIB).contains(&limit), "{limit}");
        assert!(sent > 60 * 15 * MIB, "{sent} of what the slave could have taken");
    }

    #[test]
    fn producers_are_slowed_step_by_step_and_never_jump() {
        let mut pressure = Pressure::new(Config { lag_bytes: BOUND });
        pressure.speed = Speed { last: Some((0, 0)), bytes_per_s: 100 * MIB };
        let rates: Vec<_> = (0..400).filter_map(|step| pressure.rate(BOUND / 2 + step * MIB / 4)).collect();
        assert!(rates.windows(2).all(|pair| pair[0] >= pair[1] && pair[0] - pair[1] < 2 * MIB));
        assert_eq!((pressure.rate(BOUND / 2), rates.len()), (None, 399));
        assert_eq!(pressure.rate(BOUND), Some(90 * MIB));
    }

    #[test]
    fn a_slave_that_stands_still_slows_producers_to_the_floor_until_it_is_no_more_waited_for() {
        let (_, _, mut pressure) = run(100 * MIB, |now| if now < 5_000 { 20 * MIB } else { 0 }, 20_000);
        assert_eq!(pressure.limit(), Some(FLOOR_BYTES_PER_S));
        pressure.observe(1 << 40, None, 20_001);
        assert_eq!((pressure.limit(), pressure.wait_ms(20_001)), (None, 0));
    }

    #[test]
    fn recovered_slaves_free_producers_again() {
        let (_, _, pressure) = run(30 * MIB, |now| if now < 10_000 { 5 * MIB } else { 100 * MIB }, 30_000);
        assert_eq!(pressure.limit(), None);
    }
}
