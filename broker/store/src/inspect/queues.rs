//! The consume queues, read from outside.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::log::Log;
use super::{Depth, Finding, LogFiles, QueueReport, Report, Unreadable, list, unreadable};
use crate::fs::{Entry, File, Fs, OpenMode, RealFs};
use crate::queues::Layout;
use crate::queues::unit::{MAX_UNIT_BYTES, Unit};
use crate::recovery::is_record_of;

const CHUNK_UNITS: usize = 4096;

/// A queue's files, one after the other.
struct QueueFiles {
    directory: PathBuf,
    topic: String,
    queue: u32,
    layout: Layout,
    units_per_file: u64,
    /// Place of the first unit, and the file.
    files: Vec<(u64, PathBuf, Arc<dyn File>)>,
}

/// What all units take at most.
pub(super) fn bytes(root: &Path) -> Result<u64, Unreadable> {
    let mut bytes = 0;
    for directory in Layout::ALL.map(|layout| root.join(layout.directory())) {
        for topic in list(&directory)?.into_iter().filter(|topic| topic.is_dir) {
            for queue in list(&directory.join(&topic.name))? {
                let files = list(&directory.join(&topic.name).join(&queue.name))?;
                bytes += files.into_iter().map(|file| file.len).sum::<u64>();
            }
        }
    }
    Ok(bytes)
}

/// Looks at all queues, and holds them against the log.
pub(super) fn look(
    root: &Path,
    log_files: &LogFiles,
    log: &Log,
    depth: Depth,
    watch: &mut dyn FnMut(u64),
    report: &mut Report,
) -> Result<(), Unreadable> {
    let mut read = log.read;
    for layout in Layout::ALL {
        let directory = root.join(layout.directory());
        for topic in list(&directory)? {
            for queue in list(&directory.join(&topic.name))? {
                let path = directory.join(&topic.name).join(&queue.name);
                let entries = list(&path)?;
                let bytes: u64 = entries.iter().map(|entry| entry.len).sum();
                match QueueFiles::open(path, layout, (&topic, &queue), entries)? {
                    Ok(files) => files.look(log_files, log, depth, report)?,
                    Err(finding) => report.damage.push(finding),
                }
                read += if depth == Depth::Everything { bytes } else { 0 };
                watch(read);
            }
        }
    }
    if depth == Depth::Everything {
        report_missing(root, log, report);
    }
    report.queues.sort_by(|a, b| (&a.topic, a.queue).cmp(&(&b.topic, b.queue)));
    Ok(())
}

/// Queues that have fewer units than the log has messages.
fn report_missing(root: &Path, log: &Log, report: &mut Report) {
    for (topic, queue, next) in log.offsets.iter() {
        let found = report.queues.iter().find(|found| found.topic == topic && found.queue == queue);
        let max = found.map(|found| found.max);
        if max.is_none_or(|max| max < next) {
            let batches = root.join(Layout::Batch.directory());
            let is_batch = batches.join(topic).join(queue.to_string()).is_dir();
            let directory = if is_batch { batches } else { root.join(Layout::Single.directory()) };
            let path = directory.join(topic).join(queue.to_string());
            let problem = format!("ends at {}, but the log has messages up to {next}", max.unwrap_or(0));
            report.damage.push(Finding::new(&path, max, problem));
        }
    }
}

impl QueueFiles {
    fn open(
        directory: PathBuf,
        layout: Layout,
        (topic, queue): (&Entry, &Entry),
        entries: Vec<Entry>,
    ) -> Result<Result<Self, Finding>, Unreadable> {
        let wrong = |path: &Path, problem: &str| Ok(Err(Finding::new(path, None, problem)));
        let Some(id) = queue.name.parse().ok().filter(|_| queue.is_dir) else {
            return wrong(&directory, "no directory of a queue");
        };
        let file_bytes = entries.first().map_or(0, |first| first.len);
        let units_per_file = file_bytes / layout.unit_bytes() as u64;
        let mut files: Vec<(u64, PathBuf, Arc<dyn File>)> = Vec::new();
        for entry in entries {
            let path = directory.join(&entry.name);
            let base = entry.name.parse::<u64>().ok().filter(|_| entry.name.len() == 20);
            let Some(first) = base.map(|base| base / layout.unit_bytes() as u64) else {
                return wrong(&path, "no file of a consume queue");
            };
            if entry.len != file_bytes || units_per_file == 0 || !first.is_multiple_of(units_per_file) {
                return wrong(&path, "not as long as the file before it");
            }
            if files.last().is_some_and(|(before, ..)| before + units_per_file != first) {
                return wrong(&path, "the file before it is missing");
            }
            let file = RealFs.open(&path, OpenMode::Read).map_err(unreadable(&path))?;
            files.push((first, path, file));
        }
        Ok(Ok(Self { directory, topic: topic.name.clone(), queue: id, layout, units_per_file, files }))
    }

