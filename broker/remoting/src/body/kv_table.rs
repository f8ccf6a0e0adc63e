//! Names and values.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::null_as_default;

/// RocketMQ's `KVTable`: answers to 28, 103, 219.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct KvTable {
    /// Name → value.
    #[serde(default, deserialize_with = "null_as_default")]
    pub table: BTreeMap<String, String>,
}
