//! A group over a laboratory's network namespaces: what the operator and the clients are told for that.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::NAME;
use crate::lab::{Lab, Node};

/// Holds a replica's start back while a file is there, so that it can be down, or its disk be replaced, for a while.
const GATE: &str = "#!/bin/sh
gate=$1
shift
while [ -e \"$gate\" ]; do sleep 0.02; done
exec \"$@\"
";

/// Where the replicas of a group are.
#[derive(Debug)]
pub(super) struct Places {
    /// The namespaces; none: all on loopback.
    pub(super) lab: Option<Lab>,
    /// Whether each replica is behind a gate.
    gates: bool,
    folder: PathBuf,
}

impl Places {
    /// `folder` is the group's.
    pub(super) fn new(lab: Option<Lab>, gates: bool, folder: &Path) -> anyhow::Result<Self> {
        if gates && folder.display().to_string().contains(char::is_whitespace) {
            bail!("{} has white space in it, which a command of local up can't have", folder.display());
        }
        fs::write(folder.join("gate.sh"), GATE).context("writing the gate")?;
        Ok(Self { lab, gates, folder: folder.to_owned() })
    }

    /// What stands before `gantry-operator`.
    pub(super) fn operator_front(&self) -> Vec<OsString> {
        self.lab.iter().flat_map(|_| Lab::front(Node::Hub)).collect()
    }

    /// What stands before a client.
    pub(super) fn client_front(&self) -> Vec<OsString> {
        self.lab.iter().flat_map(|_| Lab::front(Node::Client)).collect()
    }

    /// The arguments of `local up`.
    pub(super) fn arguments(&self, replicas: u8) -> Vec<OsString> {
        let mut arguments = Vec::new();
        if self.lab.is_some() {
            arguments.extend(["--listen".into(), Node::Hub.address().to_string().into()]);
        }
        for ordinal in (0..usize::from(replicas)).filter(|_| self.gates) {
            let mut front = String::new();
            if self.lab.is_some() {
                let node = Node::Replica(ordinal);
                arguments.extend(["--replica-address".into(), format!("{NAME}-{ordinal}={}", node.address()).into()]);
                let words: Vec<_> = Lab::front(node).iter().map(|word| word.to_string_lossy().into_owned()).collect();
                front = words.join(" ");
            }
            let (script, gate) = (self.folder.join("gate.sh"), self.gate(ordinal));
            let wrap = format!("{NAME}-{ordinal}=sh {} {} {front}", script.display(), gate.display());
            arguments.extend(["--wrap".into(), wrap.into()]);
        }
        arguments
    }

    /// The next start of this replica waits until the gate is opened.
    pub(super) fn close_gate(&self, ordinal: usize) -> anyhow::Result<()> {
        if !self.gates {
            bail!("the group was started without gates");
        }
        let gate = self.gate(ordinal);
        File::create(&gate).map(|_| ()).with_context(|| format!("making {}", gate.display()))
    }

    /// The replica may start.
    pub(super) fn open_gate(&self, ordinal: usize) -> anyhow::Result<()> {
        let gate = self.gate(ordinal);
        fs::remove_file(&gate).with_context(|| format!("removing {}", gate.display()))
    }

    fn gate(&self, ordinal: usize) -> PathBuf {
        self.folder.join(format!("gate-{ordinal}"))
    }
}
