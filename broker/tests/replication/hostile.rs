//! Peers that mean no good, or are no peers.

use std::sync::atomic::Ordering::Relaxed;

use gantry_broker::core::Standing;
use gantry_replication::Epoch;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::rig::{Node, PATIENCE};

/// Frames as they go over the wire, said by somebody who means no good.
mod frames {
    pub(super) fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![b'G', 2, kind, 0];
        frame.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        frame.extend_from_slice(payload);
        frame
    }

    pub(super) fn hello(group: &str, token: &str, member: &str, promised: u64) -> Vec<u8> {
        let hello = format!(
            r#"{{"group":"{group}","token":"{token}","member":"{member}","promised":{promised},"epochs":[],"begin":0,"end":0,"life":1}}"#
        );
        frame(1, hello.as_bytes())
    }

    pub(super) fn ack(session: u64, written: u64, flushed: u64) -> Vec<u8> {
        frame(4, &[session.to_be_bytes(), written.to_be_bytes(), flushed.to_be_bytes(), [0; 8]].concat())
    }
}

const STRANGER: &str = "s#000000000000abcd";
const FENCED: [u8; 3] = [b'G', 2, 6];

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_refused_by_name_and_gets_nothing() {
    let a = Node::start("a").await;
    a.lead(1, &[]).await;
    for (group, token) in [("g", "another token"), ("g", ""), ("another group", "token")] {
        let answer = say(&a, &frames::hello(group, token, STRANGER, 9)).await;
        assert_eq!(answer[..3], FENCED);
        assert!(String::from_utf8_lossy(&answer[8..]).contains("another group, or shows another token"));
    }
    assert!(a.core.slaves().is_empty());
    assert_eq!(*a.core.watch_standing().borrow(), Standing::Master { epoch: Epoch(1), start: 0 }, "and deposes nobody");
    assert!(say(&a, &0_u64.to_be_bytes()).await.is_empty(), "a slave of the classic protocol is closed");
    a.until("all counted", |a| refused(a) == 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_and_frames_that_are_too_large_are_closed_at_once() {
    let a = Node::start("a").await;
    a.lead(1, &[]).await;
    let two_mib = (2_u32 << 20).to_be_bytes();
    let said: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[b'G', 2, 1, 0, two_mib[0], two_mib[1], two_mib[2], two_mib[3]],
        &frames::frame(1, b"{\"group\":"),
        &frames::frame(77, b""),
        &frames::ack(1, 0, 0),
    ];
    for (count, bytes) in said.iter().enumerate() {
        assert!(say(&a, bytes).await.is_empty(), "{bytes:?}");
        a.until("counted", |a| refused(a) == count as u64 + 1).await;
    }
    assert!(a.core.slaves().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_that_cannot_be_ends_the_connection_and_counts_for_nothing() {
    let (a, b) = (Node::start("a").await, Node::start("b").await);
    let record = a.lead(1, &[&b]).await;
    let early = a.send("not on b");
    a.until("the write", |a| a.store.watermarks().written.0 > 0).await;
    let end = a.store.watermarks().written.0;
    let b_itself = b.core.member().to_string();
    for (count, ack) in
        [frames::ack(1, end + 1, 0), frames::ack(1, end, end + 1), frames::ack(2, end, end)].iter().enumerate()
    {
        let said = [frames::hello("g", "token", &b_itself, 1), ack.clone()].concat();
        let answer = say(&a, &said).await;
        assert_eq!(answer[..3], [b'G', 2, 2], "welcome; the connection ends by the acknowledgement");
        a.until("counted", |a| refused(a) == count as u64 + 1).await;
    }
    assert_eq!(a.store.watermarks().confirmed.0, 0);
    b.follow(&record, &a).await;
    timeout(PATIENCE, early).await.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_slaves_store_is_refused_while_the_slave_is_heard() {
    let (a, b) = (Node::start("a").await, Node::start("b").await);
    let record = a.lead(1, &[&b]).await;
    b.follow(&record, &a).await;
    a.acked("on b").await;
    let answer = say(&a, &frames::hello("g", "token", &b.core.member().to_string(), 1)).await;
    assert_eq!(answer[..3], FENCED);
    let text = String::from_utf8_lossy(&answer[8..]);
    assert!(text.contains("is connected from 127.0.0.1") && text.contains("copy"), "{text}");
    a.acked("the slave goes on").await;
    let own_name = say(&a, &frames::hello("g", "token", "a#000000000000abcd", 1)).await;
    assert!(String::from_utf8_lossy(&own_name[8..]).contains("the master's own name"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_stops_leaves_no_connection_behind() {
    let (a, b) = (Node::start("a").await, Node::start("b").await);
    let record = a.lead(1, &[&b]).await;
    b.follow(&record, &a).await;
    a.acked("on b").await;
    let links = a.ha.links();
    assert_eq!(links.len(), 1);
    assert_eq!((&links[0].member, links[0].epoch), (&b.core.member(), Epoch(1)));
    assert_eq!((links[0].written, links[0].next), (a.store.watermarks().written.0, a.store.watermarks().written.0));
    a.stop().await;
    b.until("the end of the connection", |b| b.core.report().master_heard_ms_ago.is_none()).await;
}

pub(crate) fn refused(node: &Node) -> u64 {
    node.ha.counters().refused.load(Relaxed)
}

/// What the HA port answers before it closes.
pub(crate) async fn say(node: &Node, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(node.ha.local_addr()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A reset is an end, too.
    drop(timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("in time"));
    answer
}
