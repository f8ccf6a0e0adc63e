//! The thread that owns the log's appender and appends what clients and masters send.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use gantry_replication::master::{Mode, Refusal};
use gantry_replication::pressure::Pressure;
use gantry_replication::{Epoch, Member};
use gantry_store::{Append, AppendError, Appended, Appender, PhysicalOffset};
use tracing::{error, info};

use super::Core;
use super::acks::Waiting;
use super::jobs::{Align, Job, Raw};
use super::role::{Gate, OPENING, Parking, Role};
use super::slowed::Slowed;
use crate::fatal::Fatal;
use crate::replica::ReplicaState;
use crate::services::seam::{Done, SendFailure, Submission, Wait};

pub(super) fn spawn(
    core: Arc<Core>,
    appender: Appender,
    replica: ReplicaState,
) -> std::io::Result<thread::JoinHandle<()>> {
    let slowed = core.limits.pressure.filter(|_| core.master_config.mode == Mode::Async).map(|pressure| {
        Slowed::new(Pressure::new(pressure), core.limits.flow.send_wait_ms, core.limits.max_queued_sends)
    });
    let mut writer =
        Writer { core, appender, replica, slowed, appends: Vec::new(), waiters: Vec::new(), results: Vec::new() };
    thread::Builder::new().name("log-writer".to_owned()).spawn(move || writer.run())
}

pub(super) struct Writer {
    pub(super) core: Arc<Core>,
    pub(super) appender: Appender,
    /// The one that writes the file; [`Core`] has a copy to read from.
    pub(super) replica: ReplicaState,
    /// Lag as back-pressure, where it is on.
    slowed: Option<Slowed>,
    // Reused from batch to batch.
    appends: Vec<Append>,
    waiters: Vec<(Wait, Done)>,
    results: Vec<Result<Appended, AppendError>>,
}

impl Writer {
    fn run(&mut self) {
        let _fatal = Fatal("the log's writer");
        loop {
            let patience = self.patience();
            let Some(jobs) = self.core.queue.take(patience) else { break };
            self.core.motion.turn.begin(self.core.clock.now_ms());
            self.let_in_slowed();
            for job in jobs {
                if let Job::Sends(sends, _) = job {
                    self.take_in(sends);
                } else {
                    self.append();
                    self.core.motion.carrying_out.begin(self.core.clock.now_ms());
                    self.carry_out(job);
                    self.core.motion.carrying_out.end();
                }
            }
            self.append();
            self.core.motion.turn.end();
        }
        self.fail_waiting(&SendFailure::Fenced("the broker is stopping".to_owned()));
        if let Err(error) = self.close() {
            error!(error = format!("{error:#}"), "the store did not stop cleanly; it is recovered at the next start");
        }
    }

    /// None: nobody waits for anything but jobs.
    fn patience(&mut self) -> Option<Duration> {
        let now = self.core.clock.now_ms();
        self.slowed.as_mut()?.next_ms(now).map(Duration::from_millis)
    }

    /// Looks at the slaves' lag, and lets in who has waited long enough for them.
    fn let_in_slowed(&mut self) {
        let Some(slowed) = &mut self.slowed else { return };
        slowed.set_patience(self.core.flow().send_wait_ms);
        let now = self.core.clock.now_ms();
        let slowest = match &self.core.state.lock().role {
            Role::Master(role) => role.master.slowest_in_sync(),
            _ => None,
        };
        let limit = slowed.observe(self.core.store.watermarks().written.0, slowest, now);
        self.core.slowed_to.store(limit.unwrap_or(u64::MAX), Ordering::Relaxed);
        let go = slowed.release(now, |sends, why| self.core.refuse(sends, why));
        if !go.is_empty() {
            self.admit_all(go);
            self.append();
        }
    }

    fn close(&mut self) -> Result<()> {
        self.core.store.close().map_err(anyhow::Error::from)?;
        self.replica.closed()
    }

    fn carry_out(&mut self, job: Job) {
        match job {
            Job::Sends(sends, _) => self.take_in(sends),
            Job::Raw(raw) => {
                let end = self.append_raw(&raw);
                (raw.done)(end);
            }
            Job::Survey(done) => {
                let survey = self.survey();
                answer(done, Ok(survey));
            }
            Job::Align(align) => {
                let Align { welcome, beginning, done } = align;
                let end = self.align(&welcome, beginning);
                answer(done, end);
            }
            Job::BecomeMaster(record, done) => {
                let became = self.become_master(&record);
                answer(done, became);
            }
            Job::BecomeSlave(record, ha_address, done) => {
                let became = self.become_slave(&record, ha_address.as_deref());
                answer(done, became);
            }
            Job::Heartbeat(record) => self.prove(record),
            Job::Park(epoch, to, order) => self.park(epoch, &to, order),
            Job::Open(epoch) => self.open_gate(epoch, |gate| matches!(gate, Gate::Opening(..))),
            Job::Unpark(epoch, order) => self.unpark(epoch, order),
        }
    }

