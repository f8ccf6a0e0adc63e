//! Cores over real stores and sockets, with the test in the elector's place.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests: a panic is the failure")]

mod catch_up;
mod hostile;
mod rig;
mod tls;

use gantry_broker::core::{Job, Standing};
use gantry_broker::services::SendFailure;
use gantry_replication::{Epoch, GroupRecord};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::rig::{Node, PATIENCE};

#[tokio::test(flavor = "multi_thread")]
async fn a_send_is_acknowledged_when_the_slave_has_it_and_both_logs_are_the_same() {
    let (a, b) = (Node::start("a").await, Node::start("b").await);
    let record = a.lead(1, &[&b]).await;
    let early = a.send("before the slave follows");
    a.until("the write", |a| a.store.watermarks().written.0 > 0).await;
    assert_eq!(a.store.watermarks().confirmed.0, 0, "in sync, but it has nothing yet");
    b.follow(&record, &a).await;
    timeout(PATIENCE, early).await.unwrap().unwrap().unwrap();
    for n in 0..200 {
        a.acked(&format!("message {n}")).await;
    }
    assert_eq!(a.log(), b.log());
    assert_eq!(b.core.report().last_epoch, Epoch(1));
    let end = a.store.watermarks().written;
    b.until("the confirm offset, told without another send", |b| b.store.watermarks().confirmed == end).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_the_old_master_had_is_cut_kept_aside_and_never_acknowledged() {
    let (a, b, c) = (Node::start("a").await, Node::start("b").await, Node::start("c").await);
    let record = a.lead(1, &[&b, &c]).await;
    b.follow(&record, &a).await;
    c.follow(&record, &a).await;
    for n in 0..20 {
        a.acked(&format!("kept {n}")).await;
    }
    let shared = a.store.watermarks().written;
    for slave in [&b, &c] {
        slave.until("all so far", |slave| slave.store.watermarks().written == shared).await;
    }
    // Both slaves leave for the next epoch; what the old master still takes in reaches nobody.
    let second = b.lead(2, &[&c]).await;
    c.follow(&second, &b).await;
    let lost = a.send("never acknowledged");
    a.until("the divergent write", |a| a.store.watermarks().written > shared).await;
    b.acked("of the new epoch").await;
    let divergent = a.store.watermarks().written.0 - shared.0;

    a.follow(&second, &b).await;
    let failure = timeout(PATIENCE, lost).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(failure, SendFailure::SwitchingOver), "{failure}");
    let end = b.store.watermarks().written;
    a.until("the new master's log", |a| a.store.watermarks().written == end && a.core.report().last_epoch == Epoch(2))
        .await;
    assert_eq!(a.log(), b.log());
    let kept: Vec<_> = std::fs::read_dir(a.dir.path().join("divergent")).unwrap().map(|entry| entry.unwrap()).collect();
    assert_eq!(kept.iter().map(|entry| entry.metadata().unwrap().len()).collect::<Vec<_>>(), [divergent]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_slave_goes_on_from_where_its_log_ends() {
    let (a, b) = (Node::start("a").await, Node::start("b").await);
    let record = a.lead(1, &[&b]).await;
    b.follow(&record, &a).await;
    a.acked("first").await;
    let member = b.core.member();
    let dir = b.stop().await;
    let b = Node::open(dir, "b").await;
    assert_eq!(b.core.member(), member);
    assert_eq!(b.core.report().promised, Epoch(1));
    let second = a.send("while it was away");
    b.follow(&record, &a).await;
    timeout(PATIENCE, second).await.unwrap().unwrap().unwrap();
    assert_eq!(a.log(), b.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn promises_are_kept_an_epoch_is_opened_once_and_never_again_below_it() {
    let (a, b) = (Node::start("a").await, Node::start("b").await);
    let record = a.lead(3, &[&b]).await;
    let dir = a.stop().await;
    let a = Node::open(dir, "a").await;
    for epoch in [2, 3] {
        let (done, became) = oneshot::channel();
        let again = GroupRecord { epoch: Epoch(epoch), ..record.clone() };
        a.core.submit_job(Job::BecomeMaster(again, done));
        let said = became.await.unwrap().unwrap_err().to_string();
        assert!(said.contains("promised"), "{said}");
    }
    assert_eq!(*a.core.watch_standing().borrow(), Standing::Fenced);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slave_that_reconnects_under_load_cuts_nothing() {
    let (a, b) = (Node::start("a").await, Node::start("b").await);
    let record = a.lead(1, &[&b]).await;
    b.follow(&record, &a).await;
    let body = "x".repeat(20_000);
    let port = a.ha.local_addr().port();
    let mut sends = Vec::new();
    for round in 0..20 {
        let before = a.store.watermarks().written;
        sends.extend((0..20).map(|_| a.send(&body)));
        // Another name of the same address: the connection is left with pieces on their way to the writer.
        b.follow_at(&record, format!("{}:{port}", if round % 2 == 0 { "localhost" } else { "127.0.0.1" })).await;
        b.until("the round before", |b| b.store.watermarks().written >= before).await;
    }
    for send in sends {
        timeout(PATIENCE, send).await.unwrap().unwrap().unwrap();
    }
    assert!(a.log() == b.log(), "byte by byte");
    assert!(!b.dir.path().join("divergent").exists(), "good bytes were taken for divergent ones");
}

#[tokio::test(flavor = "multi_thread")]
async fn parked_sends_wait_and_go_to_whoever_is_next_or_on_where_they_were() {
    let (a, b) = (Node::start("a").await, Node::start("b").await);
    let record = a.lead(1, &[&b]).await;
    b.follow(&record, &a).await;
    a.acked("before").await;
    a.core.submit_job(Job::Park(record.epoch, b.core.member(), a.core.number_order()));
    let given_up = a.send("parked, then let go");
    a.until("drained", |a| a.core.report().drained).await;
    a.core.submit_job(Job::Unpark(record.epoch, a.core.last_order()));
    timeout(PATIENCE, given_up).await.unwrap().unwrap().unwrap();

    a.core.submit_job(Job::Park(record.epoch, b.core.member(), a.core.number_order()));
    let moved_on = a.send("parked, then sent away");
    a.until("drained", |a| a.core.report().drained).await;
    let end = a.store.watermarks().written;
    assert_eq!(b.store.watermarks().written, end, "the candidate has everything");
    let second = b.lead(2, &[&a]).await;
    a.follow(&second, &b).await;
    let failure = timeout(PATIENCE, moved_on).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(failure, SendFailure::SwitchingOver), "{failure}");
    b.acked("after").await;
    assert_eq!(a.log(), b.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slave_vouches_for_its_master_only_while_that_ones_disk_is_proven() {
    let (a, b) = (Node::start("a").await, Node::start("b").await);
    let record = a.lead(1, &[&b]).await;
    b.follow(&record, &a).await;
    a.acked("flushed within half a second").await;
    let ago = |b: &Node| b.core.report().master_heard_ms_ago;
    b.until("a master that is heard", |b| ago(b).is_some_and(|ago| ago < 200)).await;
    // Nothing more is appended or flushed, as with a disk that hangs; frames go on coming each 50 ms.
    b.until("nothing of its data plane", |b| ago(b).is_some_and(|ago| ago > 1_000)).await;
    assert!(!a.core.report().data_plane_alive);
    assert_eq!(a.ha.links().len(), 1, "the session stands");
    a.acked("its disk answers again").await;
    b.until("its data plane again", |b| ago(b).is_some_and(|ago| ago < 200)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_to_park_that_was_called_off_before_it_was_carried_out_has_no_effect() {
    let (a, b) = (Node::start("a").await, Node::start("b").await);
    let record = a.lead(1, &[&b]).await;
    b.follow(&record, &a).await;
    let (first, second) = (a.core.number_order(), a.core.number_order());
    a.core.submit_job(Job::Unpark(record.epoch, first));
    a.core.submit_job(Job::Park(record.epoch, b.core.member(), first));
    a.acked("passes").await;
    a.core.submit_job(Job::Park(record.epoch, b.core.member(), second));
    a.core.submit_job(Job::Unpark(record.epoch, first));
    let parked = a.send("waits: what was called off is another switchover");
    a.until("drained", |a| a.core.report().drained).await;
    let third = a.core.number_order();
    assert!(!a.core.report().drained, "for a candidate that nobody asks for any more");
    a.core.submit_job(Job::Unpark(record.epoch, third));
    timeout(PATIENCE, parked).await.unwrap().unwrap().unwrap();
}
