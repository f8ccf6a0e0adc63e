//! Topics with batch queues: a batch that says who it is becomes one record.

use super::harness::*;
use crate::services::send_batch;
use bytes::Bytes;
use gantry_remoting::Command;
use gantry_remoting::code::{request, response};
use gantry_remoting::headers::offset::{GetMaxOffset, OffsetResponse};
use gantry_remoting::headers::pull::PullMessage;
use gantry_remoting::headers::send::{ConsumerSendMsgBack, SendMessage, SendMessageResponse};
use gantry_remoting::headers::topic::CreateTopic;

const THREE: [(i32, &[u8], &str); 3] = [(1, b"a", "TAGS\u{1}x\u{2}"), (2, b"b", ""), (3, b"c", "")];

async fn create(client: &Client) {
    let header = CreateTopic {
        topic: "b",
        default_topic: "TBW102",
        read_queue_nums: 1,
        write_queue_nums: 1,
        perm: 6,
        topic_filter_type: "SINGLE_TAG",
        topic_sys_flag: None,
        order: None,
        attributes: Some("+queue.type=BatchCQ"),
        force: None,
    };
    let answer = client.request(request::UPDATE_AND_CREATE_TOPIC, &header).await;
    assert_eq!(answer.code, 0, "{:?}", answer.remark);
}

async fn send_batch_as(client: &Client, properties: &str) -> Command {
    let header = SendMessage { batch: Some(true), properties: Some(properties), ..send_header("b", 0) };
    let command = Command::request(request::SEND_BATCH_MESSAGE).with_header(&header);
    client.ask(command.with_body(send_batch::encode(&THREE))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_with_an_id_is_one_record_and_a_pull_anywhere_in_it_gives_all_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir).await;
    let client = broker.client().await;
    create(&client).await;
    // What a client says of batches doesn't count.
    assert_eq!(client.send("b", 0, "INNER_NUM\u{1}7\u{2}INNER_BASE\u{1}0\u{2}", "alone").await, (0, 0));
    let answer = send_batch_as(&client, "UNIQ_KEY\u{1}ID\u{2}WAIT\u{1}true\u{2}").await;
    let sent: SendMessageResponse<'_> = answer.header().unwrap();
    assert_eq!((sent.queue_offset, sent.batch_uniq_id, sent.msg_id.len()), (1, Some("ID"), 32));
    // An older client's: its consumers would not take it apart.
    let answer = send_batch_as(&client, "").await;
    let sent: SendMessageResponse<'_> = answer.header().unwrap();
    assert_eq!((sent.queue_offset, sent.batch_uniq_id, sent.msg_id.split(',').count()), (4, None, 3));
    broker.dispatched().await;

    for (from, first) in [(0, 0), (1, 1), (2, 1), (3, 1), (4, 4)] {
        let (answer, records) =
            client.pull(PullMessage { max_msg_nums: 1, ..PullMessage::new("g", "b", 0, from) }).await;
        let next = first + if first == 1 { 3 } else { 1 };
        assert_eq!((records[0].offset, pull_answer(&answer).next_begin_offset), (first, next as i64), "from {from}");
    }
    let (_, records) = client.pull(PullMessage::new("g", "b", 0, 0)).await;
    assert_eq!(records.iter().map(|record| record.offset).collect::<Vec<_>>(), [0, 1, 4, 5, 6]);
    let said = |record: &Received| ["INNER_NUM", "INNER_BASE"].map(|name| record.property(name).map(str::to_owned));
    assert_eq!(said(&records[0]), [Some("1".into()), Some("0".into())]);
    assert_eq!(said(&records[3]), [Some("1".into()), Some("5".into())]);
    assert_eq!(records[1].body, send_batch::encode(&THREE));
    let named = ["INNER_NUM", "INNER_BASE", "UNIQ_KEY", "WAIT"].map(|name| records[1].property(name));
    assert_eq!(named, [Some("3"), Some("1"), Some("ID"), None]);
    // Its tags are in the batch: every subscription gets it. What is alone is judged by its own.
    let (_, records) = client.pull(PullMessage { subscription: Some("x"), ..PullMessage::new("g", "b", 0, 0) }).await;
    assert_eq!(records.iter().map(|record| record.offset).collect::<Vec<_>>(), [1, 4]);
    let max = GetMaxOffset { topic: "b", queue_id: 0, committed: None };
    let max: OffsetResponse = client.request(request::GET_MAX_OFFSET, &max).await.header().unwrap();
    assert_eq!(max.offset, 7);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_a_batch_is_not_sent_back_as_the_whole_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir).await;
    let client = broker.client().await;
    create(&client).await;
    client.subscribe("c", "g", "b", "*", 1).await;
    client.send("b", 0, "", "alone").await;
    send_batch_as(&client, "UNIQ_KEY\u{1}ID\u{2}").await;
    broker.dispatched().await;
    let (_, records) = client.pull(PullMessage::new("g", "b", 0, 0)).await;
    for (record, code) in records.iter().zip([response::SUCCESS, response::MESSAGE_ILLEGAL]) {
        let header = ConsumerSendMsgBack {
            offset: record.physical as i64,
            group: "g",
            delay_level: 0,
            origin_msg_id: None,
            origin_topic: Some("b"),
            unit_mode: None,
            max_reconsume_times: Some(16),
        };
        let command = Command::request(request::CONSUMER_SEND_MSG_BACK).with_header(&header);
        let answer = client.ask(command.with_body(Bytes::new())).await;
        assert_eq!(answer.code, code, "{:?}", answer.remark);
    }
    broker.stop().await;
}
