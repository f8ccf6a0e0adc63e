//! Slaves that are far behind, or have nothing to go on from.

use std::sync::atomic::Ordering::Relaxed;

use gantry_broker::services::SendFailure;
use gantry_replication::Epoch;
use tokio::time::timeout;

use crate::rig::{Node, PATIENCE};

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_slave_gets_the_log_from_its_first_byte_over_all_segments() {
    let (a, b, c) = (Node::start("a").await, Node::start("b").await, Node::start("c").await);
    let record = a.lead(1, &[&b]).await;
    b.follow(&record, &a).await;
    let body = "x".repeat(60_000);
    let sends: Vec<_> = (0..50).map(|_| a.send(&body)).collect();
    for send in sends {
        timeout(PATIENCE, send).await.unwrap().unwrap().unwrap();
    }
    c.follow(&record, &a).await;
    let end = a.store.watermarks().written;
    assert!(end.0 > 2 << 20, "more than two segments");
    c.until("the whole log", |c| c.store.watermarks().written == end).await;
    assert!(a.log() == c.log(), "byte by byte");
    let bytes = || [&a.ha.counters().cold_bytes, &a.ha.counters().sent_bytes].map(|bytes| bytes.load(Relaxed));
    let [cold, sent] = bytes();
    assert!(cold > 1 << 20, "{cold} of {sent}: the far past comes from the files");
    a.acked("the end from the maps").await;
    let [cold_then, sent_then] = bytes();
    assert!(cold_then == cold && sent_then > sent);
}

/// Ends a node, takes the segments below `oldest` away as retention does, and starts it again.
async fn forget_below(node: Node, name: &str, oldest: u64) -> Node {
    let dir = node.stop().await;
    for entry in std::fs::read_dir(dir.path().join("commitlog")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().parse::<u64>().unwrap() < oldest {
            std::fs::remove_file(path).unwrap();
        }
    }
    Node::open(dir, name).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slave_whose_position_is_gone_is_taken_anew_with_the_metadata_and_keeps_what_was_its_own() {
    let (a, b, c) = (Node::start("a").await, Node::start("b").await, Node::start("c").await);
    let first = a.lead(1, &[&b]).await;
    b.follow(&first, &a).await;
    c.follow(&first, &a).await;
    a.acked("all have this").await;
    let shared = a.store.watermarks().written;
    c.until("the first message", |c| c.store.watermarks().written == shared).await;
    // c leads an epoch that nobody joins, and is left behind with a tail of its own.
    c.lead(2, &[&b]).await;
    let lonely = c.send("nobody has this");
    c.until("its own tail", |c| c.store.watermarks().written > shared).await;
    let own = c.store.watermarks().written.0 - shared.0;
    let body = "x".repeat(60_000);
    for _ in 0..40 {
        a.acked(&body).await;
    }
    let a = forget_below(a, "a", 1 << 20).await;
    assert_eq!(a.store.min_offset().0, 1 << 20);
    *a.metadata.0.lock() = "topics of long ago".to_owned();
    let third = a.lead(3, &[&b]).await;
    b.follow(&third, &a).await;
    c.follow(&third, &a).await;
    let failure = timeout(PATIENCE, lonely).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(failure, SendFailure::SwitchingOver), "{failure}");
    a.acked("goes on").await;
    let end = a.store.watermarks().written;
    c.until("the whole log", |c| c.store.watermarks().written == end).await;
    assert!(a.log() == c.log() && c.store.min_offset().0 == 1 << 20);
    assert_eq!(*c.metadata.0.lock(), "topics of long ago");
    assert_eq!(*b.metadata.0.lock(), "", "b went on where it was");
    assert_eq!(c.core.epochs(), a.core.epochs(), "nothing is left of the epoch that was its own");
    let kept: Vec<_> = std::fs::read_dir(c.dir.path().join("divergent")).unwrap().map(|entry| entry.unwrap()).collect();
    assert_eq!(kept.iter().map(|entry| entry.metadata().unwrap().len()).collect::<Vec<_>>(), [own]);
    let told = c.core.report().last_cut.expect("the cut is reported");
    assert!(told.number >= 1 && told.epoch == Epoch(3), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catching_up_slave_goes_on_after_a_break() {
    let (a, b, c) = (Node::start("a").await, Node::start("b").await, Node::start("c").await);
    let record = a.lead(1, &[&b]).await;
    b.follow(&record, &a).await;
    let body = "x".repeat(60_000);
    for _ in 0..60 {
        a.acked(&body).await;
    }
    c.follow(&record, &a).await;
    c.until("a part", |c| c.store.watermarks().written.0 > 256 << 10).await;
    let part = c.store.watermarks().written;
    let dir = c.stop().await;
    let c = Node::open(dir, "c").await;
    assert!(c.store.watermarks().written >= part);
    c.follow(&record, &a).await;
    let end = a.store.watermarks().written;
    c.until("the whole log", |c| c.store.watermarks().written == end).await;
    assert!(a.log() == c.log());
    assert!(!c.dir.path().join("divergent").exists());
}
