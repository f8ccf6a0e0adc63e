//! `gantry store` as an operator runs it: another process beside the broker's.
#![cfg(test)]

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gantry_store::{Config, Dispatched, Events, NewMessage, PhysicalOffset, Store, StoreFailure, open};
use serde_json::Value;

struct Deaf;

impl Events for Deaf {
    fn flushed(&self, _: PhysicalOffset) {}
    fn dispatched(&self, _: &[Dispatched]) {}
    fn failed(&self, _: &Arc<StoreFailure>) {}
}

fn config(root: &Path) -> Config {
    Config { segment_bytes: 16 << 10, queue_file_units: 16, ..Config::new(root) }
}

/// A store with 40 visible messages over two segments, open; and where each begins.
fn filled(root: &Path) -> (Store, Vec<u64>) {
    let (store, mut appender) = open(config(root), Arc::new(Deaf)).unwrap();
    let host = "127.0.0.1:1".parse().unwrap();
    let message = |number: u8| NewMessage {
        topic: "T".into(),
        queue_id: 0,
        flag: 0,
        sys_flag: 0,
        born_timestamp_ms: 1,
        born_host: host,
        store_host: host,
        reconsume_times: 0,
        prepared_offset: 0,
        body: vec![number; 600].into(),
        properties: bytes::Bytes::new(),
    };
    let mut results = Vec::new();
    appender.append(&(0..40).map(|number| message(number).into()).collect::<Vec<_>>(), &mut results);
    let places = results.into_iter().map(|result| result.unwrap().physical.0).collect();
    store.confirm(store.watermarks().written);
    let deadline = Instant::now() + Duration::from_mins(1);
    while store.watermarks().dispatched != store.watermarks().written {
        assert!(Instant::now() < deadline, "not dispatched");
        std::thread::yield_now();
    }
    (store, places)
}

fn gantry(arguments: &[&str], root: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gantry"));
    command.arg("store").args(arguments).arg(root).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn an_inspection_beside_a_running_store_says_so_and_a_repair_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = filled(directory.path());
    std::fs::write(
        directory.path().join("replica.json"),
        r#"{"storeId":"00000000000000ab","promised":3,"epochs":[{"epoch":3,"start":0}],"bootId":"x"}"#,
    )
    .unwrap();
    let inspected = gantry(&["inspect", "--verify", "--json"], directory.path());
    assert!(inspected.status.success(), "{}", text(&inspected));
    let json: Value = serde_json::from_slice(&inspected.stdout).unwrap();
    assert_eq!(
        (&json["running"], &json["verified"], &json["log"]["records"]),
        (&true.into(), &true.into(), &40.into())
    );
    assert_eq!(json["queues"][0], serde_json::json!({"topic": "T", "queue": 0, "min": 0, "max": 40, "files": 3}));
    assert_eq!(json["replica"]["storeId"], "00000000000000ab");
    let keys: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "abort",
        "checkpoint",
        "damage",
        "directory",
        "divergent",
        "indexFiles",
        "interruptedRecovery",
        "log",
        "queues",
        "replica",
        "running",
        "segments",
        "tornTail",
        "verified",
    ];
    assert_eq!(keys, expected);

    let shown = text(&gantry(&["inspect"], directory.path()));
    assert!(shown.contains("a broker is running on it") && shown.contains("store id 00000000000000ab"), "{shown}");
    let refused = gantry(&["repair", "--cut-at-damage", "--yes"], directory.path());
    assert!(!refused.status.success() && text(&refused).contains("is locked: stop the broker"), "{}", text(&refused));
    store.close().unwrap();
}

#[test]
fn damage_is_an_exit_status_and_is_cut_only_after_a_yes() {
    let directory = tempfile::tempdir().unwrap();
    let (store, places) = filled(directory.path());
    store.close().unwrap();
    drop(store);
    let segment = directory.path().join("commitlog/00000000000000000000");
    let file = std::fs::OpenOptions::new().write(true).open(&segment).unwrap();
    file.write_all_at(&[0xFF; 2], places[10] + 200).unwrap();
    let before = std::fs::read(&segment).unwrap();

    let inspected = gantry(&["inspect", "--verify"], directory.path());
    assert_eq!(inspected.status.code(), Some(2));
    assert!(text(&inspected).contains(&format!("00000000000000000000 at {}: ", places[10])), "{}", text(&inspected));
    let shown = gantry(&["repair", "--cut-at-damage"], directory.path());
    let said = text(&shown);
    assert!(shown.status.success() && said.contains("nothing is changed yet"), "{said}");
    assert!(said.contains(&format!("at {}", places[10])) && said.contains("whole records"), "{said}");
    assert!(std::fs::read(&segment).unwrap() == before && !directory.path().join("divergent").exists());

    let done = gantry(&["repair", "--cut-at-damage", "--yes"], directory.path());
    assert!(done.status.success() && text(&done).contains("divergent/"), "{}", text(&done));
    assert!(gantry(&["inspect", "--verify"], directory.path()).status.success());
    let (store, _) = open(config(directory.path()), Arc::new(Deaf)).unwrap();
    assert_eq!(store.watermarks().written.0, places[10]);
    assert_eq!(store.queue_range("T", 0).max.0, 10);
    store.close().unwrap();
}

#[test]
fn consume_queues_are_rebuilt_and_what_is_no_store_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = filled(directory.path());
    store.close().unwrap();
    drop(store);
    assert!(gantry(&["repair", "--rebuild-queues"], directory.path()).status.success());
    assert!(directory.path().join("consumequeue/T/0").exists());
    assert!(gantry(&["repair", "--rebuild-queues", "--yes"], directory.path()).status.success());
    assert!(!directory.path().join("consumequeue").exists());
    let (store, _) = open(config(directory.path()), Arc::new(Deaf)).unwrap();
    assert_eq!(store.queue_range("T", 0).max.0, 40);
    store.close().unwrap();

    let nothing = gantry(&["inspect"], &directory.path().join("nothing"));
    assert!(!nothing.status.success() && text(&nothing).contains("/nothing: No such file"), "{}", text(&nothing));
}
