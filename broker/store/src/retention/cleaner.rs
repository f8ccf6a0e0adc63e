//! The cleaner: deletes the log's oldest segments, on a thread of its own.
//!
//! 1. Which segments go is decided, and they are taken out of the table, while the appender is held for a moment.
//!    Before that a file says which numbers those queues go on with of which nothing is left ([`crate::queue_numbers`]).
//! 2. Queues' minima follow.
//! 3. The files are unlinked one by one, the oldest first, each durably before the next: a crash leaves a log without gaps.
//! 4. Consume queue files and index files that hold nothing any more are removed.
//!
//! Unlinking a gibibyte takes ext4 0.1 to 0.2 s, on this thread; producers' syncs meanwhile were measured to take no longer than
//! before, and shortening the file in steps first to change nothing.
//!
//! A segment that somebody reads keeps its space until its last reader is done: unlinking takes the name only.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::disk::{self, Pressure};
use super::{Doomed, queues};
use crate::StoreFailure;
use crate::queue_numbers;
use crate::record;
use crate::segment::Segment;
use crate::shared::Shared;

/// While the disk is full it is looked at this often: producers wait for it.
const FULL_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// At most so often it is looked for room when a segment couldn't be allocated.
const NO_SPACE_PAUSE: Duration = Duration::from_millis(20);

/// A segment that is unlinked and still read.
pub(crate) struct Hanging {
    segment: Arc<Segment>,
    since: Instant,
    told: Option<Instant>,
}

/// The thread: until stopped or failed.
pub(crate) fn run(shared: &Shared) {
    while !shared.is_stopping() {
        round(shared);
        pause(shared);
    }
}

/// Until the next look, or until somebody asks for one. A full disk asks with each refused message.
fn pause(shared: &Shared) {
    let interval = shared.retention.rules().check_interval;
    let state = &shared.retention;
    let pressed = state.full.load(Ordering::Relaxed) || state.no_space.load(Ordering::Relaxed);
    thread::park_timeout(if pressed { interval.min(FULL_CHECK_INTERVAL) } else { interval });
    if state.no_space.load(Ordering::Relaxed) {
        thread::sleep(NO_SPACE_PAUSE.min(interval));
    }
}

/// One look, and what follows from it.
pub(crate) fn round(shared: &Shared) {
    let retention = &*shared.retention.rules();
    let mut doomed = shared.retention.deleting.lock();
    let mut deleted = unlink_all(shared, &mut doomed);
    doomed.release(shared);
    let manual = shared
        .retention
        .manual_rounds
        .fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1))
        .is_ok();
    // While one can't be unlinked no more are taken: they would be out of the log and still on the disk.
    while deleted < retention.files_a_round && doomed.named.is_empty() && !shared.is_stopping() {
        let pressure = disk::look(shared);
        let now_ms = shared.config.clock.now_ms();
        let due = manual || pressure >= Pressure::Expired || retention.delete_when.includes(now_ms, &retention.zone);
        let forcibly = retention.forcibly && pressure >= Pressure::Forcibly;
        let expired_before = due.then(|| now_ms.saturating_sub_unsigned(retention.reserved.as_millis() as u64));
        // By force one after the other, because one may be enough.
        let room = if forcibly { 1 } else { retention.files_a_round - deleted };
        let rule = Rule { expired_before, forcibly, ignore_replicas: pressure == Pressure::Full };
        let taken = take_out(shared, &mut doomed, rule, room);
        if taken == 0 {
            break;
        }
        let unlinked = unlink_all(shared, &mut doomed);
        deleted += unlinked;
        if unlinked < taken {
            break;
        }
    }
    // A segment that a stop leaves on disk comes back with the next start, and so should its messages.
    if deleted > 0 && !shared.is_stopping() {
        queues::remove_files(shared);
        remove_index_files(shared, &doomed);
    }
}

/// A segment that isn't unlinked for good comes back with the next start, and is to be found by key then.
fn remove_index_files(shared: &Shared, doomed: &Doomed) {
    let oldest = doomed.named.front().map_or_else(|| shared.log.oldest(), |segment| segment.base);
    if let Err((path, error)) = shared.index.delete_before(oldest) {
        tracing::warn!(%error, path = %path.display(), "can't delete an index file");
    }
}

/// What may go.
#[derive(Clone, Copy)]
struct Rule {
    /// Segments whose newest message is older, in ms since 1970.
    expired_before: Option<i64>,
    /// And others.
    forcibly: bool,
    ignore_replicas: bool,
}

