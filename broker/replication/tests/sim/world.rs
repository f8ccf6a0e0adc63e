//! A run: a group under load and faults, then peace, in which it must come together again.

use fastrand::Rng;

use crate::checker::Counts;
use crate::elector::ElectorNode;
use crate::env::{Clock, Env, Event};
use crate::net::{Arrival, Msg, Node};
use crate::planted::Planted;
use crate::replica::{Job, Replica, Role};
use crate::setup::Setup;
use crate::trace::Trace;

/// How a run ended.
pub(crate) struct Verdict {
    /// The first thing that may not be, if any.
    pub(crate) violation: Option<String>,
    pub(crate) hash: u64,
    pub(crate) counts: Counts,
    /// From the end of all faults until the group was whole.
    pub(crate) healed_ms: u64,
    pub(crate) lines: Vec<String>,
    pub(crate) setup: Setup,
}

/// The whole world.
pub(crate) struct World {
    pub(crate) env: Env,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) electors: Vec<ElectorNode>,
}

impl World {
    pub(crate) fn new(seed: u64, planted: Planted, trace: Trace) -> Self {
        let mut rng = Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let setup = Setup::draw(&mut rng);
        let mut env = Env::new(setup.clone(), planted, rng, trace);
        env.note(|| format!("{setup:?}"));
        let mut clock = || Clock::draw(&mut env.rng, setup.drift);
        let replicas = (0..setup.replicas).map(|node| Replica::new(node, clock())).collect();
        let mut clock = || Clock::draw(&mut env.rng, setup.drift);
        let electors = (0..setup.electors).map(|n| ElectorNode::new(setup.replicas + n, clock())).collect();
        for node in 0..setup.replicas + setup.electors {
            let wait = env.rng.u64(..50);
            env.at(wait, Event::Start(node));
        }
        env.at(100, Event::ClientSends);
        env.at(100, Event::ConsumerReads);
        let first = env.rng.u64(..1_000);
        env.at(first, Event::Fault);
        Self { env, replicas, electors }
    }

    /// Runs to the end.
    pub(crate) fn run(mut self) -> Verdict {
        while self.env.now < self.env.setup.fault_ms && self.step() {}
        let peace = self.env.now;
        self.make_peace();
        self.come_together();
        if self.env.setup.old_record && self.env.checker.violation.is_none() && self.restore_old_record() {
            self.come_together();
        }
        self.judge_end(peace)
    }

    /// Runs until the group is whole and takes a message.
    fn come_together(&mut self) {
        let (since, patience) = (self.env.now, self.env.setup.ms(200_000));
        let (mut sent, mut wanted) = (None, 0);
        while self.step() {
            let now = self.env.now;
            let whole = self.why_not_whole().is_empty();
            match sent {
                // Let go what was decided before: a record that was restored just now is not known to anybody yet.
                None if whole && now > since + 500 => {
                    wanted = self.env.checker.counts.acked + 1;
                    sent = Some(now);
                    self.client_sends_to_master();
                }
                Some(_) if whole && self.env.checker.counts.acked >= wanted => return,
                // What was sent may have met a change of master.
                Some(at) if whole && now > at + 1_000 => {
                    sent = Some(now);
                    self.client_sends_to_master();
                }
                _ if self.env.is_beyond_help() => return,
                _ if now > since + patience => {
                    let why = self.why_not_whole();
                    self.describe();
                    self.env.checker.fail(format!("Liveness: not whole {patience} ms after the last fault: {why}"));
                }
                _ => {}
            }
        }
    }

    fn judge_end(mut self, peace: u64) -> Verdict {
        if self.env.checker.violation.is_none() {
            for node in 0..self.replicas.len() {
                self.env.judge_final_log(node);
            }
        }
        for node in 0..self.replicas.len() {
            let log = std::mem::take(&mut self.env.disks[node].log);
            for entry in log {
                self.env.trace.mix(&[entry.epoch, entry.author, entry.op]);
            }
        }
        let Env { trace, checker, setup, now, .. } = self.env;
        Verdict {
            violation: checker.violation,
            hash: trace.hash(),
            counts: checker.counts,
            healed_ms: now - peace,
            lines: trace.lines.unwrap_or_default(),
            setup,
        }
    }

    /// One event. `false`: nothing can happen any more, or something happened that may not.
    fn step(&mut self) -> bool {
        let Some(event) = self.env.next() else { return false };
        match event {
            Event::Deliver(conn, end) => self.deliver(conn, end),
            Event::Start(node) => self.start(node),
            Event::ClientSends => self.client_sends(),
            Event::ConsumerReads => self.consumer_reads(),
            Event::Fault => self.fault(),
            Event::ToRegister { node, life, op } => self.env.serve_register(node, life, &op),
            own => self.own_event(own),
        }
        self.env.checker.violation.is_none()
    }

    /// Events of one process: a stopped one gets them when it goes on, a dead one never.
    fn own_event(&mut self, event: Event) {
        let (Event::Tick(node, life)
        | Event::JobDone(node, life)
        | Event::FlushDone { node, life, .. }
        | Event::FromRegister { node, life, .. }
        | Event::SessionEnds { node, life, .. }) = event
        else {
            return;
        };
        if let Some(later) = self.frozen(node) {
            return self.env.at(later, event);
        }
        let env = &mut self.env;
        if let Some(replica) = self.replicas.get_mut(node) {
            let Some(process) = replica.process.as_mut().filter(|process| process.life == life) else { return };
            match event {
                Event::Tick(..) => process.tick(env),
                Event::JobDone(..) => process.job_done(env),
                Event::FlushDone { to, generation, .. } => process.flush_done(to, generation, env),
                _ => {}
            }
            return;
        }
        let elector = &mut self.electors[node - self.replicas.len()];
        if elector.process.as_ref().is_none_or(|process| process.life != life) {
            return;
        }
        match event {
            Event::FromRegister { outcome, .. } => elector.heard(outcome, env),
            Event::SessionEnds { conn, .. } => elector.session_ends(conn, env),
            _ => elector.tick(env),
        }
    }

