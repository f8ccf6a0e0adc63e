//! Metadata in the log: topics, groups and offsets change by records of an internal topic, replicated and recovered
//! like messages.
//!
//! There are two copies of the tables. *Live* is what requests read and write. *Confirmed* is what the records say that
//! the store has dispatched, which it does with confirmed records only: nothing in there is ever taken back. On a slave
//! the two are equal. On the master live runs ahead, and its changes become records, at once for a topic, within half a
//! second for offsets. A master that is deposed falls back to confirmed. Snapshots are of confirmed alone, so they are
//! exact for the place in the log that they name.

use super::bases::Bases;
use super::config_files::{ConfigFiles, FileError};
use super::live::Live;
use super::names::METADATA_TOPIC;
use super::now_ms;
use super::seam::{Done, Log, SendFailure, Submission, Wait};
use super::tables::{Change, ChangeSet, Tables};
use bytes::Bytes;
use gantry_store::{Append, NewMessage, PhysicalOffset, QueueOffset, ReadError, ReadLimits, ReadStatus, Store, record};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// The metadata log and what it says.
pub struct Metadata {
    store: Store,
    log: Arc<dyn Log>,
    files: ConfigFiles,
    live: Arc<Live>,
    topic: Arc<str>,
    store_host: SocketAddr,
    /// Held while the files are written, before `confirmed` is: they are written one after the other, never back in time
    saving: Mutex<Bases>,
    /// Held while records are applied, so that they are applied in order
    confirmed: Mutex<Confirmed>,
    /// Held from taking changes to submitting them, so that records have the order of their values
    author: Mutex<Option<String>>,
}

struct Confirmed {
    tables: Tables,
    /// `tables.next` as of the last snapshot
    saved: Option<u64>,
    /// The tables came from an Apache broker, and the log says nothing yet: this replica's first records as a
    /// master say it all, another master's say what counts instead
    foreign: bool,
    /// An Apache master is followed: its word counts, not what records of an earlier Gantry master say that lie in its log
    attached: bool,
    /// `foreign` tables that no file has yet
    unsaved: bool,
    /// Records below it were written before those files were: what the files say counts, and they don't
    outdated: PhysicalOffset,
}

