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

/// The log's own records are older than what an Apache broker wrote when it had the directory in between.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_apache_broker_wrote_in_between_counts_and_not_the_log_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config/consumerOffset.json");
    std::fs::create_dir(dir.path().join("config")).unwrap();
    let apache = |offset: u32| std::fs::write(&file, format!(r#"{{"offsetTable":{{"t@g":{{0:{offset}}}}}}}"#)).unwrap();
    for offset in [42, 77, 55] {
        apache(offset);
        // It leaves queues that have to be made anew, so that the records are dispatched only after the start.
        let _gone = std::fs::remove_file(dir.path().join("checkpoint"));
        let broker = Broker::start(&dir).await;
        assert_eq!(broker.services.live().offsets.get("t", "g", 0), Some(offset.into()));
        until("the files are ours again", || {
            std::fs::read_to_string(&file).is_ok_and(|text| text.contains("gantryMetadataOffset"))
        })
        .await;
        assert_eq!(broker.services.live().offsets.get("t", "g", 0), Some(offset.into()));
        assert_eq!(broker.services.metadata.confirmed_offset("t", "g", 0), Some(offset.into()));
        broker.kill().await;
    }
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

/// Snapshots only when the test says so, and older ones as often.
fn by_hand() -> ServicesConfig {
    ServicesConfig { snapshot_ms: 3_600_000, base_ms: 0, ..ServicesConfig::default() }
}

/// Is a slave again, its log cut where it ended before `phantom` and an offset of 99 came.
async fn cut_what_came_last(broker: &Broker, keeps: gantry_store::PhysicalOffset) {
    let client = broker.client().await;
    assert_eq!(client.request(request::UPDATE_CONSUMER_OFFSET, &commit(99)).await.code, 0);
    assert_eq!(client.request(request::UPDATE_AND_CREATE_TOPIC, &create("phantom")).await.code, 0);
    let metadata = &broker.services.metadata;
    let confirmed = || metadata.confirmed_offset("t", "g", 0) == Some(99) && metadata.knows_topic("phantom");
    until("all is confirmed", confirmed).await;
    broker.services.save_metadata();
    broker.role.serving.store(false, Ordering::SeqCst);
    broker.services.became_slave();
    broker.write_log(|appender| appender.truncate(keeps, None)).unwrap();
}

fn assert_forgotten(broker: &Broker) {
    assert_traces(broker);
    assert!(broker.services.live().topics.get("phantom").is_none());
    assert!(!broker.services.metadata.knows_topic("phantom"));
    assert_eq!(broker.services.metadata.confirmed_offset("t", "g", 0), Some(42));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_cut_records_said_is_forgotten_on_disk_too() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start_with(dir.path(), by_hand()).await;
    leave_traces(&broker).await;
    let keeps = broker.end();
    cut_what_came_last(&broker, keeps).await;
    broker.services.follow_metadata();
    assert_forgotten(&broker);
    broker.kill().await;
    let broker = Broker::start_slave(dir.path(), by_hand()).await;
    assert_forgotten(&broker);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_right_after_the_cut_changes_nothing_of_that() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start_with(dir.path(), by_hand()).await;
    leave_traces(&broker).await;
    let keeps = broker.end();
    cut_what_came_last(&broker, keeps).await;
    broker.kill().await;
    let broker = Broker::start_slave(dir.path(), by_hand()).await;
    assert_forgotten(&broker);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_does_it_matter_what_took_the_cut_records_places() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start_with(dir.path(), by_hand()).await;
    leave_traces(&broker).await;
    let keeps = broker.end();
    cut_what_came_last(&broker, keeps).await;
    broker.role.serving.store(true, Ordering::SeqCst);
    broker.services.became_master(2);
    let client = broker.client().await;
    for topic in ["a", "b", "c", "d"] {
        assert_eq!(client.request(request::UPDATE_AND_CREATE_TOPIC, &create(topic)).await.code, 0);
    }
    until("the new records are confirmed", || broker.services.metadata.knows_topic("d")).await;
    assert_forgotten(&broker);
    broker.stop().await;
}

/// A snapshot of records that a crash took away must not serve later, when others have their numbers.
#[tokio::test(flavor = "multi_thread")]
async fn nor_what_was_written_after_a_crash_and_cut_in_turn() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start_with(dir.path(), by_hand()).await;
    leave_traces(&broker).await;
    broker.services.save_metadata();
    let keeps = broker.end();
    cut_what_came_last(&broker, keeps).await;
    broker.kill().await;
    let broker = Broker::start_with(dir.path(), by_hand()).await;
    let client = broker.client().await;
    for topic in ["a", "b", "c", "d"] {
        assert_eq!(client.request(request::UPDATE_AND_CREATE_TOPIC, &create(topic)).await.code, 0);
    }
    until("the new records are confirmed", || broker.services.metadata.knows_topic("d")).await;
    let keeps = broker.end();
    assert_eq!(client.request(request::UPDATE_AND_CREATE_TOPIC, &create("e")).await.code, 0);
    until("the last is confirmed", || broker.services.metadata.knows_topic("e")).await;
    broker.role.serving.store(false, Ordering::SeqCst);
    broker.services.became_slave();
    broker.write_log(|appender| appender.truncate(keeps, None)).unwrap();
    broker.services.follow_metadata();
    assert_forgotten(&broker);
    assert!(broker.services.metadata.knows_topic("d") && !broker.services.metadata.knows_topic("e"));
    broker.stop().await;
}

/// Three segments of messages behind the traces.
async fn fill_segments(broker: &Broker) {
    let client = broker.client().await;
    let body = "x".repeat(4_000_000);
    for _ in 0..10 {
        client.send("by-a-send", 0, "", &body).await;
    }
    broker.dispatched().await;
}

/// Snapshots follow each other as they would in time: the log goes only once an older one has all that it says.
async fn until_the_log_is_deleted(broker: &Broker) {
    let deleted = || {
        broker.services.save_metadata();
        broker.oldest().0 > 0
    };
    until("the segments are gone", deleted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_deleted_only_as_far_as_snapshots_hold_it_and_cuts_are_still_followed() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start_with(dir.path(), by_hand()).await;
    leave_traces(&broker).await;
    fill_segments(&broker).await;
    broker.services.save_metadata();
    // Expired long since, and no rounds of the cleaner may touch it: the only snapshot is too new to rely on.
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert_eq!(broker.oldest().0, 0);
    until_the_log_is_deleted(&broker).await;

    let keeps = broker.end();
    cut_what_came_last(&broker, keeps).await;
    broker.services.follow_metadata();
    assert_forgotten(&broker);
    broker.kill().await;
    let broker = Broker::start_slave(dir.path(), by_hand()).await;
    assert_forgotten(&broker);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_begins_with_the_oldest_byte_knows_all_by_snapshot_and_log() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let broker = Broker::start_with(dir.path(), by_hand()).await;
    leave_traces(&broker).await;
    fill_segments(&broker).await;
    until_the_log_is_deleted(&broker).await;
    let snapshot = broker.services.snapshot().unwrap();
    let client = broker.client().await;
    assert_eq!(client.request(request::UPDATE_AND_CREATE_TOPIC, &create("later")).await.code, 0);

    let replica = Broker::start_slave(other.path(), by_hand()).await;
    replica.write_log(|appender| appender.start_at(broker.oldest())).unwrap();
    replica.services.install_snapshot(&snapshot).unwrap();
    // Restarted before the log had come.
    replica.kill().await;
    let replica = Broker::start_slave(other.path(), by_hand()).await;
    assert_traces(&replica);
    for (from, bytes) in broker.log_pieces() {
        replica.write_log(|appender| appender.append_raw(from, &bytes)).unwrap();
    }
    replica.confirm();
    until("the log is followed", || replica.services.metadata.knows_topic("later")).await;
    assert_traces(&replica);
    replica.stop().await;
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mqadmins_cleaning_requests_are_carried_out() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start_with(dir.path(), by_hand()).await;
    leave_traces(&broker).await;
    let client = broker.client().await;
    client.send("doomed-too", 0, "", "x").await;
    fill_segments(&broker).await;
    let deleted = client.request(request::DELETE_TOPIC_IN_BROKER, &DeleteTopic { topic: "doomed-too" }).await;
    assert_eq!(deleted.code, 0);
    until_the_log_is_deleted(&broker).await;
    let ask = async |code| client.ask(gantry_remoting::Command::request(code)).await.code;
    assert_eq!(ask(request::DELETE_EXPIRED_COMMITLOG).await, 0);
    assert_eq!(ask(request::CLEAN_EXPIRED_CONSUMEQUEUE).await, 0);
    let queues = dir.path().join("consumequeue");
    assert!(queues.join("doomed-too").exists());
    until("the topic's queues are empty", || broker.is_drained("doomed-too", 0)).await;
    assert_eq!(ask(request::CLEAN_UNUSED_TOPIC).await, 0);
    assert!(!queues.join("doomed-too").exists() && queues.join("by-a-send").exists());
    broker.stop().await;
}
