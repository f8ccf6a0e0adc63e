//! The master's side of a slave's connection. `broker/src/ha/serve.rs`.

use gantry_replication::epochs::{EpochTable, Extent};
use gantry_replication::handshake::{MasterLog, SlaveLog, welcome};
use gantry_replication::wire::{AlterInSync, DATA_PLANE_MS};
use gantry_replication::{Epoch, Member, Millis};

use super::{Process, Role};
use crate::env::Env;
use crate::net::{ConnId, Msg, Piece, Pulse};
use crate::planted::Planted;

/// Messages to a slave that may be under way; then its socket is full.
const WINDOW: usize = 8;
/// Entries in one message.
const BATCH: u64 = 8;

/// One slave's connection.
pub(super) struct Session {
    member: Member,
    life: u64,
    epoch: Epoch,
    epochs: EpochTable,
    /// Whether the first acknowledgement has come.
    connected: bool,
    next: u64,
    told: u64,
    heard: Millis,
    spoke: Millis,
    welcomed: Millis,
}

impl Process {
    pub(super) fn serve(&mut self, conn: ConnId, msg: Msg, env: &mut Env) {
        match msg {
            Msg::HaHello { member, life, promised, epochs, end } => {
                let slave = SlaveLog { promised, epochs: &epochs, extent: Extent { begin: 0, end } };
                if self.judge(conn, (member, life), slave, env).is_none() {
                    env.send(conn, self.node, Msg::HaFenced);
                    env.close(conn, self.node);
                }
            }
            Msg::HaAck { session, written, flushed, echo } => {
                let early = env.is_planted(Planted::AckCountsWhenItComes);
                let echo = if early { self.now(env) } else { echo };
                self.acked(conn, session, (written, flushed), echo, env);
            }
            _ => {}
        }
    }

    fn judge(&mut self, conn: ConnId, who: (Member, u64), slave: SlaveLog<'_>, env: &mut Env) -> Option<()> {
        self.settle(env, |master, _now| master.heard_of(slave.promised));
        let now = self.now(env);
        let Role::Master(role) = &self.role else { return None };
        let epoch = role.master.epoch();
        let (member, life) = who;
        let other = self.sessions.values().find(|it| it.member == member && it.life != life && it.connected);
        // Another process with the same store, as long as the first is heard.
        if other.is_some_and(|other| now.saturating_sub(other.heard) <= env.setup.ms(2_500)) {
            return None;
        }
        let epochs = self.memory.epochs.clone();
        let log = MasterLog { epoch, epochs: &epochs, extent: Extent { begin: 0, end: env.disks[self.node].end() } };
        let (welcome, theirs) = (welcome(log, slave).ok()?, slave.extent.end.min(log.extent.end));
        let next = welcome.cut;
        env.send(conn, self.node, Msg::HaWelcome(Box::new(welcome)));
        let session = Session {
            member,
            life,
            epoch,
            epochs,
            connected: false,
            next,
            told: u64::MAX,
            heard: now,
            spoke: now,
            welcomed: now,
        };
        if env.is_planted(Planted::StaleEpochAckCounted) {
            self.settle(env, |master, now| {
                _ = master.connected(&session.member, theirs, now, now);
                _ = master.acked(&session.member, epoch, theirs, theirs, now, now);
            });
        }
        self.sessions.insert(conn, session);
        Some(())
    }

    fn acked(&mut self, conn: ConnId, said: Epoch, (written, flushed): (u64, u64), echo: Millis, env: &mut Env) {
        let now = self.now(env);
        let Some(session) = self.sessions.get_mut(&conn) else { return };
        session.heard = now;
        let (member, epoch, welcomed) = (session.member.clone(), session.epoch, session.welcomed);
        if !session.connected {
            if said != epoch {
                return self.drop_session(conn, env);
            }
            session.connected = true;
            session.next = written;
            let older = self.sessions.iter().find(|(id, it)| **id != conn && it.member == member && it.connected);
            if let Some((&older, _)) = older {
                self.sessions.remove(&older);
                env.close(older, self.node);
            }
            let end = env.disks[self.node].end();
            let on_disk = env.disks[self.node].flushed;
            let mut sound = true;
            self.settle(env, |master, now| {
                if master.epoch() == epoch {
                    master.local(end, on_disk);
                    sound = master.connected(&member, written, welcomed, now);
                }
            });
            if !sound {
                return self.drop_session(conn, env);
            }
            if env.is_planted(Planted::GrowBeforeAcks) {
                self.ask_in(&member, env);
            }
        }
        let (mine, on_disk) = (env.disks[self.node].end(), env.disks[self.node].flushed);
        let mut sound = false;
        self.settle(env, |master, now| {
            master.local(mine, on_disk);
            sound = master.acked(&member, said, written, flushed, echo, now);
        });
        if sound { self.pump(conn, env) } else { self.drop_session(conn, env) }
    }

