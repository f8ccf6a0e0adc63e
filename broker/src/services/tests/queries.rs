//! Messages by key and by id.

use super::harness::*;
use gantry_remoting::Command;
use gantry_remoting::code::{request, response};
use gantry_remoting::headers::offset::{QueryMessage, QueryMessageResponse, ViewMessage};

fn by_key<'a>(topic: &'a str, key: &'a str) -> QueryMessage<'a> {
    QueryMessage {
        topic,
        key,
        max_num: 32,
        begin_timestamp: 0,
        end_timestamp: i64::MAX,
        unique: None,
        index_type: None,
    }
}

fn found(answer: &Command) -> Vec<String> {
    assert_eq!(answer.code, response::SUCCESS, "{:?}", answer.remark);
    let records = records(&answer.body.to_bytes());
    bodies(&records).into_iter().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_found_by_each_key_by_unique_key_and_by_place() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir).await;
    let client = broker.client().await;
    client.send("orders", 0, "UNIQ_KEY\u{1}id-1\u{2}KEYS\u{1}red 77\u{2}", "one").await;
    client.send("orders", 1, "UNIQ_KEY\u{1}id-2\u{2}KEYS\u{1}red\u{2}", "two").await;
    client.send("other", 0, "UNIQ_KEY\u{1}id-3\u{2}KEYS\u{1}red\u{2}", "three").await;
    let batch: [(i32, &[u8], &str); 2] =
        [(0, b"four", "UNIQ_KEY\u{1}id-4\u{2}KEYS\u{1}in-batch\u{2}"), (0, b"five", "UNIQ_KEY\u{1}id-5\u{2}")];
    assert_eq!(client.send_batch("orders", &batch).await.code, 0);
    broker.dispatched().await;

    let ask = async |query: QueryMessage<'_>| client.request(request::QUERY_MESSAGE, &query).await;
    let answer = ask(by_key("orders", "red")).await;
    assert_eq!(found(&answer), ["one", "two"], "the oldest first");
    let index: QueryMessageResponse = answer.header().unwrap();
    assert!(index.index_last_update_timestamp > 0 && index.index_last_update_physical > 0);
    assert_eq!(
        found(&ask(QueryMessage { max_num: 1, ..by_key("orders", "red") }).await),
        ["two"],
        "of many the newest"
    );
    assert_eq!(found(&ask(by_key("orders", "77")).await), ["one"]);
    assert_eq!(found(&ask(by_key("orders", "in-batch")).await), ["four"]);
    // How many there may be of a unique key is the broker's to say.
    let unique = QueryMessage { unique: Some("true"), max_num: 0, ..by_key("orders", "id-5") };
    assert_eq!(found(&ask(unique).await), ["five"]);

    for nothing in [
        by_key("orders", "blue"),
        by_key("nowhere", "red"),
        by_key("orders", "red 77"),
        QueryMessage { end_timestamp: 1000, ..by_key("orders", "red") },
        QueryMessage { max_num: -1, ..by_key("orders", "red") },
        by_key("GANTRY_SYS_METADATA", "red"),
    ] {
        let what = format!("{nothing:?}");
        let answer = ask(nothing).await;
        assert_eq!(answer.code, response::QUERY_NOT_FOUND, "{what}");
        assert_eq!(answer.remark.as_deref(), Some("can not find message, maybe time range not correct"));
    }
    let by_tag = QueryMessage { index_type: Some("T"), ..by_key("orders", "A") };
    assert_eq!(ask(by_tag).await.code, response::REQUEST_CODE_NOT_SUPPORTED);

    let first = &records(&ask(by_key("orders", "77")).await.body.to_bytes())[0];
    let view = ViewMessage { offset: first.physical as i64, topic: Some("orders") };
    assert_eq!(found(&client.request(request::VIEW_MESSAGE_BY_ID, &view).await), ["one"]);
    let nowhere = ViewMessage { offset: first.physical as i64 + 1, topic: None };
    let answer = client.request(request::VIEW_MESSAGE_BY_ID, &nowhere).await;
    assert_eq!(answer.code, response::SYSTEM_ERROR);
    broker.stop().await;
}
