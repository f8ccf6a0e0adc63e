//! Ports given by the system, for servers that can't be told 0.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::bail;

const TRIES: usize = 100;

/// A port that is free now, as are those so far `below` it (0 is the port itself; RocketMQ's brokers also take the one two
/// below theirs). The system gives a port again only after a while, so that it stays free until the server takes it.
pub fn free(below: &[u16]) -> anyhow::Result<u16> {
    for _ in 0..TRIES {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let all: Result<Vec<_>, _> =
            below.iter().map(|below| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port - below))).collect();
        if all.is_ok() {
            return Ok(port);
        }
    }
    bail!("no free ports {below:?} below one given by the system, in {TRIES} tries")
}
