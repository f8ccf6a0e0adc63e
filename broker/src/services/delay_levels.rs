//! The table of delay levels (`messageDelayLevel`): level 1 is the first duration.

/// How long a message of each level waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelayLevels {
    /// Milliseconds, by level - 1
    delays_ms: Vec<u64>,
}

/// Why a text is no table of delay levels.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("messageDelayLevel: {0:?} is not a number followed by s, m, h or d; write for example \"1s 5s 10m 2h\"")]
pub struct BadLevel(String);

impl DelayLevels {
    /// Parses `1s 5s 10s … 2h`.
    pub fn parse(text: &str) -> Result<Self, BadLevel> {
        let delays_ms = text.split_whitespace().map(level_ms).collect::<Result<Vec<_>, _>>()?;
        if delays_ms.is_empty() { Err(BadLevel(text.to_owned())) } else { Ok(Self { delays_ms }) }
    }

    /// The highest level.
    pub fn max(&self) -> u32 {
        self.delays_ms.len() as u32
    }

    /// Levels above the highest mean the highest, as in RocketMQ; 0 and below mean no delay.
    pub fn clamp(&self, level: i32) -> Option<u32> {
        u32::try_from(level).ok().filter(|level| *level > 0).map(|level| level.min(self.max()))
    }

    /// Milliseconds a message of this level waits. Levels are clamped to the table, which may have become shorter
    /// since the message was stored.
    pub fn delay_ms(&self, level: u32) -> u64 {
        let index = (level.max(1) as usize).min(self.delays_ms.len()) - 1;
        self.delays_ms[index]
    }
}

fn level_ms(text: &str) -> Result<u64, BadLevel> {
    let bad = || BadLevel(text.to_owned());
    let unit_ms = match text.chars().last() {
        Some('s') => 1_000,
        Some('m') => 60_000,
        Some('h') => 3_600_000,
        Some('d') => 86_400_000,
        _ => return Err(bad()),
    };
    text[..text.len() - 1].parse::<u64>().ok().and_then(|n| n.checked_mul(unit_ms)).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::config::ServicesConfig;

    #[test]
    fn the_default_table_is_rocketmqs_eighteen_levels() {
        let levels = DelayLevels::parse(&ServicesConfig::default().delay_levels).unwrap();
        assert_eq!((levels.max(), levels.delay_ms(1), levels.delay_ms(18)), (18, 1_000, 7_200_000));
        assert_eq!(levels.clamp(99), Some(18));
        assert_eq!((levels.clamp(0), levels.clamp(-1)), (None, None));
    }

    #[test]
    fn a_bad_table_names_the_bad_level() {
        for (text, bad) in [("1s 5x", "5x"), ("1s s", "s"), ("", ""), ("5", "5"), ("1é", "1é")] {
            assert_eq!(DelayLevels::parse(text), Err(BadLevel(bad.into())), "{text:?}");
        }
    }
}
