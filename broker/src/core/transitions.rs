//! Changes of role and what they do to the log. All run on the writer's thread, so nothing is appended meanwhile, and what must
//! be durable is so before the role is seen by anybody.

use std::io::{self, ErrorKind};
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, bail};
use gantry_replication::epochs::Extent;
use gantry_replication::handshake::Welcome;
use gantry_replication::master::{LogEnds, Master};
use gantry_replication::memory::{Integrity, Memory};
use gantry_replication::wire::CutTail;
use gantry_replication::{Epoch, GroupRecord};
use gantry_store::{PhysicalOffset, TruncateError};
use tracing::{info, warn};

use super::Standing;
use super::jobs::{Beginning, Survey};
use super::role::{MasterRole, Role, SlaveRole};
use super::writer::{Writer, fail_all};
use crate::replica::ReplicaState;
use crate::services::seam::SendFailure;

impl Writer {
    pub(super) fn become_master(&mut self, record: &GroupRecord) -> Result<()> {
        if let Role::Master(role) = &self.core.state.lock().role
            && role.master.epoch() == record.epoch
        {
            return Ok(());
        }
        let marks = self.core.store.watermarks();
        let oldest = self.core.store.min_offset().0;
        let memory = self.replica.memory().opening(self.replica.member(), record, oldest, marks.written.0)?;
        self.replica.change(memory, Integrity::Intact)?;
        let now = self.core.clock.now_ms();
        let ends = LogEnds { written: marks.written.0, flushed: marks.flushed.0, confirmed: marks.confirmed.0 };
        let config = self.core.master_config.clone();
        let mode = config.mode;
        let master = Master::open(config, record.master.clone(), record, ends, now);
        let before = self.enter(Role::Master(Box::new(MasterRole::new(master, mode, now))));
        self.core.counters.masterships.fetch_add(1, Ordering::Relaxed);
        let election = self.core.election(record.epoch);
        info!(group = election.group, epoch = %record.epoch, %election, start = ends.written, confirmed = ends.confirmed, "master: epoch opened");
        self.core.standing.send_replace(Standing::Master { epoch: record.epoch, start: ends.written });
        if let Role::Master(role) = before {
            self.step_down(*role);
        }
        // Those who waited to be sent to the next master are there already, and find that out when they ask again.
        drop(self.core.departed());
        self.grown();
        Ok(())
    }

    pub(super) fn become_slave(&mut self, record: &GroupRecord, ha_address: Option<&str>) -> Result<()> {
        if let Some(memory) = self.replica.memory().promising(record.epoch)? {
            self.replica.change(memory, self.replica.integrity())?;
        }
        let heard_at = match &self.core.state.lock().role {
            Role::Master(role) if role.master.epoch() == record.epoch => {
                bail!("this replica is the master of epoch {}", record.epoch);
            }
            Role::Slave(slave) if slave.epoch == record.epoch => slave.heard_at,
            _ => None,
        };
        let before = self.enter(Role::Slave(SlaveRole { epoch: record.epoch, heard_at }));
        let standing = Standing::Slave { epoch: record.epoch, ha_address: ha_address.map(str::to_owned) };
        // Told again by a new session with the elector: then the connection to the master stands, and shall.
        self.core.standing.send_if_modified(|now| std::mem::replace(now, standing.clone()) != standing);
        let election = self.core.election(record.epoch);
        info!(group = election.group, epoch = %record.epoch, %election, master = %record.master, ha_address, "slave");
        if let Role::Master(role) = before {
            self.step_down(*role);
        }
        Ok(())
    }

    /// Where the log stands, with nothing on its way into it.
    pub(super) fn survey(&self) -> Survey {
        let (begin, end) = (self.core.store.min_offset().0, self.core.store.watermarks().written.0);
        let Memory { promised, epochs } = self.replica.memory().clone();
        Survey { promised, epochs, extent: Extent { begin, end } }
    }

    /// Makes this log a prefix of the master's. What is cut is kept in `divergent/`.
    pub(super) fn align(&mut self, welcome: &Welcome, beginning: Option<Beginning>) -> Result<u64> {
        self.check_session(welcome.epoch)?;
        if let Some(shared) = welcome.anew {
            self.begin_anew(welcome, shared, beginning)?;
        } else {
            self.cut(welcome.epoch, PhysicalOffset(welcome.cut), true)?;
        }
        let end = self.core.store.watermarks().written.0;
        let memory = self.replica.memory().aligned(&welcome.epochs, end);
        self.replica.change(memory, self.replica.integrity().aligned(end, welcome.end))?;
        self.core.state.lock().replica = self.replica.clone();
        self.core.written.send_replace(end);
        Ok(end)
    }