    /// Admits sends to the batch, or answers why not.
    fn take_in(&mut self, mut sends: Vec<Submission>) {
        self.core.refuse_if_disk_full(&mut sends);
        if let Some(slowed) = &mut self.slowed {
            let (is_own, now) = (|send: &Submission| matches!(send.done, Done::Call(_)), self.core.clock.now_ms());
            slowed.sift(&mut sends, is_own, now, |sends, why| self.core.refuse(sends, why));
        }
        self.admit_all(sends);
    }

    fn admit_all(&mut self, mut sends: Vec<Submission>) {
        match self.admit(&mut sends) {
            Ok(()) => {
                for Submission { append, wait, done } in sends {
                    self.appends.push(append);
                    self.waiters.push((wait, done));
                }
            }
            Err(failure) => {
                self.core.counters.failed(&failure, sends.iter().map(|send| &send.done));
                for send in sends {
                    send.done.complete(Err(failure.clone()));
                }
            }
        }
    }

    /// May these be appended now? Those that must wait at the gate are taken out.
    fn admit(&self, sends: &mut Vec<Submission>) -> Result<(), SendFailure> {
        let now = self.core.clock.now_ms();
        match &mut self.core.state.lock().role {
            Role::Fenced => Err(SendFailure::Fenced("it has not been told its role yet".to_owned())),
            Role::Slave(_) => {
                self.core.departing.join(sends, self.core.limits.max_parked_sends);
                Err(SendFailure::NotMaster)
            }
            Role::Master(role) => {
                role.master.may_append(now).map_err(|refusal| match refusal {
                    Refusal::InSyncShort { have, need } => {
                        SendFailure::InSyncShort { have: have as u32, need: need as u32 }
                    }
                    Refusal::Deposed { .. } => {
                        self.core.departing.begin_with(now, sends, self.core.limits.max_parked_sends);
                        SendFailure::SwitchingOver
                    }
                    Refusal::Fenced { .. } => SendFailure::Fenced(refusal.to_string()),
                })?;
                if role.gate.is_overdue(now, self.core.limits) {
                    return Err(SendFailure::Fenced(OPENING.to_owned()));
                }
                let Some(waiting) = role.gate.waiting() else { return Ok(()) };
                let room = self.core.limits.max_parked_sends.saturating_sub(waiting.len());
                waiting.extend(sends.drain(..room.min(sends.len())));
                Err(SendFailure::SwitchingOver)
            }
        }
    }

    /// Writes the batch, and lets those wait who must.
    pub(super) fn append(&mut self) {
        if self.appends.is_empty() {
            return;
        }
        self.core.writing.begin(self.core.clock.now_ms());
        self.appender.append(&self.appends, &mut self.results);
        self.core.writing.end();
        assert_eq!(self.results.len(), self.waiters.len(), "the store must answer each append");
        self.appends.clear();
        let now = self.core.clock.now_ms();
        let mut at_once = Vec::new();
        {
            let mut state = self.core.state.lock();
            for ((wait, done), result) in self.waiters.drain(..).zip(self.results.drain(..)) {
                match (result, &mut state.role) {
                    (Ok(appended), Role::Master(role)) if wait == Wait::Acked => {
                        role.acks.push(Waiting::new(appended, done, now));
                    }
                    (result, _) => at_once.push((done, result)),
                }
            }
        }
        for (done, result) in at_once {
            done.complete(result.as_ref().map_err(|error| self.core.failure_of(error)));
        }
        self.grown();
    }

    /// The log grew: tell those who send it on, and settle.
    pub(super) fn grown(&self) {
        let marks = self.core.store.watermarks();
        self.core.written.send_replace(marks.written.0);
        self.core.settle(|master, _now| master.local(marks.written.0, marks.flushed.0));
    }

    /// Is this replica still the slave of that session's master?
    pub(super) fn check_session(&self, session: Epoch) -> Result<()> {
        match &self.core.state.lock().role {
            Role::Slave(slave) if slave.epoch == session => Ok(()),
            Role::Slave(slave) => bail!("epoch {} has begun; the connection is of epoch {session}", slave.epoch),
            _ => bail!("this replica is a slave no more"),
        }
    }