    fn frozen(&self, node: Node) -> Option<u64> {
        let until = match self.replicas.get(node) {
            Some(replica) => replica.frozen_until,
            None => self.electors[node - self.replicas.len()].frozen_until,
        };
        (until > self.env.now).then_some(until)
    }

    fn deliver(&mut self, conn: u64, end: usize) {
        let replicas = &self.replicas;
        let up = |node: Node| replicas.get(node).is_none_or(|replica| replica.machine_up);
        if let Some(node) = self.env.receiver(conn, end)
            && let Some(later) = self.frozen(node)
        {
            return self.env.at(later, Event::Deliver(conn, end));
        }
        match self.env.arrive(conn, end, up) {
            Arrival::Nothing => {}
            Arrival::Later(when) => self.env.at(when, Event::Deliver(conn, end)),
            Arrival::Message(node, msg, sent) => self.take(node, conn, msg, sent),
        }
    }

    fn take(&mut self, node: Node, conn: u64, msg: Msg, sent: u64) {
        let env = &mut self.env;
        env.trace.mix(&[5, node as u64, conn, env.now]);
        if let Some(heard_at) = env.heard_at.get_mut(node) {
            *heard_at = sent.max(*heard_at);
        }
        let elector = node.checked_sub(self.replicas.len()).map(|elector| &mut self.electors[elector]);
        let replica = self.replicas.get_mut(node).and_then(|replica| replica.process.as_mut());
        match (replica, elector) {
            (Some(process), _) => process.take(conn, msg, env),
            (_, Some(elector)) if elector.process.is_some() => elector.take(conn, msg, env),
            // Nobody listens there: refused.
            _ if !matches!(msg, Msg::Closed) => env.close(conn, node),
            _ => {}
        }
    }

    fn start(&mut self, node: Node) {
        let first_elector = self.replicas.len();
        if node < first_elector {
            self.replicas[node].start(&mut self.env);
        } else if self.env.faulty || node == first_elector {
            // In peace one elector is left.
            self.electors[node - first_elector].start(&mut self.env);
        }
    }

    /// Clients send where the group's address leads, and some wherever they were led before.
    fn client_sends(&mut self) {
        let env = &mut self.env;
        let anybody = env.rng.usize(..self.replicas.len());
        let to = if env.rng.u32(..4) > 0 { env.published.unwrap_or(anybody) } else { anybody };
        let count = env.rng.u64(1..=3);
        let ops = (env.ops + 1..=env.ops + count).collect();
        env.ops += count;
        if let Some(process) = self.replicas.get_mut(to).and_then(|replica| replica.process.as_mut()) {
            process.push(Job::Sends(ops), env);
        }
        let wait = env.rng.u64(1..=2 * env.setup.load_ms);
        if env.faulty {
            env.after(wait, Event::ClientSends);
        }
    }

    fn client_sends_to_master(&mut self) {
        self.env.ops += 1;
        let op = self.env.ops;
        let Some(record) = self.env.register.record.clone() else { return };
        for process in self.replicas.iter_mut().filter_map(|replica| replica.process.as_mut()) {
            if process.serves(&record) {
                process.push(Job::Sends(vec![op]), &mut self.env);
            }
        }
    }

    fn consumer_reads(&mut self) {
        let node = self.env.rng.usize(..self.replicas.len());
        if self.frozen(node).is_none()
            && let Some(process) = &self.replicas[node].process
        {
            process.show(&mut self.env);
        }
        let wait = self.env.rng.u64(1..=40);
        self.env.after(wait, Event::ConsumerReads);
    }

    fn describe(&mut self) {
        for process in self.replicas.iter().filter_map(|replica| replica.process.as_ref()) {
            let line = process.describe(&self.env);
            self.env.note(|| line);
        }
    }

    /// One master, all follow, all logs alike, the in-sync set full: or what is missing for it.
    fn why_not_whole(&self) -> String {
        let Some(record) = &self.env.register.record else { return "no record".to_owned() };
        let processes: Vec<_> = self.replicas.iter().filter_map(|replica| replica.process.as_ref()).collect();
        if processes.len() < self.replicas.len() {
            return "a replica is down".to_owned();
        }
        if !processes.iter().any(|process| process.serves(record)) {
            return format!("{} doesn't serve epoch {}", record.master, record.epoch);
        }
        for process in &processes {
            let follows = matches!(process.role, Role::Slave { epoch, .. } if epoch == record.epoch);
            if !follows && *process.member() != record.master {
                return format!("{} doesn't follow {}", process.member(), record.master);
            }
            if !record.in_sync.contains(process.member()) {
                return format!("{} is not in sync", process.member());
            }
        }
        if record.in_sync.len() > processes.len() {
            return "somebody who is no more is in sync".to_owned();
        }
        let alike = self.env.disks.windows(2).all(|pair| pair[0].log == pair[1].log);
        if alike { String::new() } else { "the logs differ".to_owned() }
    }
}
