//! Writing another replica's bytes.

use std::sync::Arc;

use super::{Appender, next_segment, writable};
use crate::record::{self, Checked};
use crate::{Damage, PhysicalOffset, RawError};

impl Appender {
    pub(super) fn append_raw_records(
        &mut self,
        from: PhysicalOffset,
        bytes: &[u8],
    ) -> Result<PhysicalOffset, RawError> {
        let handle = Arc::clone(&self.handle);
        let shared = &*handle.shared;
        let _open = writable(shared)?;
        if from.0 != self.end {
            return Err(RawError::NotAtEnd { from, written: PhysicalOffset(self.end) });
        }
        let segment_bytes = shared.config.segment_bytes;
        let segment_end = self.active.as_ref().map_or(self.end + segment_bytes, |active| active.end());
        // All are judged before any is written.
        for_each(from, bytes, segment_end, |_| {})?;
        if bytes.is_empty() {
            return Ok(from);
        }
        if self.active.is_none() {
            let segment = next_segment(shared, self.end)?;
            self.enter(shared, segment);
        }
        if let Some(active) = &self.active {
            let written = active.file.write_all_at(bytes, self.end - active.base);
            written.map_err(|error| RawError::Failed(shared.fail("write", active.path.clone(), error)))?;
        }
        self.end += bytes.len() as u64;
        for_each(from, bytes, segment_end, |record| {
            self.queue_offsets.observe(record);
        })?;
        self.publish(shared);
        Ok(PhysicalOffset(self.end))
    }
}

/// Visits whole records that begin at `from` and fill `bytes`.
fn for_each(
    from: PhysicalOffset,
    bytes: &[u8],
    segment_end: u64,
    mut visit: impl FnMut(&record::RecordView<'_>),
) -> Result<(), Damage> {
    let mut done = 0;
    while done < bytes.len() {
        let at = from + done as u64;
        let rest = &bytes[done..];
        let room = segment_end.saturating_sub(at.0);
        match record::check(rest, at, room, false).map_err(|reason| Damage { at, reason })? {
            Checked::Record(record) => {
                visit(&record);
                done += record.size as usize;
            }
            Checked::Blank(room) if room as usize <= rest.len() => done += room as usize,
            Checked::Blank(room) => {
                let reason = record::Reason::CutOff { have: rest.len() as u64, need: u64::from(room) };
                return Err(Damage { at, reason });
            }
        }
    }
    Ok(())
}