/// Takes up to `room` segments out of the table; answers how many.
fn take_out(shared: &Shared, doomed: &mut Doomed, rule: Rule, room: usize) -> usize {
    let Some(new_oldest) = choose(shared, rule, deletable(shared, rule.ignore_replicas), room) else { return 0 };
    // Only numbers that no file would say afterwards, so mostly none at all.
    if let Err(error) = queue_numbers::remember(shared, new_oldest) {
        let path = shared.root().join(queue_numbers::FILE);
        tracing::warn!(%error, path = %path.display(), "nothing is deleted: can't keep the queues' numbers");
        return 0;
    }
    let segments = {
        // Held by a truncation from its first check to its end: what it needs isn't taken away under it.
        let _appender = shared.closed.lock();
        if deletable(shared, rule.ignore_replicas) < new_oldest {
            return 0;
        }
        shared.log.split_front(new_oldest)
    };
    queues::raise_minima(shared, new_oldest);
    let held = shared.retention.replicas.load(Ordering::Acquire);
    if held < new_oldest {
        tracing::error!(
            needed = held,
            oldest = new_oldest,
            "the disk is full: what a slave still needs is deleted, and it will have to be copied anew"
        );
    }
    for segment in &segments {
        tracing::info!(path = %segment.path.display(), forcibly = rule.forcibly, "deleting a segment of the log");
    }
    let taken = segments.len();
    doomed.named.extend(segments);
    taken
}

/// Everything below may go, as far as others are concerned. Checkpoints claim ever more, except when the log is cut, and then
/// `dispatched` is lower.
fn deletable(shared: &Shared, ignore_replicas: bool) -> u64 {
    let marks = shared.marks.snapshot();
    let state = &shared.retention;
    let replicas = if ignore_replicas { u64::MAX } else { state.replicas.load(Ordering::Acquire) };
    let covered = shared.checkpointed.load(Ordering::Acquire);
    let limits = [state.released.load(Ordering::Acquire), replicas, covered, marks.flushed.0, marks.dispatched.0];
    limits.into_iter().fold(u64::MAX, u64::min)
}

/// Where the log is to begin, if any segment may go.
fn choose(shared: &Shared, rule: Rule, limit: u64, room: usize) -> Option<u64> {
    let segments = shared.log.overlapping(0, limit.saturating_add(1));
    let expired = |next: &Segment| {
        let newest_ms = begin_time_ms(shared, next);
        rule.expired_before.zip(newest_ms).is_some_and(|(before, newest)| newest < before)
    };
    let may_go = |pair: &&[Arc<Segment>]| pair[0].end() <= limit && (rule.forcibly || expired(&pair[1]));
    segments.windows(2).take(room).take_while(may_go).last().map(|pair| pair[0].end())
}

/// When a segment's first message was stored: no message of the segment before it is younger.
fn begin_time_ms(shared: &Shared, segment: &Segment) -> Option<i64> {
    let mut head = [0; record::TIME_HEAD_BYTES];
    if segment.base + head.len() as u64 > shared.marks.written() {
        return None;
    }
    match segment.file.read_exact_at(&mut head, 0) {
        Ok(()) => record::store_time_ms(&head),
        Err(error) => {
            tracing::warn!(%error, path = %segment.path.display(), "can't read how old a segment is: it is kept");
            None
        }
    }
}

/// Unlinks what is out of the table; answers how many. What can't be unlinked is tried again in the next round.
fn unlink_all(shared: &Shared, doomed: &mut Doomed) -> usize {
    let mut count = 0;
    while !shared.is_stopping()
        && let Some(segment) = doomed.named.pop_front()
    {
        if count > 0 {
            thread::park_timeout(shared.retention.rules().delete_interval);
        }
        if let Err(error) = unlink(shared, &segment) {
            tracing::error!(%error, path = %segment.path.display(), "can't delete a segment; tried again");
            doomed.named.push_front(segment);
            break;
        }
        let directory = shared.config.log_directory();
        if let Err(error) = shared.fs.sync_dir(&directory) {
            shared.fail("fsync", directory, error);
            break;
        }
        count += 1;
        shared.retention.deleted_segments.fetch_add(1, Ordering::Relaxed);
        doomed.hanging.push(Hanging { segment, since: Instant::now(), told: None });
        doomed.release(shared);
    }
    count
}

/// One that somebody removed by hand is gone, which is what was wanted.
fn unlink(shared: &Shared, segment: &Segment) -> io::Result<()> {
    match shared.fs.remove_file(&segment.path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            tracing::warn!(path = %segment.path.display(), "a segment that was to be deleted is gone already");
            Ok(())
        }
        other => other,
    }
}

impl Doomed {
    /// Unlinks what is left to unlink: names are about to be used again.
    pub(crate) fn finish(&mut self, shared: &Shared) -> Result<(), Arc<StoreFailure>> {
        for segment in self.named.drain(..) {
            unlink(shared, &segment).map_err(|error| shared.fail("unlink", segment.path.clone(), error))?;
        }
        Ok(())
    }

    /// Lets go of those that nobody reads any more: the system frees their space.
    fn release(&mut self, shared: &Shared) {
        let retention = shared.retention.rules();
        self.hanging.retain(|hanging| !Segment::is_unused(&hanging.segment));
        for Hanging { segment, since, told } in &mut self.hanging {
            let again = told.is_none_or(|told| told.elapsed() >= retention.hanging_told_every);
            if since.elapsed() >= retention.hanging_after && again {
                *told = Some(Instant::now());
                tracing::warn!(
                    path = %segment.path.display(), bytes = segment.len, seconds = since.elapsed().as_secs(),
                    "a deleted segment is still being sent to somebody: its space comes back when that ends"
                );
            }
        }
        let bytes = self.hanging.iter().map(|hanging| hanging.segment.len).sum();
        shared.retention.hanging_bytes.store(bytes, Ordering::Relaxed);
    }
}
