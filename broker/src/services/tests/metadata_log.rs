//! Topics, groups and offsets through stops, kills, role changes and snapshots.

use super::harness::*;
use crate::services::seam::SendFailure;
use crate::services::{ServicesConfig, names};
use gantry_remoting::code::{request, response};
use gantry_remoting::headers::offset::UpdateConsumerOffset;
use gantry_remoting::headers::topic::{CreateTopic, DeleteTopic};
use std::sync::atomic::Ordering;

fn create(topic: &str) -> CreateTopic<'_> {
    CreateTopic {
        topic,
        default_topic: "TBW102",
        read_queue_nums: 3,
        write_queue_nums: 3,
        perm: 6,
        topic_filter_type: "SINGLE_TAG",
        topic_sys_flag: None,
        order: None,
        attributes: Some("+message.type=NORMAL"),
        force: None,
    }
}

fn commit(offset: i64) -> UpdateConsumerOffset<'static> {
    UpdateConsumerOffset { consumer_group: "g", topic: "t", queue_id: 0, commit_offset: offset }
}

/// Does what later must be remembered.
async fn leave_traces(broker: &Broker) {
    let client = broker.client().await;
    for topic in ["t", "doomed"] {
        assert_eq!(client.request(request::UPDATE_AND_CREATE_TOPIC, &create(topic)).await.code, 0);
    }
    assert_eq!(client.request(request::UPDATE_CONSUMER_OFFSET, &commit(41)).await.code, 0);
    assert_eq!(client.request(request::UPDATE_CONSUMER_OFFSET, &commit(42)).await.code, 0);
    assert_eq!(client.request(request::DELETE_TOPIC_IN_BROKER, &DeleteTopic { topic: "doomed" }).await.code, 0);
    client.send("by-a-send", 0, "", "x").await;
    let metadata = &broker.services.metadata;
    let confirmed = || metadata.confirmed_offset("t", "g", 0) == Some(42) && metadata.knows_topic("by-a-send");
    until("all is confirmed", confirmed).await;
}

fn assert_traces(broker: &Broker) {
    let live = broker.services.live();
    let topic = live.topics.get("t").expect("the topic is remembered");
    assert_eq!((topic.config.read_queue_nums, topic.config.attributes["message.type"].as_str()), (3, "NORMAL"));
    assert!(live.topics.get("by-a-send").is_some() && live.topics.get("doomed").is_none());
    assert!(live.groups.get("g").is_some());
    assert_eq!(live.offsets.get("t", "g", 0), Some(42));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_is_there_after_a_clean_stop() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir).await;
    leave_traces(&broker).await;
    broker.stop().await;
    let text = std::fs::read_to_string(dir.path().join("config/consumerOffset.json")).unwrap();
    assert!(text.contains(r#""t@g":{"0":42}"#), "{text}");
    let topics = std::fs::read_to_string(dir.path().join("config/topics.json")).unwrap();
    assert!(!topics.contains(names::METADATA_TOPIC) && !topics.contains("TBW102"), "{topics}");
    let broker = Broker::start(&dir).await;
    assert_traces(&broker);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_is_there_after_a_kill_by_the_log_alone() {
    let dir = tempfile::tempdir().unwrap();
    let quiet = || ServicesConfig { snapshot_ms: 3_600_000, ..ServicesConfig::default() };
    let broker = Broker::start_with(dir.path(), quiet()).await;
    leave_traces(&broker).await;
    broker.kill().await;
    let _none = std::fs::remove_dir_all(dir.path().join("config"));
    let broker = Broker::start_with(dir.path(), quiet()).await;
    assert_traces(&broker);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_was_given_the_snapshot_knows_what_the_log_no_longer_says() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let broker = Broker::start(&dir).await;
    leave_traces(&broker).await;
    let snapshot = broker.services.snapshot().unwrap();
    let replica = Broker::start_slave(other.path(), ServicesConfig::default()).await;
    replica.services.install_snapshot(&snapshot).unwrap();
    assert_traces(&replica);
    replica.kill().await;
    let replica = Broker::start_slave(other.path(), ServicesConfig::default()).await;
    assert_traces(&replica);
    replica.services.install_snapshot(b"{").unwrap_err();
    replica.stop().await;
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_answered_for_only_when_its_record_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir).await;
    let client = broker.client().await;
    *broker.log.failure.lock() = Some(SendFailure::InSyncShort { have: 1, need: 2 });
    let answer = client.request(request::UPDATE_AND_CREATE_TOPIC, &create("t")).await;
    assert_eq!(answer.code, response::SYSTEM_ERROR);
    assert!(answer.remark.unwrap().contains("in-sync replicas not enough"));
    *broker.log.failure.lock() = None;
    until("it is logged after all", || broker.services.metadata.knows_topic("t")).await;
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deposed_master_forgets_what_nobody_confirmed() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir).await;
    leave_traces(&broker).await;
    *broker.log.failure.lock() = Some(SendFailure::NotMaster);
    let client = broker.client().await;
    assert_eq!(client.request(request::UPDATE_CONSUMER_OFFSET, &commit(99)).await.code, 0);
    assert_ne!(client.request(request::UPDATE_AND_CREATE_TOPIC, &create("phantom")).await.code, 0);
    broker.role.serving.store(false, Ordering::SeqCst);
    broker.services.became_slave();
    assert_traces(&broker);
    assert!(broker.services.live().topics.get("phantom").is_none());
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_apache_brokers_directory_is_taken_over_and_put_into_the_log() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("config")).unwrap();
    let offsets = r#"{"dataVersion":{"counter":1,"stateVersion":0,"timestamp":1},"offsetTable":{"t@g":{0:42}}}"#;
    std::fs::write(dir.path().join("config/consumerOffset.json"), offsets).unwrap();
    let broker = Broker::start(&dir).await;
    assert_eq!(broker.services.live().offsets.get("t", "g", 0), Some(42));
    until("the log has it", || broker.services.metadata.logged_records() > 0).await;
    broker.kill().await;
    let _gone = std::fs::remove_dir_all(dir.path().join("config"));
    let broker = Broker::start(&dir).await;
    assert_eq!(broker.services.live().offsets.get("t", "g", 0), Some(42));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_mastership_registers_a_newer_table() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir).await;
    let changed = broker.services.topics_changed();
    let before = broker.services.topic_config_for_registration();
    assert!(before.topic_config_table.contains_key("TBW102"));
    assert!(!before.topic_config_table.contains_key(names::METADATA_TOPIC));
    broker.services.became_slave();
    broker.services.became_master(7);
    let after = broker.services.topic_config_for_registration();
    assert!(after.data_version.state_version == 7 && changed.has_changed().unwrap());
    broker.stop().await;
}
