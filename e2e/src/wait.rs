//! Waiting for conditions, never for time alone, and the clock of the histories.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::bail;

const POLL: Duration = Duration::from_millis(10);

/// Now, in microseconds, on the clock that histories are written by.
pub fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}

/// Asks until there is an answer, at most for `within`; the error then tells `what` was waited for and the last reason
/// that `ask` gave for having none.
pub fn until<T>(what: &str, within: Duration, mut ask: impl FnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    let deadline = Instant::now() + within;
    loop {
        let reason = match ask() {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if Instant::now() >= deadline {
            match reason {
                Some(error) => return Err(error.context(format!("waited {within:?} for {what}"))),
                None => bail!("waited {within:?} for {what}"),
            }
        }
        std::thread::sleep(POLL);
    }
}
