//! Reading a segment record by record, from the file rather than a map: an unreadable page is an error then.

use std::io;

use crate::record::{self, BLANK_BYTES, Checked, RecordView};
use crate::segment::Segment;
use crate::{Damage, PhysicalOffset};

const WINDOW_BYTES: usize = 4 << 20;

/// How a scan ended.
#[derive(Debug)]
pub(crate) enum End {
    /// At the limit, or the segment's end.
    Reached,
    /// No record begins here.
    Stopped(Damage),
}

/// A buffer over a segment's file.
pub(crate) struct Scanner<'a> {
    segment: &'a Segment,
    /// The log's bytes from `from` on.
    window: Vec<u8>,
    from: u64,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(segment: &'a Segment) -> Self {
        Self { segment, window: Vec::new(), from: segment.base }
    }

    /// Hands each record from `at` up to `limit` (at most the segment's end) to `visit`; answers where it came to, and why.
    /// With `crc` bodies are checked too.
    pub(crate) fn scan(
        &mut self,
        mut at: u64,
        limit: u64,
        crc: bool,
        mut visit: impl FnMut(&RecordView<'_>),
    ) -> io::Result<(u64, End)> {
        let segment_end = self.segment.end();
        assert!(limit <= segment_end && at >= self.segment.base, "a scan within its segment");
        while at < limit {
            let room = segment_end - at;
            let head = self.bytes(at, BLANK_BYTES.min(room))?;
            let need = record_len(head, room);
            let bytes = self.bytes(at, need)?;
            match record::check(bytes, PhysicalOffset(at), room, crc) {
                Ok(Checked::Blank(room)) => at += u64::from(room),
                Ok(Checked::Record(record)) => {
                    visit(&record);
                    at += u64::from(record.size);
                }
                Err(reason) => return Ok((at, End::Stopped(Damage { at: PhysicalOffset(at), reason }))),
            }
        }
        Ok((at, End::Reached))
    }

    /// The log's bytes `[at, at + len)`, which the segment has.
    fn bytes(&mut self, at: u64, len: u64) -> io::Result<&[u8]> {
        let window_end = self.from + self.window.len() as u64;
        if at < self.from || at + len > window_end {
            let wanted = (len as usize).max(WINDOW_BYTES).min((self.segment.end() - at) as usize);
            self.window.resize(wanted, 0);
            self.segment.file.read_exact_at(&mut self.window, at - self.segment.base)?;
            self.from = at;
        }
        let begin = (at - self.from) as usize;
        Ok(&self.window[begin..begin + len as usize])
    }
}

/// How many bytes have to be read to judge what begins with `head`: a whole record if it looks like one that fits.
fn record_len(head: &[u8], room: u64) -> u64 {
    let Some((size, magic)) = head.split_first_chunk::<4>().zip(head.get(4..8)).map(|((size, _), magic)| (size, magic))
    else {
        return head.len() as u64;
    };
    let size = u64::from(u32::from_be_bytes(*size));
    let is_record = magic == record::MAGIC_V1.to_be_bytes() || magic == record::MAGIC_V2.to_be_bytes();
    if is_record { size.clamp(BLANK_BYTES, room) } else { BLANK_BYTES.min(room) }
}
