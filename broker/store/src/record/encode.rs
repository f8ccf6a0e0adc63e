//! Writing records.

use std::net::{IpAddr, SocketAddr};

use super::crc::{self, CRC_PROPERTY_BYTES, RecordCrc};
use super::{BORN_HOST_V6, MAGIC_BLANK, MAGIC_V1, MAGIC_V2, MAX_TOPIC_BYTES_V1, STORE_HOST_V6};
use crate::properties::PROPERTY_SEPARATOR;
use crate::{NewMessage, PhysicalOffset, QueueOffset};

/// What the writer adds to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Its number in the queue.
    pub queue_offset: QueueOffset,
    /// Where the record begins.
    pub physical: PhysicalOffset,
    /// When it was stored, ms since 1970.
    pub store_timestamp_ms: i64,
}

/// The properties as they are stored.
struct Stored<'a> {
    /// Without a CRC property, which was another record's.
    own: &'a [u8],
    /// A separator has to come before the CRC property.
    separated: bool,
    crc: bool,
}

impl<'a> Stored<'a> {
    fn of(message: &'a NewMessage, crc: bool) -> Self {
        let (own, _anothers) = crc::split(&message.properties);
        // What looks like such a property must not be the end: it would be taken for this record's.
        let crc = crc || crc::split(own).1 != RecordCrc::None;
        let separated = crc && own.last().is_some_and(|&last| last != PROPERTY_SEPARATOR);
        Self { own, separated, crc }
    }

    fn len(&self) -> usize {
        self.own.len() + usize::from(self.separated) + if self.crc { CRC_PROPERTY_BYTES } else { 0 }
    }
}

/// The bytes of `message`'s record; with `crc` it gets the CRC property.
pub fn encoded_len(message: &NewMessage, crc: bool) -> u64 {
    len(message, &Stored::of(message, crc))
}

fn len(message: &NewMessage, properties: &Stored<'_>) -> u64 {
    let topic_length_bytes = if message.topic.len() > MAX_TOPIC_BYTES_V1 { 2 } else { 1 };
    // All fixed fields but the hosts and the topic's length: 48 up to BORNHOST, 8 STORETIMESTAMP,
    // 4 + 8 RECONSUMETIMES and PREPARED, 4 and 2 for the lengths of body and properties.
    let fixed = 48 + 8 + 12 + 6 + topic_length_bytes + host_len(message.born_host) + host_len(message.store_host);
    (fixed + message.body.len() + message.topic.len() + properties.len()) as u64
}

/// Appends `message`'s record to `out`, with `crc` including the CRC property. Lengths must be within their fields' limits:
/// body below 2 GiB, topic at most 32767 bytes, properties [`MAX_BYTES`](crate::properties::MAX_BYTES); the appender checks
/// that.
pub fn encode(message: &NewMessage, placement: Placement, crc: bool, out: &mut Vec<u8>) {
    let properties = Stored::of(message, crc);
    let size = len(message, &properties);
    let v2 = message.topic.len() > MAX_TOPIC_BYTES_V1;
    let begin = out.len();
    out.reserve(size as usize);

    // The first 48 bytes never vary in layout: one copy.
    let mut head = [0_u8; 48];
    head[0..4].copy_from_slice(&(size as u32).to_be_bytes());
    head[4..8].copy_from_slice(&(if v2 { MAGIC_V2 } else { MAGIC_V1 }).to_be_bytes());
    head[8..12].copy_from_slice(&body_crc(&message.body).to_be_bytes());
    head[12..16].copy_from_slice(&message.queue_id.to_be_bytes());
    head[16..20].copy_from_slice(&message.flag.to_be_bytes());
    head[20..28].copy_from_slice(&placement.queue_offset.0.to_be_bytes());
    head[28..36].copy_from_slice(&placement.physical.0.to_be_bytes());
    head[36..40].copy_from_slice(&sys_flag(message).to_be_bytes());
    head[40..48].copy_from_slice(&message.born_timestamp_ms.to_be_bytes());
    out.extend_from_slice(&head);

    put_host(out, message.born_host);
    out.extend_from_slice(&placement.store_timestamp_ms.to_be_bytes());
    put_host(out, message.store_host);
    out.extend_from_slice(&message.reconsume_times.to_be_bytes());
    out.extend_from_slice(&message.prepared_offset.to_be_bytes());
    out.extend_from_slice(&(message.body.len() as u32).to_be_bytes());
    out.extend_from_slice(&message.body);
    if v2 {
        out.extend_from_slice(&(message.topic.len() as u16).to_be_bytes());
    } else {
        out.push(message.topic.len() as u8);
    }
    out.extend_from_slice(message.topic.as_bytes());
    out.extend_from_slice(&(properties.len() as u16).to_be_bytes());
    out.extend_from_slice(properties.own);
    if properties.separated {
        out.push(PROPERTY_SEPARATOR);
    }
    if properties.crc {
        crc::put(out, begin);
    }
    assert_eq!((out.len() - begin) as u64, size, "a record is as long as it says");
}

/// Appends the 8 bytes of a blank that fills the `room` left in a segment.
pub fn put_blank(room: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&room.to_be_bytes());
    out.extend_from_slice(&MAGIC_BLANK.to_be_bytes());
}

/// RocketMQ's `UtilAll.crc32`: never negative in Java.
pub(super) fn body_crc(body: &[u8]) -> u32 {
    crc32fast::hash(body) & 0x7FFF_FFFF
}

pub(super) fn put_host(out: &mut Vec<u8>, host: SocketAddr) {
    match host.ip() {
        IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
        IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
    }
    out.extend_from_slice(&u32::from(host.port()).to_be_bytes());
}

fn host_len(host: SocketAddr) -> usize {
    if host.is_ipv6() { 20 } else { 8 }
}

fn sys_flag(message: &NewMessage) -> i32 {
    let born = if message.born_host.is_ipv6() { BORN_HOST_V6 } else { 0 };
    let store = if message.store_host.is_ipv6() { STORE_HOST_V6 } else { 0 };
    message.sys_flag & !(BORN_HOST_V6 | STORE_HOST_V6) | born | store
}
