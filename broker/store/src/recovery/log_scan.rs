//! Reading the log from the checkpoint to its end, in pieces: after each one that took long enough the next recovery would
//! go on there.

use std::path::Path;
use std::sync::Arc;

use super::resume::Resume;
use super::{io_error, segments};
use crate::fs::Fs;
use crate::queue_offsets::QueueOffsets;
use crate::scan::{End, Scanner};
use crate::segment::Segment;
use crate::{Config, Damage, OpenError, RecoveryPhase};

const PIECE_BYTES: u64 = 16 << 20;

/// What reading is about, and how far it is.
pub(super) struct LogScan<'a> {
    pub(super) fs: &'a dyn Fs,
    pub(super) config: &'a Config,
    pub(super) segments: &'a [Arc<Segment>],
    /// What `abort` holds in this run.
    pub(super) abort: &'a [u8],
    /// The last stop was clean: what is read is what was synced.
    pub(super) clean_stop: bool,
    /// Where reading began, by this recovery or by one that it continues.
    pub(super) from: u64,
    pub(super) reached: u64,
    /// Below it everything is on disk.
    pub(super) secured: u64,
    pub(super) offsets: QueueOffsets,
    /// Store timestamp of the last record read, ms since 1970; 0 before the first.
    pub(super) timestamp_ms: i64,
    /// Records were missing between what a queue had and what the log has.
    pub(super) gap: bool,
}

impl LogScan<'_> {
    /// Reads records to the first bytes that aren't one; answers what is wrong there.
    pub(super) fn run(&mut self) -> Result<Option<Damage>, OpenError> {
        let begin = self.reached;
        let end = self.segments.last().map_or(begin, |last| last.end());
        self.config.recovery.begin(RecoveryPhase::ReadingLog, end.saturating_sub(begin));
        let mut noted_ms = self.config.clock.now_ms();
        for segment in self.segments.iter().filter(|segment| segment.end() > begin) {
            let mut scanner = Scanner::new(segment);
            while self.reached < segment.end() {
                if let End::Stopped(damage) = self.read_piece(&mut scanner, segment)? {
                    return Ok(Some(damage));
                }
                self.config.recovery.reach(self.reached - begin);
                if self.config.is_checkpoint_due(noted_ms) {
                    self.note()?;
                    noted_ms = self.config.clock.now_ms();
                }
            }
        }
        Ok(None)
    }

    /// Makes everything that was read durable. What was not known to be flushed is written once more before it is synced: if a
    /// write-back of the former process had failed, its pages are marked clean and a sync alone would not write them.
    pub(super) fn secure(&mut self) -> Result<(), OpenError> {
        if self.reached > self.secured {
            if !self.clean_stop {
                segments::rewrite(self.segments, self.secured, self.reached)?;
            }
            for segment in self.segments {
                if segment.base < self.reached && segment.end() > self.secured {
                    segment.file.sync_data().map_err(io_error("fdatasync", &segment.path))?;
                }
            }
            self.secured = self.reached;
        }
        Ok(())
    }

    fn read_piece(&mut self, scanner: &mut Scanner<'_>, segment: &Segment) -> Result<End, OpenError> {
        let limit = segment.end().min(self.reached + PIECE_BYTES);
        let Self { offsets, timestamp_ms, gap, .. } = self;
        let read = scanner.scan(self.reached, limit, true, |record| {
            *timestamp_ms = record.store_timestamp_ms;
            *gap |= offsets.observe(record);
        });
        let (reached, end) = read.map_err(io_error("read", &segment.path))?;
        self.reached = reached;
        Ok(end)
    }

    /// Lets the next recovery go on here.
    fn note(&mut self) -> Result<(), OpenError> {
        self.secure()?;
        let resume = Resume {
            from: self.from,
            reached: self.reached,
            timestamp_ms: self.timestamp_ms,
            offsets: std::mem::take(&mut self.offsets),
        };
        let root: &Path = &self.config.root;
        let written = resume.write(self.fs, root, self.abort);
        self.offsets = resume.offsets;
        written.map_err(io_error("replacement", &root.join(super::resume::FILE)))
    }
}
