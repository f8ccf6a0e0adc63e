//! Reading records, and judging whether bytes are one.

use std::net::{IpAddr, SocketAddr};

use super::crc::{self, CRC_PROPERTY_BYTES, RecordCrc};
use super::encode::body_crc;
use super::{BORN_HOST_V6, MAGIC_BLANK, MAGIC_V1, MAGIC_V2, STORE_HOST_V6};
use crate::{PhysicalOffset, QueueOffset, properties};

/// A record, its variable parts borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// The record's bytes.
    pub size: u32,
    /// BODYCRC as it stands there.
    pub body_crc: u32,
    /// The queue within the topic.
    pub queue_id: u32,
    /// The user's flag.
    pub flag: i32,
    /// Its number in the queue; 0 if it has none, see [`super::has_queue_offset`].
    pub queue_offset: QueueOffset,
    /// Where the record says that it lies.
    pub physical: PhysicalOffset,
    /// RocketMQ's system flag.
    pub sys_flag: i32,
    /// When the client made it, ms since 1970.
    pub born_timestamp_ms: i64,
    /// The client.
    pub born_host: SocketAddr,
    /// When it was stored, ms since 1970.
    pub store_timestamp_ms: i64,
    /// The broker.
    pub store_host: SocketAddr,
    /// How often it was consumed in vain.
    pub reconsume_times: i32,
    /// The prepared transaction's offset.
    pub prepared_offset: i64,
    /// The body, maybe compressed.
    pub body: &'a [u8],
    /// The topic.
    pub topic: &'a str,
    /// The encoded properties, without the CRC property.
    pub properties: &'a [u8],
    /// What the CRC property says.
    pub crc: RecordCrc,
}

impl RecordView<'_> {
    /// The messages of its batch, if it is one: a record of a batch queue. One without the properties holds one message.
    pub fn inner_batch(&self) -> Option<u16> {
        if self.sys_flag & super::INNER_BATCH == 0 {
            return None;
        }
        let base = properties::get(self.properties, super::INNER_BASE).and_then(|base| base.parse().ok());
        let own = base == Some(self.queue_offset.0);
        Some(
            properties::get(self.properties, super::INNER_NUM).filter(|_| own).and_then(super::batch_size).unwrap_or(1),
        )
    }

    /// How many messages of its queue it stands for.
    pub fn count(&self) -> u16 {
        self.inner_batch().unwrap_or(1)
    }

    /// The number in the queue of the message after it.
    pub fn next_offset(&self) -> QueueOffset {
        QueueOffset(self.queue_offset.0.saturating_add(u64::from(self.count())))
    }
}

/// What lies at a place in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked<'a> {
    /// A record, whole.
    Record(RecordView<'a>),
    /// The blank that fills the segment: so many bytes to its end.
    Blank(u32),
}

