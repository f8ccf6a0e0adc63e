//! A request that is answered with a code and a remark instead of what it asked for.

use gantry_remoting::HeaderError;
use gantry_remoting::body::BodyError;
use gantry_remoting::code::response;
use gantry_store::ReadError;
use std::borrow::Cow;

/// Why a request is refused: a RocketMQ response code and words that say what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("code {code}: {remark}")]
pub struct Refusal {
    /// RocketMQ response code (`gantry_remoting::code::response`).
    pub code: i32,
    /// What happened, to which topic, group or queue.
    pub remark: Cow<'static, str>,
}

impl Refusal {
    /// A refusal with this code and remark.
    pub fn new(code: i32, remark: impl Into<Cow<'static, str>>) -> Self {
        Self { code, remark: remark.into() }
    }
}

impl From<HeaderError> for Refusal {
    fn from(error: HeaderError) -> Self {
        Self::new(response::INVALID_PARAMETER, error.to_string())
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        Self::new(response::INVALID_PARAMETER, error.to_string())
    }
}

/// The store can't read what it should have: worth an alarm here, and an answer there.
impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Self {
        tracing::error!(%error, "reading for a client failed");
        Self::new(response::SYSTEM_ERROR, error.to_string())
    }
}
