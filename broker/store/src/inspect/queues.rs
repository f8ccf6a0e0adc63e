//! The consume queues, read from outside.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::log::Log;
use super::{Depth, Finding, LogFiles, QueueReport, Report, Unreadable, list, unreadable};
use crate::fs::{Entry, File, Fs, OpenMode, RealFs};
use crate::queues::unit::{UNIT_BYTES, Unit};
use crate::recovery::is_record_of;

const CHUNK_UNITS: usize = 4096;

/// A queue's files, one after the other.
struct QueueFiles {
    directory: PathBuf,
    topic: String,
    queue: u32,
    units_per_file: u64,
    /// Number of the first unit, and the file.
    files: Vec<(u64, PathBuf, Arc<dyn File>)>,
}

/// What all units take at most.
pub(super) fn bytes(directory: &Path) -> Result<u64, Unreadable> {
    let mut bytes = 0;
    for topic in list(directory)?.into_iter().filter(|topic| topic.is_dir) {
        for queue in list(&directory.join(&topic.name))? {
            let files = list(&directory.join(&topic.name).join(&queue.name))?;
            bytes += files.into_iter().map(|file| file.len).sum::<u64>();
        }
    }
    Ok(bytes)
}

/// Looks at all queues, and holds them against the log.
pub(super) fn look(
    directory: &Path,
    log_files: &LogFiles,
    log: &Log,
    depth: Depth,
    watch: &mut dyn FnMut(u64),
    report: &mut Report,
) -> Result<(), Unreadable> {
    let mut read = log.read;
    for topic in list(directory)? {
        for queue in list(&directory.join(&topic.name))? {
            let path = directory.join(&topic.name).join(&queue.name);
            let entries = list(&path)?;
            let bytes: u64 = entries.iter().map(|entry| entry.len).sum();
            match QueueFiles::open(path, &topic, &queue, entries)? {
                Ok(files) => files.look(log_files, log, depth, report)?,
                Err(finding) => report.damage.push(finding),
            }
            read += if depth == Depth::Everything { bytes } else { 0 };
            watch(read);
        }
    }
    if depth == Depth::Everything {
        report_missing(directory, log, report);
    }
    report.queues.sort_by(|a, b| (&a.topic, a.queue).cmp(&(&b.topic, b.queue)));
    Ok(())
}

/// Queues that have fewer units than the log has messages.
fn report_missing(directory: &Path, log: &Log, report: &mut Report) {
    for (topic, queue, next) in log.offsets.iter() {
        let max =
            report.queues.iter().find(|found| found.topic == topic && found.queue == queue).map(|found| found.max);
        if max.is_none_or(|max| max < next) {
            let path = directory.join(topic).join(queue.to_string());
            let problem = format!("ends at {}, but the log has messages up to {next}", max.unwrap_or(0));
            report.damage.push(Finding::new(&path, max, problem));
        }
    }
}

impl QueueFiles {
    fn open(
        directory: PathBuf,
        topic: &Entry,
        queue: &Entry,
        entries: Vec<Entry>,
    ) -> Result<Result<Self, Finding>, Unreadable> {
        let wrong = |path: &Path, problem: &str| Ok(Err(Finding::new(path, None, problem)));
        let Some(id) = queue.name.parse().ok().filter(|_| queue.is_dir) else {
            return wrong(&directory, "no directory of a queue");
        };
        let file_bytes = entries.first().map_or(0, |first| first.len);
        let units_per_file = file_bytes / UNIT_BYTES as u64;
        let mut files: Vec<(u64, PathBuf, Arc<dyn File>)> = Vec::new();
        for entry in entries {
            let path = directory.join(&entry.name);
            let base = entry.name.parse::<u64>().ok().filter(|_| entry.name.len() == 20);
            let Some(first) = base.map(|base| base / UNIT_BYTES as u64) else {
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
        Ok(Ok(Self { directory, topic: topic.name.clone(), queue: id, units_per_file, files }))
    }

    fn look(&self, log_files: &LogFiles, log: &Log, depth: Depth, report: &mut Report) -> Result<(), Unreadable> {
        let first = self.files.first().map_or(0, |(first, ..)| *first);
        let room = first + self.files.len() as u64 * self.units_per_file;
        let max = self.search(first, room, |unit| !unit.is_empty())?;
        let oldest = log_files.oldest();
        let min = self.search(first, max, |unit| unit.is_blank() || unit.physical < oldest)?;
        report.queues.push(QueueReport {
            topic: self.topic.clone(),
            queue: self.queue,
            min,
            max,
            files: self.files.len(),
        });
        if depth == Depth::Everything {
            self.verify(min, max, log_files, log, report)?;
        }
        Ok(())
    }

    /// Every unit of `[min, max)` must be that of its message.
    fn verify(
        &self,
        min: u64,
        max: u64,
        log_files: &LogFiles,
        log: &Log,
        report: &mut Report,
    ) -> Result<(), Unreadable> {
        let mut at = min;
        let mut bytes = vec![0; CHUNK_UNITS * UNIT_BYTES];
        while at < max {
            let count = self.read(at, max, &mut bytes)?;
            for unit in Unit::decode_all(&bytes[..count * UNIT_BYTES]) {
                // What isn't claimed by the checkpoint is made again at the next start.
                let claimed = log.dispatched == 0 || at < log.offsets.next(&self.topic, self.queue);
                let own = unit.is_blank()
                    || is_record_of(&log_files.segments, (unit.physical, unit.size), (&self.topic, self.queue, at))
                        .map_err(unreadable(&self.directory))?;
                if claimed && !own {
                    let path = &self.file_of(at).1;
                    let problem = format!("the unit points to {}, which is not its message", unit.physical);
                    report.damage.push(Finding::new(path, Some(at), problem));
                }
                at += 1;
            }
        }
        Ok(())
    }

    /// The first unit of `[low, high)` that `is_before` isn't true of, where it is of all before.
    fn search(&self, mut low: u64, mut high: u64, is_before: impl Fn(Unit) -> bool) -> Result<u64, Unreadable> {
        while low < high {
            let middle = low.midpoint(high);
            let mut bytes = [0; UNIT_BYTES];
            self.read(middle, middle + 1, &mut bytes)?;
            if is_before(Unit::decode(&bytes)) { low = middle + 1 } else { high = middle }
        }
        Ok(low)
    }

    /// Units from `at` on, as many as fit, lie in one file and below `max`.
    fn read(&self, at: u64, max: u64, bytes: &mut [u8]) -> Result<usize, Unreadable> {
        let (first, path, file) = self.file_of(at);
        let count = (bytes.len() / UNIT_BYTES).min((max.min(first + self.units_per_file) - at) as usize);
        file.read_exact_at(&mut bytes[..count * UNIT_BYTES], (at - first) * UNIT_BYTES as u64)
            .map_err(unreadable(path))?;
        Ok(count)
    }

    fn file_of(&self, at: u64) -> &(u64, PathBuf, Arc<dyn File>) {
        &self.files[((at - self.files[0].0) / self.units_per_file) as usize]
    }
}
