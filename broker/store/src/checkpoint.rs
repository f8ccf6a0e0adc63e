//! The checkpoint file: from where the next open has to look.
//!
//! 4096 bytes, replaced as a whole. The first 40 are RocketMQ's `StoreCheckpoint`: timestamps (ms since 1970) of the
//! last message on disk, in the consume queues, in the index; the master's flushed offset; the confirm offset.
//! Ours, which Apache ignores:
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 64 | 8 | magic `GANTRYCP` |
//! | 72 | 4 | version, 3; 1 and 2 knew no index |
//! | 76 | 4 | flags: 1 the store was closed cleanly, 2 `cut` holds, 4 the index's fields hold |
//! | 80 | 8 | `dispatched`: below it everything is flushed, and in consume queue files that were synced |
//! | 88 | 8 | `confirmed` |
//! | 96 | 8 | `flushed`: below it everything is on disk |
//! | 104 | 8 | `cut`: the log is being cut here; what lies behind must go before anything else happens |
//! | 112 | 4 | how many consume queues there are |
//! | 116 | 8 | how many units the queues show at `dispatched`; all bits set: unknown |
//! | 124 | 8 | the log's oldest byte at that moment |
//! | 132 | 8 | the newest index file's name; 0: there is none |
//! | 140 | 4 | its next entry's number: those before it are on disk |
//! | 144 | 4 | CRC32 of bytes 0..40 and 64..144 |
//!
//! The CRC covers Apache's part: once an Apache broker has run on the store, ours no longer holds, and the consume queues
//! are made again from the log's beginning. So are those of a damaged or missing checkpoint, or one of an earlier version. A later
//! version is refused: what it says of the log may be needed.

use std::io;
use std::path::Path;

use crate::atomic_file;
use crate::fs::Fs;
use crate::index::Claim;

/// Its name, under the store's root.
pub(crate) const FILE: &str = "checkpoint";

const FILE_BYTES: usize = 4096;
const OURS: usize = 64;
const CRC: usize = 144;
const MAGIC: &[u8; 8] = b"GANTRYCP";
const VERSION: u32 = 3;
const UNKNOWN: u64 = u64::MAX;
const CLEAN: u32 = 1;
const HAS_CUT: u32 = 2;
const HAS_INDEX: u32 = 4;

/// What a checkpoint says. `dispatched ≤ flushed`, `dispatched ≤ confirmed`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// Store timestamp of the last record below `dispatched`, ms since 1970; 0 if unknown.
    pub(crate) timestamp_ms: i64,
    pub(crate) dispatched: u64,
    pub(crate) confirmed: u64,
    pub(crate) flushed: u64,
    /// The log is being cut here.
    pub(crate) cut: Option<u64>,
    pub(crate) queues: u32,
    /// `None` if unknown.
    pub(crate) visible: Option<Visible>,
    /// What of the index is on disk: all of it up to `dispatched`. `None` from a store without one.
    pub(crate) index: Option<Claim>,
    /// The store was closed; nothing was written since.
    pub(crate) clean: bool,
}

/// What the queues show at `dispatched`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Visible {
    /// In all queues.
    pub(crate) messages: u64,
    /// The log's oldest byte at that moment: later, less may be shown.
    pub(crate) oldest: u64,
}

impl Checkpoint {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; FILE_BYTES];
        let index = self.index.unwrap_or_default();
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &self.timestamp_ms.to_be_bytes());
        put(8, &self.timestamp_ms.to_be_bytes());
        put(16, &index.sealed_ms.to_be_bytes());
        put(32, &self.confirmed.to_be_bytes());
        put(OURS, MAGIC);
        put(72, &VERSION.to_be_bytes());
        let flag = |is: bool, flag: u32| if is { flag } else { 0 };
        let flags = flag(self.clean, CLEAN) | flag(self.cut.is_some(), HAS_CUT) | flag(self.index.is_some(), HAS_INDEX);
        put(76, &flags.to_be_bytes());
        put(80, &self.dispatched.to_be_bytes());
        put(88, &self.confirmed.to_be_bytes());
        put(96, &self.flushed.to_be_bytes());
        put(104, &self.cut.unwrap_or(0).to_be_bytes());
        put(112, &self.queues.to_be_bytes());
        let visible = self.visible.unwrap_or(Visible { messages: UNKNOWN, oldest: 0 });
        put(116, &visible.messages.to_be_bytes());
        put(124, &visible.oldest.to_be_bytes());
        put(132, &index.name.to_be_bytes());
        put(140, &index.next_entry.to_be_bytes());
        let crc = crc(&bytes);
        bytes[CRC..CRC + 4].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// `None` for a checkpoint that isn't ours, or no longer.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let u32_at = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let u64_at = |at: usize| Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        if bytes.get(OURS..OURS + 8)? != MAGIC || u32_at(72)? != VERSION || u32_at(CRC)? != crc(bytes) {
            return None;
        }
        let flags = u32_at(76)?;
        Some(Self {
            timestamp_ms: u64_at(0)? as i64,
            dispatched: u64_at(80)?,
            confirmed: u64_at(88)?,
            flushed: u64_at(96)?,
            cut: if flags & HAS_CUT == 0 { None } else { Some(u64_at(104)?) },
            queues: u32_at(112)?,
            visible: Some(Visible { messages: u64_at(116)?, oldest: u64_at(124)? })
                .filter(|visible| visible.messages != UNKNOWN),
            index: if flags & HAS_INDEX == 0 {
                None
            } else {
                Some(Claim { name: u64_at(132)?, next_entry: u32_at(140)?, sealed_ms: u64_at(16)? as i64 })
            },
            clean: flags & CLEAN != 0,
        })
    }
}

