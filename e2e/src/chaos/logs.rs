//! The replicas' logs, compared byte by byte.

use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

const CHUNK_BYTES: u64 = 1 << 20;

/// A record begins with its size, big-endian.
const RECORD_HEAD_BYTES: u64 = 4;

/// A commit log on disk: segments named by the offset of their first byte, all of one length.
#[derive(Debug)]
struct Log {
    store: PathBuf,
    segments: Vec<(u64, File)>,
}

/// What is the same on all replicas.
#[derive(Debug)]
pub(super) struct Common {
    log: Log,
    range: Range<u64>,
}

/// Compares the logs of these stores from where all have begun up to `end`.
pub(super) fn compare(stores: &[PathBuf], end: u64) -> anyhow::Result<Common> {
    let mut logs = stores.iter().map(|store| Log::open(store)).collect::<anyhow::Result<Vec<_>>>()?;
    let starts = logs.iter().map(|log| log.segments.first().map(|(start, _)| *start));
    let start = starts.max().flatten().context("there is no log")?;
    let Some((first, others)) = logs.split_first() else { bail!("there is no log") };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut at = start;
    while at < end {
        let bytes = first.read(at, CHUNK_BYTES.min(end - at), &mut ours)?;
        for other in others {
            if other.read(at, bytes, &mut theirs)? != bytes || theirs != ours {
                let same = ours.iter().zip(&theirs).take_while(|(one, other)| one == other).count() as u64;
                bail!("{} and {} differ at offset {}", first.store.display(), other.store.display(), at + same);
            }
        }
        at += bytes;
    }
    let range = start..end.max(start);
    Ok(Common { log: logs.swap_remove(0), range })
}

impl Common {
    /// How long it is.
    pub(super) fn bytes(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Whether the record at this offset is the message with this id, which is its key.
    pub(super) fn check_message(&self, at: u64, id: &str) -> anyhow::Result<()> {
        if !self.range.contains(&at) {
            bail!("{id} was acknowledged at {at}, outside of what all logs have: {:?}", self.range);
        }
        let mut record = Vec::new();
        self.log.read(at, RECORD_HEAD_BYTES, &mut record)?;
        let size = record.first_chunk().map_or(0, |size| u32::from_be_bytes(*size));
        self.log.read(at, size.into(), &mut record)?;
        let key = [b"KEYS\x01", id.as_bytes(), b"\x02"].concat();
        if record.windows(key.len()).any(|part| part == key) || record.ends_with(&key[..key.len() - 1]) {
            return Ok(());
        }
        bail!("{id} was acknowledged at {at}, and another record of {size} bytes is there")
    }
}

impl Log {
    fn open(store: &Path) -> anyhow::Result<Self> {
        let folder = store.join("commitlog");
        let mut segments = Vec::new();
        for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
            let path = entry?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            // Others are not yet, or no longer, part of the log.
            if name.len() == 20
                && let Ok(start) = name.parse()
            {
                segments.push((start, File::open(&path).with_context(|| format!("opening {}", path.display()))?));
            }
        }
        segments.sort_by_key(|(start, _)| *start);
        Ok(Self { store: store.to_owned(), segments })
    }

    /// Reads at most so many bytes, up to the segment's end.
    fn read(&self, at: u64, most: u64, into: &mut Vec<u8>) -> anyhow::Result<u64> {
        let index = self.segments.partition_point(|(start, _)| *start <= at);
        let place = || format!("{}: the log at offset {at}", self.store.display());
        let (start, file) = index.checked_sub(1).map(|index| &self.segments[index]).with_context(place)?;
        let left = (start + file.metadata()?.len()).saturating_sub(at);
        if left == 0 {
            bail!("{} is not there", place());
        }
        into.resize(most.min(left) as usize, 0);
        file.read_exact_at(into, at - start).with_context(place)?;
        Ok(into.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(segments: &[(u64, &[u8])]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("commitlog");
        fs::create_dir(&folder).unwrap();
        for (start, bytes) in segments {
            fs::write(folder.join(format!("{start:020}")), bytes).unwrap();
        }
        fs::write(folder.join("00000000000000000008.new"), "not yet").unwrap();
        dir
    }

    #[test]
    fn what_is_the_same_is_counted_and_the_first_difference_named() {
        let whole = store(&[(0, b"abcd"), (4, b"efgh")]);
        let younger = store(&[(4, b"efgX")]);
        let stores = [whole.path().to_owned(), younger.path().to_owned()];
        assert_eq!(compare(&stores, 7).unwrap().bytes(), 3);
        let error = compare(&stores, 8).unwrap_err().to_string();
        assert!(error.ends_with("differ at offset 7"), "{error}");
        let error = compare(&stores, 9).unwrap_err().to_string();
        assert!(error.contains("differ at offset 7") || error.contains("is not there"), "{error}");
    }

    #[test]
    fn an_acknowledged_message_is_where_it_was_said_to_be() {
        let record = b"\0\0\0\x15..KEYS\x01p-7\x02more...";
        let one = store(&[(0, record)]);
        let common = compare(&[one.path().to_owned()], record.len() as u64).unwrap();
        common.check_message(0, "p-7").unwrap();
        let error = common.check_message(0, "p-70").unwrap_err().to_string();
        assert!(error.contains("another record of 21 bytes is there"), "{error}");
        assert!(common.check_message(100, "p-7").is_err());
    }
}
