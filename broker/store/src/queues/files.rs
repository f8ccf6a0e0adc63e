//! The consume queues' files: opened when needed, a bounded number of them kept open, and which of them are to be synced.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;

use super::{Layout, Queue};
use crate::fs::{File, Fs, OpenMode};
use crate::segment::zero_data;

/// Fewer files are synced one after the other.
const WORTH_THREADS: usize = 64;
/// That sync many.
const THREADS: usize = 16;

/// What went wrong with which file.
pub(crate) type FileError = (PathBuf, io::Error);

pub(crate) struct QueueFiles {
    fs: Arc<dyn Fs>,
    units: UnitsPerFile,
    max_open: usize,
    open: Mutex<Open>,
    dirty: Mutex<Dirty>,
}

/// How long files are.
#[derive(Clone, Copy)]
pub(crate) struct UnitsPerFile {
    pub(crate) single: u32,
    pub(crate) batch: u32,
}

/// The queue's key, and the number of the file in the queue.
type FileKey = (u32, u64);

#[derive(Default)]
struct Open {
    files: HashMap<FileKey, OpenFile>,
    /// Counts uses, to know the least recent one.
    clock: u64,
}

struct OpenFile {
    file: Arc<dyn File>,
    last_used: u64,
}

#[derive(Default)]
struct Dirty {
    files: BTreeMap<FileKey, (PathBuf, Arc<dyn File>)>,
    directories: BTreeSet<PathBuf>,
}

/// Syncs all of them by several threads; the first failure, if one failed.
fn at_once<T: Sync>(things: &[T], sync: impl Fn(&T) -> Result<(), FileError> + Sync) -> Result<(), FileError> {
    let (share, sync) = (things.len().div_ceil(THREADS).max(1), &sync);
    thread::scope(|scope| {
        let threads: Vec<_> =
            things.chunks(share).map(|share| scope.spawn(move || share.iter().try_for_each(sync))).collect();
        let outcomes = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        outcomes.collect()
    })
}

impl Dirty {
    /// What was to be synced is to be synced still.
    fn take_back(&mut self, others: Self) {
        for (key, file) in others.files {
            self.files.entry(key).or_insert(file);
        }
        self.directories.extend(others.directories);
    }
}

impl QueueFiles {
    pub(crate) fn new(fs: Arc<dyn Fs>, units: UnitsPerFile, max_open: usize) -> Self {
        Self { fs, units, max_open: max_open.max(1), open: Mutex::default(), dirty: Mutex::default() }
    }

    pub(crate) fn units_per_file(&self, layout: Layout) -> u64 {
        u64::from(match layout {
            Layout::Single => self.units.single,
            Layout::Batch => self.units.batch,
        })
    }

    pub(crate) fn file_bytes(&self, layout: Layout) -> u64 {
        self.units_per_file(layout) * layout.unit_bytes() as u64
    }

    /// A file's path: named by the place of its first byte in the queue, in 20 digits.
    pub(crate) fn path(&self, queue: &Queue, file_no: u64) -> PathBuf {
        queue.directory.join(format!("{:020}", file_no * self.file_bytes(queue.layout)))
    }

