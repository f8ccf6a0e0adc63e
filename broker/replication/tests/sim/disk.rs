//! What survives. A process's end loses nothing of the log, a power loss all that was not flushed but for some prefix of it.

use fastrand::Rng;
use gantry_replication::StoreId;
use gantry_replication::memory::Memory;

/// One message, which is one unit of the log's offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The epoch that wrote it.
    pub(crate) epoch: u64,
    /// The life of the process that wrote it first.
    pub(crate) author: u64,
    /// The operation, or 0 for a heartbeat record.
    pub(crate) op: u64,
}

/// When the log was last known to hold all that it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    InBoot(u64),
    Cleanly,
}

/// A machine with its disk.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    pub(crate) store: StoreId,
    pub(crate) log: Vec<Entry>,
    pub(crate) flushed: u64,
    /// As a checkpoint has it.
    pub(crate) confirmed: u64,
    /// The file `replica.json`: promise, epochs; and of boots.
    pub(crate) memory: Memory,
    pub(crate) settled: Settled,
    pub(crate) boot: u64,
    /// What a cut that was not durable left behind it, by offset: only with a planted bug.
    ghost: Option<(u64, Vec<Entry>)>,
    /// The truth for the checker: a power loss took something that had been written, and not all is back.
    pub(crate) torn: bool,
}

impl Disk {
    pub(crate) fn empty(store: StoreId, boot: u64) -> Self {
        Self {
            store,
            log: Vec::new(),
            flushed: 0,
            confirmed: 0,
            memory: Memory::default(),
            settled: Settled::InBoot(boot),
            boot,
            ghost: None,
            torn: false,
        }
    }

    pub(crate) fn end(&self) -> u64 {
        self.log.len() as u64
    }

    pub(crate) fn truncate(&mut self, to: u64, durably: bool) {
        if !durably && to < self.flushed {
            self.ghost = Some((to, self.log[to as usize..self.flushed as usize].to_vec()));
        }
        self.log.truncate(to as usize);
        self.flushed = self.flushed.min(to);
        self.confirmed = self.confirmed.min(to);
    }

    pub(crate) fn flush(&mut self, to: u64) {
        self.flushed = self.flushed.max(to.min(self.end()));
        if self.ghost.as_ref().is_some_and(|(at, tail)| at + tail.len() as u64 <= self.flushed) {
            self.ghost = None;
        }
    }

    /// The power goes: what was flushed stays, and any prefix of the rest. Answers whether anything was lost.
    pub(crate) fn lose_power(&mut self, rng: &mut Rng) -> bool {
        let end = self.end();
        let keep = rng.u64(self.flushed..=end);
        self.log.truncate(keep as usize);
        if let Some((at, tail)) = self.ghost.take()
            && at <= self.flushed
        {
            // Behind what was flushed since the cut lies what was there before it, sound to any eye.
            self.log.truncate(self.flushed as usize);
            self.log.extend(tail.iter().skip((self.flushed - at) as usize));
        }
        self.flushed = self.end();
        self.confirmed = self.confirmed.min(self.end());
        self.boot += 1;
        keep < end
    }
}
