//! Index files' names: when they were made, as a number of 17 digits, `yyyyMMddHHmmssSSS`.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A name for `now_ms` in the machine's time that comes after `before`, whatever the clock did since.
pub(super) fn after(now_ms: i64, zone: &TimeZone, before: u64) -> u64 {
    of(now_ms, zone).unwrap_or(0).max(before + 1)
}

/// A name from a file's; `None` for other files.
pub(super) fn parse(name: &str) -> Option<u64> {
    if name.len() == 17 && name.bytes().all(|byte| byte.is_ascii_digit()) { name.parse().ok() } else { None }
}

fn of(ms: i64, zone: &TimeZone) -> Option<u64> {
    let time = Timestamp::from_millisecond(ms).ok()?.to_zoned(zone.clone());
    time.strftime("%Y%m%d%H%M%S%3f").to_string().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dates_in_the_machines_time() {
        let zone = TimeZone::fixed(jiff::tz::offset(8));
        assert_eq!(of(1_700_000_000_123, &TimeZone::UTC), Some(20_231_114_221_320_123));
        assert_eq!(of(1_700_000_000_123, &zone), Some(20_231_115_061_320_123));
        assert_eq!(parse("20231114221320123"), Some(20_231_114_221_320_123));
    }

    #[test]
    fn a_name_always_comes_after_the_one_before() {
        let first = after(1_700_000_000_000, &TimeZone::UTC, 0);
        assert_eq!(after(1_700_000_000_000, &TimeZone::UTC, first), first + 1);
        assert_eq!(after(0, &TimeZone::UTC, first), first + 1);
        assert_eq!(parse("20231114221320123.tmp"), None);
    }
}
