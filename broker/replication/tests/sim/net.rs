//! Connections as TCP makes them: ordered, delayed, stalled by a partition and going on after it, reset; and messages in them.

use std::collections::{BTreeMap, VecDeque};

use gantry_replication::epochs::EpochTable;
use gantry_replication::handshake::Welcome;
use gantry_replication::wire::{AlterInSync, Directive, Hello, Report};
use gantry_replication::{Epoch, GroupRecord, Member, Millis};

use crate::disk::Entry;
use crate::env::{Env, Event};

/// Replicas first, then electors, then the record's store.
pub(crate) type Node = usize;
pub(crate) type ConnId = u64;

/// All that is said.
#[derive(Clone, Debug)]
pub(crate) enum Msg {
    HaHello {
        member: Member,
        life: u64,
        promised: Epoch,
        epochs: EpochTable,
        end: u64,
    },
    HaWelcome(Box<Welcome>),
    HaAppend(Piece),
    HaAck {
        session: Epoch,
        written: u64,
        flushed: u64,
        echo: Millis,
    },
    HaHeartbeat {
        session: Epoch,
        confirm: u64,
        pulse: Pulse,
    },
    HaFenced,
    Hello(Box<Hello>),
    Heard(Option<GroupRecord>),
    Report(Report),
    Alter(AlterInSync),
    Altered(GroupRecord),
    Directive(Directive),
    Probe,
    /// The report that answers a directive.
    Obeyed(Report),
    /// The report that answers a probe.
    Answer(Report),
    /// The other side has closed.
    Closed,
}

/// A piece of the log.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) session: Epoch,
    pub(crate) written_in: (Epoch, u64),
    pub(crate) from: u64,
    pub(crate) entries: Vec<Entry>,
    pub(crate) confirm: u64,
    pub(crate) pulse: Pulse,
}

/// When the master sent this, on its clock, and whether its data plane lived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pulse {
    pub(crate) at: Millis,
    pub(crate) alive: bool,
}

#[derive(Debug)]
struct Conn {
    nodes: [Node; 2],
    open: [bool; 2],
    /// On the way to each end, with when it was sent.
    queues: [VecDeque<(u64, Msg)>; 2],
    /// When the last of them arrives.
    last: [u64; 2],
}

/// All connections, and which ways are cut.
#[derive(Debug, Default)]
pub(crate) struct Net {
    conns: BTreeMap<ConnId, Conn>,
    next: ConnId,
    /// Until when nothing passes from one node to another.
    cut: BTreeMap<(Node, Node), u64>,
}

/// What comes out of a connection at a moment.
pub(crate) enum Arrival {
    Nothing,
    /// Try again then.
    Later(u64),
    /// To whom, what, and when it was sent.
    Message(Node, Msg, u64),
}

impl Net {
    pub(crate) fn cut(&mut self, from: Node, to: Node, until: u64) {
        self.cut.insert((from, to), until);
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
    }

    /// How many messages are under way to the other end: a full socket makes its writer wait.
    pub(crate) fn under_way(&self, conn: ConnId, from: Node) -> usize {
        self.conns.get(&conn).map_or(0, |conn| conn.queues[1 - conn.end_of(from)].len())
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = ConnId> {
        self.conns.keys().copied()
    }
}

impl Conn {
    fn end_of(&self, node: Node) -> usize {
        usize::from(self.nodes[1] == node)
    }
}

impl Env {
    pub(crate) fn connect(&mut self, from: Node, to: Node) -> ConnId {
        self.net.next += 1;
        let conn = Conn { nodes: [from, to], open: [true; 2], queues: Default::default(), last: [0; 2] };
        self.net.conns.insert(self.net.next, conn);
        self.net.next
    }

    pub(crate) fn send(&mut self, conn: ConnId, from: Node, msg: Msg) {
        let delay = self.delay();
        let Some(it) = self.net.conns.get_mut(&conn) else { return };
        let end = it.end_of(from);
        if !it.open[end] {
            return;
        }
        let to = 1 - end;
        it.queues[to].push_back((self.now, msg));
        it.last[to] = it.last[to].max(self.now + delay);
        let at = it.last[to];
        self.at(at, Event::Deliver(conn, to));
    }

    /// Closes this side: the other hears of it after all that was sent before.
    pub(crate) fn close(&mut self, conn: ConnId, from: Node) {
        self.send(conn, from, Msg::Closed);
        self.forget(conn, from);
    }

    /// This side is gone without a word.
    pub(crate) fn forget(&mut self, conn: ConnId, from: Node) {
        let Some(it) = self.net.conns.get_mut(&conn) else { return };
        let end = it.end_of(from);
        it.open[end] = false;
        it.queues[end].clear();
        if it.open == [false; 2] {
            self.net.conns.remove(&conn);
        }
    }

    /// A process has ended: the machine's kernel closes its connections, or is gone with it.
    pub(crate) fn end_all(&mut self, node: Node, tell: bool) {
        let mine: Vec<_> =
            self.net.conns.iter().filter(|(_, it)| it.nodes.contains(&node)).map(|(&id, _)| id).collect();
        for conn in mine {
            if tell {
                self.close(conn, node);
            } else {
                self.forget(conn, node);
            }
        }
    }

    /// What is under way is lost, and both sides hear of a reset.
    pub(crate) fn reset(&mut self, conn: ConnId) {
        let Some(it) = self.net.conns.get_mut(&conn) else { return };
        let nodes = it.nodes;
        it.queues.iter_mut().for_each(VecDeque::clear);
        for node in nodes {
            self.send(conn, node, Msg::Closed);
        }
    }

    /// What arrives at that end now. `up` tells whether a node's machine lives.
    pub(crate) fn arrive(&mut self, conn: ConnId, end: usize, up: impl Fn(Node) -> bool) -> Arrival {
        let Some(it) = self.net.conns.get_mut(&conn) else { return Arrival::Nothing };
        let (to, from) = (it.nodes[end], it.nodes[1 - end]);
        if it.queues[end].is_empty() && it.open[end] {
            return Arrival::Nothing;
        }
        if self.net.cut.get(&(from, to)).is_some_and(|&until| self.now < until) {
            // Sent again and again until the way is free.
            return Arrival::Later(self.now + self.rng.u64(5..=self.setup.ms(400)));
        }
        let Some(it) = self.net.conns.get_mut(&conn) else { return Arrival::Nothing };
        if !it.open[end] {
            it.queues[end].clear();
            // To a machine that lives but knows of no such connection: a reset comes back. A dead one says nothing.
            if up(to) && it.open[1 - end] {
                let at = self.now + 1;
                it.queues[1 - end].push_back((self.now, Msg::Closed));
                self.at(at, Event::Deliver(conn, 1 - end));
            }
            return Arrival::Nothing;
        }
        let Some((sent, msg)) = it.queues[end].pop_front() else { return Arrival::Nothing };
        if matches!(msg, Msg::Closed) {
            self.forget(conn, to);
        }
        Arrival::Message(to, msg, sent)
    }

    fn delay(&mut self) -> u64 {
        let max = self.setup.max_delay_ms;
        // Mostly quick, now and then slow.
        if self.rng.u32(..8) == 0 { self.rng.u64(0..=max) } else { self.rng.u64(0..=max.min(2)) }
    }
}

impl Env {
    /// Whom a message on the way to that end is for.
    pub(crate) fn receiver(&self, conn: ConnId, end: usize) -> Option<Node> {
        self.net.conns.get(&conn).map(|it| it.nodes[end])
    }
}
