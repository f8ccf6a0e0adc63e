//! The bytes of an index file.

/// The header's bytes.
pub(crate) const HEADER_BYTES: u64 = 40;
/// A slot's bytes.
pub(crate) const SLOT_BYTES: u64 = 4;
/// An entry's bytes.
pub(crate) const ENTRY_BYTES: usize = 20;
/// Entries are numbered from 1: a slot that says 0 is empty.
pub(crate) const FIRST_ENTRY: u32 = 1;

/// How many slots and entries each file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// `maxHashSlotNum`
    pub(crate) slots: u32,
    /// `maxIndexNum`; one less can be used.
    pub(crate) entries: u32,
}

impl Layout {
    pub(crate) fn file_bytes(self) -> u64 {
        self.entry_at(self.entries)
    }

    /// Where an entry lies.
    pub(crate) fn entry_at(self, number: u32) -> u64 {
        HEADER_BYTES + u64::from(self.slots) * SLOT_BYTES + u64::from(number) * ENTRY_BYTES as u64
    }

    /// Where a slot lies.
    pub(crate) fn slot_at(slot: u32) -> u64 {
        HEADER_BYTES + u64::from(slot) * SLOT_BYTES
    }

    /// The slot of a hash.
    pub(crate) fn slot_of(self, hash: u32) -> u32 {
        hash % self.slots
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Store time of the first entry's message, ms since 1970.
    pub(crate) begin_ms: i64,
    pub(crate) end_ms: i64,
    pub(crate) begin_physical: u64,
    pub(crate) end_physical: u64,
    /// Slots in use.
    pub(crate) used_slots: u32,
    /// The next entry's number.
    pub(crate) next_entry: u32,
}

impl Header {
    pub(crate) const EMPTY: Self =
        Self { begin_ms: 0, end_ms: 0, begin_physical: 0, end_physical: 0, used_slots: 0, next_entry: FIRST_ENTRY };

    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES as usize] {
        let mut bytes = [0; HEADER_BYTES as usize];
        bytes[0..8].copy_from_slice(&self.begin_ms.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.end_ms.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.begin_physical.to_be_bytes());
        bytes[24..32].copy_from_slice(&self.end_physical.to_be_bytes());
        bytes[32..36].copy_from_slice(&self.used_slots.to_be_bytes());
        bytes[36..40].copy_from_slice(&self.next_entry.to_be_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES as usize]) -> Self {
        let number = |range: std::ops::Range<usize>| bytes[range].iter().fold(0_u64, |n, &b| n << 8 | u64::from(b));
        Self {
            begin_ms: number(0..8) as i64,
            end_ms: number(8..16) as i64,
            begin_physical: number(16..24),
            end_physical: number(24..32),
            used_slots: number(32..36) as u32,
            next_entry: number(36..40) as u32,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) hash: u32,
    pub(crate) physical: u64,
    /// After the header's `begin_ms`.
    pub(crate) seconds: u32,
    /// The next older entry of the same slot; 0: none.
    pub(crate) older: u32,
}

impl Entry {
    pub(crate) fn encode(&self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[0..4].copy_from_slice(&self.hash.to_be_bytes());
        bytes[4..12].copy_from_slice(&self.physical.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.seconds.to_be_bytes());
        bytes[16..20].copy_from_slice(&self.older.to_be_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; ENTRY_BYTES]) -> Self {
        let number = |range: std::ops::Range<usize>| bytes[range].iter().fold(0_u64, |n, &b| n << 8 | u64::from(b));
        Self {
            hash: number(0..4) as u32,
            physical: number(4..12),
            seconds: number(12..16) as u32,
            older: number(16..20) as u32,
        }
    }
}

/// The hash of `topic#key`: Java's, made positive; 0 for the one that has no positive.
pub(crate) fn key_hash(topic: &str, key: &str) -> u32 {
    let hash = extend(extend(extend(0, topic), "#"), key);
    hash.checked_abs().unwrap_or(0) as u32
}

/// Java's `String.hashCode()` of a text that begins with what has the hash `begun`.
fn extend(begun: i32, text: &str) -> i32 {
    let step = |hash: i32, unit: u16| hash.wrapping_mul(31).wrapping_add(i32::from(unit));
    if text.is_ascii() {
        text.bytes().fold(begun, |hash, byte| step(hash, u16::from(byte)))
    } else {
        text.encode_utf16().fold(begun, step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tags::java_hash;

    #[test]
    fn a_file_has_the_size_that_rocketmq_gives_it() {
        assert_eq!(Layout { slots: 5_000_000, entries: 20_000_000 }.file_bytes(), 420_000_040);
    }

    #[test]
    fn header_and_entry_are_these_bytes() {
        let header = Header {
            begin_ms: 0x0102_0304_0506_0708,
            end_ms: 2,
            begin_physical: 3,
            end_physical: 4,
            used_slots: 5,
            next_entry: 6,
        };
        let bytes = header.encode();
        let mut expected = vec![1, 2, 3, 4, 5, 6, 7, 8];
        for number in 2..=4_u64 {
            expected.extend_from_slice(&number.to_be_bytes());
        }
        expected.extend_from_slice(&[0, 0, 0, 5, 0, 0, 0, 6]);
        assert_eq!(bytes[..], expected);
        assert_eq!(Header::decode(&bytes), header);

        let entry = Entry { hash: 0x0A0B_0C0D, physical: 0x0102_0304_0506_0708, seconds: 9, older: 0x0E };
        let bytes = entry.encode();
        assert_eq!(bytes, [10, 11, 12, 13, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 9, 0, 0, 0, 14]);
        assert_eq!(Entry::decode(&bytes), entry);
    }

    #[test]
    fn a_keys_hash_is_javas_of_topic_and_key_without_its_sign() {
        for (topic, key) in [("T", "k"), ("TopicTest", "7F0000010A2B18B4AAC20000"), ("主题", "é\u{1F600}"), ("", "")]
        {
            let whole = java_hash(&format!("{topic}#{key}"));
            assert_eq!(key_hash(topic, key), whole.checked_abs().unwrap_or(0) as u32, "{topic} {key}");
        }
        // "polygenelubricants".hashCode() is Integer.MIN_VALUE; split where a `#` could be.
        assert_eq!(extend(extend(0, "polygene"), "lubricants"), i32::MIN);
    }
}
