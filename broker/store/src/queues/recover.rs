//! What is found of the consume queues when the store opens.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::files::FileError;
use super::unit::{MAX_UNIT_BYTES, Unit};
use super::{Layout, Queue, Queues};
use crate::fs::{Entry, Fs};
use crate::recovery::is_record_of;
use crate::segment::Segment;

/// The queues can't be used as they are; they have to be made again from the log.
#[derive(Debug)]
pub(crate) enum Error {
    /// Not what the store leaves behind, whatever happens to it.
    Unusable(String),
    /// The system refused.
    Io(FileError),
}

/// What is known of the store.
#[derive(Clone, Copy)]
pub(crate) struct Bounds<'a> {
    /// Units of records from here on are taken away.
    pub(crate) dispatched: u64,
    /// The last stop was clean.
    pub(crate) clean: bool,
    /// The log: records below its beginning can't be read.
    pub(crate) segments: &'a [Arc<Segment>],
}

/// Opens all queues under `queues`' root. The end of each is searched: units of records below `dispatched` were synced, and
/// so the search is right if the unit that it ends at is the one of its own record. After a power loss, which may
/// have left any mixture of written and unwritten sectors behind the last sync, it may not be: then the end is looked for
/// step by step.
pub(crate) fn recover(queues: &Queues, fs: &dyn Fs, bounds: Bounds<'_>) -> Result<(), Error> {
    Layout::ALL.into_iter().try_for_each(|layout| recover_all(queues, fs, layout, bounds))
}

fn recover_all(queues: &Queues, fs: &dyn Fs, layout: Layout, bounds: Bounds<'_>) -> Result<(), Error> {
    let directory = queues.directory(layout);
    for topic in list(fs, &directory)? {
        if !topic.is_dir {
            return Err(Error::Unusable(format!("{} is no directory of a topic", topic.name)));
        }
        for queue in list(fs, &directory.join(&topic.name))? {
            let id = queue.name.parse::<u32>().ok().filter(|_| queue.is_dir);
            let id =
                id.ok_or_else(|| Error::Unusable(format!("{}/{} is no directory of a queue", topic.name, queue.name)))?;
            let queue = queues.get_or_add(&topic.name, id, layout);
            if queue.layout != layout {
                // Becoming one of batch units was interrupted.
                let (topic, id) = (&topic.name, id);
                return Err(Error::Unusable(format!("{topic}/{id} has units of both layouts")));
            }
            open_queue(queues, fs, &queue, bounds)?;
        }
    }
    Ok(())
}

impl Bounds<'_> {
    fn oldest(&self) -> u64 {
        self.segments.first().map_or(0, |first| first.base)
    }

    /// Whether `unit` is that of its record in `queue`; `None` if there is no record to ask.
    fn is_own(&self, queue: &Queue, unit: Unit) -> io::Result<Option<bool>> {
        if queue.layout.is_blank(unit) || unit.physical < self.oldest() {
            return Ok(None);
        }
        if unit.end() > self.dispatched {
            return Ok(Some(false));
        }
        is_record_of(self.segments, unit, (&*queue.topic, queue.id, queue.layout)).map(Some)
    }
}

fn open_queue(queues: &Queues, fs: &dyn Fs, queue: &Arc<Queue>, bounds: Bounds<'_>) -> Result<(), Error> {
    let mut files = file_numbers(queues, queue, list(fs, &queue.directory)?)?;
    let units = queues.files.units_per_file(queue.layout);
    let mut end = None;
    while let Some(&last) = files.last() {
        let found = find_end(queues, queue, last, bounds)?;
        if found > 0 {
            end = Some(last * units + found);
            break;
        }
        queues.files.remove(queue, last).map_err(Error::Io)?;
        files.pop();
    }
    let (Some(end), Some(&first)) = (end, files.first()) else { return Ok(()) };
    let last = queues.read_one(queue, end - 1).map_err(Error::Io)?;
    let next = last.map_or(0, Unit::next);
    queue.max.store(end, next);
    queue.touched.store(end, Ordering::Release);
    let (min, number) = find_min(queues, queue, first * units..end, bounds.oldest()).map_err(Error::Io)?;
    queue.min.store(min, number);
    Ok(())
}

/// The queue's files, oldest first, without gaps. Empty ones at the end were made and not used before a crash.
fn file_numbers(queues: &Queues, queue: &Queue, entries: Vec<Entry>) -> Result<Vec<u64>, Error> {
    let bytes = queues.files.file_bytes(queue.layout);
    let mut numbers: Vec<u64> = Vec::with_capacity(entries.len());
    let count = entries.len();
    for (index, entry) in entries.into_iter().enumerate() {
        let path = queue.directory.join(&entry.name);
        let base = entry.name.parse::<u64>().ok().filter(|base| entry.name.len() == 20 && base.is_multiple_of(bytes));
        let number =
            base.ok_or_else(|| Error::Unusable(format!("{} is no file of this queue", path.display())))? / bytes;
        if entry.len == 0 && index + 1 == count {
            queues.files.remove(queue, number).map_err(Error::Io)?;
            break;
        }
        if entry.len != bytes {
            return Err(Error::Unusable(format!("{} has {} bytes, not {bytes}", path.display(), entry.len)));
        }
        if numbers.last().is_some_and(|last| last + 1 != number) {
            return Err(Error::Unusable(format!("the file before {} is missing", path.display())));
        }
        numbers.push(number);
    }
    Ok(numbers)
}

