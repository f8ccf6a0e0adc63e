//! A laboratory of network namespaces: one address a replica, one for the operator with its name server, one for the
//! clients, joined by a bridge, with faults between them.
//!
//! ```text
//!   client 10.99.0.2 ──┐
//!                      ├── bridge in hub 10.99.0.1 (operator, name server, master address)
//!   replica i          │
//!   10.99.0.(10 + i) ──┘
//! ```
//!
//! Packets are lost where they arrive (nftables), links are slowed on both ends (`tc tbf`), each replica's store can be
//! a small disk of its own ([`Disk`]). Nothing in the machine's own namespace is touched. The namespaces' names hold
//! this process's number: what a killed run left behind is swept away by the next one.

mod disk;
mod filter;
mod sweep;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub use disk::Disk;
pub use filter::Cut;
pub(crate) use sweep::leftovers;

use crate::logs;
use crate::process;
use crate::process::run;

/// The beginning of the names of everything that end-to-end runs leave in places that all processes share.
pub(crate) const PREFIX: &str = "gantry-e2e-";

/// One namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// Where the operator, the name server and the stable address are.
    Hub,
    /// Where the clients are.
    Client,
    /// Where a replica is, by its ordinal.
    Replica(usize),
}

impl Node {
    /// Its address.
    pub fn address(self) -> Ipv4Addr {
        let last = match self {
            Self::Hub => 1,
            Self::Client => 2,
            Self::Replica(ordinal) => 10 + ordinal as u8,
        };
        Ipv4Addr::new(10, 99, 0, last)
    }

    /// Unique in the laboratory, short enough for the name of a device.
    fn name(self) -> String {
        match self {
            Self::Hub => "hub".to_owned(),
            Self::Client => "client".to_owned(),
            Self::Replica(ordinal) => format!("r{ordinal}"),
        }
    }
}

/// The namespaces; dropped, they are gone. Whatever runs in them must have ended before.
#[derive(Debug)]
pub struct Lab {
    replicas: usize,
    disks: Vec<Disk>,
}

/// Why there can be no laboratory here: for tests that are skipped then, and say so.
pub fn unavailable() -> Option<String> {
    process::cant_use_as_root(&["ip", "tc", "nft", "nsenter", "mkfs.ext4"])
}

impl Lab {
    /// Makes the namespaces for so many replicas.
    pub fn new(replicas: usize) -> anyhow::Result<Self> {
        if let Some(why) = unavailable() {
            anyhow::bail!("no network namespaces: {why}");
        }
        leftovers();
        let lab = Self { replicas, disks: Vec::new() };
        lab.connect().context("making network namespaces")?;
        Ok(lab)
    }

    fn connect(&self) -> anyhow::Result<()> {
        let hub = namespace(Node::Hub);
        for node in self.nodes() {
            let name = namespace(node);
            ip(&["netns", "add", &name])?;
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
        }
        ip(&["-n", &hub, "link", "add", "br0", "type", "bridge"])?;
        let address = |node: Node| format!("{}/24", node.address());
        ip(&["-n", &hub, "addr", "add", &address(Node::Hub), "dev", "br0"])?;
        ip(&["-n", &hub, "link", "set", "br0", "up"])?;
        for node in self.nodes().filter(|node| *node != Node::Hub) {
            let (port, name) = (node.name(), namespace(node));
            ip(&["-n", &hub, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &name])?;
            ip(&["-n", &hub, "link", "set", &port, "master", "br0", "up"])?;
            ip(&["-n", &name, "addr", "add", &address(node), "dev", "eth0"])?;
            ip(&["-n", &name, "link", "set", "eth0", "up"])?;
        }
        Ok(())
    }

    fn nodes(&self) -> impl Iterator<Item = Node> + use<> {
        [Node::Hub, Node::Client].into_iter().chain((0..self.replicas).map(Node::Replica))
    }

    /// Replicas' ordinals.
    pub fn replicas(&self) -> std::ops::Range<usize> {
        0..self.replicas
    }

    /// What to put in front of a command so that it runs in a namespace. The process stays the same one.
    pub fn front(node: Node) -> Vec<OsString> {
        ["nsenter".into(), format!("--net=/run/netns/{}", namespace(node)).into(), "--".into()].into()
    }

    /// A command in a namespace.
    pub fn command(node: Node, program: impl AsRef<OsStr>) -> Command {
        let front = Self::front(node);
        let mut command = Command::new(&front[0]);
        command.args(&front[1..]).arg(program);
        command
    }

    /// Does it on a thread that is in a namespace: sockets that it opens stay there, whoever uses them.
    pub fn inside<T: Send>(node: Node, task: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
        let path = Path::new("/run/netns").join(namespace(node));
        let enter = move || {
            let link = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
            move_into_link_name_space(link.as_fd(), Some(LinkNameSpaceType::Network))
                .with_context(|| format!("entering {}", path.display()))?;
            task()
        };
        std::thread::scope(|scope| scope.spawn(enter).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Gives each replica's store, below these folders, a disk of its own of so many bytes, once.
    pub fn mount(&mut self, stores: &[PathBuf], images: &Path, bytes: u64) -> anyhow::Result<()> {
        if self.disks.is_empty() {
            for (ordinal, store) in stores.iter().enumerate() {
                self.disks.push(Disk::make(&images.join(format!("disk-{ordinal}.img")), store, bytes)?);
            }
        }
        Ok(())
    }

    /// A replica's disk.
    pub fn disk(&self, ordinal: usize) -> anyhow::Result<&Disk> {
        self.disks.get(ordinal).with_context(|| format!("replica {ordinal} has no disk of its own"))
    }

    /// Loses all packets of these cuts from now on, and no others.
    pub fn cut(&self, cuts: &[Cut]) -> anyhow::Result<()> {
        self.nodes().try_for_each(|node| filter::apply(node, cuts))
    }

    /// Lets no more through to and from this replica than so many kbit/s, each way.
    pub fn slow(&self, ordinal: usize, kbits: u32) -> anyhow::Result<()> {
        link_ends(ordinal, |node, device| {
            let rate = format!("{kbits}kbit");
            let shape = ["rate", &rate, "burst", "16kb", "latency", "300ms"];
            tc(node, &[&["qdisc", "replace", "dev", device, "root", "tbf"], &shape[..]].concat())
        })
    }

    /// As fast as before.
    pub fn unslow(&self, ordinal: usize) -> anyhow::Result<()> {
        link_ends(ordinal, |node, device| tc(node, &["qdisc", "del", "dev", device, "root"]))
    }
}

/// Both ends of a replica's link: what each sends is what the other gets.
fn link_ends(ordinal: usize, mut change: impl FnMut(Node, &str) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let replica = Node::Replica(ordinal);
    change(Node::Hub, &replica.name())?;
    change(replica, "eth0")
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.disks.clear();
        for node in self.nodes() {
            if let Err(error) = sweep::remove(&namespace(node)) {
                logs::say(&format!("removing a network namespace: {error:#}"));
            }
        }
    }
}

fn namespace(node: Node) -> String {
    format!("{PREFIX}{}-{}", std::process::id(), node.name())
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    run(Command::new("ip").args(arguments), None).map(|_| ())
}

fn tc(node: Node, arguments: &[&str]) -> anyhow::Result<()> {
    run(Lab::command(node, "tc").args(arguments), None).map(|_| ())
}