    fn look(&self, log_files: &LogFiles, log: &Log, depth: Depth, report: &mut Report) -> Result<(), Unreadable> {
        let first = self.files.first().map_or(0, |(first, ..)| *first);
        let room = first + self.files.len() as u64 * self.units_per_file;
        let end = self.search(first, room, |unit| !self.layout.is_empty(unit))?;
        let oldest = log_files.oldest();
        let begin = self.search(first, end, |unit| self.layout.is_blank(unit) || unit.physical < oldest)?;
        let max = if end > first { self.unit(end - 1)?.next() } else { self.layout.first_place(first) };
        let min = if begin < end { self.unit(begin)?.first } else { max };
        report.queues.push(QueueReport {
            topic: self.topic.clone(),
            queue: self.queue,
            min,
            max,
            files: self.files.len(),
        });
        if depth == Depth::Everything {
            self.verify(begin, end, log_files, log, report)?;
        }
        Ok(())
    }

    /// Every unit at `[at, end)` must be that of its message.
    fn verify(
        &self,
        mut at: u64,
        end: u64,
        log_files: &LogFiles,
        log: &Log,
        report: &mut Report,
    ) -> Result<(), Unreadable> {
        let mut bytes = vec![0; CHUNK_UNITS * self.layout.unit_bytes()];
        let mut next = 0;
        while at < end {
            let count = self.read(at, end, &mut bytes)?;
            for unit in self.layout.decode_all(at, &bytes[..count * self.layout.unit_bytes()]) {
                // What isn't claimed by the checkpoint is made again at the next start.
                let claimed = log.dispatched == 0 || unit.first < log.offsets.next(&self.topic, self.queue);
                let wanted = (self.topic.as_str(), self.queue, self.layout);
                let own = self.layout.is_blank(unit)
                    || (unit.first >= next
                        && is_record_of(&log_files.segments, unit, wanted).map_err(unreadable(&self.directory))?);
                if claimed && !own {
                    let path = &self.file_of(at).1;
                    let problem = format!("the unit points to {}, which is not its message", unit.physical);
                    report.damage.push(Finding::new(path, Some(unit.first), problem));
                }
                (at, next) = (at + 1, unit.next());
            }
        }
        Ok(())
    }

    /// The first unit of `[low, high)` that `is_before` isn't true of, where it is of all before.
    fn search(&self, mut low: u64, mut high: u64, is_before: impl Fn(Unit) -> bool) -> Result<u64, Unreadable> {
        while low < high {
            let middle = low.midpoint(high);
            if is_before(self.unit(middle)?) { low = middle + 1 } else { high = middle }
        }
        Ok(low)
    }

    fn unit(&self, at: u64) -> Result<Unit, Unreadable> {
        let mut bytes = [0; MAX_UNIT_BYTES];
        let bytes = &mut bytes[..self.layout.unit_bytes()];
        self.read(at, at + 1, bytes)?;
        Ok(self.layout.decode(at, bytes))
    }

    /// Units from `at` on, as many as fit, lie in one file and below `max`.
    fn read(&self, at: u64, max: u64, bytes: &mut [u8]) -> Result<usize, Unreadable> {
        let (first, path, file) = self.file_of(at);
        let unit_bytes = self.layout.unit_bytes();
        let count = (bytes.len() / unit_bytes).min((max.min(first + self.units_per_file) - at) as usize);
        file.read_exact_at(&mut bytes[..count * unit_bytes], (at - first) * unit_bytes as u64)
            .map_err(unreadable(path))?;
        Ok(count)
    }

    fn file_of(&self, at: u64) -> &(u64, PathBuf, Arc<dyn File>) {
        &self.files[((at - self.files[0].0) / self.units_per_file) as usize]
    }
}