/// What lies in the checkpoint's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// No file, or not even a timestamp.
    Nothing,
    /// One of Apache's, or ours no longer holds: `physical_ms` is what Apache's part says of the log.
    Foreign { physical_ms: i64 },
    /// Ours.
    Ours(Checkpoint),
    /// Of a later version of this file.
    Later(u32),
}

/// The checkpoint in `root`.
pub(crate) fn read(fs: &dyn Fs, root: &Path) -> io::Result<Found> {
    Ok(atomic_file::read_on(fs, &root.join(FILE))?.map_or(Found::Nothing, |bytes| find(&bytes)))
}

fn find(bytes: &[u8]) -> Found {
    let is_ours = bytes.get(OURS..OURS + 8) == Some(&MAGIC[..]);
    let version = bytes.get(72..76).and_then(|version| version.try_into().ok()).map_or(0, u32::from_be_bytes);
    if is_ours && version > VERSION {
        return Found::Later(version);
    }
    match (Checkpoint::decode(bytes), bytes.first_chunk::<8>()) {
        (Some(checkpoint), _) => Found::Ours(checkpoint),
        (None, Some(physical)) => Found::Foreign { physical_ms: i64::from_be_bytes(*physical) },
        (None, None) => Found::Nothing,
    }
}

/// Replaces the checkpoint in `root`, durably.
pub(crate) fn write(fs: &dyn Fs, root: &Path, checkpoint: &Checkpoint) -> io::Result<()> {
    let Checkpoint { dispatched, confirmed, flushed, .. } = *checkpoint;
    assert!(dispatched <= flushed && dispatched <= confirmed, "a checkpoint that claims too much: {checkpoint:?}");
    atomic_file::replace_on(fs, &root.join(FILE), &checkpoint.encode())
}

fn crc(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..40]);
    hasher.update(&bytes[OURS..CRC]);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOME: Checkpoint = Checkpoint {
        timestamp_ms: 1_700_000_000_123,
        dispatched: 100,
        confirmed: 200,
        flushed: 300,
        cut: Some(0),
        queues: 7,
        visible: Some(Visible { messages: 1234, oldest: 5 }),
        index: Some(Claim { name: 20_231_114_221_320_123, next_entry: 9, sealed_ms: 1_700_000_000_000 }),
        clean: true,
    };

    #[test]
    fn what_is_written_is_read_again() {
        let bytes = SOME.encode();
        assert_eq!(bytes.len(), 4096);
        assert_eq!(Checkpoint::decode(&bytes), Some(SOME));
        let other = Checkpoint { cut: None, clean: false, visible: None, index: None, ..SOME };
        assert_eq!(Checkpoint::decode(&other.encode()), Some(other));
    }

    #[test]
    fn apaches_fields_are_where_apache_reads_them() {
        let bytes = SOME.encode();
        assert_eq!(bytes[..8], 1_700_000_000_123_u64.to_be_bytes());
        assert_eq!(bytes[8..16], 1_700_000_000_123_u64.to_be_bytes());
        assert_eq!(bytes[16..24], 1_700_000_000_000_u64.to_be_bytes());
        assert_eq!(bytes[24..32], [0; 8]);
        assert_eq!(bytes[32..40], 200_u64.to_be_bytes());
    }

    #[test]
    fn it_no_longer_holds_after_apache_wrote_its_part_or_any_byte_changed() {
        for at in (0..40).chain(64..148) {
            let mut bytes = SOME.encode();
            bytes[at] ^= 1;
            assert_eq!(Checkpoint::decode(&bytes), None, "byte {at}");
        }
        assert_eq!(Checkpoint::decode(&[0; 4096]), None);
        assert_eq!(Checkpoint::decode(b"short"), None);
        assert_eq!(find(b"short"), Found::Nothing);
        assert_eq!(find(&77_u64.to_be_bytes()), Found::Foreign { physical_ms: 77 });
    }

    #[test]
    fn a_later_version_is_known_as_such() {
        let mut bytes = SOME.encode();
        assert_eq!(find(&bytes), Found::Ours(SOME));
        bytes[75] = VERSION as u8 + 1;
        assert_eq!(find(&bytes), Found::Later(VERSION + 1));
        bytes[75] = 1;
        assert!(matches!(find(&bytes), Found::Foreign { .. }));
    }
}