    fn append_raw(&mut self, raw: &Raw) -> Result<u64> {
        self.check_session(raw.session)?;
        let mut end = self.core.store.watermarks().written.0;
        if !raw.bytes.is_empty() {
            self.enter_epoch(raw.written_in, raw.from)?;
            end = self.appender.append_raw(PhysicalOffset(raw.from), &raw.bytes)?.0;
            self.regain(end)?;
            self.core.written.send_replace(end);
        }
        self.core.store.confirm(PhysicalOffset(raw.confirm.min(end)));
        Ok(end)
    }

    /// Appends a heartbeat record, as long as this is a master that isn't fenced.
    fn prove(&mut self, record: Append) {
        let now = self.core.clock.now_ms();
        let may = matches!(&self.core.state.lock().role, Role::Master(role) if role.master.may_serve(now).is_ok());
        if !may {
            return;
        }
        let full = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&full);
        // What becomes of it shows in the store's flushes, which is its only purpose.
        let done = move |outcome| told.store(matches!(outcome, Err(SendFailure::DiskFull(..))), Ordering::Relaxed);
        self.appends.push(record);
        self.waiters.push((Wait::Written, Done::Call(Box::new(done))));
        self.append();
        // A full disk is not a dead one: consumers are served from it, and no other replica has to be better off.
        if full.load(Ordering::Relaxed) && self.appender.prove_disk().is_ok() {
            self.core.state.lock().proof_at = self.core.clock.now_ms();
        }
    }

    fn park(&self, epoch: Epoch, to: &Member, order: u64) {
        let parking = Parking { to: to.clone(), since: self.core.clock.now_ms(), order };
        if let Role::Master(role) = &mut self.core.state.lock().role
            && role.master.epoch() == epoch
            && order > role.called_off
            && role.gate.park(parking)
        {
            let election = self.core.election(epoch);
            info!(group = election.group, %epoch, %election, %to, "sends are parked for a switchover");
        }
    }

    fn unpark(&mut self, epoch: Epoch, order: u64) {
        if let Role::Master(role) = &mut self.core.state.lock().role
            && role.master.epoch() == epoch
        {
            role.called_off = role.called_off.max(order);
        }
        self.open_gate(epoch, |gate| matches!(gate, Gate::Parked(parking, _) if parking.order <= order));
    }

    /// Lets sends pass, those that waited first, if the gate is in the state that is to end.
    fn open_gate(&mut self, epoch: Epoch, ends: impl FnOnce(&Gate) -> bool) {
        let gate = match &mut self.core.state.lock().role {
            Role::Master(role) if role.master.epoch() == epoch && ends(&role.gate) => {
                std::mem::replace(&mut role.gate, Gate::Open)
            }
            _ => return,
        };
        if let Gate::Opening(sends, _) | Gate::Parked(_, sends) = gate {
            let election = self.core.election(epoch);
            info!(group = election.group, %epoch, %election, waited = sends.len(), "sends pass");
            self.take_in(sends);
            self.append();
        }
    }

    fn fail_waiting(&mut self, failure: &SendFailure) {
        let (mut waiting, mut parked) = (Vec::new(), Vec::new());
        parked.extend(self.slowed.iter_mut().flat_map(Slowed::take_all));
        if let Role::Master(role) = &mut self.core.state.lock().role {
            role.acks.take_all(failure, &mut waiting);
            parked.extend(role.gate.waiting().map(std::mem::take).unwrap_or_default());
        }
        fail_all(waiting, parked, failure);
        // All connections are closed soon.
        drop(self.core.departed());
    }
}

/// Tells all of them the failure. Not to be called under the lock.
pub(super) fn fail_all(waiting: Vec<Waiting>, parked: Vec<Submission>, failure: &SendFailure) {
    waiting.into_iter().for_each(Waiting::complete);
    for send in parked {
        send.done.complete(Err(failure.clone()));
    }
}

fn answer<T>(to: tokio::sync::oneshot::Sender<T>, with: T) {
    if to.send(with).is_err() {
        // Whoever asked has ended meanwhile (its connection did); what was done stands all the same.
        info!("nobody waits for the writer's answer any more");
    }
}

impl Core {
    fn failure_of(&self, error: &AppendError) -> SendFailure {
        match error {
            AppendError::TooLarge { .. } | AppendError::Invalid(_) => SendFailure::TooLarge(error.to_string()),
            AppendError::NoSpace(_) => {
                self.counters.disk_full.fetch_add(1, Ordering::Relaxed);
                SendFailure::DiskFull(self.store.disk(), error.to_string())
            }
            AppendError::Failed(_) | AppendError::Closed => SendFailure::Store(error.to_string()),
        }
    }
}
