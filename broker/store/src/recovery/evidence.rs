//! Where reading stopped before the files' end: was that the torn tail that a crash leaves, which nobody was told was on
//! disk, or is something missing that was? Only a torn tail may be cut.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::queues::Layout;
use crate::queues::unit::Unit;
use crate::record::{self, BLANK_BYTES, Reason};
use crate::scan::Scanner;
use crate::segment::Segment;
use crate::{Damage, PhysicalOffset, Proof};

/// What the store's other files say.
#[derive(Clone, Copy, Debug)]
pub(super) enum Known {
    /// A checkpoint of ours: below this everything was on disk.
    Flushed(u64),
    /// None of ours. The last stop was clean or not, and Apache's checkpoint says that messages up to this time (ms since
    /// 1970; 0 unknown) were on disk.
    Foreign { clean_stop: bool, physical_ms: i64 },
}

/// Why cutting at `end`, where `stopped` is wrong, would lose what was on disk; `None` for a torn tail.
pub(super) fn against_cutting(
    known: Known,
    segments: &[Arc<Segment>],
    end: u64,
    stopped: Option<&Damage>,
    timestamp_ms: i64,
) -> io::Result<Option<Proof>> {
    let (clean_stop, physical_ms) = match known {
        Known::Flushed(flushed) => return Ok((end < flushed).then_some(Proof::Flushed(PhysicalOffset(flushed)))),
        Known::Foreign { clean_stop, physical_ms } => (clean_stop, physical_ms),
    };
    let Some(stopped) = stopped else { return Ok(None) };
    if let Some(path) = later_segment_in_use(segments, end)? {
        return Ok(Some(Proof::SegmentBehind(path)));
    }
    let torn = stopped.reason != Reason::Zeros;
    if torn && physical_ms > timestamp_ms {
        return Ok(Some(Proof::StoredLater { last_ms: timestamp_ms, flushed_ms: physical_ms }));
    }
    let used_behind = || segments.iter().find(|segment| segment.end() > end).map_or(Ok(false), |s| s.is_used_from(end));
    if clean_stop && (torn || used_behind()?) {
        return Ok(Some(Proof::CleanStop));
    }
    Ok(None)
}

/// The first segment behind the one that holds `end` that begins with a record.
fn later_segment_in_use(segments: &[Arc<Segment>], end: u64) -> io::Result<Option<PathBuf>> {
    for segment in segments.iter().filter(|segment| segment.base > end) {
        let (reached, _) = Scanner::new(segment).scan(segment.base, segment.base + 1, true, |_| {})?;
        if reached > segment.base {
            return Ok(Some(segment.path.clone()));
        }
    }
    Ok(None)
}

/// Whether `unit` stands for the record of that topic's queue that lies where it points.
pub(crate) fn is_record_of(
    segments: &[Arc<Segment>],
    unit: Unit,
    (topic, queue_id, layout): (&str, u32, Layout),
) -> io::Result<bool> {
    let (at, size) = (unit.physical, unit.size);
    let Some(segment) = segments.iter().find(|segment| segment.base <= at && at < segment.end()) else {
        return Ok(false);
    };
    let room = segment.end() - at;
    if u64::from(size) + BLANK_BYTES > room {
        return Ok(false);
    }
    // Its own word for its size first: what is spoiled must not make us read much.
    let mut head = [0; 4];
    segment.file.read_exact_at(&mut head, at - segment.base)?;
    if u32::from_be_bytes(head) != size {
        return Ok(false);
    }
    let mut bytes = vec![0; size as usize];
    segment.file.read_exact_at(&mut bytes, at - segment.base)?;
    Ok(matches!(
        record::check(&bytes, PhysicalOffset(at), room, false),
        Ok(record::Checked::Record(record))
            if record.topic == topic && record.queue_id == queue_id && unit.is_of(layout, &record)
    ))
}