/// How many units of the file are to be kept; what follows in it is zeroed.
fn find_end(queues: &Queues, queue: &Queue, file_no: u64, bounds: Bounds<'_>) -> Result<u64, Error> {
    let path = || queues.files.path(queue, file_no);
    let file = queues.files.existing(queue, file_no).map_err(Error::Io)?;
    let file = file.ok_or_else(|| Error::Io((path(), io::ErrorKind::NotFound.into())))?;
    let units = queues.files.units_per_file(queue.layout);
    let io = |error| Error::Io((path(), error));
    let is_own = |kept: u64| -> io::Result<Option<bool>> {
        let Some(last) = kept.checked_sub(1) else { return Ok(Some(true)) };
        bounds.is_own(queue, read_unit(&*file, queue.layout, (file_no * units, last))?)
    };

    let (layout, base) = (queue.layout, file_no * units);
    let mut kept = search_end(&*file, layout, units, bounds.dispatched).map_err(io)?;
    let mut own = is_own(kept).map_err(io)?;
    if own != Some(true) && !bounds.clean {
        kept = walk_to_end(&*file, layout, base, units, bounds.dispatched).map_err(io)?;
        own = is_own(kept).map_err(io)?;
    }
    if own == Some(false) {
        let last = base + kept.saturating_sub(1);
        return Err(Error::Unusable(format!("{}: unit {last} is not that of its message", path().display())));
    }
    let from = kept * layout.unit_bytes() as u64;
    if file.next_data(from).map_err(io)?.is_some() {
        queues.files.zero(queue, file_no, from, queues.files.file_bytes(queue.layout)).map_err(Error::Io)?;
    }
    Ok(kept)
}

/// The unit `index` of a file whose first one is at place `base`.
fn read_unit(file: &dyn crate::fs::File, layout: Layout, (base, index): (u64, u64)) -> io::Result<Unit> {
    let mut bytes = [0; MAX_UNIT_BYTES];
    let bytes = &mut bytes[..layout.unit_bytes()];
    file.read_exact_at(bytes, index * bytes.len() as u64)?;
    Ok(layout.decode(base + index, bytes))
}

/// The end of a run of units below `dispatched`, others or zeros behind it.
fn search_end(file: &dyn crate::fs::File, layout: Layout, units: u64, dispatched: u64) -> io::Result<u64> {
    let (mut low, mut high) = (0, units);
    while low < high {
        let middle = low.midpoint(high);
        let unit = read_unit(file, layout, (0, middle))?;
        if !layout.is_empty(unit) && unit.physical < dispatched { low = middle + 1 } else { high = middle }
    }
    Ok(low)
}

/// The same, one after the other, up to the first that can't follow the one before: a sector that was lost can make
/// any number of a unit smaller, so only an unbroken run counts.
fn walk_to_end(file: &dyn crate::fs::File, layout: Layout, base: u64, units: u64, dispatched: u64) -> io::Result<u64> {
    const CHUNK_UNITS: usize = 4096;
    let unit_bytes = layout.unit_bytes();
    let mut bytes = vec![0; CHUNK_UNITS * unit_bytes];
    // Blanks count only once a unit follows them.
    let (mut at, mut floor, mut next, mut end) = (0, 0, 0, 0);
    while at < units {
        let wanted = CHUNK_UNITS.min((units - at) as usize);
        let read = file.read_at(&mut bytes[..wanted * unit_bytes], at * unit_bytes as u64)?;
        for unit in layout.decode_all(base + at, &bytes[..read]) {
            let blank = layout.is_blank(unit);
            let follows = blank || (unit.physical >= floor && unit.end() <= dispatched && unit.first >= next);
            if layout.is_empty(unit) || !follows {
                return Ok(end);
            }
            at += 1;
            if !blank {
                floor = unit.end();
                next = unit.next();
                end = at;
            }
        }
        if read < wanted * unit_bytes {
            break;
        }
    }
    Ok(end)
}

/// The place of the first unit in `places` whose record the log still has, and the number of its first message; where the
/// queue ends if there is none.
pub(crate) fn find_min(
    queues: &Queues,
    queue: &Queue,
    places: Range<u64>,
    oldest: u64,
) -> Result<(u64, u64), FileError> {
    let Range { start: mut low, end } = places;
    let mut high = end;
    while low < high {
        let middle = low.midpoint(high);
        // A blank is judged by what follows it: so the answers still go from "removed" to "kept" once.
        match next_real(queues, queue, middle, end)? {
            Some((_, unit)) if unit.physical < oldest => low = middle + 1,
            _ => high = middle,
        }
    }
    Ok(next_real(queues, queue, low, end)?.map_or_else(|| (end, queue.max()), |(place, unit)| (place, unit.first)))
}

/// The first unit at `[from, end)` that isn't blank, and its place.
fn next_real(queues: &Queues, queue: &Queue, from: u64, end: u64) -> Result<Option<(u64, Unit)>, FileError> {
    const CHUNK_UNITS: usize = 64;
    let (layout, mut bytes) = (queue.layout, [0; CHUNK_UNITS * MAX_UNIT_BYTES]);
    let mut at = from;
    while at < end {
        let wanted = (end - at).min(CHUNK_UNITS as u64) as usize * layout.unit_bytes();
        let read = queues.read(queue, at, &mut bytes[..wanted])?;
        if read == 0 {
            return Err((
                queues.files.path(queue, at / queues.files.units_per_file(layout)),
                io::ErrorKind::UnexpectedEof.into(),
            ));
        }
        let mut units = (at..).zip(layout.decode_all(at, &bytes[..read * layout.unit_bytes()]));
        if let Some(found) = units.find(|(_, unit)| !layout.is_blank(*unit)) {
            return Ok(Some(found));
        }
        at += read as u64;
    }
    Ok(None)
}

fn list(fs: &dyn Fs, path: &Path) -> Result<Vec<Entry>, Error> {
    match fs.list(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.map_err(|error| Error::Io((path.to_owned(), error))),
    }
}
