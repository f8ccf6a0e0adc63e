//! What the log's writer is given to do, in order.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use gantry_replication::epochs::{EpochTable, Extent};
use gantry_replication::handshake::Welcome;
use gantry_replication::{Epoch, GroupRecord, Member, Millis};
use gantry_store::{Append, QueueNumber};
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::flow::is_own;
use crate::services::seam::Submission;

/// One thing to do.
pub enum Job {
    /// Append clients' messages, which wait since then.
    Sends(Vec<Submission>, Millis),
    /// Append a piece of the master's log.
    Raw(Raw),
    /// Say where the log stands once everything before this has been done: what a handshake begins with.
    Survey(Answer<Survey>),
    /// Make the log a prefix of the master's, as the handshake found out.
    Align(Align),
    /// Open the record's epoch and serve.
    BecomeMaster(GroupRecord, Answer<()>),
    /// Promise the record's epoch and follow its master, whose log is to be had at the address.
    BecomeSlave(GroupRecord, Option<String>, Answer<()>),
    /// Prove the disk by a record of one's own, whatever sends have to wait for.
    Heartbeat(Append),
    /// All that the log held when this epoch began is visible: let sends pass.
    Open(Epoch),
    /// Park sends for a switchover to this member, by the order of that number.
    Park(Epoch, Member, u64),
    /// All orders to park up to that number are called off: let sends pass again, if it is by one of them that they wait. One that is
    /// carried out only after this has no effect: what it waits for (a flush of metadata) may take longer than giving it up.
    Unpark(Epoch, u64),
}

/// Who waits for a job.
pub type Answer<T> = oneshot::Sender<anyhow::Result<T>>;

/// A piece of the master's log.
pub struct Raw {
    /// The epoch of the session it came by.
    pub session: Epoch,
    /// The epoch that wrote it, and where that began.
    pub written_in: (Epoch, u64),
    /// Where it belongs.
    pub from: u64,
    /// Whole records, up to one epoch's and one segment's end; none if only the confirm offset moved.
    pub bytes: Bytes,
    /// The master's confirm offset when it sent this.
    pub confirm: u64,
    /// Called from the writer's thread with the log's new end, or with why the piece was not appended.
    pub done: Box<dyn FnOnce(anyhow::Result<u64>) + Send>,
}

/// A log at one moment, with nothing on its way into it.
pub struct Survey {
    /// The highest epoch accepted.
    pub promised: Epoch,
    /// The log's epochs.
    pub epochs: EpochTable,
    /// Where it begins and ends.
    pub extent: Extent,
}

/// What a slave does to its log before it follows.
pub struct Align {
    /// The master's word.
    pub welcome: Welcome,
    /// With a welcome that says `anew`.
    pub beginning: Option<Beginning>,
    /// Told the log's end afterwards.
    pub done: Answer<u64>,
}

/// What the records say that the master's log no longer begins with.
pub struct Beginning {
    /// With which numbers queues go on of which nothing is left.
    pub queue_numbers: Vec<QueueNumber>,
    /// Replaces the metadata, durably.
    pub install: Box<dyn FnOnce() -> anyhow::Result<()> + Send>,
}

/// Jobs, bounded in the number of sends.
pub(super) struct Queue {
    inner: Mutex<Inner>,
    filled: Condvar,
    max_sends: usize,
}

#[derive(Default)]
struct Inner {
    jobs: VecDeque<Job>,
    sends: usize,
    closed: bool,
}

impl Queue {
    pub(super) fn new(max_sends: usize) -> Self {
        Self { inner: Mutex::default(), filled: Condvar::new(), max_sends }
    }

    /// Takes as many sends as there is room for; gives the others back.
    pub(super) fn push_sends(&self, mut sends: Vec<Submission>, now: Millis) -> Vec<Submission> {
        let mut inner = self.inner.lock();
        let room = if inner.closed { 0 } else { self.max_sends.saturating_sub(inner.sends) };
        let refused = if sends.len() > room { sends.split_off(room) } else { Vec::new() };
        if !sends.is_empty() {
            inner.sends += sends.len();
            inner.jobs.push_back(Job::Sends(sends, now));
            self.filled.notify_one();
        }
        refused
    }

    /// Takes clients' sends out that have waited for longer than `patience_ms`, each batch with when it came; and says how
    /// many sends waited.
    pub(super) fn take_overdue(&self, now: Millis, patience_ms: Millis) -> (Vec<(Vec<Submission>, Millis)>, usize) {
        let mut inner = self.inner.lock();
        let queued = inner.sends;
        let mut overdue = Vec::new();
        for job in &mut inner.jobs {
            if let Job::Sends(sends, since) = job
                && now.saturating_sub(*since) > patience_ms
            {
                let taken: Vec<_> = sends.extract_if(.., |send| !is_own(send)).collect();
                overdue.push((taken, *since));
            }
        }
        inner.sends -= overdue.iter().map(|(sends, _)| sends.len()).sum::<usize>();
        (overdue, queued)
    }

    /// How many sends wait.
    pub(super) fn sends(&self) -> usize {
        self.inner.lock().sends
    }

    /// Any other job. After the queue was closed it is dropped, which tells whoever waits for it.
    pub(super) fn push(&self, job: Job) {
        let mut inner = self.inner.lock();
        if !inner.closed {
            inner.jobs.push_back(job);
            self.filled.notify_one();
        }
    }

    /// All jobs there are, waiting for one, or for `patience` if that is bounded: then there may be none. Nothing once the queue is
    /// closed and empty.
    pub(super) fn take(&self, patience: Option<Duration>) -> Option<VecDeque<Job>> {
        let mut inner = self.inner.lock();
        while inner.jobs.is_empty() {
            if inner.closed {
                return None;
            }
            match patience {
                None => self.filled.wait(&mut inner),
                Some(patience) => {
                    self.filled.wait_for(&mut inner, patience);
                    break;
                }
            }
        }
        inner.sends = 0;
        Some(std::mem::take(&mut inner.jobs))
    }

    pub(super) fn close(&self) {
        self.inner.lock().closed = true;
        self.filled.notify_all();
    }
}
