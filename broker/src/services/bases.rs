//! Older snapshots of the metadata, to begin again from when the log was cut: what only the cut records said must be forgotten, and
//! the snapshot in RocketMQ's files may hold it already.
//!
//! | file in `config/` | what |
//! |---|---|
//! | `gantryMetadata.json` | the tables of up to [`Bases::period`] ago |
//! | `gantryMetadata.json.bak` | those of the time before: retention leaves the log what came after them |
//! | `gantryMetadata.json.origin` | what another replica's log had said before this replica's log begins |

use super::config_files::{ConfigFiles, FileError};
use super::tables::Tables;
use gantry_remoting::body;
use gantry_store::{QueueRange, atomic_file};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const NEWER: &str = "gantryMetadata.json";
const OLDER: &str = "gantryMetadata.json.bak";
const ORIGIN: &str = "gantryMetadata.json.origin";

/// See the module.
pub struct Bases {
    dir: PathBuf,
    period: Duration,
    /// `next` of the newer one, and when it was written (or found).
    newer: Option<(u64, Instant)>,
    /// `next` of the older one.
    older: Option<u64>,
}

impl Bases {
    /// Those in `dir`, which is there; a new one each `period`.
    pub fn open(dir: &Path, period: Duration) -> Result<Self, FileError> {
        let mut bases = Self { dir: dir.to_owned(), period, newer: None, older: None };
        bases.newer = bases.read(NEWER)?.map(|tables| (tables.next, Instant::now()));
        bases.older = bases.read(OLDER)?.map(|tables| tables.next);
        Ok(bases)
    }

    /// Takes these confirmed tables in, if the newer ones are old enough.
    pub fn rotate(&mut self, tables: &Tables) -> Result<(), FileError> {
        match self.newer {
            Some((_, since)) if since.elapsed() < self.period => return Ok(()),
            Some((next, _)) if self.older != Some(next) => {
                let (from, to) = (self.dir.join(NEWER), self.dir.join(OLDER));
                // Durable with the newer file's replacement, which syncs the directory.
                std::fs::rename(&from, &to).map_err(|source| FileError::Io { path: from, source })?;
                (self.older, self.newer) = (Some(next), None);
            }
            _ => {}
        }
        if self.newer.is_none_or(|(next, _)| next != tables.next) {
            self.write(NEWER, tables)?;
        }
        self.newer = Some((tables.next, Instant::now()));
        Ok(())
    }

    /// Records from here on must stay in the log.
    pub fn needed_from(&self) -> Option<u64> {
        self.older
    }

    /// The newest tables that say nothing of records from `to` on; what the log began with if there are none.
    fn at_most(&self, to: u64) -> Result<Option<Tables>, FileError> {
        for name in [NEWER, OLDER] {
            if let Some(tables) = self.read(name)?.filter(|tables| tables.next <= to) {
                return Ok(Some(tables));
            }
        }
        Ok(self.read(ORIGIN)?.map(|tables| Tables { next: tables.next.min(to), ..tables }))
    }

    /// The newest tables, RocketMQ's files among them, that say nothing of records from `to` on, and from which a log whose metadata
    /// records are `range` can be read on.
    pub fn as_of(&self, to: u64, files: &ConfigFiles, range: QueueRange) -> Result<Option<Tables>, FileError> {
        let loaded = files.load()?;
        let holds = !loaded.foreign && loaded.newest <= to && loaded.tables.next >= range.min.0;
        let best = [holds.then_some(loaded.tables), self.at_most(to)?].into_iter().flatten();
        let best = best.max_by_key(|tables| tables.next);
        Ok(best.or_else(|| (range.min.0 == 0).then(Tables::default)))
    }

    /// The log begins anew, with what these tables say.
    pub fn begin(&mut self, tables: &Tables) -> Result<(), FileError> {
        self.write(ORIGIN, tables)?;
        self.remove(NEWER)?;
        self.remove(OLDER)?;
        (self.newer, self.older) = (None, None);
        Ok(())
    }

