//! Small files that are replaced as a whole: after a crash either the old content is there or the new one.

use std::io;
use std::path::Path;

use crate::fs::{Fs, OpenMode, RealFs};

/// Makes `bytes` the content of the file at `path`, durably: a temporary file beside it, fsync, rename, fsync of the
/// directory. After an error the old content is still there, or the new one if only the last step failed.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_on(&RealFs, path, bytes)
}

/// The file's content; `None` when there is no such file.
pub fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    read_on(&RealFs, path)
}

/// [`replace`] on any file system.
pub fn replace_on(fs: &dyn Fs, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().ok_or_else(|| io::Error::other(format!("{} has no directory", path.display())))?;
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(".tmp");
    let temporary = directory.join(name);
    let written = write_synced(fs, &temporary, bytes).and_then(|()| fs.rename(&temporary, path));
    if written.is_err() {
        // Best effort: a left-over is overwritten by the next attempt.
        let _removed = fs.remove_file(&temporary);
    }
    written?;
    fs.sync_dir(directory)
}

/// [`read`] on any file system.
pub fn read_on(fs: &dyn Fs, path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match fs.open(path, OpenMode::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut bytes = vec![0; usize::try_from(file.len()?).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(Some(bytes))
}

fn write_synced(fs: &dyn Fs, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = fs.open(path, OpenMode::Truncate)?;
    file.write_all_at(bytes, 0)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_new_content_takes_the_old_ones_place_and_leaves_no_temporary_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        assert_eq!(read(&path).unwrap(), None);
        replace(&path, b"a longer first content").unwrap();
        replace(&path, b"second").unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some(&b"second"[..]));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_replacement_keeps_the_old_content() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        replace(&path, b"old").unwrap();
        std::fs::create_dir(directory.path().join("state.json.tmp")).unwrap();
        replace(&path, b"new").unwrap_err();
        assert_eq!(read(&path).unwrap().as_deref(), Some(&b"old"[..]));
    }
}
