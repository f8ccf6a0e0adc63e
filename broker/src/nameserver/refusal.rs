//! Why a request is not carried out.

use gantry_remoting::body::BodyError;
use gantry_remoting::code::response;
use gantry_remoting::{HeaderError, Response};
use thiserror::Error;

/// Each becomes a response code and a remark.
#[derive(Debug, Error)]
pub(super) enum Refusal {
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error("crc32 not match")]
    Crc,
    #[error("{0}")]
    Invalid(String),
    #[error("No topic route info in name server for the topic: {0}")]
    TopicNotExist(String),
    #[error(
        "No topic route info in name server for the topic: {0}: none of its brokers has an address for clients outside"
    )]
    NotOutside(String),
    #[error("No config item, Namespace: {namespace}{key}")]
    NoKvConfig { namespace: String, key: String },
    #[error(
        "broker {broker_name}: epoch {given} of {addr} is over, the name server knows epoch {known}; \
         a broker of this epoch must not serve as master"
    )]
    OldEpoch { broker_name: String, addr: String, given: Epoch, known: i64 },
    #[error(
        "broker {broker_name} id {id}: {registered} is registered with state version {known}, \
         {addr} comes with {given}"
    )]
    OldState { broker_name: String, id: i64, registered: String, addr: String, known: i64, given: i64 },
    #[error("register broker failed: {broker_name} at {addr} must register all its topics before a single one")]
    NotYetWhole { broker_name: String, addr: String },
    #[error("the name server is full: {what} would be more than {limit}")]
    Full { what: &'static str, limit: usize },
    #[error("KV configuration: {0}")]
    Storage(String),
    #[error(" request type {0} not supported")]
    NotSupported(i32),
    #[error(" request type {0} not supported at the port for clients outside: it answers routes, and changes nothing")]
    NotSupportedOutside(i32),
}

/// An epoch as a registration gives it, for remarks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Epoch(pub(super) Option<i64>);

impl std::fmt::Display for Epoch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(epoch) => epoch.fmt(f),
            None => f.write_str("(none)"),
        }
    }
}

impl Refusal {
    pub(super) fn into_response(self) -> Response {
        let code = match &self {
            Self::TopicNotExist(_) | Self::NotOutside(_) => response::TOPIC_NOT_EXIST,
            Self::NoKvConfig { .. } => response::QUERY_NOT_FOUND,
            Self::OldEpoch { .. } => response::CONTROLLER_FENCED_MASTER_EPOCH,
            Self::NotSupported(_) | Self::NotSupportedOutside(_) => response::REQUEST_CODE_NOT_SUPPORTED,
            _ => response::SYSTEM_ERROR,
        };
        Response::failure(code, self.to_string())
    }
}
