//! Sending, pulling, waiting, committing.

use super::harness::*;
use crate::services::ServicesConfig;
use gantry_remoting::Command;
use gantry_remoting::body::consumer_list::ConsumerList;
use gantry_remoting::body::parse;
use gantry_remoting::code::{request, response};
use gantry_remoting::headers::client::{GetConsumerListByGroup, NotifyConsumerIdsChanged, UnregisterClient};
use gantry_remoting::headers::offset::{
    GetMaxOffset, OffsetResponse, QueryConsumerOffset, UpdateConsumerOffset, ViewMessage,
};
use gantry_remoting::headers::pull::{PullMessage, sys_flag};
use gantry_remoting::headers::send::SendMessageResponse;
use std::sync::atomic::Ordering;

#[tokio::test(flavor = "multi_thread")]
async fn a_message_sent_is_pulled_whole_and_its_offset_committed() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir).await;
    let client = broker.client().await;
    let answer = client.send_raw("orders", 1, "UNIQ_KEY\u{1}id-1\u{2}KEYS\u{1}k\u{2}WAIT\u{1}true\u{2}", "hello").await;
    let sent: SendMessageResponse<'_> = answer.header().unwrap();
    assert_eq!((answer.code, sent.queue_id, sent.queue_offset), (0, 1, 0));
    assert_eq!((sent.transaction_id, sent.region, sent.trace_on), (Some("id-1"), Some("DefaultRegion"), Some(true)));
    assert_eq!(sent.msg_id.len(), 32);

    broker.dispatched().await;
    let (answer, records) = client.pull(PullMessage::new("g", "orders", 1, 0)).await;
    assert_eq!(answer.code, response::SUCCESS);
    assert_eq!(bodies(&records), ["hello"]);
    assert_eq!((records[0].property("KEYS"), records[0].property("WAIT")), (Some("k"), None));
    assert_eq!(records[0].property("CLUSTER"), Some("DefaultCluster"));
    let header = pull_answer(&answer);
    assert_eq!((header.next_begin_offset, header.min_offset, header.max_offset), (1, 0, 1));

    let commit = UpdateConsumerOffset { consumer_group: "g", topic: "orders", queue_id: 1, commit_offset: 1 };
    assert_eq!(client.request(request::UPDATE_CONSUMER_OFFSET, &commit).await.code, 0);
    assert_eq!(offset_of(&client, "g", "orders", 1).await, Some(1));

    let view = ViewMessage { offset: records[0].physical as i64, topic: None };
    let viewed = client.request(request::VIEW_MESSAGE_BY_ID, &view).await;
    assert_eq!(super::harness::records(&viewed.body.to_bytes()), records);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_reaches_a_new_master_too_early_waits_and_nobody_is_sent_away() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir).await;
    let client = broker.client().await;
    client.send("t", 0, "", "first").await;
    broker.dispatched().await;
    broker.role.opening.store(true, Ordering::SeqCst);
    let asking = async {
        let max = GetMaxOffset { topic: "t", queue_id: 0, committed: None };
        tokio::join!(client.request(request::GET_MAX_OFFSET, &max), client.pull(PullMessage::new("g", "t", 0, 0)))
    };
    let opening = async {
        until("both are kept", || broker.services.kept() == 2).await;
        broker.role.opening.store(false, Ordering::SeqCst);
    };
    let ((max, (pulled, records)), ()) = tokio::join!(asking, opening);
    assert_eq!((max.code, pulled.code), (response::SUCCESS, response::SUCCESS));
    assert_eq!(bodies(&records), ["first"]);
    assert_eq!(broker.services.kept(), 0);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_finds_nothing_waits_and_is_woken_by_the_message_it_wants() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir).await;
    let (consumer, producer) = (broker.client().await, broker.client().await);
    producer.send("t", 0, "", "first").await;
    broker.dispatched().await;
    let pull = PullMessage { subscription: Some("wanted"), ..waiting_pull("g", "t", 0, 1) };
    let waiting = async { consumer.pull(pull).await };
    let sending = async {
        until("the pull waits", || !broker.services.waiting.is_empty()).await;
        producer.send("t", 1, "TAGS\u{1}wanted\u{2}", "another queue").await;
        producer.send("t", 0, "TAGS\u{1}other\u{2}", "another tag").await;
        broker.dispatched().await;
        assert_eq!(broker.services.waiting.len(), 1, "neither was for it");
        producer.send("t", 0, "TAGS\u{1}wanted\u{2}", "second").await;
    };
    let ((answer, records), ()) = tokio::join!(waiting, sending);
    assert_eq!((answer.code, bodies(&records)), (0, vec!["second"]));
    assert_eq!(pull_answer(&answer).next_begin_offset, 3);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_pull_is_answered_when_its_time_is_up_and_dropped_when_its_connection_ends() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir).await;
    let client = broker.client().await;
    client.send("t", 0, "", "first").await;
    broker.dispatched().await;
    let (answer, records) = client.pull(PullMessage { suspend_timeout_ms: 50, ..waiting_pull("g", "t", 0, 1) }).await;
    assert_eq!((answer.code, records.len()), (response::PULL_NOT_FOUND, 0));

    let leaver = broker.client().await;
    let pull = Command::request(request::PULL_MESSAGE).with_header(&waiting_pull("g", "t", 0, 1));
    let pending = tokio::spawn({
        let connection = leaver.connection.clone();
        async move { connection.invoke(pull, PATIENCE).await }
    });
    until("the pull waits", || broker.services.waiting.len() == 1).await;
    leaver.connection.close("the test leaves");
    pending.await.unwrap().unwrap_err();
    until("the pull is dropped", || broker.services.waiting.is_empty()).await;
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_lies_in_one_piece_and_each_of_its_messages_has_an_id() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir).await;
    let client = broker.client().await;
    let answer = client.send_batch("t", &[(1, b"a", "TAGS\u{1}x\u{2}"), (2, b"b", ""), (3, b"c", "TAGS\u{1}x")]).await;
    assert_eq!(answer.code, 0, "{:?}", answer.remark);
    let sent: SendMessageResponse<'_> = answer.header().unwrap();
    assert_eq!((sent.msg_id.split(',').count(), sent.queue_offset), (3, 0));
    broker.dispatched().await;
    let (_, records) =
        client.pull(PullMessage { subscription: Some("x || y"), ..PullMessage::new("g", "t", 0, 0) }).await;
    assert_eq!(bodies(&records), ["a", "c"]);
    let (answer, _) =
        client.pull(PullMessage { subscription: Some("nobody"), ..PullMessage::new("g", "t", 0, 0) }).await;
    assert_eq!((answer.code, pull_answer(&answer).next_begin_offset), (response::PULL_RETRY_IMMEDIATELY, 3));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_way_sends_and_pipelined_sends_arrive_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir).await;
    let client = broker.client().await;
    client.send("t", 0, "", "0").await;
    for n in 1..200 {
        let header = send_header("t", 0);
        let command = Command::request(request::SEND_MESSAGE_V2).with_header(&header);
        client.connection.send(command.with_body(n.to_string().into_bytes())).unwrap();
    }
    until("all are there", || broker.queue_max("t", 0) == 200).await;
    let mut seen = Vec::new();
    while seen.len() < 200 {
        let (_, records) = client.pull(PullMessage::new("g", "t", 0, seen.len() as i64)).await;
        seen.extend(bodies(&records).iter().map(|body| body.parse::<usize>().unwrap()));
    }
    assert_eq!(seen, (0..200).collect::<Vec<_>>());
    let hand_overs = broker.log.hand_overs.lock().iter().filter(|sends| **sends > 0).count();
    assert!(hand_overs < 200, "sends of one read are handed over together");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_as_asked_is_refused_and_never_stored() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir).await;
    let client = broker.client().await;
    client.send("t", 0, "", "ok").await;
    for (topic, queue, properties, code) in [
        ("t", 0, "TRAN_MSG\u{1}true\u{2}", response::MESSAGE_ILLEGAL),
        ("t", 0, "TIMER_DELIVER_MS\u{1}1\u{2}", response::MESSAGE_ILLEGAL),
        ("t", 99, "", response::SYSTEM_ERROR),
        ("bad name", 0, "", response::SYSTEM_ERROR),
        ("GANTRY_SYS_METADATA", 0, "", response::NO_PERMISSION),
        ("SCHEDULE_TOPIC_XXXX", 0, "", response::NO_PERMISSION),
    ] {
        let answer = client.send_raw(topic, queue, properties, "no").await;
        assert_eq!(answer.code, code, "{topic} {queue} {properties}: {:?}", answer.remark);
    }
    let long = format!("K\u{1}{}\u{2}", "x".repeat(32_768));
    assert_eq!(client.send_raw("t", 0, &long, "no").await.code, response::MESSAGE_ILLEGAL);
    assert_eq!(client.send_batch("t", &[(0, b"a", "DELAY\u{1}3\u{2}")]).await.code, response::MESSAGE_ILLEGAL);
    let sql = PullMessage { expression_type: Some("SQL92"), ..PullMessage::new("g", "t", 0, 0) };
    assert!(client.pull(sql).await.0.remark.unwrap().contains("SQL92"));
    assert_eq!(client.pull(PullMessage::new("g", "nowhere", 0, 0)).await.0.code, response::TOPIC_NOT_EXIST);
    assert_eq!(client.pull(PullMessage::new("g", "GANTRY_SYS_METADATA", 0, 0)).await.0.code, response::NO_PERMISSION);
    let unknown = client.ask(Command::request(370)).await;
    assert_eq!(unknown.code, response::REQUEST_CODE_NOT_SUPPORTED);
    assert!(unknown.remark.unwrap().contains("370"));
    broker.dispatched().await;
    assert_eq!(broker.queue_max("t", 0), 1);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_outside_the_queue_get_rocketmqs_answers() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir).await;
    let client = broker.client().await;
    client.send("t", 0, "", "only").await;
    broker.dispatched().await;
    let (moved, _) = client.pull(PullMessage::new("g", "t", 0, 7)).await;
    assert_eq!((moved.code, pull_answer(&moved).next_begin_offset), (response::PULL_OFFSET_MOVED, 1));
    assert_eq!(client.pull(PullMessage::new("g", "t", 3, 0)).await.0.code, response::PULL_NOT_FOUND);
    let header = GetMaxOffset { topic: "t", queue_id: 0, committed: None };
    let max = client.request(request::GET_MAX_OFFSET, &header).await;
    assert_eq!(max.header::<OffsetResponse>().unwrap().offset, 1);
    assert_eq!(offset_of(&client, "new-group", "t", 0).await, Some(0), "a young queue is read from its start");
    let ask = QueryConsumerOffset { consumer_group: "x", topic: "t", queue_id: 0, set_zero_if_not_found: Some(false) };
    assert_eq!(client.request(request::QUERY_CONSUMER_OFFSET, &ask).await.code, response::QUERY_NOT_FOUND);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_hears_of_who_joins_and_who_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir).await;
    let (mut one, two, three) = (broker.client().await, broker.client().await, broker.client().await);
    one.send("t", 0, "", "x").await;
    one.subscribe("one", "g", "t", "*", 1).await;
    assert_noticed(&mut one, "g").await;
    two.subscribe("two", "g", "t", "*", 1).await;
    assert_noticed(&mut one, "g").await;
    assert_eq!(members(&one, "g").await, ["one", "two"]);
    three.subscribe("three", "g", "t", "*", 1).await;
    assert_noticed(&mut one, "g").await;
    let leave = UnregisterClient { client_id: "two", producer_group: None, consumer_group: Some("g") };
    assert_eq!(two.request(request::UNREGISTER_CLIENT, &leave).await.code, 0);
    assert_noticed(&mut one, "g").await;
    three.connection.close("gone");
    assert_noticed(&mut one, "g").await;
    assert_eq!(members(&one, "g").await, ["one"]);
    one.subscribe("one", "g", "t", "*", 1).await;
    assert!(one.notices.try_recv().is_err(), "the same heartbeat again changes nothing");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_without_subscription_goes_by_the_heartbeat() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir).await;
    let client = broker.client().await;
    client.send("t", 0, "TAGS\u{1}a\u{2}", "a").await;
    client.send("t", 0, "TAGS\u{1}b\u{2}", "b").await;
    broker.dispatched().await;
    let bare = || PullMessage { sys_flag: 0, subscription: None, sub_version: 5, ..PullMessage::new("g", "t", 0, 0) };
    assert_eq!(client.pull(bare()).await.0.code, response::SUBSCRIPTION_NOT_EXIST);
    client.subscribe("c", "g", "t", "b", 4).await;
    assert_eq!(client.pull(bare()).await.0.code, response::SUBSCRIPTION_NOT_LATEST);
    client.subscribe("c", "g", "t", "b", 5).await;
    let commit = PullMessage { sys_flag: sys_flag::COMMIT_OFFSET, commit_offset: 1, ..bare() };
    assert_eq!(bodies(&client.pull(commit).await.1), ["b"]);
    assert_eq!(offset_of(&client, "g", "t", 0).await, Some(1), "committed along with the pull");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_an_old_master_are_sent_away_when_they_can_find_the_next_one_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir).await;
    let client = broker.client().await;
    client.send("t", 0, "", "x").await;
    broker.dispatched().await;
    let waiting = tokio::spawn({
        let connection = client.connection.clone();
        let pull = Command::request(request::PULL_MESSAGE).with_header(&waiting_pull("g", "t", 0, 1));
        async move { connection.invoke(pull, PATIENCE).await.unwrap() }
    });
    until("the pull waits", || broker.services.held_pulls() == 1).await;
    broker.role.serving.store(false, Ordering::SeqCst);
    broker.role.departing.store(true, Ordering::SeqCst);
    broker.services.became_slave();
    let asking = async {
        let max = GetMaxOffset { topic: "t", queue_id: 0, committed: None };
        tokio::join!(
            client.request(request::GET_MAX_OFFSET, &max),
            client.pull(PullMessage::new("g", "t", 0, 0)),
            client.send_raw("t", 0, "", "y"),
        )
    };
    let departing = async {
        until("all are kept", || broker.services.kept() == 3).await;
        assert_eq!(broker.services.held_pulls(), 1);
        broker.role.departing.store(false, Ordering::SeqCst);
        broker.services.departed();
    };
    let ((max, (pulled, _), sent), ()) = tokio::join!(asking, departing);
    assert_eq!(waiting.await.unwrap().code, response::GO_AWAY);
    assert_eq!((pulled.code, sent.code), (response::GO_AWAY, response::GO_AWAY));
    assert_eq!(max.code, response::SERVICE_NOT_AVAILABLE);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_old_master_kept_it_answers_itself_if_it_becomes_master_again() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir).await;
    let client = broker.client().await;
    broker.role.departing.store(true, Ordering::SeqCst);
    broker.services.became_slave();
    let returning = async {
        until("the send is kept", || broker.services.kept() == 1).await;
        broker.services.became_master(2);
        broker.role.departing.store(false, Ordering::SeqCst);
    };
    let (sent, ()) = tokio::join!(client.send("t", 0, "", "x"), returning);
    assert_eq!(sent, (0, 0));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_to_a_slave_is_sent_away_and_does_not_stay_connected() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start_slave(dir.path(), ServicesConfig::default()).await;
    let (new, old) = (broker.client().await, broker.client().await);
    let pull = Command::request(request::PULL_MESSAGE).with_header(&PullMessage::new("g", "t", 0, 0));
    let before_go_away = Command { version: gantry_remoting::version::V5_3_1, ..pull };
    let (sent, refused) = tokio::join!(new.send_raw("new-topic", 0, "", "x"), old.ask(before_go_away));
    assert_eq!((sent.code, refused.code), (response::GO_AWAY, response::SYSTEM_BUSY));
    tokio::time::timeout(PATIENCE, async { tokio::join!(new.connection.closed(), old.connection.closed()) })
        .await
        .expect("both connections are closed");
    let other = broker.client().await;
    let max = GetMaxOffset { topic: "t", queue_id: 0, committed: None };
    assert_eq!(other.request(request::GET_MAX_OFFSET, &max).await.code, response::SERVICE_NOT_AVAILABLE);
    broker.stop().await;
}

async fn offset_of(client: &Client, group: &str, topic: &str, queue: i32) -> Option<i64> {
    let ask = QueryConsumerOffset { consumer_group: group, topic, queue_id: queue, set_zero_if_not_found: None };
    let answer = client.request(request::QUERY_CONSUMER_OFFSET, &ask).await;
    (answer.code == 0).then(|| answer.header::<OffsetResponse>().unwrap().offset)
}

async fn members(client: &Client, group: &str) -> Vec<String> {
    let header = GetConsumerListByGroup { consumer_group: group };
    let answer = client.request(request::GET_CONSUMER_LIST_BY_GROUP, &header).await;
    parse::<ConsumerList>(&answer.body.to_bytes()).unwrap().consumer_id_list
}

async fn assert_noticed(client: &mut Client, group: &str) {
    let notice = tokio::time::timeout(PATIENCE, client.notices.recv()).await.expect("a notice").unwrap();
    assert_eq!(notice.code, request::NOTIFY_CONSUMER_IDS_CHANGED);
    assert!(notice.is_oneway());
    assert_eq!(notice.header::<NotifyConsumerIdsChanged<'_>>().unwrap().consumer_group, group);
}
