//! How much passed in the last second.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

const SECOND: Duration = Duration::from_secs(1);

/// Counts bytes by seconds.
#[derive(Debug)]
pub(crate) struct Meter(Mutex<Window>);

#[derive(Clone, Copy, Debug)]
struct Window {
    began: Instant,
    bytes: u64,
    /// In the whole second before it began.
    before: u64,
}

impl Default for Meter {
    fn default() -> Self {
        Self(Mutex::new(Window { began: Instant::now(), bytes: 0, before: 0 }))
    }
}

impl Meter {
    /// These passed now.
    pub(crate) fn add(&self, bytes: u64) {
        let mut window = self.0.lock();
        *window = window.at(Instant::now());
        window.bytes += bytes;
    }

    /// Bytes of the last whole second.
    pub(crate) fn per_second(&self) -> u64 {
        self.0.lock().at(Instant::now()).before
    }
}

impl Window {
    fn at(self, now: Instant) -> Self {
        match now.saturating_duration_since(self.began) {
            age if age < SECOND => self,
            age if age < 2 * SECOND => Self { began: self.began + SECOND, bytes: 0, before: self.bytes },
            _ => Self { began: now, bytes: 0, before: 0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_second_counts_until_the_next_one_is_whole() {
        let began = Instant::now();
        let window = Window { began, bytes: 7, before: 3 };
        let at = |ms| window.at(began + Duration::from_millis(ms)).before;
        assert_eq!((at(0), at(999), at(1000), at(1999), at(2000)), (3, 3, 7, 7, 0));
    }
}
