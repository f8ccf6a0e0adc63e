//! Which lines are logged.

use std::fmt;
use std::str::FromStr;

use tracing_subscriber::EnvFilter;

/// `off`, `error`, `warn`, `info`, `debug` or `trace`; or several with `,` between them, which may begin with `target=`: `info,gantry_broker::ha=debug`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Level(String);

/// What is no level.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no level of a log: expected off, error, warn, info, debug or trace, or TARGET=LEVEL, with , between several"
)]
pub struct BadLevel(String);

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

impl FromStr for Level {
    type Err = BadLevel;

    /// A misspelt level would be the name of a target to the filter, and silence all others.
    fn from_str(text: &str) -> Result<Self, BadLevel> {
        let bad = || BadLevel(text.to_owned());
        let is_level = |word: &str| LEVELS.contains(&word.to_ascii_lowercase().as_str());
        let is_target = |word: &str| {
            !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '-'))
        };
        let sound = |directive: &str| match directive.split_once('=') {
            None => is_level(directive),
            Some((target, level)) => is_target(target) && is_level(level),
        };
        let text = text.trim();
        if !text.split(',').map(str::trim).all(sound) || EnvFilter::try_new(text).is_err() {
            return Err(bad());
        }
        Ok(Self(text.to_owned()))
    }
}

impl Default for Level {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Level {
    /// What `RUST_LOG` says, which may be more than can be said here; `info` if it says nothing that is understood.
    pub fn from_env() -> Self {
        let said = std::env::var(EnvFilter::DEFAULT_ENV).ok();
        said.filter(|text| !text.trim().is_empty() && EnvFilter::try_new(text).is_ok()).map_or_else(Self::default, Self)
    }

    pub(crate) fn filter(&self) -> EnvFilter {
        // Checked when it was made.
        EnvFilter::new(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_words_or_targets_with_words() {
        for text in ["info", "OFF", " debug ", "warn,gantry_broker::ha=debug,kube=off"] {
            assert_eq!(text.parse::<Level>().map(|level| level.to_string()), Ok(text.trim().to_owned()));
        }
        assert_eq!(Level::default().to_string(), "info");
    }

    #[test]
    fn a_misspelt_level_is_refused_and_not_taken_for_a_target() {
        for text in ["", "infoo", "gantry_broker", "info,", "=debug", "a=loud", "info debug", "[span]=info"] {
            assert_eq!(text.parse::<Level>(), Err(BadLevel(text.to_owned())), "{text:?}");
        }
    }
}