/// Why the metadata can't be loaded.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// A snapshot file
    #[error(transparent)]
    File(#[from] FileError),
    /// The metadata log
    #[error("the metadata log ({METADATA_TOPIC}) can't be read: {0}")]
    Log(#[from] ReadError),
    /// A snapshot from another replica
    #[error("the snapshot from the master is not readable: {0}")]
    Snapshot(serde_json::Error),
}

/// Called when a change is acknowledged, or failed to be.
pub type Logged = Box<dyn FnOnce(Result<(), SendFailure>) + Send>;

/// A record's body stays below this, and one change more: well under the largest message.
const RECORD_BYTES: usize = 512 << 10;

impl Metadata {
    /// Loads the snapshot and what the log has beyond it, into `live` too. `logged` is the number of the next metadata record: what
    /// says more than those before it is of records that are gone.
    pub fn open(
        store: Store,
        logged: QueueOffset,
        log: Arc<dyn Log>,
        files: ConfigFiles,
        mut bases: Bases,
        live: Arc<Live>,
        store_host: SocketAddr,
    ) -> Result<Self, MetadataError> {
        let loaded = files.load()?;
        let mut tables = loaded.tables;
        let mut outdated = PhysicalOffset(0);
        if loaded.foreign {
            // Dispatched or not: after an Apache broker was here, the queues are made anew, and follow.
            outdated = store.watermarks().written;
            tables.next = store.queue_range(METADATA_TOPIC, 0).min.0;
            tracing::info!(topics = tables.topics.entries.len(), "metadata taken over from an Apache broker's files");
        }
        // A snapshot may be of records that the log lost since (a power cut without SYNC_FLUSH, or a cut before a crash).
        let range = store.queue_range(METADATA_TOPIC, 0);
        if !loaded.foreign {
            // Now: other records will take their numbers.
            bases.forget_above(logged.0)?;
        }
        if !loaded.foreign && loaded.newest > range.max.0 {
            tables = bases.as_of(range.max.0, &files, range)?.unwrap_or(tables);
            tables.next = tables.next.min(range.max.0);
        }
        live.reset(&tables);
        let foreign = loaded.foreign;
        let confirmed = Confirmed { tables, saved: None, foreign, attached: false, unsaved: false, outdated };
        let confirmed = Mutex::new(confirmed);
        let (saving, author) = (Mutex::new(bases), Mutex::new(None));
        let topic = METADATA_TOPIC.into();
        let metadata = Self { store, log, files, live, topic, store_host, saving, confirmed, author };
        metadata.catch_up()?;
        Ok(metadata)
    }

    /// A record was dispatched at `offset`. If one of that place was applied before, the log was cut in between (a deposed `Async`
    /// master's tail was): the tables are made again as they were before.
    pub fn rewind_to(&self, offset: QueueOffset) -> Result<(), MetadataError> {
        let next = self.confirmed.lock().tables.next;
        if offset.0 < next { self.rebuild(offset.0) } else { Ok(()) }
    }

    /// Applies the records that the store has dispatched since the last call; forgets those that were cut.
    pub fn catch_up(&self) -> Result<(), MetadataError> {
        let taken_over = {
            let mut confirmed = self.confirmed.lock();
            let max = self.store.queue_range(METADATA_TOPIC, 0).max.0;
            if confirmed.tables.next > max {
                drop(confirmed);
                return self.rebuild(max);
            }
            let foreign = confirmed.foreign;
            self.read_on(&mut confirmed)?;
            foreign && !confirmed.foreign
        };
        // At once: were the files still an Apache broker's after a crash, what was logged until then wouldn't count.
        if taken_over && let Err(problem) = self.save() {
            tracing::error!(%problem, "can't write what was taken over from an Apache broker's files");
        }
        Ok(())
    }

    /// Records from `to` on were cut, and others may have come: begins with the newest snapshot from before, on disk too, and reads
    /// on from there.
    fn rebuild(&self, to: u64) -> Result<(), MetadataError> {
        let mut bases = self.saving.lock();
        let mut confirmed = self.confirmed.lock();
        let from = confirmed.tables.next;
        if from <= to {
            return Ok(());
        }
        if confirmed.foreign {
            confirmed.tables.next = to;
            confirmed.outdated = PhysicalOffset(0);
            return Ok(());
        }
        let range = self.store.queue_range(METADATA_TOPIC, 0);
        if let Some(tables) = bases.as_of(to, &self.files, range)? {
            tracing::warn!(from, to, base = tables.next, "the metadata log was cut: read again");
            confirmed.tables = tables;
        } else {
            let what = "the metadata log was cut, and no snapshot is so old: what only the cut records said stays";
            tracing::error!(from, to, what);
            confirmed.tables.next = to;
        }
        bases.forget_above(to)?;
        if self.author.lock().is_none() {
            self.live.reset(&confirmed.tables);
        }
        self.read_on(&mut confirmed)?;
        self.files.save(&confirmed.tables)?;
        confirmed.saved = Some(confirmed.tables.next);
        Ok(())
    }

    fn read_on(&self, confirmed: &mut Confirmed) -> Result<(), ReadError> {
        loop {
            let next = confirmed.tables.next;
            let range = self.store.queue_range(METADATA_TOPIC, 0);
            if next >= range.max.0 {
                return Ok(());
            }
            if confirmed.attached {
                confirmed.tables.next = range.max.0;
                return Ok(());
            }
            if next < range.min.0 {
                tracing::error!(
                    from = next,
                    to = range.min.0,
                    "metadata records are gone from the log and in no snapshot"
                );
                confirmed.tables.next = range.min.0;
            }
            let limits = ReadLimits::new(256, 4 << 20);
            let from = QueueOffset(confirmed.tables.next);
            let read = self.store.read_queue(METADATA_TOPIC, 0, from, limits, |_| true)?;
            for record in &read.messages {
                self.apply(confirmed, record);
            }
            if confirmed.tables.next == next {
                // Nothing readable there although the range says so: the log was cut meanwhile. The next dispatch asks again.
                return Ok(());
            }
        }
    }

    /// Logs what has changed; nothing to do on a slave, or when nothing has.
    pub fn flush(&self) {
        self.submit(None);
    }

    /// Logs what has changed, and tells when this and everything logged before is acknowledged.
    pub fn flush_then(&self, logged: Logged) {
        self.submit(Some(logged));
    }

    /// This replica is the master of `epoch`: from now on it writes the metadata log.
    ///
    /// To be called when the store has dispatched all that the log held at the promotion; what is dispatched later was
    /// written by this mastership, and is in the live tables already.
    pub fn became_master(&self, epoch: u64) {
        let foreign = {
            let mut confirmed = self.confirmed.lock();
            *self.author.lock() = Some(format!("{epoch}-{:016x}", fastrand::u64(..)));
            confirmed.attached = false;
            confirmed.foreign.then(|| confirmed.tables.as_changes())
        };
        if let Some(changes) = foreign {
            self.live.mark(&changes);
        }
        self.live.topics.new_mastership(epoch, now_ms());
        self.flush();
    }

    /// This replica follows another: what it did as a master and nobody confirmed never was.
    pub fn became_slave(&self) {
        let confirmed = self.confirmed.lock();
        *self.author.lock() = None;
        self.live.reset(&confirmed.tables);
    }

    /// How far delayed messages were delivered, by level, as far as the log says.
    pub fn confirmed_delay(&self) -> BTreeMap<u32, u64> {
        self.confirmed.lock().tables.delay.clone()
    }

    /// Everything confirmed, for a replica that starts from the log's oldest byte.
    pub fn snapshot(&self) -> Result<Bytes, MetadataError> {
        let tables = self.confirmed.lock().tables.clone();
        serde_json::to_vec(&tables).map(Bytes::from).map_err(MetadataError::Snapshot)
    }

    /// Takes over another replica's [`Self::snapshot`], durably.
    pub fn install_snapshot(&self, snapshot: &[u8]) -> Result<(), MetadataError> {
        let tables: Tables = serde_json::from_slice(snapshot).map_err(MetadataError::Snapshot)?;
        let mut bases = self.saving.lock();
        let mut confirmed = self.confirmed.lock();
        bases.begin(&tables)?;
        self.files.save(&tables)?;
        self.live.reset(&tables);
        let (saved, outdated) = (Some(tables.next), PhysicalOffset(0));
        *confirmed = Confirmed { tables, saved, foreign: false, attached: false, unsaved: false, outdated };
        Ok(())
    }

    /// Takes over what an Apache master says of its metadata, which is not in its log. Nothing on a master.
    pub fn follow_foreign(&self, mut tables: Tables) {
        let mut confirmed = self.confirmed.lock();
        if self.author.lock().is_some() {
            return;
        }
        tables.next = self.store.queue_range(METADATA_TOPIC, 0).max.0;
        let unchanged =
            confirmed.attached && confirmed.tables == Tables { next: confirmed.tables.next, ..tables.clone() };
        if !unchanged {
            // Topics are told to the name servers whenever they change.
            let topics_too = confirmed.tables.topics != tables.topics;
            self.live.reset_to(&tables, topics_too);
        }
        let (unsaved, outdated) = (confirmed.unsaved || !unchanged, confirmed.outdated);
        *confirmed = Confirmed { tables, saved: None, foreign: true, attached: true, unsaved, outdated };
    }

    /// Writes the snapshot files if anything was confirmed since they were written, and lets retention have the log as far as it
    /// isn't needed for them.
    pub fn save(&self) -> Result<(), MetadataError> {
        // First the mark, then the records: the tables hold whatever is below it.
        let covered = self.store.watermarks().dispatched;
        self.catch_up()?;
        let mut bases = self.saving.lock();
        let (tables, saved) = {
            let mut confirmed = self.confirmed.lock();
            if confirmed.foreign {
                // Files of an Apache broker stay as they are until a record holds what they say; nothing of it is in the log.
                let unsaved = std::mem::take(&mut confirmed.unsaved);
                let tables = unsaved.then(|| confirmed.tables.clone());
                drop(confirmed);
                if let Some(tables) = tables {
                    self.files.save_foreign(&tables).inspect_err(|_| self.confirmed.lock().unsaved = true)?;
                }
                self.store.release(covered);
                return Ok(());
            }
            (confirmed.tables.clone(), confirmed.saved == Some(confirmed.tables.next))
        };
        if !saved {
            self.files.save(&tables)?;
            self.confirmed.lock().saved = Some(tables.next);
        }
        bases.rotate(&tables)?;
        if let Some(needed) = bases.needed_from() {
            self.release(needed, covered)?;
        }
        Ok(())
    }

    /// Retention may have what lies before metadata record `needed`; `covered`, if there is no such record yet.
    fn release(&self, needed: u64, covered: PhysicalOffset) -> Result<(), ReadError> {
        let one = ReadLimits::new(1, 1);
        let read = self.store.read_queue(METADATA_TOPIC, 0, QueueOffset(needed), one, |_| true)?;
        match read.messages.first().map(|bytes| record::decode(bytes)) {
            Some(Ok(first)) => self.store.release(first.physical),
            // `covered` was read before the tables: all metadata below it is in them.
            None if read.status == ReadStatus::OffsetOverflowOne => self.store.release(covered),
            // It was cut meanwhile, or the topic is new: next time.
            _ => {}
        }
        Ok(())
    }

    fn apply(&self, confirmed: &mut Confirmed, bytes: &Bytes) {
        let view = match record::decode(bytes) {
            Ok(view) => view,
            Err(damage) => return tracing::error!(%damage, "a metadata record can't be read"),
        };
        let tables = &mut confirmed.tables;
        assert!(view.queue_offset.0 >= tables.next, "metadata records are applied in order, each once");
        tables.next = view.queue_offset.0 + 1;
        if view.physical < confirmed.outdated {
            return;
        }
        confirmed.foreign = false;
        let set: ChangeSet = match serde_json::from_slice(view.body) {
            Ok(set) => set,
            // Written by a newer version, or not by Gantry: what can't be understood can't be followed, but must not
            // keep the rest from being.
            Err(problem) => {
                return tracing::error!(offset = view.queue_offset.0, %problem, "a metadata record is not understood");
            }
        };
        tables.apply(&set);
        if self.author.lock().as_ref() != Some(&set.by) {
            set.changes.iter().for_each(|change| self.live.apply(change));
        }
    }

    fn submit(&self, logged: Option<Logged>) {
        let author = self.author.lock();
        let Some(by) = author.as_ref() else {
            if let Some(logged) = logged {
                logged(Err(SendFailure::NotMaster));
            }
            return;
        };
        let changes = self.live.take_changes();
        if changes.is_empty() && logged.is_none() {
            return;
        }
        // With nothing to say an empty record is written all the same: once it is acknowledged, so is all before it,
        // including the change that another call has taken along.
        let mut records = split(changes);
        let last = records.pop().unwrap_or_default();
        let mut submissions: Vec<_> = records.into_iter().map(|changes| self.submission(by, changes, None)).collect();
        submissions.push(self.submission(by, last, logged));
        self.log.submit(submissions);
    }

    fn submission(&self, by: &str, changes: Vec<Change>, logged: Option<Logged>) -> Submission {
        let at = now_ms();
        let set = ChangeSet { by: by.to_owned(), at, changes };
        // Maps with string keys and numbers: there is nothing in them that JSON can't say.
        let body =
            serde_json::to_vec(&set).unwrap_or_else(|problem| unreachable!("changes are always JSON: {problem}"));
        let live = self.live.clone();
        let wait = if logged.is_some() { Wait::Acked } else { Wait::Written };
        let done = move |result: Result<gantry_store::Appended, SendFailure>| {
            let result = result.map(|_| ());
            if let Err(failure) = &result
                && !failure.is_written()
            {
                tracing::warn!(%failure, changes = set.changes.len(), "metadata not logged, to be tried again");
                live.mark(&set.changes);
            }
            if let Some(logged) = logged {
                logged(result);
            }
        };
        Submission { append: Append::from(self.message(body, at)), wait, done: Done::Call(Box::new(done)) }
    }

    fn message(&self, body: Vec<u8>, at: i64) -> NewMessage {
        NewMessage {
            topic: self.topic.clone(),
            queue_id: 0,
            flag: 0,
            sys_flag: 0,
            born_timestamp_ms: at,
            born_host: self.store_host,
            store_host: self.store_host,
            reconsume_times: 0,
            prepared_offset: 0,
            body: body.into(),
            properties: Bytes::new(),
        }
    }
}

/// Cuts changes into records of bounded size.
fn split(changes: Vec<Change>) -> Vec<Vec<Change>> {
    let mut records = Vec::new();
    let (mut record, mut bytes) = (Vec::new(), 0);
    for change in changes {
        bytes += estimated_len(&change);
        record.push(change);
        if bytes >= RECORD_BYTES {
            records.push(std::mem::take(&mut record));
            bytes = 0;
        }
    }
    if !record.is_empty() {
        records.push(record);
    }
    records
}

/// Not less than a change takes as JSON, as names are at most 255 bytes and attributes count as they are.
fn estimated_len(change: &Change) -> usize {
    const ENTRY: usize = 1024;
    const QUEUE: usize = 32;
    match change {
        Change::Offsets { offsets, .. } => ENTRY + offsets.len() * QUEUE,
        Change::Topic(config) => {
            ENTRY + config.attributes.iter().map(|(k, v)| k.len() + v.len() + 8).sum::<usize>() * 2
        }
        Change::Group(config) => {
            ENTRY + config.others.values().map(|value| value.to_string().len() + 64).sum::<usize>()
        }
        Change::Delay(levels) => ENTRY + levels.len() * QUEUE,
        Change::TopicDeleted(_) | Change::GroupDeleted(_) | Change::OffsetsDeleted(_) => ENTRY,
    }
}

#[cfg(test)]
impl Metadata {
    /// What the confirmed tables say.
    pub(super) fn confirmed_offset(&self, topic: &str, group: &str, queue: u32) -> Option<i64> {
        let confirmed = self.confirmed.lock();
        confirmed.tables.offsets.entries.get(&format!("{topic}@{group}"))?.get(&queue).copied()
    }

    pub(super) fn knows_topic(&self, topic: &str) -> bool {
        self.confirmed.lock().tables.topics.entries.contains_key(topic)
    }

    pub(super) fn logged_records(&self) -> u64 {
        self.confirmed.lock().tables.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_changes_become_records_of_bounded_size_in_their_order() {
        let offsets = |group: u32| Change::Offsets {
            topic: "t".repeat(127),
            group: format!("{group:0>120}"),
            offsets: (0..1000).map(|queue| (queue, i64::MAX)).collect(),
        };
        let changes: Vec<_> = (0..100).map(offsets).collect();
        let records = split(changes.clone());
        assert!(records.len() > 1);
        for record in &records {
            let set = ChangeSet { by: "m".into(), at: 1, changes: record.clone() };
            assert!(serde_json::to_vec(&set).unwrap().len() < 2 * RECORD_BYTES);
        }
        assert_eq!(records.concat(), changes);
        assert!(split(Vec::new()).is_empty());
    }
}