    /// Records from `to` on were cut: tables that hold them go.
    pub fn forget_above(&mut self, to: u64) -> Result<(), FileError> {
        if self.newer.is_some_and(|(next, _)| next > to) {
            self.remove(NEWER)?;
            self.newer = None;
        }
        if self.older.is_some_and(|next| next > to) {
            self.remove(OLDER)?;
            self.older = None;
        }
        Ok(())
    }

    /// A file that can't be understood is told of, and counts for nothing.
    fn read(&self, name: &str) -> Result<Option<Tables>, FileError> {
        let path = self.dir.join(name);
        let bytes = atomic_file::read(&path).map_err(|source| FileError::Io { path: path.clone(), source })?;
        let tables = bytes.map(|bytes| body::parse::<Tables>(&bytes));
        Ok(tables.and_then(|tables| {
            let tell = |problem: &body::BodyError| {
                tracing::error!(path = %path.display(), %problem, "an older snapshot of the metadata is damaged");
            };
            tables.inspect_err(tell).ok()
        }))
    }

    fn write(&self, name: &str, tables: &Tables) -> Result<(), FileError> {
        let path = self.dir.join(name);
        match body::to_json(tables) {
            Ok(text) => atomic_file::replace(&path, &text).map_err(|source| FileError::Io { path, source }),
            Err(source) => Err(FileError::Content { path, source }),
        }
    }

    fn remove(&self, name: &str) -> Result<(), FileError> {
        let path = self.dir.join(name);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(FileError::Io { path, source }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables(next: u64) -> Tables {
        Tables { next, delay: [(1, next)].into(), ..Tables::default() }
    }

    #[test]
    fn the_one_before_is_kept_until_the_next_is_old_enough() {
        let dir = tempfile::tempdir().unwrap();
        let mut bases = Bases::open(dir.path(), Duration::ZERO).unwrap();
        assert_eq!((bases.needed_from(), bases.at_most(100).unwrap()), (None, None));
        bases.rotate(&tables(5)).unwrap();
        assert_eq!(bases.needed_from(), None, "too new to rely on");
        bases.rotate(&tables(9)).unwrap();
        assert_eq!(bases.needed_from(), Some(5));
        let found = |bases: &Bases, to| bases.at_most(to).unwrap().map(|tables| tables.next);
        assert_eq!([9, 8, 5, 4].map(|to| found(&bases, to)), [Some(9), Some(5), Some(5), None]);

        let mut slow = Bases::open(dir.path(), Duration::from_hours(1)).unwrap();
        slow.rotate(&tables(12)).unwrap();
        assert_eq!((slow.needed_from(), found(&slow, 12)), (Some(5), Some(9)), "not yet");
        slow.forget_above(6).unwrap();
        assert_eq!(
            (found(&slow, 12), found(&Bases::open(dir.path(), Duration::ZERO).unwrap(), 12)),
            (Some(5), Some(5))
        );
    }

    #[test]
    fn when_nothing_changes_the_older_one_follows_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let mut bases = Bases::open(dir.path(), Duration::ZERO).unwrap();
        for _ in 0..3 {
            bases.rotate(&tables(5)).unwrap();
        }
        assert_eq!(bases.needed_from(), Some(5));
        assert_eq!(bases.at_most(5).unwrap(), Some(tables(5)));
    }

    #[test]
    fn what_the_log_began_with_is_there_for_any_cut() {
        let dir = tempfile::tempdir().unwrap();
        let mut bases = Bases::open(dir.path(), Duration::ZERO).unwrap();
        bases.rotate(&tables(0)).unwrap();
        bases.rotate(&tables(5)).unwrap();
        bases.begin(&tables(100)).unwrap();
        assert_eq!(bases.at_most(50).unwrap(), Some(Tables { next: 50, ..tables(100) }));
        assert_eq!(bases.needed_from(), None);
    }

    #[test]
    fn a_damaged_one_counts_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(OLDER), "{").unwrap();
        assert_eq!(Bases::open(dir.path(), Duration::ZERO).unwrap().at_most(9).unwrap(), None);
    }
}
