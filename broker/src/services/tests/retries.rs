//! Messages sent back: retry topic, dead letter topic, orderly consumers' locks.

use super::harness::*;
use crate::services::ServicesConfig;
use gantry_remoting::Command;
use gantry_remoting::body::lock::{LockBatch, LockBatchResponse, MessageQueue};
use gantry_remoting::body::{parse, to_json};
use gantry_remoting::code::{request, response};
use gantry_remoting::headers::pull::PullMessage;
use gantry_remoting::headers::send::{ConsumerSendMsgBack, SendMessage};

fn back(offset: u64, delay_level: i32) -> ConsumerSendMsgBack<'static> {
    ConsumerSendMsgBack {
        offset: offset as i64,
        group: "g",
        delay_level,
        origin_msg_id: None,
        origin_topic: Some("t"),
        unit_mode: None,
        max_reconsume_times: Some(1),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_sent_back_comes_again_and_ends_as_a_dead_letter() {
    let dir = tempfile::tempdir().unwrap();
    let config = ServicesConfig { delay_levels: "1s".into(), ..ServicesConfig::default() };
    let broker = Broker::start_with(dir.path(), config).await;
    let client = broker.client().await;
    client.send("t", 0, "KEYS\u{1}k\u{2}", "difficult").await;
    client.subscribe("c", "g", "t", "*", 1).await;
    broker.dispatched().await;
    let (_, first) = client.pull(PullMessage::new("g", "t", 0, 0)).await;

    let answer = client.request(request::CONSUMER_SEND_MSG_BACK, &back(first[0].physical, 0)).await;
    assert_eq!(answer.code, 0, "{:?}", answer.remark);
    let (answer, again) = client.pull(waiting_pull("g", "%RETRY%g", 0, 0)).await;
    assert_eq!((answer.code, bodies(&again)), (0, vec!["difficult"]));
    assert_eq!((again[0].reconsume_times, again[0].property("KEYS")), (1, Some("k")));
    assert_eq!(again[0].property("RETRY_TOPIC"), Some("t"));
    assert_eq!(again[0].property("ORIGIN_MESSAGE_ID").map(str::len), Some(32));

    let answer = client.request(request::CONSUMER_SEND_MSG_BACK, &back(again[0].physical, 0)).await;
    assert_eq!(answer.code, 0, "{:?}", answer.remark);
    let (answer, dead) = client.pull(waiting_pull("g", "%DLQ%g", 0, 0)).await;
    assert_eq!((answer.code, bodies(&dead)), (0, vec!["difficult"]));
    assert_eq!((dead[0].reconsume_times, dead[0].property("DELAY")), (2, None));
    assert_eq!(dead[0].property("ORIGIN_MESSAGE_ID"), again[0].property("ORIGIN_MESSAGE_ID"));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_negative_level_gives_the_message_up_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir).await;
    let client = broker.client().await;
    client.send("t", 0, "", "hopeless").await;
    client.subscribe("c", "g", "t", "*", 1).await;
    broker.dispatched().await;
    let (_, first) = client.pull(PullMessage::new("g", "t", 0, 0)).await;
    assert_eq!(client.request(request::CONSUMER_SEND_MSG_BACK, &back(first[0].physical, -1)).await.code, 0);
    let (_, dead) = client.pull(waiting_pull("g", "%DLQ%g", 0, 0)).await;
    assert_eq!(bodies(&dead), ["hopeless"]);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_a_message_cannot_be_sent_back() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir).await;
    let client = broker.client().await;
    client.send("t", 0, "", "x").await;
    let unknown = client.request(request::CONSUMER_SEND_MSG_BACK, &back(0, 0)).await;
    assert_eq!(unknown.code, response::SUBSCRIPTION_GROUP_NOT_EXIST);
    client.subscribe("c", "g", "t", "*", 1).await;
    broker.dispatched().await;
    for offset in [1, 77, 1 << 40, u64::MAX >> 1] {
        let answer = client.request(request::CONSUMER_SEND_MSG_BACK, &back(offset, 0)).await;
        assert_eq!(answer.code, response::SYSTEM_ERROR, "offset {offset}");
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumers_own_send_to_its_retry_topic_is_counted_too() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir).await;
    let client = broker.client().await;
    client.send("t", 0, "", "x").await;
    client.subscribe("c", "g", "t", "*", 1).await;
    let send = |times| SendMessage {
        reconsume_times: Some(times),
        max_reconsume_times: Some(2),
        ..send_header("%RETRY%g", 0)
    };
    for times in [2, 3] {
        let command = Command::request(request::SEND_MESSAGE_V2).with_header(&send(times));
        assert_eq!(client.ask(command.with_body(times.to_string().into_bytes())).await.code, 0);
    }
    broker.dispatched().await;
    assert_eq!(bodies(&client.pull(PullMessage::new("g", "%RETRY%g", 0, 0)).await.1), ["2"]);
    assert_eq!(bodies(&client.pull(PullMessage::new("g", "%DLQ%g", 0, 0)).await.1), ["3"]);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_orderly_consumers_never_own_the_same_queue() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir).await;
    let client = broker.client().await;
    let queues = |ids: &[i32]| -> Vec<MessageQueue> {
        let queue = |id: &i32| MessageQueue { topic: "t".into(), broker_name: "broker-a".into(), queue_id: *id };
        ids.iter().map(queue).collect()
    };
    let ask = |code, id: &str, ids: &[i32]| {
        let body =
            LockBatch { consumer_group: "g".into(), client_id: id.into(), mq_set: queues(ids), ..LockBatch::default() };
        client.ask(Command::request(code).with_body(to_json(&body).unwrap()))
    };
    let locked = |answer: Command| parse::<LockBatchResponse>(&answer.body.to_bytes()).unwrap().locked;
    assert_eq!(locked(ask(request::LOCK_BATCH_MQ, "one", &[0, 1]).await), queues(&[0, 1]));
    assert_eq!(locked(ask(request::LOCK_BATCH_MQ, "two", &[1, 2]).await), queues(&[2]));
    assert_eq!(ask(request::UNLOCK_BATCH_MQ, "one", &[1]).await.code, 0);
    assert_eq!(locked(ask(request::LOCK_BATCH_MQ, "two", &[1, 2]).await), queues(&[1, 2]));
    broker.stop().await;
}
