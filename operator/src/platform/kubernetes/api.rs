//! Calls of the API server, each with an end.

use std::future::Future;
use std::time::Duration;

use anyhow::Context as _;
use kube::runtime::watcher;
use kube::{Client, Config, Error};

use crate::observe::HUNG;

/// A call that takes longer has failed, as far as anyone here is concerned; what it asked for may happen all the same.
const PATIENCE: Duration = Duration::from_secs(5);

/// A watch is begun anew this often. One that says nothing for longer is on a connection that leads nowhere any more.
const WATCH: Duration = Duration::from_mins(1);
/// A connection on which nothing comes for so long is given up.
const SILENCE: Duration = Duration::from_secs(75);

/// After a call that failed.
const RETRY: Duration = Duration::from_secs(2);
/// And at most, whatever the API server asks for.
const MAX_RETRY: Duration = Duration::from_mins(1);

/// The way to the API server that the pod, or KUBECONFIG, names.
pub(super) async fn client() -> anyhow::Result<Client> {
    let config = Config::infer().await;
    let mut config = config.context("no way to the API server is known: neither in a pod nor by KUBECONFIG")?;
    // Between two tries this operator may have ceased to lead: whoever calls asks that, and decides whether there is a second one.
    config.default_retry = false;
    config.connect_timeout = Some(PATIENCE);
    (config.read_timeout, config.reset_reader_on_write) = (Some(SILENCE), true);
    Client::try_from(config).context("no connection to the API server can be made")
}

/// How objects are watched.
pub(super) fn watched() -> watcher::Config {
    watcher::Config::default().timeout(WATCH.as_secs() as u32)
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// No answer in time.
    #[error("the API server did not answer within {} s", PATIENCE.as_secs())]
    Timeout,
    /// A whole reconcile did not end.
    #[error("the reconcile did not end within {} s and was given up", .0.as_secs())]
    Hung(Duration),
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

    /// When to try again: as the API server asks for, within limits.
    pub(super) fn retry_in(&self) -> Duration {
        let asked = match self {
            Self::Api(Error::Api(status)) => status.details.as_ref().map_or(0, |details| details.retry_after_seconds),
            _ => 0,
        };
        Duration::from_secs(asked.into()).clamp(RETRY, MAX_RETRY)
    }

    /// Somebody else was faster, or the object is there already.
    pub(super) fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }

    /// In one word, for a metric's label.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Hung(_) => HUNG,
            Self::NoToken(_) => "no_token",
            Self::Random(_) => "no_random",
            Self::NotLeading => "not_leading",
            Self::Api(error) => kind_of(error),
        }
    }

    /// Whether what was asked for may have happened all the same: there was no answer, or one that doesn't say.
    pub(super) fn is_uncertain(&self) -> bool {
        match self {
            Self::NotLeading
            | Self::NoToken(_)
            | Self::Random(_)
            | Self::Api(Error::BuildRequest(_) | Error::SerdeError(_)) => false,
            Self::Api(Error::Api(status)) => status.code >= 500,
            Self::Timeout | Self::Hung(_) | Self::Api(_) => true,
        }
    }
}

/// Why a call failed, in one word.
pub(super) fn kind_of(error: &Error) -> &'static str {
    let Error::Api(status) = error else { return "unreachable" };
    match status.code {
        400 | 422 => "invalid",
        401 | 403 => "forbidden",
        404 => "not_found",
        409 => "conflict",
        429 => "throttled",
        500.. => "server",
        _ => "refused",
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
