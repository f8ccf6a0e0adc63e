//! A record's keys.

use super::key_hash;
use crate::properties;
use crate::record::{RecordView, TRANSACTION_MASK, TRANSACTION_ROLLBACK};

/// A key that is to be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Staged {
    pub(crate) hash: u32,
    pub(crate) physical: u64,
    pub(crate) store_ms: i64,
}

/// The properties that a message is found by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Keys<'a> {
    /// UNIQ_KEY
    pub(crate) unique: Option<&'a str>,
    /// KEYS: words with spaces between them.
    pub(crate) words: Option<&'a str>,
}

impl Keys<'_> {
    /// Adds the record's keys, in RocketMQ's order. A record that is rolled back has none.
    pub(crate) fn stage(&self, record: &RecordView<'_>, staged: &mut Vec<Staged>) {
        if record.sys_flag & TRANSACTION_MASK == TRANSACTION_ROLLBACK {
            return;
        }
        staged.extend(self.each().map(|key| Staged {
            hash: key_hash(record.topic, key),
            physical: record.physical.0,
            store_ms: record.store_timestamp_ms,
        }));
    }

    fn each(&self) -> impl Iterator<Item = &str> {
        let words = self.words.unwrap_or_default().split(' ').filter(|word| !word.is_empty());
        self.unique.into_iter().chain(words)
    }
}

/// Whether a record has this key: two keys can have one hash.
pub(crate) fn has_key(record: &RecordView<'_>, key: &str) -> bool {
    let keys = Keys {
        unique: properties::get(record.properties, properties::UNIQUE_KEY),
        words: properties::get(record.properties, properties::KEYS),
    };
    keys.each().any(|each| each == key)
}
