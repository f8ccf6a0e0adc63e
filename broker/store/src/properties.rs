//! A message's properties: `key 0x01 value 0x02 key 0x01 value 0x02 …` in UTF-8.

/// Between a key and its value.
pub const NAME_VALUE_SEPARATOR: u8 = 1;
/// After each value; may be missing after the last.
pub const PROPERTY_SEPARATOR: u8 = 2;
/// The most bytes that a message can have of them: what the record's signed length can say, less the room for a separator
/// and the record's [CRC property](crate::record::CRC_KEY).
pub const MAX_BYTES: usize = 32_767 - 1 - crate::record::CRC_PROPERTY_BYTES;

/// The key under which a message's tag is kept.
pub const TAGS: &str = "TAGS";
/// The key of the client's own message id.
pub const UNIQUE_KEY: &str = "UNIQ_KEY";
/// The key under which the words are kept that a message can be found by, with spaces between them.
pub const KEYS: &str = "KEYS";
/// The key of a message's delay level.
pub const DELAY: &str = "DELAY";

/// The pairs in order. Like RocketMQ's parser it passes over pairs with no separator, key or value, and over
/// what isn't UTF-8.
pub fn iter(encoded: &[u8]) -> impl Iterator<Item = (&str, &str)> {
    encoded.split(|&byte| byte == PROPERTY_SEPARATOR).filter_map(|pair| {
        let at = pair.iter().position(|&byte| byte == NAME_VALUE_SEPARATOR)?;
        let (key, value) = (&pair[..at], &pair[at + 1..]);
        if key.is_empty() || value.is_empty() {
            return None;
        }
        Some((std::str::from_utf8(key).ok()?, std::str::from_utf8(value).ok()?))
    })
}

/// The value of `key`; the last one, as in RocketMQ's map, when there are several.
pub fn get<'a>(encoded: &'a [u8], key: &str) -> Option<&'a str> {
    iter(encoded).filter(|(name, _)| *name == key).last().map(|(_, value)| value)
}

/// Whether `text` can be a key or a value: it holds neither separator.
pub fn is_encodable(text: &str) -> bool {
    !text.bytes().any(|byte| byte == NAME_VALUE_SEPARATOR || byte == PROPERTY_SEPARATOR)
}

/// Builds encoded properties, pair by pair.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    encoded: Vec<u8>,
}

impl Builder {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins with those of another message.
    pub fn from_encoded(encoded: &[u8]) -> Self {
        let mut builder = Self { encoded: encoded.to_vec() };
        if builder.encoded.last().is_some_and(|&last| last != PROPERTY_SEPARATOR) {
            builder.encoded.push(PROPERTY_SEPARATOR);
        }
        builder
    }

    /// Adds a pair without looking whether the key is there already. An empty value is left out, as RocketMQ's
    /// parser would.
    ///
    /// # Panics
    /// If the key or the value holds a separator, see [`is_encodable`]: it would become other properties.
    pub fn push(&mut self, key: &str, value: &str) -> &mut Self {
        assert!(is_encodable(key) && is_encodable(value), "a property with a separator in it: {key:?}={value:?}");
        if !value.is_empty() {
            self.append(key, value);
        }
        self
    }

    /// Takes away what `key` has, and adds the pair.
    ///
    /// # Panics
    /// As [`Builder::push`].
    pub fn set(&mut self, key: &str, value: &str) -> &mut Self {
        self.remove(key).push(key, value)
    }

    /// Takes away what `key` has.
    pub fn remove(&mut self, key: &str) -> &mut Self {
        if get(&self.encoded, key).is_some() {
            let old = std::mem::take(&mut self.encoded);
            for (name, value) in iter(&old).filter(|(name, _)| *name != key) {
                // As it stands there: a value of a client's may hold the separator that ends a key.
                self.append(name, value);
            }
        }
        self
    }

    fn append(&mut self, key: &str, value: &str) {
        self.encoded.extend_from_slice(key.as_bytes());
        self.encoded.push(NAME_VALUE_SEPARATOR);
        self.encoded.extend_from_slice(value.as_bytes());
        self.encoded.push(PROPERTY_SEPARATOR);
    }

    /// The encoded bytes.
    pub fn build(self) -> bytes::Bytes {
        self.encoded.into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pairs_that_rocketmq_would_not_read_are_passed_over() {
        let encoded = b"a\x01b\x02\x01x\x02k\x01\x02junk\x02TAGS\x01T";
        assert_eq!(iter(encoded).collect::<Vec<_>>(), [("a", "b"), ("TAGS", "T")]);
        assert_eq!(get(encoded, "TAGS"), Some("T"));
        assert_eq!(get(encoded, "k"), None);
    }

    #[test]
    fn the_last_of_several_values_counts_and_set_leaves_one() {
        let mut builder = Builder::from_encoded(b"a\x011\x02b\x012\x02a\x013");
        assert_eq!(get(&builder.clone().build(), "a"), Some("3"));
        builder.set("a", "4");
        assert_eq!(&builder.build()[..], b"b\x012\x02a\x014\x02");
    }

    #[test]
    fn a_clients_value_with_a_separator_in_it_survives_changes_of_others() {
        let mut builder = Builder::from_encoded(b"k\x01v\x01w\x02TAGS\x01a\x02");
        builder.set("TAGS", "b");
        assert_eq!(&builder.build()[..], b"k\x01v\x01w\x02TAGS\x01b\x02");
    }

    proptest! {
        #![proptest_config(crate::property_config())]

        #[test]
        fn what_is_built_is_read_again(pairs in prop::collection::vec(("[^\u{1}\u{2}]{1,8}", "[^\u{1}\u{2}]{1,8}"), 0..8)) {
            let mut builder = Builder::new();
            for (key, value) in &pairs {
                builder.push(key, value);
            }
            let built = builder.build();
            let read: Vec<_> = iter(&built).map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            prop_assert_eq!(read, pairs);
        }

        #[test]
        fn no_bytes_make_the_parser_panic(encoded in prop::collection::vec(any::<u8>(), 0..64)) {
            let _count = iter(&encoded).count();
        }
    }
}
