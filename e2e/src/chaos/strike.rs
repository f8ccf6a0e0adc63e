//! Faults carried out on a group, and healed.

use anyhow::Context;

use super::fault::{Fault, Kind, Target};
use crate::group::{Group, Status, replica_name};
use crate::lab::{Cut, Disk, Node};
use crate::process::Signal;
use crate::wait;

/// Less than a load of 200 messages of 1 KiB a second takes, and yet more than heartbeats take.
const SLOW_KBITS: u32 = 1_000;

/// Faults that were done and not yet healed. Dropped, nothing is healed: the group is to be given up then.
pub(super) struct Strikes<'a> {
    group: &'a Group,
    before: Status,
    done: Vec<(Kind, usize)>,
}

impl<'a> Strikes<'a> {
    pub(super) fn new(group: &'a Group) -> anyhow::Result<Self> {
        Ok(Self { group, before: group.status()?, done: Vec::new() })
    }

    /// Does it, and says when it had been done, on the histories' clock.
    pub(super) fn strike(&mut self, fault: Fault) -> anyhow::Result<i64> {
        let ordinal = self.ordinal(fault.target)?;
        self.done.push((fault.kind, ordinal));
        let group = self.group;
        match fault.kind {
            Kind::Kill => return group.take_down(ordinal),
            Kind::Freeze => return group.signal(&replica_name(ordinal), Signal::STOP),
            Kind::SlowLink => group.lab()?.slow(ordinal, SLOW_KBITS)?,
            Kind::DiskFull => group.lab()?.disk(ordinal)?.fill()?,
            Kind::DiskReplaced => {
                let at_us = group.take_down(ordinal)?;
                group.lab()?.disk(ordinal)?.empty()?;
                return Ok(at_us);
            }
            _cut => group.lab()?.cut(&self.cuts()?)?,
        }
        Ok(wait::now_us())
    }

    /// Ends all of them. What fails doesn't keep the others from being healed.
    pub(super) fn heal(self) -> anyhow::Result<()> {
        let lab = self.group.lab()?;
        let mut results = vec![lab.cut(&[])];
        for (kind, ordinal) in &self.done {
            results.push(match kind {
                Kind::Kill | Kind::DiskReplaced => self.group.let_start(*ordinal),
                Kind::Freeze => self.group.signal(&replica_name(*ordinal), Signal::CONT).map(|_| ()),
                Kind::SlowLink => lab.unslow(*ordinal),
                Kind::DiskFull => lab.disk(*ordinal).and_then(Disk::free),
                _cut => Ok(()),
            });
        }
        results.into_iter().collect::<anyhow::Result<()>>().context("healing")
    }

    /// Who was what when the round began.
    fn ordinal(&self, target: Target) -> anyhow::Result<usize> {
        let is_master = |ordinal: &usize| self.before.master == Some(replica_name(*ordinal));
        let all = 0..self.before.replicas.len();
        let found = match target {
            Target::Master => all.into_iter().find(is_master),
            Target::Slave(which) => all.into_iter().filter(|ordinal| !is_master(ordinal)).nth(which),
        };
        found.with_context(|| format!("there is no {target} to strike: {:?}", self.before))
    }

    fn cuts(&self) -> anyhow::Result<Vec<Cut>> {
        let lab = self.group.lab()?;
        let elector = self.group.elector_port()?;
        let mut cuts = Vec::new();
        for (kind, ordinal) in &self.done {
            let me = Node::Replica(*ordinal);
            let peers = lab.replicas().filter(|other| other != ordinal).map(Node::Replica);
            let all = peers.clone().chain([Node::Hub, Node::Client]);
            let to_elector = Cut::between(me, Node::Hub).at_port(elector);
            match kind {
                Kind::Isolated => cuts.extend(all.map(|other| Cut::between(me, other))),
                Kind::Unheard => cuts.extend(all.map(|other| Cut::one_way(me, other))),
                Kind::Deaf => cuts.extend(all.map(|other| Cut::one_way(other, me))),
                Kind::NoElector => cuts.push(to_elector),
                Kind::NoPeers => cuts.extend(peers.map(|other| Cut::between(me, other))),
                Kind::ClientsOnly => {
                    cuts.extend(peers.map(|other| Cut::between(me, other)));
                    cuts.push(to_elector);
                }
                Kind::Kill | Kind::Freeze | Kind::SlowLink | Kind::DiskFull | Kind::DiskReplaced => {}
            }
        }
        Ok(cuts)
    }
}
