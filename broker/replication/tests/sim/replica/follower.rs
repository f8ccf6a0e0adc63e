//! The slave's side: finds its master, makes its log a prefix of the master's, follows. `broker/src/ha/follower.rs`.

use gantry_replication::handshake::Welcome;
use gantry_replication::{Epoch, Millis};

use super::{Job, Process, Role};
use crate::env::Env;
use crate::net::{ConnId, Msg, Piece, Pulse};
use crate::planted::Planted;

/// How far it is with its master.
#[derive(Debug, Default)]
pub(super) struct Follower {
    state: State,
    back_off: Millis,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Idle,
    /// Until then.
    Resting(Millis),
    Asking(Session),
    Aligning(Session),
    Following(Session),
}

#[derive(Clone, Copy, Debug)]
struct Session {
    conn: ConnId,
    epoch: Epoch,
    heard: Millis,
    spoke: Millis,
    echo: Millis,
}

impl State {
    fn session(&self) -> Option<Session> {
        match self {
            Self::Asking(session) | Self::Aligning(session) | Self::Following(session) => Some(*session),
            Self::Idle | Self::Resting(_) => None,
        }
    }
}

impl Process {
    /// Looks at the clock: connects, says hello, gives up, acknowledges every so often.
    pub(super) fn follow(&mut self, env: &mut Env) {
        let now = self.now(env);
        match &self.follower.state {
            State::Idle => self.approach(env),
            State::Resting(until) if now >= *until => self.approach(env),
            State::Asking(session) | State::Following(session)
                if now.saturating_sub(session.heard) > env.setup.ms(20_000) =>
            {
                let conn = session.conn;
                self.give_up(conn, env);
            }
            State::Following(session) if now.saturating_sub(session.spoke) >= env.setup.ms(500) => {
                self.acknowledge(env);
            }
            State::Resting(_) | State::Asking(_) | State::Aligning(_) | State::Following(_) => {}
        }
    }

    fn approach(&mut self, env: &mut Env) {
        let now = self.now(env);
        let Role::Slave { epoch, master: Some(master), .. } = self.role else {
            self.follower.state = State::Idle;
            return;
        };
        let conn = env.connect(self.node, master);
        self.follower.state = State::Asking(Session { conn, epoch, heard: now, spoke: now, echo: 0 });
        self.push(Job::Survey(conn), env);
    }

    /// The writer has come to rest; if the connection still stands, this is the log that its master is asked about.
    pub(super) fn say_hello(&self, conn: ConnId, env: &mut Env) {
        let (member, epochs) = (self.member.clone(), self.memory.epochs.clone());
        let (life, promised, end) = (self.life, self.memory.promised, env.disks[self.node].end());
        env.send(conn, self.node, Msg::HaHello { member, life, promised, epochs, end });
    }

    /// Another role, or another master: the session belongs to what was before.
    pub(super) fn standing_changed(&mut self, env: &mut Env) {
        if env.is_planted(Planted::OldSessionAccepted) && matches!(self.follower.state, State::Following(_)) {
            self.agent.news = true;
            return;
        }
        if let Some(session) = self.follower.state.session() {
            env.close(session.conn, self.node);
        }
        self.follower.state = State::Idle;
        self.follower.back_off = 0;
        self.agent.news = true;
        self.follow(env);
    }

    pub(super) fn followed(&mut self, conn: ConnId, msg: Msg, env: &mut Env) {
        let now = self.now(env);
        let Some(mut session) = self.follower.state.session().filter(|session| session.conn == conn) else { return };
        session.heard = now;
        match (msg, &self.follower.state) {
            (Msg::HaWelcome(welcome), State::Asking(_)) if welcome.epoch == session.epoch => {
                self.take_welcome(session, welcome, env);
            }
            (Msg::HaAppend(piece), State::Following(_)) if piece.session == session.epoch => {
                self.hear(session, piece.pulse);
                self.push(Job::Raw(conn, piece), env);
            }
            (Msg::HaHeartbeat { session: epoch, confirm, pulse }, State::Following(_)) if epoch == session.epoch => {
                self.hear(session, pulse);
                let written_in = (epoch, 0);
                let piece = Piece { session: epoch, written_in, from: 0, entries: Vec::new(), confirm, pulse };
                self.push(Job::Raw(conn, piece), env);
            }
            _ => self.give_up(conn, env),
        }
    }

    fn take_welcome(&mut self, session: Session, welcome: Box<Welcome>, env: &mut Env) {
        self.follower.state = State::Aligning(session);
        self.push(Job::Align(session.conn, welcome), env);
    }

    /// The master was heard, and its data plane if that lives.
    fn hear(&mut self, session: Session, pulse: Pulse) {
        self.follower.state = State::Following(Session { echo: pulse.at, ..session });
        if pulse.alive
            && let Role::Slave { epoch, heard_at, .. } = &mut self.role
            && *epoch == session.epoch
        {
            *heard_at = Some(session.heard);
        }
    }

    /// The writer has aligned the log, or could not.
    pub(super) fn aligned(&mut self, conn: ConnId, done: bool, env: &mut Env) {
        let State::Aligning(session) = self.follower.state else { return };
        if session.conn != conn {
            return;
        }
        if !done {
            return self.give_up(conn, env);
        }
        let now = self.now(env);
        self.follower.back_off = 0;
        self.follower.state = State::Following(Session { heard: now, ..session });
        self.acknowledge(env);
    }

    /// The writer has appended a piece, or could not.
    pub(super) fn appended(&mut self, conn: ConnId, done: bool, env: &mut Env) {
        if !done {
            self.give_up(conn, env);
        } else if self.follower.state.session().is_some_and(|session| session.conn == conn) {
            self.acknowledge(env);
        }
    }

    /// Tells the master how far this log is: only as the slave of that session's epoch (invariant *Promise*).
    pub(super) fn acknowledge(&mut self, env: &mut Env) {
        let now = self.now(env);
        let State::Following(session) = &mut self.follower.state else { return };
        session.spoke = now;
        let (conn, echo, session) = (session.conn, session.echo, session.epoch);
        let is_its_slave = matches!(&self.role, Role::Slave { epoch, .. } if *epoch == session);
        if !is_its_slave && !env.is_planted(Planted::OldSessionAccepted) {
            return self.give_up(conn, env);
        }
        env.obeyed(self.node, session);
        let written = env.disks[self.node].end();
        let flushed = if env.is_planted(Planted::FlushedTooEarly) { written } else { env.disks[self.node].flushed };
        env.send(conn, self.node, Msg::HaAck { session, written, flushed, echo });
    }

    fn give_up(&mut self, conn: ConnId, env: &mut Env) {
        if self.follower.state.session().is_some_and(|session| session.conn == conn) {
            env.close(conn, self.node);
            self.master_lost(conn, env);
        }
    }

    /// The connection is gone: after a while another is tried.
    pub(super) fn master_lost(&mut self, conn: ConnId, env: &mut Env) {
        let Some(lost) = self.follower.state.session().filter(|session| session.conn == conn) else { return };
        if let Role::Slave { epoch, heard_at, .. } = &mut self.role
            && *epoch == lost.epoch
        {
            *heard_at = None;
        }
        let now = self.now(env);
        self.follower.back_off = (self.follower.back_off * 2).clamp(10, env.setup.ms(1_000).max(10));
        self.follower.state = State::Resting(now + env.rng.u64(self.follower.back_off / 2..=self.follower.back_off));
    }
}
