//! A consume queue's unit: physical offset (8), record's bytes (4), tags code (8).

/// A unit's bytes.
pub(crate) const UNIT_BYTES: usize = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unit {
    pub(crate) physical: u64,
    pub(crate) size: u32,
    pub(crate) tags_code: i64,
}

impl Unit {
    /// RocketMQ's filler for numbers that have no message.
    pub(crate) const BLANK: Self = Self { physical: 0, size: 0x7FFF_FFFF, tags_code: 0 };

    pub(crate) fn is_blank(self) -> bool {
        self == Self::BLANK
    }

    /// Whether nothing was written here.
    pub(crate) fn is_empty(self) -> bool {
        self.size == 0
    }

    /// Where its record ends.
    pub(crate) fn end(self) -> u64 {
        self.physical.saturating_add(u64::from(self.size))
    }

    pub(crate) fn encode(self) -> [u8; UNIT_BYTES] {
        let mut bytes = [0; UNIT_BYTES];
        bytes[..8].copy_from_slice(&self.physical.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.size.to_be_bytes());
        bytes[12..].copy_from_slice(&self.tags_code.to_be_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; UNIT_BYTES]) -> Self {
        let number = |range: std::ops::Range<usize>| bytes[range].iter().fold(0_u64, |n, &b| n << 8 | u64::from(b));
        Self { physical: number(0..8), size: number(8..12) as u32, tags_code: number(12..20) as i64 }
    }

    /// The units in `bytes`.
    pub(crate) fn decode_all(bytes: &[u8]) -> impl Iterator<Item = Self> {
        bytes.as_chunks::<UNIT_BYTES>().0.iter().map(Self::decode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_20_bytes_big_endian() {
        let unit = Unit { physical: 0x0102_0304_0506_0708, size: 0x1112_1314, tags_code: -2 };
        let bytes = unit.encode();
        assert_eq!(bytes, [1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x12, 0x13, 0x14, 255, 255, 255, 255, 255, 255, 255, 254]);
        assert_eq!(Unit::decode(&bytes), unit);
    }
}
