//! Delayed messages.

use super::harness::*;
use crate::services::ServicesConfig;
use crate::services::seam::SendFailure;
use gantry_remoting::code::{request, response};
use gantry_remoting::headers::pull::PullMessage;
use std::time::SystemTime;

fn quick() -> ServicesConfig {
    ServicesConfig { delay_levels: "1s 2s 1h".into(), ..ServicesConfig::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_message_comes_not_before_its_time_and_only_once() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start_with(dir.path(), quick()).await;
    let client = broker.client().await;
    let before = SystemTime::now();
    let (queue, _) = client.send("t", 2, "DELAY\u{1}1\u{2}TAGS\u{1}a\u{2}", "later").await;
    assert_eq!(queue, 2, "the producer is told the queue it meant");
    let pull = PullMessage { subscription: Some("a"), ..waiting_pull("g", "t", 2, 0) };
    let (answer, records) = client.pull(pull).await;
    assert_eq!(answer.code, response::SUCCESS);
    assert!(before.elapsed().unwrap().as_millis() >= 1000);
    assert_eq!((bodies(&records), records[0].property("DELAY")), (vec!["later"], None));
    assert_eq!(records[0].property("REAL_TOPIC"), Some("t"));
    // Counted once it is known to be written, which a consumer may be ahead of.
    until("its delivery is remembered", || broker.services.live().delay.get(1) == 1).await;
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_delivered_before_a_restart_is_not_delivered_again_and_the_rest_is() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start_with(dir.path(), quick()).await;
    let client = broker.client().await;
    client.send("t", 0, "DELAY\u{1}1\u{2}", "one").await;
    client.send("t", 0, "DELAY\u{1}2\u{2}", "two").await;
    client.send("t", 0, "DELAY\u{1}3\u{2}", "much later").await;
    until("the first is delivered", || broker.queue_max("t", 0) == 1).await;
    broker.stop().await;

    let broker = Broker::start_with(dir.path(), quick()).await;
    until("the second is delivered", || broker.queue_max("t", 0) == 2).await;
    let client = broker.client().await;
    let (_, records) = client.pull(PullMessage::new("g", "t", 0, 0)).await;
    assert_eq!(bodies(&records), ["one", "two"]);
    let schedule = client.request(request::PULL_MESSAGE, &PullMessage::new("g", "SCHEDULE_TOPIC_XXXX", 2, 0)).await;
    assert_eq!(super::harness::records(&schedule.body.to_bytes()).len(), 1, "the third still waits");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_backlog_of_one_level_keeps_no_other_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let levels = ServicesConfig { delay_levels: "1s 1s".into(), ..ServicesConfig::default() };
    let broker = Broker::start_with(dir.path(), levels).await;
    let client = broker.client().await;
    for number in 0..300 {
        client.send("t", 0, "DELAY\u{1}1\u{2}", &number.to_string()).await;
    }
    client.send("t", 1, "DELAY\u{1}2\u{2}", "the other level's").await;
    // Nothing is delivered until all are due.
    *broker.log.failure.lock() = Some(SendFailure::NotMaster);
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    *broker.log.failure.lock() = None;
    until("all are delivered", || broker.queue_max("t", 0) >= 300 && broker.queue_max("t", 1) == 1).await;
    let (_, other) = client.pull(PullMessage::new("g", "t", 1, 0)).await;
    let (_, last) = client.pull(PullMessage::new("g", "t", 0, 299)).await;
    assert!(other[0].physical < last[0].physical, "it waited for the whole backlog");
    broker.stop().await;
}
