//! Calls of the API server, each with an end.

use std::future::Future;
use std::time::Duration;

use kube::Error;

/// A call that takes longer has failed, as far as anyone here is concerned; what it asked for may happen all the same.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// No answer in time.
    #[error("the API server did not answer within {} s", PATIENCE.as_secs())]
    Timeout,
    /// It refused, or can't be reached.
    #[error("{}", words(.0))]
    Api(#[from] Error),
    /// A group's secret is there, and no token is in it.
    #[error("Secret {0} has no token; delete it, and it is made anew, and then delete the group's pods")]
    NoToken(String),
    /// No token can be made.
    #[error("can't read /dev/urandom: {0}")]
    Random(#[source] std::io::Error),
    /// Another operator leads.
    #[error("this operator does not lead any more")]
    NotLeading,
}

impl CallError {
    /// The status code of a refusal.
    pub(super) fn code(&self) -> Option<u16> {
        match self {
            Self::Api(Error::Api(status)) => Some(status.code),
            _ => None,
        }
    }

    /// Somebody else was faster, or the object is there already.
    pub(super) fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }

    /// Whether what was asked for may have happened all the same: there was no answer, or one that doesn't say.
    pub(super) fn is_uncertain(&self) -> bool {
        match self {
            Self::NotLeading
            | Self::NoToken(_)
            | Self::Random(_)
            | Self::Api(Error::BuildRequest(_) | Error::SerdeError(_)) => false,
            Self::Api(Error::Api(status)) => status.code >= 500,
            Self::Timeout | Self::Api(_) => true,
        }
    }
}

/// The API server's own words, without the debugging form of everything around them.
fn words(error: &Error) -> String {
    match error {
        Error::Api(status) => format!("{} ({} {})", status.message, status.code, status.reason),
        other => {
            let mut text = other.to_string();
            let mut source = std::error::Error::source(other);
            while let Some(error) = source {
                let words = error.to_string();
                // Some repeat what caused them.
                if !text.contains(&words) {
                    text = format!("{text}: {words}");
                }
                source = error.source();
            }
            text
        }
    }
}

/// A call, ended after [`PATIENCE`].
pub(super) async fn call<T>(call: impl Future<Output = Result<T, Error>>) -> Result<T, CallError> {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(answer) => answer.map_err(CallError::Api),
        Err(_elapsed) => Err(CallError::Timeout),
    }
}
