//! The commit log's record, RocketMQ's `MessageExtEncoder` / `MessageDecoder`. Everything is big-endian.
//!
//! | field | bytes | |
//! |---|---|---|
//! | TOTALSIZE | 4 | the whole record |
//! | MAGICCODE | 4 | [`MAGIC_V1`], [`MAGIC_V2`]; [`MAGIC_BLANK`] ends a segment |
//! | BODYCRC | 4 | CRC32 of the body & 0x7FFFFFFF |
//! | QUEUEID | 4 | |
//! | FLAG | 4 | |
//! | QUEUEOFFSET | 8 | at 20 |
//! | PHYSICALOFFSET | 8 | at 28 |
//! | SYSFLAG | 4 | at 36 |
//! | BORNTIMESTAMP | 8 | |
//! | BORNHOST | 8 or 20 | address and port in 4 bytes; 20 if SYSFLAG has bit 4 |
//! | STORETIMESTAMP | 8 | |
//! | STOREHOST | 8 or 20 | 20 if SYSFLAG has bit 5 |
//! | RECONSUMETIMES | 4 | |
//! | PREPARED | 8 | |
//! | BODY | 4 + n | |
//! | TOPIC | 1 + n or 2 + n | 2 in v2, for topics over 127 bytes |
//! | PROPERTIES | 2 + n | at most 32767; the last 20 may be the [CRC property](CRC_KEY) |
//!
//! A blank, `[rest of the segment: 4][MAGIC_BLANK: 4]`, fills a segment in which the next record found no room;
//! the 8 bytes are all that is written of it. It is needed when `record + 8 > room`, so that it always fits.

mod crc;
mod encode;
mod view;

use std::net::SocketAddr;

pub use crc::{CRC_KEY, CRC_PROPERTY_BYTES, RecordCrc};
pub use encode::{Placement, encode, encoded_len, put_blank};
pub use view::{Checked, Reason, RecordView, check, decode};
pub(crate) use view::{MAX_TOPIC_BYTES, is_topic};

/// Magic code of a record whose topic's length takes one byte.
pub const MAGIC_V1: u32 = 0xDAA3_20A7;
/// Magic code of a record whose topic's length takes two bytes.
pub const MAGIC_V2: u32 = 0xDAA3_20AB;
/// Magic code of the blank at a segment's end.
pub const MAGIC_BLANK: u32 = 0xCBD4_3194;
/// The bytes of a blank that are written.
pub const BLANK_BYTES: u64 = 8;
/// The longest topic of a v1 record.
pub const MAX_TOPIC_BYTES_V1: usize = 127;

/// System flag: what kind of transaction record it is.
pub const TRANSACTION_MASK: i32 = 0xC;
/// Transaction kind: a half message.
pub const TRANSACTION_PREPARED: i32 = 0x4;
/// Transaction kind: rolled back.
pub const TRANSACTION_ROLLBACK: i32 = 0xC;
/// System flag: the born host is an IPv6 address.
pub const BORN_HOST_V6: i32 = 1 << 4;
/// System flag: the store host is an IPv6 address.
pub const STORE_HOST_V6: i32 = 1 << 5;

/// System flag: the body is a batch as a client sent it, and consumers take it apart.
pub const NEED_UNWRAP: i32 = 1 << 6;
/// System flag: the record is a batch queue's, and stands for [`INNER_NUM`] messages of it, from [`INNER_BASE`] on; for one if it
/// doesn't say. (RocketMQ sets it only where it says; so that the log alone tells which layout a queue has, Gantry always does.)
pub const INNER_BATCH: i32 = 1 << 7;
/// Property: how many messages a record with [`INNER_BATCH`] stands for, 1 to 32767.
pub const INNER_NUM: &str = "INNER_NUM";
/// Property: the number of the first of them, which is the record's QUEUEOFFSET. The appender adds it.
pub const INNER_BASE: &str = "INNER_BASE";

/// How much of a record [`store_time_ms`] needs.
pub(crate) const TIME_HEAD_BYTES: usize = 76;

/// A record's STORETIMESTAMP, from its first [`TIME_HEAD_BYTES`]; `None` if they are no record's.
pub(crate) fn store_time_ms(head: &[u8]) -> Option<i64> {
    let number =
        |at: usize, len: usize| Some(head.get(at..at + len)?.iter().fold(0_u64, |n, &b| n << 8 | u64::from(b)));
    if !matches!(number(4, 4)? as u32, MAGIC_V1 | MAGIC_V2) {
        return None;
    }
    let born_v6 = number(36, 4)? as i32 & BORN_HOST_V6 != 0;
    Some(number(if born_v6 { 68 } else { 56 }, 8)? as i64)
}

/// Whether a record with this system flag has a place in its queue: prepared and rolled back ones have none.
pub fn has_queue_offset(sys_flag: i32) -> bool {
    !matches!(sys_flag & TRANSACTION_MASK, TRANSACTION_PREPARED | TRANSACTION_ROLLBACK)
}

/// How many messages a value of [`INNER_NUM`] says.
pub(crate) fn batch_size(value: &str) -> Option<u16> {
    value.parse::<i16>().ok().and_then(|count| u16::try_from(count).ok()).filter(|count| *count > 0)
}

/// The offset message id: store host, port and physical offset in upper case hexadecimal (32 characters, 56 for IPv6).
pub fn message_id(store_host: SocketAddr, physical: crate::PhysicalOffset) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut bytes = Vec::with_capacity(28);
    encode::put_host(&mut bytes, store_host);
    bytes.extend_from_slice(&physical.0.to_be_bytes());
    let digits = bytes.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    digits.map(char::from).collect()
}

/// What [`message_id`] was made of; `None` for anything else.
pub fn parse_message_id(id: &str) -> Option<(SocketAddr, crate::PhysicalOffset)> {
    if !matches!(id.len(), 32 | 56) || !id.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let bytes: Vec<u8> =
        (0..id.len()).step_by(2).map(|at| u8::from_str_radix(&id[at..at + 2], 16)).collect::<Result<_, _>>().ok()?;
    let (host, offset) = bytes.split_at(bytes.len() - 8);
    let offset = u64::from_be_bytes(offset.try_into().ok()?);
    Some((view::host(host)?, crate::PhysicalOffset(offset)))
}

#[cfg(test)]
mod tests;
