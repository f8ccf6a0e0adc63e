//! On a cluster of one node, faults that the node's own tools make: programs that stand still. Each ends with its value.

use std::process::Command;

use super::cluster::{Cluster, bare};
use crate::{logs, process};

/// Something that is wrong until this is dropped.
#[must_use = "dropped, the fault is over"]
pub struct Fault {
    what: String,
    undo: Vec<Command>,
}

impl Drop for Fault {
    fn drop(&mut self) {
        for command in &mut self.undo {
            if let Err(error) = process::run(command, None) {
                logs::say(&format!("{} may have stayed: {error:#}", self.what));
            }
        }
    }
}

impl Cluster {
    /// A program of the node stands still: its sockets take connections, and nothing answers. A killed one would be started again.
    pub fn stop_program(&self, name: &str) -> anyhow::Result<Fault> {
        let pid = self.program_pid(name)?;
        let signal = |signal: &str| {
            let mut kill = self.enter();
            kill.args(["kill", signal, &pid]);
            kill
        };
        process::run(&mut signal("-STOP"), None)?;
        Ok(Fault { what: format!("{name}'s stop"), undo: vec![signal("-CONT")] })
    }

    /// Runs what follows in a container, past the API server and the kubelet.
    pub fn exec_in_container(&self, id: &str) -> anyhow::Result<Command> {
        // Inside the node: standard input and output go through files that containerd has to see.
        let mut exec = self.enter();
        exec.args([
            "ctr",
            "--namespace",
            "k8s.io",
            "tasks",
            "exec",
            "--exec-id",
            &format!("e2e-{}", fastrand::u32(..)),
        ]);
        exec.arg(bare(id)?);
        Ok(exec)
    }
}
