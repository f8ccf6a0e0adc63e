//! Ports for servers that can't be told 0.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context, bail};

const TRIES: usize = 100;

/// Ports are chosen from here to where the system's own begin.
const LOWEST: u16 = 20_000;

/// Where the system tells from which ports it chooses itself: for connections that go out, and for servers told 0.
const EPHEMERAL: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// A port that is free now, as are those so far `below` it (0 is the port itself; RocketMQ's brokers also take the one two
/// below theirs). It is none of those that the system gives away, so that it stays free until the server takes it.
pub fn free(below: &[u16]) -> anyhow::Result<u16> {
    let range = std::fs::read_to_string(EPHEMERAL).with_context(|| format!("reading {EPHEMERAL}"))?;
    let first = range.split_whitespace().next().and_then(|first| first.parse().ok());
    let end = first.with_context(|| format!("{EPHEMERAL} says {range:?}"))?;
    if end <= LOWEST + 1000 {
        bail!(
            "{EPHEMERAL} says that the system gives away ports from {end} on: tests choose theirs from {LOWEST} to there"
        );
    }
    for _ in 0..TRIES {
        let port = fastrand::u16(LOWEST..end);
        let all: Result<Vec<_>, _> =
            below.iter().map(|below| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port - below))).collect();
        if all.is_ok() {
            return Ok(port);
        }
    }
    bail!("no free ports {below:?} below one of {LOWEST} to {end}, in {TRIES} tries")
}
