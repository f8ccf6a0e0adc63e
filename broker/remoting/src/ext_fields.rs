//! A header's named values (`extFields`): text to text.

use std::fmt;

use smallvec::SmallVec;

use crate::header::Fields;

/// The ext fields of one frame, in the order in which they came; a key is there at most once.
///
/// Owned and cheap: all keys and values lie in one string, the entries are positions in it. Reading borrows.
#[derive(Clone, Default)]
pub struct ExtFields {
    /// Keys and values one behind the other. What `set` replaced stays as a gap.
    text: String,
    entries: SmallVec<[Entry; 16]>,
    /// One bit for each kind of key ever put: no bit, no such key. Spares the search for most absent optional fields.
    seen: u64,
}

/// `text[key_start..value_start]` is the key, `text[value_start..value_end]` the value.
/// 32 bits do: a header has at most 2^24 bytes, and what is set locally is refused when it is encoded.
#[derive(Debug, Clone, Copy)]
struct Entry {
    key_start: u32,
    value_start: u32,
    value_end: u32,
}

impl ExtFields {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn with_text_capacity(bytes: usize) -> Self {
        Self { text: String::with_capacity(bytes), ..Self::default() }
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.position(key).map(|index| self.value(self.entries[index]))
    }

    /// All fields in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().map(|entry| (self.key(*entry), self.value(*entry)))
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Sets `key`, replacing its value if it has one.
    pub fn set(&mut self, key: &str, value: &str) {
        let start = self.text.len();
        self.text.push_str(key);
        let value_start = self.text.len();
        self.text.push_str(value);
        self.commit(start, value_start);
    }

    /// Lets a decoder append a key and its value to the text, so that what has to be unescaped goes straight to where it
    /// stays. It answers where the value starts, or `None` for no field.
    pub(crate) fn append_pair<E>(
        &mut self,
        pair: impl FnOnce(&mut String) -> Result<Option<usize>, E>,
    ) -> Result<(), E> {
        let key_start = self.text.len();
        match pair(&mut self.text)? {
            Some(value_start) => self.commit(key_start, value_start),
            None => self.text.truncate(key_start),
        }
        Ok(())
    }

    fn commit(&mut self, key_start: usize, value_start: usize) {
        let entry =
            Entry { key_start: key_start as u32, value_start: value_start as u32, value_end: self.text.len() as u32 };
        let bit = kind(self.key(entry));
        let existing = if self.seen & bit == 0 { None } else { self.position(self.key(entry)) };
        match existing {
            Some(index) => self.entries[index] = entry,
            None => self.entries.push(entry),
        }
        self.seen |= bit;
    }

    fn position(&self, key: &str) -> Option<usize> {
        if self.seen & kind(key) == 0 {
            return None;
        }
        self.entries.iter().position(|entry| self.key(*entry) == key)
    }

    fn key(&self, entry: Entry) -> &str {
        &self.text[entry.key_start as usize..entry.value_start as usize]
    }

    fn value(&self, entry: Entry) -> &str {
        &self.text[entry.value_start as usize..entry.value_end as usize]
    }
}

/// A bit that depends on the key's ends and length: the one-letter keys of SEND_MESSAGE_V2 all get different ones.
fn kind(key: &str) -> u64 {
    let bytes = key.as_bytes();
    let ends = match bytes {
        [] => 0,
        [first, .., last] => u32::from(*first) + 7 * u32::from(*last),
        [only] => u32::from(*only),
    };
    1 << ((ends + 13 * bytes.len() as u32) % 64)
}

impl Fields for ExtFields {
    fn encode(&self, out: &mut impl crate::header::FieldSink) {
        self.iter().for_each(|(key, value)| out.put(key, value));
    }
}

impl crate::header::FieldSink for ExtFields {
    fn put(&mut self, key: &str, value: &str) {
        self.set(key, value);
    }
}

/// Equal when they hold the same fields, in any order.
impl PartialEq for ExtFields {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().all(|(key, value)| other.get(key) == Some(value))
    }
}

impl Eq for ExtFields {}

impl fmt::Debug for ExtFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for ExtFields {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(fields: I) -> Self {
        let mut ext = Self::new();
        fields.into_iter().for_each(|(key, value)| ext.set(key, value));
        ext
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_a_key_again_replaces_its_value_and_keeps_its_place() {
        let mut ext: ExtFields = [("a", "1"), ("b", "2")].into_iter().collect();
        ext.set("a", "three");
        assert_eq!(ext.iter().collect::<Vec<_>>(), [("a", "three"), ("b", "2")]);
        assert_eq!((ext.get("a"), ext.get("b"), ext.get("c"), ext.get("")), (Some("three"), Some("2"), None, None));
    }

    #[test]
    fn one_letter_keys_have_bits_of_their_own() {
        let bits = ('a'..='n').map(|key| kind(key.encode_utf8(&mut [0; 4]))).fold(0, |all, bit| all | bit);
        assert_eq!(bits.count_ones(), 14);
    }
}