    /// The file, if there is one.
    pub(crate) fn existing(&self, queue: &Queue, file_no: u64) -> Result<Option<Arc<dyn File>>, FileError> {
        if let Some(file) = self.open.lock().get((queue.key, file_no)) {
            return Ok(Some(file));
        }
        let path = self.path(queue, file_no);
        match self.fs.open(&path, OpenMode::Write) {
            Ok(file) => Ok(Some(self.remember((queue.key, file_no), file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err((path, error)),
        }
    }

    /// Writes into a file, which is made if missing.
    pub(crate) fn write(&self, queue: &Queue, file_no: u64, at: u64, bytes: &[u8]) -> Result<(), FileError> {
        let file = match self.existing(queue, file_no)? {
            Some(file) => file,
            None => self.create(queue, file_no)?,
        };
        file.write_all_at(bytes, at).map_err(|error| (self.path(queue, file_no), error))?;
        self.mark_dirty(queue, file_no, file);
        Ok(())
    }

    /// Zeros bytes `[from, to)` of a file; fine if there is none.
    pub(crate) fn zero(&self, queue: &Queue, file_no: u64, from: u64, to: u64) -> Result<(), FileError> {
        let Some(file) = self.existing(queue, file_no)? else { return Ok(()) };
        zero_data(&*file, from, to).map_err(|error| (self.path(queue, file_no), error))?;
        self.mark_dirty(queue, file_no, file);
        Ok(())
    }

    /// The numbers of a queue's files before `end`, oldest first.
    pub(crate) fn before(&self, queue: &Queue, end: u64) -> Result<Vec<u64>, FileError> {
        let entries = match self.fs.list(&queue.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(|error| (queue.directory.clone(), error))?,
        };
        let numbers =
            entries.iter().filter_map(|entry| Some(entry.name.parse::<u64>().ok()? / self.file_bytes(queue.layout)));
        Ok(numbers.filter(|number| *number < end).collect())
    }

    /// Removes a file that nobody writes to any more.
    pub(crate) fn remove(&self, queue: &Queue, file_no: u64) -> Result<(), FileError> {
        self.open.lock().files.remove(&(queue.key, file_no));
        self.dirty.lock().files.remove(&(queue.key, file_no));
        let path = self.path(queue, file_no);
        self.fs.remove_file(&path).map_err(|error| (path, error))?;
        self.dirty.lock().directories.insert(queue.directory.clone());
        Ok(())
    }

    /// Removes all of a queue's files, and the topic's directory if it was the last one in there.
    pub(crate) fn remove_queue(&self, queue: &Queue) -> Result<(), FileError> {
        self.open.lock().files.retain(|(key, _), _| *key != queue.key);
        self.dirty.lock().files.retain(|(key, _), _| *key != queue.key);
        let topic = queue.directory.parent().unwrap_or(&queue.directory);
        let remove = || {
            match self.fs.remove_dir_all(&queue.directory) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            match self.fs.list(topic) {
                Ok(left) if left.is_empty() => self.fs.remove_dir_all(topic),
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            }
        };
        remove().map_err(|error| (queue.directory.clone(), error))?;
        self.dirty.lock().directories.extend(topic.ancestors().take(2).map(Path::to_owned));
        Ok(())
    }

    /// How many files were written since they were last synced.
    pub(crate) fn dirty_count(&self) -> usize {
        self.dirty.lock().files.len()
    }

    /// Whether so many files wait to be synced that it should not wait any longer: they are kept open for it.
    pub(crate) fn too_many_dirty(&self) -> bool {
        self.dirty_count() > self.max_open
    }

    /// Syncs all that was written before the call. A failure is final: the files are forgotten.
    pub(crate) fn sync(&self) -> Result<(), FileError> {
        self.sync_unless(&|| false).map(drop)
    }

    /// The same, unless it shall be given up meanwhile: what isn't synced by then waits for the next one. Answers whether all is.
    pub(crate) fn sync_unless(&self, given_up: &dyn Fn() -> bool) -> Result<bool, FileError> {
        let mut dirty = std::mem::take(&mut *self.dirty.lock());
        while let Some((key, (path, file))) = dirty.files.pop_first() {
            if given_up() {
                dirty.files.insert(key, (path, file));
                self.dirty.lock().take_back(dirty);
                return Ok(false);
            }
            file.sync_data().map_err(|error| (path, error))?;
        }
        for path in &dirty.directories {
            self.sync_directory(path)?;
        }
        Ok(true)
    }

    /// The same for a stop. One after the other, thousands of files are a minute of waiting for the disk; together they share its commits.
    pub(crate) fn sync_at_once(&self) -> Result<(), FileError> {
        if self.dirty_count() < WORTH_THREADS {
            return self.sync();
        }
        let Dirty { files, directories } = std::mem::take(&mut *self.dirty.lock());
        let files: Vec<_> = files.into_values().collect();
        at_once(&files, |(path, file)| file.sync_data().map_err(|error| (path.clone(), error)))?;
        let directories: Vec<_> = directories.into_iter().collect();
        at_once(&directories, |path| self.sync_directory(path))
    }

    fn sync_directory(&self, path: &Path) -> Result<(), FileError> {
        match self.fs.sync_dir(path) {
            // A directory that was removed since has nothing to keep.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|error| (path.to_owned(), error)),
        }
    }

    /// Removes everything under `root`, durably.
    pub(crate) fn clear(&self, root: &Path) -> Result<(), FileError> {
        self.open.lock().files.clear();
        *self.dirty.lock() = Dirty::default();
        let remake = || {
            match self.fs.remove_dir_all(root) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            self.fs.create_dir_all(root)?;
            self.fs.sync_dir(root.parent().unwrap_or(root))
        };
        debug_assert!(Layout::ALL.iter().any(|layout| root.ends_with(layout.directory())));
        remake().map_err(|error| (root.to_owned(), error))
    }

    /// Sparse, unlike segments: thousands of queues would else take their 6 MB each.
    fn create(&self, queue: &Queue, file_no: u64) -> Result<Arc<dyn File>, FileError> {
        let path = self.path(queue, file_no);
        let make = || {
            self.fs.create_dir_all(&queue.directory)?;
            let file = self.fs.open(&path, OpenMode::Create)?;
            if let Err(error) = file.set_len(self.file_bytes(queue.layout)) {
                // One that is too short would be taken for whole by the next attempt.
                self.fs.remove_file(&path)?;
                return Err(error);
            }
            Ok(file)
        };
        let file = make();
        // The queue's directory, the topic's, and the one of all topics: any of them may be new, even if the rest failed. Not
        // before they are, or a sync meanwhile would count.
        self.dirty.lock().directories.extend(queue.directory.ancestors().take(3).map(Path::to_owned));
        let file = file.map_err(|error: io::Error| (path, error))?;
        Ok(self.remember((queue.key, file_no), file))
    }

    fn mark_dirty(&self, queue: &Queue, file_no: u64, file: Arc<dyn File>) {
        let mut dirty = self.dirty.lock();
        dirty.files.entry((queue.key, file_no)).or_insert_with(|| (self.path(queue, file_no), file));
    }

    fn remember(&self, key: FileKey, file: Arc<dyn File>) -> Arc<dyn File> {
        let mut open = self.open.lock();
        if open.files.len() >= self.max_open {
            open.forget_some(self.max_open / 8 + 1);
        }
        open.clock += 1;
        let last_used = open.clock;
        open.files.insert(key, OpenFile { file: Arc::clone(&file), last_used });
        file
    }
}

impl Open {
    fn get(&mut self, key: FileKey) -> Option<Arc<dyn File>> {
        let open = self.files.get_mut(&key)?;
        self.clock += 1;
        open.last_used = self.clock;
        Some(Arc::clone(&open.file))
    }

    /// Drops the `count` least recently used; several at once, so that the search for them is paid rarely.
    fn forget_some(&mut self, count: usize) {
        let mut uses: Vec<u64> = self.files.values().map(|open| open.last_used).collect();
        let count = count.min(uses.len());
        if count == 0 {
            return;
        }
        let (_, &mut newest_to_go, _) = uses.select_nth_unstable(count - 1);
        self.files.retain(|_, open| open.last_used > newest_to_go);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::RealFs;

    #[test]
    fn what_a_sync_that_is_given_up_leaves_is_synced_by_the_next() {
        let root = tempfile::tempdir().unwrap();
        let units = UnitsPerFile { single: 10, batch: 10 };
        let files = QueueFiles::new(Arc::new(RealFs), units, 10);
        let mut directories = BTreeSet::new();
        for key in 0..3 {
            let path = root.path().join(key.to_string());
            files.dirty.lock().files.insert((key, 0), (path.clone(), RealFs.open(&path, OpenMode::Create).unwrap()));
            directories.insert(root.path().to_owned());
        }
        files.dirty.lock().directories = directories;
        let asked = std::cell::Cell::new(0);
        let give_up_at_the_second = || asked.replace(asked.get() + 1) == 1;
        assert!(!files.sync_unless(&give_up_at_the_second).unwrap());
        assert_eq!((files.dirty_count(), files.dirty.lock().directories.len()), (2, 1));
        files.sync().unwrap();
        assert_eq!((files.dirty_count(), files.dirty.lock().directories.len()), (0, 0));
    }

    #[test]
    fn many_files_are_synced_at_once_and_one_that_fails_is_told() {
        let root = tempfile::tempdir().unwrap();
        let files = QueueFiles::new(Arc::new(RealFs), UnitsPerFile { single: 10, batch: 10 }, 10);
        for key in 0..200 {
            let path = root.path().join(key.to_string());
            files.dirty.lock().files.insert((key, 0), (path.clone(), RealFs.open(&path, OpenMode::Create).unwrap()));
            files.dirty.lock().directories.insert(path.with_extension("gone"));
        }
        files.sync_at_once().unwrap();
        assert_eq!((files.dirty_count(), files.dirty.lock().directories.len()), (0, 0));
        let failure = at_once(&[1, 2, 3], |number| match number {
            2 => Err((PathBuf::from("two"), io::ErrorKind::StorageFull.into())),
            _ => Ok(()),
        });
        assert_eq!(failure.unwrap_err().0, PathBuf::from("two"));
    }
}