/// What can be wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Fewer bytes than the record needs.
    #[error("the record is cut off: {have} of {need} bytes")]
    CutOff {
        /// What is there.
        have: u64,
        /// What it says it needs.
        need: u64,
    },
    /// Nothing was ever written here.
    #[error("zeros, no record")]
    Zeros,
    /// No magic code of a record.
    #[error("unknown magic code {0:#010x}")]
    Magic(u32),
    /// It says that it lies elsewhere.
    #[error("the record says that it lies at {0}")]
    Elsewhere(u64),
    /// It doesn't fit into the segment.
    #[error("{size} bytes in a segment with room for {room}")]
    Room {
        /// What it says it needs.
        size: u64,
        /// What is left of the segment.
        room: u64,
    },
    /// Its parts don't add up to its size, or are out of their ranges.
    #[error("the record's {0} doesn't fit its size")]
    Structure(&'static str),
    /// The record may be whole, and is not what a consume queue's unit says.
    #[error("{0}")]
    Unit(&'static str),
    /// The body isn't what was written.
    #[error("the body's CRC is {found:#010x}, the record says {expected:#010x}")]
    BodyCrc {
        /// Of the bytes that are there.
        found: u32,
        /// BODYCRC.
        expected: u32,
    },
    /// Something in the record isn't what was written.
    #[error("the record's CRC is {found:#010x}, its CRC property says {expected:#010x}")]
    RecordCrc {
        /// Of the bytes that are there.
        found: u32,
        /// What the property says.
        expected: u64,
    },
}

/// Reads the record that `bytes` begin with: structure only, neither CRC nor place. More bytes may follow.
pub fn decode(bytes: &[u8]) -> Result<RecordView<'_>, Reason> {
    let mut at = Cursor { bytes, position: 0 };
    let size = at.u32("size")?;
    let magic = at.u32("magic code")?;
    match (size, magic) {
        (0, 0) => return Err(Reason::Zeros),
        (_, MAGIC_V1 | MAGIC_V2) => {}
        _ => return Err(Reason::Magic(magic)),
    }
    if (bytes.len() as u64) < u64::from(size) {
        return Err(Reason::CutOff { have: bytes.len() as u64, need: u64::from(size) });
    }
    at.bytes = &bytes[..size as usize];
    let record = fields(&mut at, size, magic)?;
    if at.position != size as usize {
        return Err(Reason::Structure("end"));
    }
    Ok(record)
}

/// Judges what `bytes`, which reach at least to that record's end, hold at `place` of a segment with `room` bytes from
/// there to its end. With `crc` the content is checked: against the record's own CRC, or, where it has none, the body against
/// its CRC, and whether anything was lost of the rest.
pub fn check(bytes: &[u8], place: PhysicalOffset, room: u64, crc: bool) -> Result<Checked<'_>, Reason> {
    let mut head = Cursor { bytes, position: 0 };
    let (size, magic) = (head.u32("size")?, head.u32("magic code")?);
    if magic == MAGIC_BLANK {
        let whole = u64::from(size) == room;
        return if whole { Ok(Checked::Blank(size)) } else { Err(Reason::Room { size: u64::from(size), room }) };
    }
    // Behind every record there is room for a blank.
    if (magic == MAGIC_V1 || magic == MAGIC_V2) && u64::from(size) + super::BLANK_BYTES > room {
        return Err(Reason::Room { size: u64::from(size), room });
    }
    let record = decode(bytes)?;
    if record.physical != place {
        return Err(Reason::Elsewhere(record.physical.0));
    }
    if crc {
        check_content(bytes, &record, place)?;
    }
    Ok(Checked::Record(record))
}

fn check_content(bytes: &[u8], record: &RecordView<'_>, place: PhysicalOffset) -> Result<(), Reason> {
    match record.crc {
        RecordCrc::Is(expected) => {
            let found = crc::of(&bytes[..record.size as usize - CRC_PROPERTY_BYTES]);
            if u64::from(found) == expected { Ok(()) } else { Err(Reason::RecordCrc { found, expected }) }
        }
        RecordCrc::Damaged => Err(Reason::Structure("CRC property")),
        RecordCrc::None => {
            let (found, expected) = (body_crc(record.body), record.body_crc);
            if found == expected { check_properties(record, place) } else { Err(Reason::BodyCrc { found, expected }) }
        }
    }
}

/// The longest topic: its queues' directory has its name.
pub(crate) const MAX_TOPIC_BYTES: usize = 255;

/// What a record's topic must be: the name of a directory.
pub(crate) fn is_topic(topic: &str) -> bool {
    (1..=MAX_TOPIC_BYTES).contains(&topic.len())
        && !matches!(topic, "." | "..")
        && !topic.bytes().any(|byte| byte == 0 || byte == b'/')
}

