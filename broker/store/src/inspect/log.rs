//! The commit log, read from outside.

use super::{Depth, Finding, LogFiles, Report, SegmentReport, Unreadable, unreadable};
use crate::Damage;
use crate::checkpoint::Checkpoint;
use crate::commit_log::file_name;
use crate::queue_offsets::QueueOffsets;
use crate::record::Reason;
use crate::scan::{End, Scanner};
use crate::segment::Segment;

/// What the queues are held against.
pub(super) struct Log {
    /// Below it the queues must be whole; 0 if no checkpoint says so.
    pub(super) dispatched: u64,
    /// Next numbers as of `dispatched`; empty unless everything was read.
    pub(super) offsets: QueueOffsets,
    /// Bytes read.
    pub(super) read: u64,
}

/// Looks at all segments, and finds the log's end.
pub(super) fn look(
    files: &LogFiles,
    known: Option<Checkpoint>,
    depth: Depth,
    running: bool,
    watch: &mut dyn FnMut(u64),
    report: &mut Report,
) -> Result<Log, Unreadable> {
    let dispatched = known.map_or(0, |known| known.dispatched);
    let mut log = Log { dispatched, offsets: QueueOffsets::default(), read: 0 };
    let damage = files.foreign.iter().map(|path| Finding::new(path, None, "no segment of a commit log"));
    report.damage.extend(damage);
    let flushed = known.map(|known| known.flushed);
    report.log.oldest = files.oldest();
    report.log.end = files.oldest();
    let mut torn: Option<Finding> = None;
    for (index, segment) in files.segments.iter().enumerate() {
        let seen = look_at(segment, depth, flushed, &mut log, watch)?;
        // One that was being made when a broker died is removed at the next start.
        let left_over = index + 1 == files.segments.len() && !seen.used && seen.damage.is_none();
        if let Some((at, problem)) = files.problem(index).filter(|_| !left_over) {
            report.damage.push(Finding::new(&segment.path, Some(at), problem));
        }
        if seen.used {
            // Something follows what looked like the end.
            report.damage.extend(torn.take());
            report.log.end = seen.end;
        }
        if let Some(damage) = seen.damage {
            torn.get_or_insert(Finding::new(&segment.path, Some(damage.at.0), damage.reason.to_string()));
        }
        report.log.records = seen.report.records.map(|records| records + report.log.records.unwrap_or(0));
        report.segments.push(seen.report);
    }
    let below_flushed = flushed.filter(|flushed| report.log.end < *flushed);
    if let Some(flushed) = below_flushed.filter(|_| torn.is_none()) {
        let path = files.segments.last().map_or_else(|| file_name(report.log.end).into(), |last| last.path.clone());
        let problem = format!("the log ends here, but the checkpoint says that it reached to {flushed} at least");
        report.damage.push(Finding::new(&path, Some(report.log.end), problem));
    }
    match torn {
        // A record that is being written.
        Some(_) if running => {}
        Some(finding) if below_flushed.is_some() => report.damage.push(finding),
        torn => report.torn_tail = torn,
    }
    Ok(log)
}

/// Where the log can't be read on, from its beginning; `None` if it is whole up to unused room.
pub(crate) fn first_damage(files: &LogFiles, watch: &mut dyn FnMut(u64)) -> Result<Option<(u64, Finding)>, Unreadable> {
    let mut log = Log { dispatched: 0, offsets: QueueOffsets::default(), read: 0 };
    let mut ended: Option<(u64, Finding)> = None;
    for (index, segment) in files.segments.iter().enumerate() {
        let seen = look_at(segment, Depth::Everything, None, &mut log, watch)?;
        let finding = |at: u64, problem: String| (at, Finding::new(&segment.path, Some(at), problem));
        if seen.used && ended.is_some() {
            return Ok(ended);
        }
        if let Some((at, problem)) = files.problem(index).filter(|_| seen.used) {
            let at = if at <= segment.base { at } else { at.min(seen.end) };
            return Ok(Some(finding(at, problem)));
        }
        if let Some(damage) = seen.damage {
            return Ok(Some(finding(damage.at.0, damage.reason.to_string())));
        }
        if seen.end < segment.end() {
            ended.get_or_insert_with(|| finding(seen.end, Reason::Zeros.to_string()));
        }
    }
    Ok(None)
}

/// What was seen of a segment.
struct Seen {
    report: SegmentReport,
    /// It begins with a record.
    used: bool,
    /// Where its records end.
    end: u64,
    /// Not for unused room.
    damage: Option<Damage>,
}

fn look_at(
    segment: &Segment,
    depth: Depth,
    flushed: Option<u64>,
    log: &mut Log,
    watch: &mut dyn FnMut(u64),
) -> Result<Seen, Unreadable> {
    const PIECE_BYTES: u64 = 4 << 20;
    let (mut first, mut last, mut records) = (None, None, 0_u64);
    let mut scanner = Scanner::new(segment);
    let (mut at, mut damage) = (segment.base, None);
    let limit = match depth {
        // The first record; and what isn't known to be on disk, to find the end.
        Depth::Heads if flushed.is_some_and(|flushed| segment.end() <= flushed) => segment.base.saturating_add(1),
        Depth::Heads | Depth::Everything => segment.end(),
    };
    let limit = limit.min(segment.end());
    while at < limit {
        let (reached, end) = scanner
            .scan(at, limit.min(at + PIECE_BYTES), depth == Depth::Everything, |record| {
                first.get_or_insert(record.store_timestamp_ms);
                last = Some(record.store_timestamp_ms);
                records += 1;
                if record.physical.0 + u64::from(record.size) <= log.dispatched && depth == Depth::Everything {
                    log.offsets.observe(record);
                }
            })
            .map_err(unreadable(&segment.path))?;
        watch(log.read + reached - segment.base);
        at = reached;
        if let End::Stopped(stopped) = end {
            damage = Some(stopped);
            break;
        }
    }
    log.read += segment.len;
    watch(log.read);
    let used = at > segment.base;
    // All that a look at the heads knows of a segment below the flushed offset is that it begins well.
    let end = if damage.is_none() && used { segment.end() } else { at };
    if damage.as_ref().is_some_and(|damage| damage.reason == Reason::Zeros)
        && !segment.is_used_from(at).map_err(unreadable(&segment.path))?
    {
        damage = None;
    }
    let whole = depth == Depth::Everything;
    let report = SegmentReport {
        name: file_name(segment.base),
        from: segment.base,
        to: segment.end(),
        bytes: segment.len,
        records: whole.then_some(records),
        first_store_ms: first,
        last_store_ms: last.filter(|_| whole),
    };
    Ok(Seen { report, used, end, damage })
}
