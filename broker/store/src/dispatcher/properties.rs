//! The properties that the dispatcher looks at, found in one pass.

use crate::index::Keys;
use crate::properties::{self, DELAY, KEYS, TAGS, UNIQUE_KEY};
use crate::record::RecordView;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Properties<'a> {
    pub(super) tags: Option<&'a str>,
    pub(super) delay: Option<&'a str>,
    pub(super) keys: Keys<'a>,
}

impl<'a> Properties<'a> {
    pub(super) fn of(record: &RecordView<'a>) -> Self {
        let mut found = Self::default();
        // Of several the last one counts, as in RocketMQ's map.
        for (name, value) in properties::iter(record.properties) {
            match name {
                TAGS => found.tags = Some(value),
                DELAY => found.delay = Some(value),
                KEYS => found.keys.words = Some(value),
                UNIQUE_KEY => found.keys.unique = Some(value),
                _ => {}
            }
        }
        found
    }
}