fn fields<'a>(at: &mut Cursor<'a>, size: u32, magic: u32) -> Result<RecordView<'a>, Reason> {
    let body_crc = at.u32("head")?;
    let queue_id = at.u32("head")?;
    let flag = at.i32("head")?;
    let queue_offset = QueueOffset(at.u64("head")?);
    let physical = PhysicalOffset(at.u64("head")?);
    let sys_flag = at.i32("head")?;
    let born_timestamp_ms = at.i64("head")?;
    let born_host = at.host(sys_flag & BORN_HOST_V6 != 0)?;
    let store_timestamp_ms = at.i64("head")?;
    let store_host = at.host(sys_flag & STORE_HOST_V6 != 0)?;
    let reconsume_times = at.i32("head")?;
    let prepared_offset = at.i64("head")?;
    let body_len = at.u32("body")?;
    let body = at.take(body_len as usize, "body")?;
    let topic_len = if magic == MAGIC_V2 { at.u16("topic")? } else { u16::from(at.u8("topic")?) };
    let topic = std::str::from_utf8(at.take(usize::from(topic_len), "topic")?);
    let topic = topic.ok().filter(|topic| is_topic(topic)).ok_or(Reason::Structure("topic"))?;
    let properties_len = at.u16("properties")?;
    let (properties, crc) = crc::split(at.take(usize::from(properties_len), "properties")?);
    Ok(RecordView {
        size,
        body_crc,
        queue_id,
        flag,
        queue_offset,
        physical,
        sys_flag,
        born_timestamp_ms,
        born_host,
        store_timestamp_ms,
        store_host,
        reconsume_times,
        prepared_offset,
        body,
        topic,
        properties,
        crc,
    })
}

/// Judges the properties of a record without a CRC of its own, which the body's CRC doesn't cover: what was lost of them reads as zeros to the record's end, or
/// from a sector's boundary to the sector's end. (Lost sooner in the record, it shows as no magic code, a wrong CRC, or a
/// topic that is empty or has a zero in it. Such topics, and properties that end in zeros, are refused when written.)
fn check_properties(record: &RecordView<'_>, place: PhysicalOffset) -> Result<(), Reason> {
    const SECTOR_BYTES: u64 = 512;
    // From the beginning of the record's first sector.
    let end = place.0 % SECTOR_BYTES + u64::from(record.size);
    let begin = end - record.properties.len() as u64;
    if record.properties.last() == Some(&0) {
        return Err(Reason::Structure("properties (zeros at the end)"));
    }
    let mut sector = begin.next_multiple_of(SECTOR_BYTES);
    while sector < end {
        let next = (sector + SECTOR_BYTES).min(end);
        let lost = &record.properties[(sector - begin) as usize..(next - begin) as usize];
        if lost.iter().all(|&byte| byte == 0) {
            return Err(Reason::Structure("properties (a sector of zeros)"));
        }
        sector = next;
    }
    Ok(())
}

/// The address and port that `bytes` (8 or 20) stand for.
pub(super) fn host(bytes: &[u8]) -> Option<SocketAddr> {
    let (ip, port) = bytes.split_at(bytes.len().checked_sub(4)?);
    let port = u16::try_from(u32::from_be_bytes(port.try_into().ok()?)).ok()?;
    let ip = match ip.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(ip).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(ip).ok()?),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// A place in a record; every step says which part was too short.
struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
}

macro_rules! numbers {
    ($($name:ident),*) => {$(
        fn $name(&mut self, part: &'static str) -> Result<$name, Reason> {
            self.array(part).map($name::from_be_bytes)
        }
    )*};
}

impl<'a> Cursor<'a> {
    numbers!(u8, u16, u32, u64, i32, i64);

    fn take(&mut self, len: usize, part: &'static str) -> Result<&'a [u8], Reason> {
        // The record may say that it ends before what was read already.
        let rest = self.bytes.get(self.position..).unwrap_or_default();
        let taken = rest.get(..len).ok_or(Reason::Structure(part))?;
        self.position += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, part: &'static str) -> Result<[u8; N], Reason> {
        self.take(N, part)?.try_into().map_err(|_| Reason::Structure(part))
    }

    fn host(&mut self, v6: bool) -> Result<SocketAddr, Reason> {
        host(self.take(if v6 { 20 } else { 8 }, "host")?).ok_or(Reason::Structure("host"))
    }
}
