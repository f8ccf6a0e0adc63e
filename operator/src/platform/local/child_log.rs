//! A child's log file: bounded, and read for a dead child's last words.
//!
//! The child writes to it by itself, so a slow supervisor never makes it wait. It appends, so the file can be emptied under it: what it
//! held is copied to `<log>.1` first. A line written between copy and emptying is lost; no other is.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _};
use std::path::{Path, PathBuf};

/// A log larger than this is emptied, its content kept as `<log>.1`.
pub(super) const MAX_LOG_BYTES: u64 = 64 << 20;

/// How much of a log's end is looked at for its last line.
const LOG_TAIL_BYTES: u64 = 4096;

/// Longest part of a last line that is told.
const MAX_LAST_LINE_CHARS: usize = 300;

/// Opens it for appending, with its directory.
pub(super) fn open(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    bound(path, MAX_LOG_BYTES)?;
    OpenOptions::new().append(true).create(true).open(path)
}

/// Empties a log that is larger than `most` bytes, keeping a copy.
pub(super) fn bound(path: &Path, most: u64) -> io::Result<()> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.len() > most => {}
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    std::fs::copy(path, aside(path))?;
    OpenOptions::new().write(true).open(path)?.set_len(0)
}

/// The last line that isn't blank, if it can be read.
pub(super) fn last_line(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let end = file.metadata().ok()?.len();
    file.seek(io::SeekFrom::Start(end.saturating_sub(LOG_TAIL_BYTES))).ok()?;
    let mut tail = Vec::new();
    file.take(LOG_TAIL_BYTES).read_to_end(&mut tail).ok()?;
    let text = String::from_utf8_lossy(&tail);
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty())?;
    Some(line.chars().take(MAX_LAST_LINE_CHARS).collect())
}

fn aside(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".1");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_log_that_grows_too_large_under_its_writer_is_emptied_and_kept_and_written_on() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("child.log");
        let mut writer = open(&log).unwrap();
        writer.write_all(b"before\n").unwrap();
        bound(&log, 7).unwrap();
        assert_eq!(std::fs::read(&log).unwrap(), b"before\n", "not larger than allowed: left alone");
        bound(&log, 6).unwrap();
        writer.write_all(b"after\n").unwrap();
        assert_eq!(std::fs::read(&log).unwrap(), b"after\n");
        assert_eq!(std::fs::read(dir.path().join("child.log.1")).unwrap(), b"before\n");
    }

    #[test]
    fn a_log_that_is_too_large_is_kept_aside_before_a_start() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("child.log");
        File::create(&log).unwrap().set_len(MAX_LOG_BYTES + 1).unwrap();
        drop(open(&log).unwrap());
        assert_eq!(std::fs::metadata(&log).unwrap().len(), 0);
        assert_eq!(std::fs::metadata(dir.path().join("child.log.1")).unwrap().len(), MAX_LOG_BYTES + 1);
    }
}
