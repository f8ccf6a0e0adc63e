//! The record over an API server that is none, and that misbehaves as told.

use std::collections::BTreeSet;

use gantry_replication::{Epoch, Member, StoreId};

use super::super::mock::Mock;
use super::*;

const PATH: &str = "/apis/gantry.rs/v1alpha1/namespaces/shop/brokergroups/broker-a";

fn object() -> Value {
    json!({
        "apiVersion": "gantry.rs/v1alpha1", "kind": "BrokerGroup",
        "metadata": {"name": "broker-a", "namespace": "shop", "uid": "u1"}, "spec": {},
    })
}

fn record(epoch: u64) -> GroupRecord {
    let master = Member::new("broker-a-0", StoreId(7));
    GroupRecord { epoch: Epoch(epoch), revision: epoch, in_sync: BTreeSet::from([master.clone()]), master }
}

fn store(mock: &Mock) -> StatusRecord {
    mock.put(PATH, object());
    let group: BrokerGroup = serde_json::from_value(object()).unwrap();
    StatusRecord::new(Api::namespaced(mock.client(), "shop"), &group, Leadership::for_tests())
}

#[tokio::test]
async fn a_record_is_read_as_it_was_written_and_the_rest_of_the_status_stays() {
    let mock = Mock::start();
    let store = store(&mock);
    mock.change(PATH, |object| object["status"] = json!({"inSync": "0/3"}));
    let empty = store.read().await.unwrap();
    assert_eq!(empty.record, None);
    let version = store.compare_and_set(&empty.version, &record(1)).await.unwrap().unwrap();
    assert_eq!(store.read().await.unwrap(), Recorded { record: Some(record(1)), version });
    let status = &mock.get(PATH).unwrap()["status"];
    assert_eq!(status["record"]["master"], "broker-a-0#0000000000000007");
    assert_eq!(status["inSync"], "0/3");
}

#[tokio::test]
async fn whoever_compares_with_an_old_record_changes_nothing() {
    let mock = Mock::start();
    let store = store(&mock);
    let empty = store.read().await.unwrap().version;
    store.compare_and_set(&empty, &record(1)).await.unwrap().unwrap();
    assert_eq!(store.compare_and_set(&empty, &record(9)).await.unwrap(), None);
    assert_eq!(store.read().await.unwrap().record, Some(record(1)));
}

#[tokio::test]
async fn another_condition_in_the_status_is_no_conflict() {
    let mock = Mock::start();
    let store = store(&mock);
    let empty = store.read().await.unwrap().version;
    mock.before_next_patch(|object| object["status"]["inSync"] = json!("1/3"));
    assert!(store.compare_and_set(&empty, &record(1)).await.unwrap().is_some());
    assert_eq!(mock.get(PATH).unwrap()["status"]["inSync"], "1/3");
    assert_eq!(mock.patches(), 2, "the first one met the change");
}

#[tokio::test]
async fn another_record_in_between_wins() {
    let mock = Mock::start();
    let store = store(&mock);
    let empty = store.read().await.unwrap().version;
    mock.before_next_patch(|object| object["status"]["record"] = to_status(&record(5)));
    assert_eq!(store.compare_and_set(&empty, &record(1)).await.unwrap(), None);
    assert_eq!(store.read().await.unwrap().record, Some(record(5)));
}

#[tokio::test]
async fn refusals_and_failures_say_whether_they_may_have_written() {
    let mock = Mock::start();
    let store = store(&mock);
    let empty = store.read().await.unwrap().version;
    for (code, uncertain) in [(410, false), (422, false), (429, false), (500, true), (503, true), (504, true)] {
        mock.refuse_patches_with(code);
        let error = store.compare_and_set(&empty, &record(1)).await.unwrap_err();
        assert_eq!(error.is_uncertain(), uncertain, "{code}: {error}");
        assert!(error.to_string().contains(&format!("shop/broker-a: write: refused by the test ({code}")), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_without_an_answer_is_uncertain_and_may_have_been_done() {
    let mock = Mock::start();
    let store = store(&mock);
    let empty = store.read().await.unwrap().version;
    mock.swallow_answers_of_patches();
    let error = store.compare_and_set(&empty, &record(1)).await.unwrap_err();
    assert!(error.is_uncertain() && error.to_string().contains("did not answer"), "{error}");
    assert_eq!(store.read().await.unwrap().record, Some(record(1)), "it reads again and finds it");
}

#[tokio::test]
async fn who_does_not_lead_writes_nothing() {
    let mock = Mock::start();
    let store = StatusRecord { leadership: Leadership::default(), ..store(&mock) };
    let empty = store.read().await.unwrap().version;
    let error = store.compare_and_set(&empty, &record(1)).await.unwrap_err();
    assert!(!error.is_uncertain() && error.to_string().contains("does not lead"), "{error}");
    assert_eq!(mock.patches(), 0);
}

#[tokio::test]
async fn a_group_made_anew_under_the_same_name_is_another() {
    let mock = Mock::start();
    let store = store(&mock);
    mock.change(PATH, |object| object["metadata"]["uid"] = json!("u2"));
    let error = store.read().await.unwrap_err();
    assert!(error.to_string().contains("another BrokerGroup of that name"), "{error}");
}

#[tokio::test]
async fn a_damaged_record_is_an_error_and_never_an_absent_one() {
    let mock = Mock::start();
    let store = store(&mock);
    for (epoch, master, in_sync) in [(0, "a#01", "a#01"), (1, "a#01", "b#01"), (1, "no member", "no member")] {
        let record = json!({"epoch": epoch, "revision": 1, "master": master, "inSync": [in_sync]});
        mock.change(PATH, |object| object["status"] = json!({"record": record}));
        let error = store.read().await.unwrap_err().to_string();
        assert!(error.contains("shop/broker-a: understand:") && error.contains("restore the record"), "{error}");
    }
}
