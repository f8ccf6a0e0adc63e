//! `queuenumbers`: with which numbers queues go on of which nothing is left, neither in the log nor in files.
//!
//! A queue's next number follows from its last record. Once retention has deleted that record, it follows from the
//! last consume queue file; and this file says it should that be lost, too. A number is never given away twice: a consumer
//! that is further would never see the second message.
//!
//! Replaced as a whole, before what it speaks of is deleted: `GANTRYQN`, version (4), count (4), then for each queue
//! its next number (8), its id (4), the topic's length (2) and the topic; CRC32 of all that (4). Name, version and CRC stay where
//! they are in later versions, so that one is told from damage.

use std::io;
use std::sync::Arc;

use crate::QueueOffset;
use crate::atomic_file;
use crate::fs::Fs;
use crate::queue_offsets::QueueOffsets;
use crate::queues::recover;
use crate::queues::{Layout, Queues};
use crate::shared::Shared;

/// Its name, under the store's root.
pub(crate) const FILE: &str = "queuenumbers";

const MAGIC: &[u8; 8] = b"GANTRYQN";
const VERSION: u32 = 1;

/// The number that a queue's next message gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueNumber {
    /// The queue's topic.
    pub topic: Arc<str>,
    /// Its number in the topic.
    pub queue_id: u32,
    /// Numbers below it have been given away.
    pub next: QueueOffset,
}

/// Writes down the numbers of all queues of which nothing is left once the log begins at `oldest`.
pub(crate) fn remember(shared: &Shared, oldest: u64) -> io::Result<()> {
    let numbers = drained(&shared.queues, oldest).map_err(|(_, error)| error)?;
    replace(&*shared.fs, &shared.config.root, &numbers)
}

/// The numbers of all queues that have no unit of a record from `oldest` on.
pub(crate) fn drained(queues: &Queues, oldest: u64) -> Result<Vec<QueueNumber>, (std::path::PathBuf, io::Error)> {
    let mut numbers = Vec::new();
    for queue in queues.all() {
        let range = queue.range();
        let places = queue.places();
        let (min, _) = recover::find_min(queues, &queue, places.clone(), oldest)?;
        if min == places.end && range.max.0 > 0 {
            numbers.push(QueueNumber { topic: Arc::clone(&queue.topic), queue_id: queue.id, next: range.max });
        }
    }
    Ok(numbers)
}

/// Lets queues of which neither files nor log say anything go on where they were.
pub(crate) fn apply(numbers: &[QueueNumber], offsets: &mut QueueOffsets, queues: &Queues) {
    for QueueNumber { topic, queue_id, next } in numbers {
        if offsets.next(topic, *queue_id) == 0 && next.0 > 0 {
            offsets.set(topic, *queue_id, next.0);
            // Its next record says which layout it has.
            queues.get_or_add(topic, *queue_id, Layout::Single).begin_at(next.0);
        }
    }
}

/// Makes `numbers` the file's content, if it isn't already.
pub(crate) fn replace(fs: &dyn Fs, root: &std::path::Path, numbers: &[QueueNumber]) -> io::Result<()> {
    let path = root.join(FILE);
    let bytes = encode(numbers);
    let before = atomic_file::read_on(fs, &path)?;
    let same = before.as_ref().map_or(numbers.is_empty(), |before| *before == bytes);
    if same { Ok(()) } else { atomic_file::replace_on(fs, &path, &bytes) }
}

/// Why the file says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// Its bytes are not what was written.
    Damaged,
    /// It is whole, and of this version.
    Later(u32),
}

/// What the file says; nothing if there is none.
pub(crate) fn read(fs: &dyn Fs, root: &std::path::Path) -> io::Result<Result<Vec<QueueNumber>, Unreadable>> {
    let bytes = atomic_file::read_on(fs, &root.join(FILE))?;
    Ok(bytes.map_or_else(|| Ok(Vec::new()), |bytes| decode(&bytes)))
}

fn encode(numbers: &[QueueNumber]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&VERSION.to_be_bytes());
    bytes.extend_from_slice(&(numbers.len() as u32).to_be_bytes());
    for QueueNumber { topic, queue_id, next } in numbers {
        bytes.extend_from_slice(&next.0.to_be_bytes());
        bytes.extend_from_slice(&queue_id.to_be_bytes());
        bytes.extend_from_slice(&(topic.len() as u16).to_be_bytes());
        bytes.extend_from_slice(topic.as_bytes());
    }
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Result<Vec<QueueNumber>, Unreadable> {
    let (version, content) = checked(bytes).ok_or(Unreadable::Damaged)?;
    if version != VERSION {
        return Err(Unreadable::Later(version));
    }
    decode_content(content).ok_or(Unreadable::Damaged)
}

/// The version, and what lies between it and the CRC, if that is right.
fn checked(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (content, crc) = bytes.split_last_chunk::<4>()?;
    let (version, rest) = content.strip_prefix(MAGIC)?.split_first_chunk()?;
    (crc32fast::hash(content).to_be_bytes() == *crc).then_some((u32::from_be_bytes(*version), rest))
}

fn decode_content(content: &[u8]) -> Option<Vec<QueueNumber>> {
    let (count, mut rest) = content.split_first_chunk()?;
    let mut numbers = Vec::new();
    for _ in 0..u32::from_be_bytes(*count) {
        let (next, after) = rest.split_first_chunk()?;
        let (queue_id, after) = after.split_first_chunk()?;
        let (len, after) = after.split_first_chunk()?;
        let (topic, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
        let topic = std::str::from_utf8(topic).ok()?.into();
        let next = QueueOffset(u64::from_be_bytes(*next));
        numbers.push(QueueNumber { topic, queue_id: u32::from_be_bytes(*queue_id), next });
        rest = after;
    }
    rest.is_empty().then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn numbers() -> impl Strategy<Value = Vec<QueueNumber>> {
        let number = (".{0,40}", any::<u32>(), any::<u64>());
        let number = number.prop_map(|(topic, queue_id, next)| QueueNumber {
            topic: topic.into(),
            queue_id,
            next: QueueOffset(next),
        });
        prop::collection::vec(number, 0..5)
    }

    proptest! {
        #![proptest_config(crate::property_config())]

        #[test]
        fn what_is_written_is_read_again(numbers in numbers()) {
            prop_assert_eq!(decode(&encode(&numbers)), Ok(numbers));
        }

        #[test]
        fn a_damaged_file_says_nothing(numbers in numbers(), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
            let mut bytes = encode(&numbers);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(decode(&bytes), Err(Unreadable::Damaged));
            prop_assert_eq!(decode(&bytes[..at]), Err(Unreadable::Damaged));
        }
    }
}