    /// The planted bug.
    fn ask_in(&mut self, member: &Member, env: &Env) {
        let Role::Master(role) = &self.role else { return };
        let mut in_sync = role.master.in_sync().clone();
        if in_sync.insert(member.clone()) {
            let revision = env.register.record.as_ref().map_or(0, |record| record.revision);
            self.agent.early_wish = Some(AlterInSync { epoch: role.master.epoch(), revision, in_sync });
        }
    }

    fn drop_session(&mut self, conn: ConnId, env: &mut Env) {
        env.close(conn, self.node);
        self.session_ended(conn, env);
    }

    pub(super) fn session_ended(&mut self, conn: ConnId, env: &mut Env) {
        let Some(session) = self.sessions.remove(&conn) else { return };
        if session.connected {
            self.settle(env, |master, now| master.disconnected(&session.member, now));
        }
    }

    /// The log grew, or the confirm offset moved.
    pub(super) fn pump_all(&mut self, env: &mut Env) {
        let conns: Vec<_> = self.sessions.keys().copied().collect();
        for conn in conns {
            self.pump(conn, env);
        }
    }

    fn pump(&mut self, conn: ConnId, env: &mut Env) {
        let now = self.now(env);
        let is_master_of = match &self.role {
            Role::Master(role) => Some(role.master.epoch()),
            Role::Fenced | Role::Slave { .. } => None,
        };
        let Some(session) = self.sessions.get_mut(&conn).filter(|session| session.connected) else { return };
        if is_master_of != Some(session.epoch) {
            env.send(conn, self.node, Msg::HaFenced);
            return self.drop_session(conn, env);
        }
        let end = env.disks[self.node].end();
        let pulse = Pulse { at: now, alive: now.saturating_sub(self.proof_at) < env.setup.ms(DATA_PLANE_MS) };
        while session.next < end && env.net.under_way(conn, self.node) < WINDOW {
            let Some(entry) = session.epochs.epoch_at(session.next) else { return self.drop_session(conn, env) };
            let following = session.epochs.entries().iter().find(|other| other.epoch > entry.epoch);
            let to = following.map_or(end, |next| next.start).min(end).min(session.next + BATCH);
            let piece = Piece {
                session: session.epoch,
                written_in: (entry.epoch, entry.start),
                from: session.next,
                entries: env.disks[self.node].log[session.next as usize..to as usize].to_vec(),
                confirm: self.confirmed,
                pulse,
            };
            (session.next, session.told, session.spoke) = (to, self.confirmed, now);
            env.send(conn, self.node, Msg::HaAppend(piece));
        }
        let idle = now.saturating_sub(session.spoke) >= env.setup.ms(500);
        if (session.told != self.confirmed || idle) && env.net.under_way(conn, self.node) < WINDOW {
            (session.told, session.spoke) = (self.confirmed, now);
            env.send(conn, self.node, Msg::HaHeartbeat { session: session.epoch, confirm: self.confirmed, pulse });
        }
    }

    /// A peer that is silent for too long is given up; an idle one is told that its master lives.
    pub(super) fn keep_sessions(&mut self, env: &mut Env) {
        let (now, patience) = (self.now(env), env.setup.ms(20_000));
        let silent = |session: &Session| now.saturating_sub(session.heard) > patience;
        let given_up: Vec<_> = self.sessions.iter().filter(|(_, it)| silent(it)).map(|(&conn, _)| conn).collect();
        for conn in given_up {
            self.drop_session(conn, env);
        }
        self.pump_all(env);
    }
}