    /// Only what is this replica's own is kept aside: the rest the master had, and has no more.
    ///
    /// The order is for a crash in between: the log is empty before the metadata are replaced, so that no record of its own mixes with
    /// them; and it stays empty until all of this is done. An empty log is always begun anew.
    fn begin_anew(&mut self, welcome: &Welcome, shared: u64, beginning: Option<Beginning>) -> Result<()> {
        let oldest = self.core.store.min_offset();
        let own = PhysicalOffset(shared.clamp(oldest.0, self.core.store.watermarks().written.0));
        self.cut(welcome.epoch, own, true)?;
        self.cut(welcome.epoch, oldest, false)?;
        let Some(Beginning { queue_numbers, install }) = beginning else {
            bail!("the master says that the log begins anew, but not with which metadata");
        };
        install().context("can't take over the master's metadata")?;
        if welcome.cut != oldest.0 {
            self.appender.start_at(PhysicalOffset(welcome.cut)).context("can't begin where the master's log begins")?;
        }
        self.appender.take_queue_numbers(&queue_numbers).context("can't take over the master's queue numbers")?;
        self.core.counters.resynchronisations.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn cut(&mut self, session: Epoch, to: PhysicalOffset, keep: bool) -> Result<()> {
        let bytes = self.core.store.watermarks().written.0.saturating_sub(to.0);
        let keep = keep && bytes > 0 && self.core.divergent.make_room(bytes)?;
        let directory = keep.then(|| self.core.divergent.directory());
        let (truncated, no_room) = match self.appender.truncate(to, directory) {
            Err(error) if is_for_want_of_room(&error) => {
                // The master has decided; a replica that waited for room could neither follow nor ever make some.
                let election = self.core.election(session);
                warn!(
                    group = election.group,
                    epoch = %session,
                    %election,
                    cut = to.0,
                    bytes,
                    disk = ?self.core.store.disk(),
                    %error,
                    "the tail that is cut now is not kept: the disk has no room for a copy"
                );
                // What was copied of it takes room that the log needs.
                self.core.divergent.remove_unfinished().context("can't remove a copy that broke off")?;
                (self.appender.truncate(to, None), true)
            }
            truncated => (truncated, false),
        };
        let truncated = truncated.context("can't cut the divergent tail")?;
        if truncated.bytes > 0 {
            let kept = truncated.kept.as_deref().map(|path| path.display().to_string());
            let election = self.core.election(session);
            warn!(group = election.group, epoch = %session, %election, cut = to.0, bytes = truncated.bytes, kept, "cut the log's tail");
            self.core.counters.truncations.fetch_add(1, Ordering::Relaxed);
            let mut state = self.core.state.lock();
            let number = state.last_cut.as_ref().map_or(1, |last| last.number + 1);
            state.last_cut =
                Some(CutTail { number, epoch: session, from: to.0, bytes: truncated.bytes, kept, no_room });
        }
        Ok(())
    }

    /// A piece of the log begins: if its epoch is a new one, the table learns it first.
    pub(super) fn enter_epoch(&mut self, written_in: (Epoch, u64), from: u64) -> Result<()> {
        if let Some(memory) = self.replica.memory().entering(written_in, from)? {
            self.replica.change(memory, self.replica.integrity())?;
            self.core.state.lock().replica = self.replica.clone();
        }
        Ok(())
    }

    /// The log grew to `end`: a torn log may hold everything again.
    pub(super) fn regain(&mut self, end: u64) -> Result<()> {
        let (before, now) = (self.replica.integrity(), self.replica.integrity().grew(end));
        if now != before {
            self.replica.change(self.replica.memory().clone(), now)?;
            self.core.state.lock().replica = self.replica.clone();
            info!(end, "all that a crash of the machine took from this log is back");
        }
        Ok(())
    }

    /// What waits for its acknowledgement will not get it from this replica: it may be in the new master's log or not, so its
    /// producer is told to try again there.
    fn step_down(&self, mut role: MasterRole) {
        let failure = SendFailure::SwitchingOver;
        let mut waiting = Vec::new();
        role.acks.take_all(&failure, &mut waiting);
        let parked = role.gate.waiting().map(std::mem::take).unwrap_or_default();
        let (own, own_written) = self.core.departing.begin(self.core.clock.now_ms(), parked, waiting);
        fail_all(own_written, own, &failure);
    }

    /// The role, and the durable state that it stands on, become visible together.
    fn enter(&self, role: Role) -> Role {
        let mut state = self.core.state.lock();
        state.replica = self.replica.clone();
        state.proof_at = self.core.clock.now_ms();
        if matches!(state.role, Role::Master(_)) {
            self.core.departing.begin(state.proof_at, Vec::new(), Vec::new());
        }
        std::mem::replace(&mut state.role, role)
    }
}

/// Whether it was only the copy of a tail that failed, and only because the disk is full.
fn is_for_want_of_room(error: &TruncateError) -> bool {
    let full = |source: &io::Error| matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
    matches!(error, TruncateError::Keep { source, .. } if full(source))
}

/// Log and epoch table of a crashed replica may disagree: epochs that begin beyond the log's end were lost with it.
pub(super) fn reconcile(replica: &mut ReplicaState, written: u64) -> Result<()> {
    if let Some(memory) = replica.memory().recovered(written) {
        replica.change(memory, replica.integrity())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn only_a_copy_that_a_full_disk_broke_off_is_done_without() {
        let keep = |kind: ErrorKind| TruncateError::Keep { path: "divergent".into(), source: Arc::new(kind.into()) };
        assert!(is_for_want_of_room(&keep(ErrorKind::StorageFull)));
        assert!(is_for_want_of_room(&keep(ErrorKind::QuotaExceeded)));
        assert!(
            !is_for_want_of_room(&keep(ErrorKind::PermissionDenied)),
            "somebody can mend that, and the tail is kept"
        );
        assert!(!is_for_want_of_room(&TruncateError::Closed));
    }
}
