//! JSON bodies, as RocketMQ's (fastjson) names and shapes them.
//!
//! fastjson writes maps with numeric keys unquoted (`{0:"ip:port"}`), which isn't JSON. [`parse`] takes both; what is
//! written is standard JSON, except where a client is too old for it ([`to_json_bare_keys`]).

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

mod bare_keys;
pub mod client_check;
pub mod cluster;
pub mod consumer_list;
pub mod ha;
pub mod heartbeat;
pub mod kv_table;
pub mod lock;
pub mod register_broker;
pub mod route;
pub mod subscription_group;
pub mod topic_config;

/// A body that is not what it should be.
#[derive(Debug, Error)]
pub enum BodyError {
    /// Not the JSON expected.
    #[error("body is not a {what}: {source}")]
    Json {
        /// The type expected.
        what: &'static str,
        /// What serde says.
        source: serde_json::Error,
    },
    /// A compressed registration that can't be read.
    #[error("compressed registration: {0}")]
    Compressed(String),
}

/// Reads a body of type `T`, with quoted or unquoted numeric keys.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, BodyError> {
    serde_json::from_slice(body).or_else(|error| {
        let failed = |source| BodyError::Json { what: short_name::<T>(), source };
        if !error.is_syntax() {
            return Err(failed(error));
        }
        // Tell the first error if quoting keys changes nothing: its position is one in what the peer sent.
        let quoted = bare_keys::quote(body).ok_or_else(|| failed(error))?;
        serde_json::from_slice(&quoted).map_err(failed)
    })
}

/// Writes a body as standard JSON.
pub fn to_json<T: Serialize>(body: &T) -> Result<Bytes, BodyError> {
    serde_json::to_vec(body).map(Bytes::from).map_err(|source| BodyError::Json { what: short_name::<T>(), source })
}

/// Writes a body as clients before 4.9.4 want it: numeric keys unquoted.
pub fn to_json_bare_keys<T: Serialize>(body: &T) -> Result<Bytes, BodyError> {
    bare_keys::to_vec(body).map(Bytes::from).map_err(|source| BodyError::Json { what: short_name::<T>(), source })
}

fn short_name<T>() -> &'static str {
    std::any::type_name::<T>().rsplit("::").next().unwrap_or_default()
}

/// Go writes an empty slice as `null`, and so do some others.
fn null_as_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}
