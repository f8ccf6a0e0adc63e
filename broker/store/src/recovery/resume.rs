//! How far a recovery had come when it was interrupted: the next one goes on there.
//!
//! The file `recovery.progress` in the root is there only while the log is read, and holds only together with the `abort`
//! file of the same run: if any other broker was at work in between, that one's `abort` is another, or gone.
//!
//! | bytes | field |
//! |---|---|
//! | 8 | magic `GANTRYRP` |
//! | 4 | version, 1 |
//! | 4 + n | content of `abort` |
//! | 8 | where reading began |
//! | 8 | below it everything is whole records, on disk |
//! | 8 | store timestamp of the last record, ms since 1970 |
//! | 4 | number of queues, and for each: topic (2 + n), queue (4), next number (8) |
//! | 4 | CRC32 of all before |

use std::io;
use std::path::Path;

use crate::allocator::is_no_space;
use crate::atomic_file;
use crate::fs::Fs;
use crate::queue_offsets::QueueOffsets;

/// Its name, under the store's root.
pub(crate) const FILE: &str = "recovery.progress";

const MAGIC: &[u8; 8] = b"GANTRYRP";
const VERSION: u32 = 1;

/// A stretch of the log that need not be read again.
#[derive(Debug)]
pub(super) struct Resume {
    pub(super) from: u64,
    pub(super) reached: u64,
    pub(super) timestamp_ms: i64,
    pub(super) offsets: QueueOffsets,
}

impl Resume {
    /// What an interrupted recovery left in `root`, if `abort` is still its own.
    pub(super) fn read(fs: &dyn Fs, root: &Path, abort: &[u8]) -> io::Result<Option<Self>> {
        let Some(bytes) = atomic_file::read_on(fs, &root.join(FILE))? else { return Ok(None) };
        let resume = Self::decode(&bytes, abort);
        if resume.is_none() {
            tracing::info!(
                "what an interrupted recovery left doesn't fit any more: the log is read from the checkpoint"
            );
        }
        Ok(resume)
    }

    /// Makes it durable. A full disk is no reason to stop: only more would be read again.
    pub(super) fn write(&self, fs: &dyn Fs, root: &Path, abort: &[u8]) -> io::Result<()> {
        match atomic_file::replace_on(fs, &root.join(FILE), &self.encode(abort)) {
            Err(error) if is_no_space(&error) => {
                tracing::warn!(%error, "no space to note how far recovery is");
                Ok(())
            }
            other => other,
        }
    }

    /// Removes the file; durable once the root is synced.
    pub(super) fn forget(fs: &dyn Fs, root: &Path) -> io::Result<()> {
        match fs.remove_file(&root.join(FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn encode(&self, abort: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.extend_from_slice(&(abort.len() as u32).to_be_bytes());
        bytes.extend_from_slice(abort);
        bytes.extend_from_slice(&self.from.to_be_bytes());
        bytes.extend_from_slice(&self.reached.to_be_bytes());
        bytes.extend_from_slice(&self.timestamp_ms.to_be_bytes());
        bytes.extend_from_slice(&(self.offsets.iter().count() as u32).to_be_bytes());
        for (topic, queue_id, next) in self.offsets.iter() {
            bytes.extend_from_slice(&(topic.len() as u16).to_be_bytes());
            bytes.extend_from_slice(topic.as_bytes());
            bytes.extend_from_slice(&queue_id.to_be_bytes());
            bytes.extend_from_slice(&next.to_be_bytes());
        }
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8], abort: &[u8]) -> Option<Self> {
        let (content, crc) = bytes.split_last_chunk::<4>()?;
        if crc32fast::hash(content) != u32::from_be_bytes(*crc) {
            return None;
        }
        let mut rest = content.strip_prefix(MAGIC)?;
        if u32::from_be_bytes(take(&mut rest)?) != VERSION {
            return None;
        }
        let abort_len = u32::from_be_bytes(take(&mut rest)?);
        if take_slice(&mut rest, abort_len as usize)? != abort {
            return None;
        }
        let from = u64::from_be_bytes(take(&mut rest)?);
        let reached = u64::from_be_bytes(take(&mut rest)?);
        let timestamp_ms = i64::from_be_bytes(take(&mut rest)?);
        let mut offsets = QueueOffsets::default();
        for _ in 0..u32::from_be_bytes(take(&mut rest)?) {
            let topic_len = u16::from_be_bytes(take(&mut rest)?);
            let topic = std::str::from_utf8(take_slice(&mut rest, usize::from(topic_len))?).ok()?;
            let queue_id = u32::from_be_bytes(take(&mut rest)?);
            offsets.set(topic, queue_id, u64::from_be_bytes(take(&mut rest)?));
        }
        (rest.is_empty() && from <= reached).then_some(Self { from, reached, timestamp_ms, offsets })
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, later) = rest.split_first_chunk()?;
    *rest = later;
    Some(*taken)
}

fn take_slice<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, later) = rest.split_at_checked(len)?;
    *rest = later;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_again_with_its_own_abort_file_only_and_only_whole() {
        let mut offsets = QueueOffsets::default();
        offsets.set("T", 3, 7);
        offsets.set("a longer topic", 0, u64::MAX);
        let bytes = Resume { from: 5, reached: 9, timestamp_ms: -1, offsets }.encode(b"mine");
        let read = Resume::decode(&bytes, b"mine").unwrap();
        assert_eq!((read.from, read.reached, read.timestamp_ms), (5, 9, -1));
        assert_eq!((read.offsets.next("T", 3), read.offsets.next("a longer topic", 0)), (7, u64::MAX));
        assert!(Resume::decode(&bytes, b"other").is_none());
        for len in 0..bytes.len() {
            assert!(Resume::decode(&bytes[..len], b"mine").is_none(), "{len} bytes");
            let mut spoiled = bytes.clone();
            spoiled[len] ^= 4;
            assert!(Resume::decode(&spoiled, b"mine").is_none(), "byte {len}");
        }
    }
}
