//! The CRC property: the last 20 bytes of a record's properties, RocketMQ's with `enabledAppendPropCRC=true`.
//!
//! `__CRC32#`, 0x01, ten decimal digits, the *least* significant first, 0x02. It is the CRC32 (& 0x7FFFFFFF) of the whole
//! record but these 20 bytes, PHYSICALOFFSET and STORETIMESTAMP included: unlike BODYCRC it finds a flipped bit wherever
//! it is. Clients see one more property; records without it are as good as ever.

use crate::properties::{NAME_VALUE_SEPARATOR, PROPERTY_SEPARATOR};

/// The property's key.
pub const CRC_KEY: &str = "__CRC32#";
/// What it takes of a record.
pub const CRC_PROPERTY_BYTES: usize = 20;

const DIGITS: usize = 10;
const FIRST_DIGIT: usize = CRC_KEY.len() + 1;
const END: usize = FIRST_DIGIT + DIGITS;
/// So few wrong bytes don't make it another property: it is this one, damaged.
const MAX_WRONG_BYTES: usize = 2;

/// What a record says about its own CRC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordCrc {
    /// Nothing: an older record, or an Apache broker's.
    None,
    /// The CRC of all that is before the property.
    Is(u64),
    /// There was such a property, and it isn't whole.
    Damaged,
}

/// The properties without a CRC property at their end, and what that said.
pub(super) fn split(properties: &[u8]) -> (&[u8], RecordCrc) {
    let Some((rest, tail)) = properties.split_last_chunk::<CRC_PROPERTY_BYTES>() else {
        return (properties, RecordCrc::None);
    };
    match wrong_bytes(tail) {
        0 => (rest, RecordCrc::Is(number(tail))),
        1..=MAX_WRONG_BYTES => (properties, RecordCrc::Damaged),
        _ => (properties, RecordCrc::None),
    }
}

/// Appends the property for the record that begins at `begin` of `out`, which is complete but for it.
pub(super) fn put(out: &mut Vec<u8>, begin: usize) {
    let mut crc = of(&out[begin..]);
    let mut property = [0; CRC_PROPERTY_BYTES];
    property[..CRC_KEY.len()].copy_from_slice(CRC_KEY.as_bytes());
    property[CRC_KEY.len()] = NAME_VALUE_SEPARATOR;
    for digit in &mut property[FIRST_DIGIT..END] {
        *digit = b'0' + (crc % 10) as u8;
        crc /= 10;
    }
    property[END] = PROPERTY_SEPARATOR;
    out.extend_from_slice(&property);
}

/// The CRC that `record`, without its property, should say.
pub(super) fn of(record: &[u8]) -> u32 {
    crc32fast::hash(record) & 0x7FFF_FFFF
}

fn wrong_bytes(tail: &[u8; CRC_PROPERTY_BYTES]) -> usize {
    // Nearly all that isn't it is told by its last byte or the one before the digits.
    if tail[END] != PROPERTY_SEPARATOR && tail[CRC_KEY.len()] != NAME_VALUE_SEPARATOR {
        return CRC_PROPERTY_BYTES;
    }
    let differs = |(is, should): (&u8, u8)| *is != should;
    let key = tail.iter().zip(CRC_KEY.bytes().chain([NAME_VALUE_SEPARATOR])).filter(|pair| differs(*pair)).count();
    let digits = tail[FIRST_DIGIT..END].iter().filter(|digit| !digit.is_ascii_digit()).count();
    key + digits + usize::from(tail[END] != PROPERTY_SEPARATOR)
}

fn number(tail: &[u8; CRC_PROPERTY_BYTES]) -> u64 {
    tail[FIRST_DIGIT..END].iter().rev().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}
