//! A process' log: lines of text or of JSON, at a level that can be changed while it runs.
//!
//! There is one log a process, as there is one subscriber of `tracing`.

mod filter;

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

pub use filter::{BadLevel, Level};

/// What a line looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One object a line, its fields beside `timestamp`, `level`, `target` and `message`.
    Json,
}

/// Neither `text` nor `json`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}: expected text or json")]
pub struct BadFormat(String);

impl FromStr for Format {
    type Err = BadFormat;

    fn from_str(text: &str) -> Result<Self, BadFormat> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(BadFormat(other.to_owned())),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// Why there is no log, or its level can't be changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another one has been started.
    #[error("this process has a log already")]
    Second,
    /// It is gone.
    #[error("the log's level can't be changed: {0}")]
    Gone(#[from] reload::Error),
}

static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Begins the log, once a process.
pub fn start(format: Format, level: &Level, writer: BoxMakeWriter) -> Result<(), Error> {
    let (filter, handle) = reload::Layer::new(level.filter());
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(writer);
    let begun = match format {
        Format::Text => registry.with(lines).try_init(),
        Format::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    begun.map_err(|_second| Error::Second)?;
    FILTER.set(handle).map_err(|_second| Error::Second)
}

/// The level as it is now; none if the log was never begun.
pub fn level() -> Option<String> {
    FILTER.get()?.with_current(ToString::to_string).ok()
}

/// From now on what is below this level isn't logged. Of a process whose log was never begun nobody reads any.
pub fn set_level(level: &Level) -> Result<(), Error> {
    let Some(handle) = FILTER.get() else { return Ok(()) };
    Ok(handle.reload(level.filter())?)
}
