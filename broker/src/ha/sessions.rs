//! Which slaves are connected: one session a member.
//!
//! A slave that reconnects (its old connection may only seem to stand) takes its old session's place. Another process that shows the
//! same store while the first one is heard is a copy of its disk, and refused: the two would take turns for ever.
//!
//! Invariant *one voice*: once a session has been replaced, nothing that still comes by its connection counts. Its figures may be of
//! a log that the slave has no more.

use std::collections::HashMap;
use std::sync::Arc;

use gantry_replication::{Member, Millis};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::frame::Ack;
use super::link::{Link, LinkStatus};
use super::session::Refused;
use crate::core::Core;

pub(super) struct Sessions {
    core: Arc<Core>,
    /// A session silent for this long gives way to any other.
    silence_ms: Millis,
    present: Mutex<HashMap<Member, Arc<Session>>>,
}

/// One slave's session.
pub(super) struct Session {
    pub(super) link: Link,
    /// The life of the slave's process.
    life: u64,
    over: Mutex<bool>,
    replaced: Notify,
}

impl Session {
    pub(super) fn new(link: Link, life: u64) -> Arc<Self> {
        Arc::new(Self { link, life, over: Mutex::new(false), replaced: Notify::new() })
    }

    /// Resolves when a newer session has taken the place.
    pub(super) async fn replaced(&self) {
        self.replaced.notified().await;
    }
}

impl Sessions {
    pub(super) fn new(core: Arc<Core>, silence_ms: Millis) -> Self {
        Self { core, silence_ms, present: Mutex::default() }
    }

    /// May a process of that life speak for the member now?
    pub(super) fn check(&self, member: &Member, life: u64) -> Result<(), Refused> {
        self.present.lock().get(member).map_or(Ok(()), |present| self.gives_way(present, life))
    }

    /// Makes it the member's session, its log ending at `end`, by its answer to a welcome that was sent at `welcomed`.
    pub(super) fn enter(&self, session: &Arc<Session>, end: u64, welcomed: Millis) -> Result<(), Refused> {
        let member = &session.link.member;
        let mut present = self.present.lock();
        if let Some(older) = present.get(member) {
            self.gives_way(older, session.life)?;
            *older.over.lock() = true;
            older.replaced.notify_one();
        }
        if !self.core.slave_connected(member, session.link.epoch, end, welcomed) {
            present.remove(member);
            self.core.slave_disconnected(member);
            return Err(Refused(format!("{member} has a log up to {end}, which is beyond this master's own")));
        }
        present.insert(member.clone(), Arc::clone(session));
        Ok(())
    }

    /// An acknowledgement came by this session. `false`: it is impossible, or its time is over.
    pub(super) fn acked(&self, session: &Session, ack: Ack) -> bool {
        let over = session.over.lock();
        if *over {
            return false;
        }
        session.link.heard(ack.written, ack.flushed, self.core.clock.now_ms());
        self.core.slave_acked(&session.link.member, ack.session, ack.written, ack.flushed, ack.echo)
    }

    /// The session ended.
    pub(super) fn leave(&self, session: &Arc<Session>) {
        let mut present = self.present.lock();
        // Not if a newer one has taken the place already: then this slave is connected.
        if present.get(&session.link.member).is_some_and(|now| Arc::ptr_eq(now, session)) {
            present.remove(&session.link.member);
            self.core.slave_disconnected(&session.link.member);
        }
    }

    /// All that stand, by member.
    pub(super) fn statuses(&self) -> Vec<LinkStatus> {
        let now = self.core.clock.now_ms();
        let mut statuses: Vec<_> = self.present.lock().values().map(|session| session.link.status(now)).collect();
        statuses.sort_by(|a, b| a.member.cmp(&b.member));
        statuses
    }

    fn gives_way(&self, present: &Session, life: u64) -> Result<(), Refused> {
        let heard_ms_ago = present.link.heard_ms_ago(self.core.clock.now_ms());
        if present.life == life || heard_ms_ago > self.silence_ms {
            return Ok(());
        }
        Err(Refused(format!(
            "{} is connected from {} already, by another process that was heard {heard_ms_ago} ms ago: is this store a copy of that \
             one's? Empty it to join as a new replica",
            present.link.member, present.link.peer
        )))
    }
}
