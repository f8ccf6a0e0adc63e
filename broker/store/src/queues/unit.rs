//! A consume queue's unit, in two layouts.
//!
//! | bytes | [`Layout::Single`] | [`Layout::Batch`] |
//! |---|---|---|
//! | 8 | physical offset | physical offset |
//! | 4 | record's bytes | record's bytes |
//! | 8 | tags code | tags code |
//! | 8 | | store timestamp |
//! | 8 | | number of the first message in the record |
//! | 2 | | messages in the record |
//! | 4 | | -1 (RocketMQ's compacted offset) |
//! | 4 | | 0, reserved |

use crate::record::RecordView;

/// The longest unit's bytes.
pub(crate) const MAX_UNIT_BYTES: usize = 46;

/// How a queue's units lie in its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Layout {
    /// RocketMQ's `ConsumeQueue`: a unit a message, at the place of the message's number.
    Single,
    /// RocketMQ's `BatchConsumeQueue`: a unit a record, one after the other, whatever numbers they have.
    Batch,
}

impl Layout {
    pub(crate) const ALL: [Self; 2] = [Self::Single, Self::Batch];

    /// Which one a record asks for.
    pub(crate) fn of(record: &RecordView<'_>) -> Self {
        if record.inner_batch().is_some() { Self::Batch } else { Self::Single }
    }

    pub(crate) fn unit_bytes(self) -> usize {
        match self {
            Self::Single => 20,
            Self::Batch => MAX_UNIT_BYTES,
        }
    }

    /// Where such queues are, under the store's root.
    pub(crate) fn directory(self) -> &'static str {
        match self {
            Self::Single => "consumequeue",
            Self::Batch => "batchconsumequeue",
        }
    }

    /// Where the unit of message `first` lies in a queue that begins with it.
    pub(crate) fn first_place(self, first: u64) -> u64 {
        match self {
            Self::Single => first,
            Self::Batch => 0,
        }
    }

    pub(crate) fn put(self, unit: Unit, out: &mut Vec<u8>) {
        out.extend_from_slice(&unit.physical.to_be_bytes());
        out.extend_from_slice(&unit.size.to_be_bytes());
        out.extend_from_slice(&unit.tags_code.to_be_bytes());
        if self == Self::Batch {
            out.extend_from_slice(&unit.stored_ms.to_be_bytes());
            out.extend_from_slice(&unit.first.to_be_bytes());
            out.extend_from_slice(&unit.count.to_be_bytes());
            out.extend_from_slice(&(-1_i32).to_be_bytes());
            out.extend_from_slice(&[0; 4]);
        }
    }

    /// The unit at `place`, from its bytes.
    pub(crate) fn decode(self, place: u64, bytes: &[u8]) -> Unit {
        let number = |range: std::ops::Range<usize>| bytes[range].iter().fold(0_u64, |n, &b| n << 8 | u64::from(b));
        let unit = Unit {
            physical: number(0..8),
            size: number(8..12) as u32,
            tags_code: number(12..20) as i64,
            stored_ms: 0,
            first: place,
            count: 1,
        };
        match self {
            Self::Single => unit,
            Self::Batch => {
                Unit { stored_ms: number(20..28) as i64, first: number(28..36), count: number(36..38) as u16, ..unit }
            }
        }
    }

    /// The units in `bytes`, the first of which is at `place`.
    pub(crate) fn decode_all(self, place: u64, bytes: &[u8]) -> impl Iterator<Item = Unit> {
        (place..).zip(bytes.chunks_exact(self.unit_bytes())).map(move |(place, bytes)| self.decode(place, bytes))
    }

    /// Whether nothing was written here.
    pub(crate) fn is_empty(self, unit: Unit) -> bool {
        unit.size == 0 || (self == Self::Batch && unit.count == 0)
    }

    /// Whether it is a filler for a number that has no message. Batch units say their numbers, and need none.
    pub(crate) fn is_blank(self, unit: Unit) -> bool {
        self == Self::Single && Unit { first: 0, ..unit } == Unit::BLANK
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unit {
    pub(crate) physical: u64,
    pub(crate) size: u32,
    pub(crate) tags_code: i64,
    /// When it was stored, ms since 1970; 0 in single units, which don't say.
    pub(crate) stored_ms: i64,
    /// Number of the record's first message.
    pub(crate) first: u64,
    /// Messages in the record.
    pub(crate) count: u16,
}

impl Unit {
    /// RocketMQ's filler for numbers that have no message.
    pub(crate) const BLANK: Self =
        Self { physical: 0, size: 0x7FFF_FFFF, tags_code: 0, stored_ms: 0, first: 0, count: 1 };

    pub(crate) fn of(record: &RecordView<'_>, tags_code: i64) -> Self {
        Self {
            physical: record.physical.0,
            size: record.size,
            tags_code,
            stored_ms: record.store_timestamp_ms,
            first: record.queue_offset.0,
            count: record.count(),
        }
    }

    /// Where its record ends.
    pub(crate) fn end(self) -> u64 {
        self.physical.saturating_add(u64::from(self.size))
    }

    /// The number after its messages'.
    pub(crate) fn next(self) -> u64 {
        self.first.saturating_add(u64::from(self.count))
    }

    /// Whether `record` is the one that it stands for.
    pub(crate) fn is_of(self, layout: Layout, record: &RecordView<'_>) -> bool {
        record.queue_offset.0 == self.first && (layout == Layout::Single || record.count() == self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: Unit = Unit {
        physical: 0x0102_0304_0506_0708,
        size: 0x1112_1314,
        tags_code: -2,
        stored_ms: 0x2122_2324_2526_2728,
        first: 0x3132_3334_3536_3738,
        count: 0x4142,
    };

    #[test]
    fn a_unit_is_20_bytes_big_endian() {
        let mut bytes = Vec::new();
        Layout::Single.put(UNIT, &mut bytes);
        assert_eq!(bytes, [1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x12, 0x13, 0x14, 255, 255, 255, 255, 255, 255, 255, 254]);
        assert_eq!(Layout::Single.decode(7, &bytes), Unit { stored_ms: 0, first: 7, count: 1, ..UNIT });
    }

    #[test]
    fn a_batch_unit_is_46_bytes_and_says_which_messages_it_stands_for() {
        let mut bytes = Vec::new();
        Layout::Batch.put(UNIT, &mut bytes);
        let tail = [
            0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28, 0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38, 0x41, 0x42,
            255, 255, 255, 255, 0, 0, 0, 0,
        ];
        assert_eq!((bytes.len(), &bytes[20..]), (46, &tail[..]));
        assert_eq!(Layout::Batch.decode(7, &bytes), UNIT);
    }
}
