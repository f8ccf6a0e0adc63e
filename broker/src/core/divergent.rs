//! Tails that were cut from the log, kept in `divergent/` for whoever wants to look. They must not fill the disk that the log needs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use tracing::warn;

const DIRECTORY: &str = "divergent";
/// A copy that broke off.
const UNFINISHED: &str = "tmp";

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DivergentLimits {
    /// `gantryDivergentMaxFiles`: tails at most; the oldest goes first. 0: none is kept.
    pub max_files: usize,
    /// `gantryDivergentMaxBytes`: bytes at most, of all of them together. A longer tail is not kept.
    pub max_bytes: u64,
}

impl Default for DivergentLimits {
    fn default() -> Self {
        Self { max_files: 16, max_bytes: 1 << 30 }
    }
}

/// The directory.
pub(super) struct Divergent {
    directory: PathBuf,
    limits: DivergentLimits,
}

struct Tail {
    modified: SystemTime,
    path: PathBuf,
    bytes: u64,
}

impl Divergent {
    pub(super) fn new(root: &Path, limits: DivergentLimits) -> Self {
        Self { directory: root.join(DIRECTORY), limits }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Removes the oldest tails until one of `bytes` has room. `false`: it is too long to be kept.
    pub(super) fn make_room(&self, bytes: u64) -> Result<bool> {
        let DivergentLimits { max_files, max_bytes } = self.limits;
        let fits = max_files > 0 && bytes <= max_bytes;
        if !fits {
            warn!(
                bytes,
                max_bytes,
                max_files,
                "the tail that is cut now is not kept: see gantryDivergentMaxBytes, gantryDivergentMaxFiles"
            );
        }
        let mut tails = self.tails().with_context(|| format!("can't look through {}", self.directory.display()))?;
        tails.sort_by(|a, b| (a.modified, &a.path).cmp(&(b.modified, &b.path)));
        let (mut files, mut total) = (tails.len(), tails.iter().map(|tail| tail.bytes).sum::<u64>());
        let incoming = if fits { (1, bytes) } else { (0, 0) };
        for tail in tails {
            if files + incoming.0 <= max_files && total + incoming.1 <= max_bytes {
                break;
            }
            fs::remove_file(&tail.path).with_context(|| format!("can't remove {}", tail.path.display()))?;
            warn!(path = %tail.path.display(), bytes = tail.bytes, "removed an old divergent tail to make room for others");
            (files, total) = (files - 1, total - tail.bytes);
        }
        Ok(fits)
    }

    /// Removes copies that broke off.
    pub(super) fn remove_unfinished(&self) -> io::Result<()> {
        self.tails().map(drop)
    }

    /// All there are; copies that broke off are removed.
    fn tails(&self) -> io::Result<Vec<Tail>> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut tails = Vec::new();
        for entry in entries {
            let entry = entry?;
            let (path, metadata) = (entry.path(), entry.metadata()?);
            if !metadata.is_file() {
                continue;
            }
            if path.extension().is_some_and(|extension| extension == UNFINISHED) {
                fs::remove_file(&path)?;
                continue;
            }
            tails.push(Tail { modified: metadata.modified()?, path, bytes: metadata.len() });
        }
        Ok(tails)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Tails of these lengths, the first the oldest.
    fn divergent(root: &Path, limits: DivergentLimits, lengths: &[usize]) -> Divergent {
        let divergent = Divergent::new(root, limits);
        fs::create_dir_all(divergent.directory()).unwrap();
        for (age, len) in lengths.iter().enumerate() {
            let path = divergent.directory().join(format!("{age:020}-{len:020}.0"));
            fs::write(&path, vec![0; *len]).unwrap();
            let file = fs::File::open(&path).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(age as u64)).unwrap();
        }
        divergent
    }

    fn lengths(divergent: &Divergent) -> Vec<u64> {
        let mut tails = divergent.tails().unwrap();
        tails.sort_by_key(|tail| tail.modified);
        tails.iter().map(|tail| tail.bytes).collect()
    }

    #[test]
    fn the_oldest_tails_go_when_files_or_bytes_are_too_many() {
        let root = tempfile::tempdir().unwrap();
        let limits = DivergentLimits { max_files: 3, max_bytes: 100 };
        let divergent = divergent(root.path(), limits, &[10, 20, 30]);
        assert!(divergent.make_room(1).unwrap());
        assert_eq!(lengths(&divergent), [20, 30], "one more file than three");
        assert!(divergent.make_room(80).unwrap());
        assert!(lengths(&divergent).is_empty(), "80 and 30 are more than 100");
    }

    #[test]
    fn a_tail_that_is_too_long_is_not_kept_and_costs_no_other_its_place() {
        let root = tempfile::tempdir().unwrap();
        let divergent = divergent(root.path(), DivergentLimits { max_files: 3, max_bytes: 100 }, &[10, 20, 30]);
        assert!(!divergent.make_room(101).unwrap());
        assert_eq!(lengths(&divergent), [10, 20, 30]);
    }

    #[test]
    fn none_is_kept_where_none_shall_be_and_broken_off_copies_go() {
        let root = tempfile::tempdir().unwrap();
        let divergent = divergent(root.path(), DivergentLimits { max_files: 0, max_bytes: 100 }, &[10]);
        fs::write(divergent.directory().join("x.tmp"), "half").unwrap();
        assert!(!divergent.make_room(1).unwrap());
        assert_eq!(fs::read_dir(divergent.directory()).unwrap().count(), 0);
    }

    #[test]
    fn without_the_directory_there_is_room() {
        let root = tempfile::tempdir().unwrap();
        assert!(Divergent::new(root.path(), DivergentLimits::default()).make_room(1).unwrap());
    }
}
