//! A port of a pod, from where the test runs: brokers listen at their pod's address alone, which only the node reaches.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;

use super::cluster::CONTROL_PLANE;
use super::installation::Installation;
use crate::logs;

/// Between two looks for a connection.
const POLL: Duration = Duration::from_millis(5);

/// A pod's port for as long as this value lives.
pub struct Forward {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Forward {
    /// Opens a way to it, through the first node's network.
    pub fn open(installation: &Installation<'_>, pod: &str, port: u16) -> anyhow::Result<Self> {
        let to = format!("TCP:{}:{port}", installation.pod_address(pod)?);
        let listener = TcpListener::bind("127.0.0.1:0").context("no port for a pod's")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let ended = Arc::new(AtomicBool::new(false));
        let (until, enter) = (Arc::clone(&ended), installation.cluster().on_node(CONTROL_PLANE));
        let accepting = std::thread::spawn(move || accept(&listener, &until, || relay(&enter, &to)));
        Ok(Self { address, ended, accepting: Some(accepting) })
    }

    /// `host:port` here.
    pub fn address(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if self.accepting.take().is_some_and(|accepting| accepting.join().is_err()) {
            logs::say(&format!("what led to {} has failed", self.address));
        }
    }
}

/// A socat that is run as `enter` says.
fn relay(enter: &Command, to: &str) -> Command {
    let mut command = Command::new(enter.get_program());
    command.args(enter.get_args()).args(["socat", "STDIO", to]);
    command
}

/// Each connection is a socat's standard input and output. All end with this.
fn accept(listener: &TcpListener, until: &AtomicBool, relay: impl Fn() -> Command) {
    let mut relays: Vec<Child> = Vec::new();
    while !until.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => match lead(stream, relay()) {
                Ok(child) => relays.push(child),
                Err(error) => logs::say(&format!("a connection to a pod: {error:#}")),
            },
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(POLL),
            Err(error) => logs::say(&format!("a connection to a pod: {error}")),
        }
    }
    for mut child in relays {
        // One that has ended already is what is wanted.
        child.kill().ok();
        child.wait().ok();
    }
}

fn lead(stream: TcpStream, mut relay: Command) -> anyhow::Result<Child> {
    stream.set_nonblocking(false)?;
    let input = OwnedFd::from(stream.try_clone()?);
    relay.stdin(Stdio::from(input)).stdout(Stdio::from(OwnedFd::from(stream))).stderr(Stdio::null());
    relay.spawn().with_context(|| format!("starting {relay:?}"))
}
