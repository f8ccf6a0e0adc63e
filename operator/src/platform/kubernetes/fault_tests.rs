//! What an API server and brokers do to an operator, and what it makes of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gantry_replication::wire::{PROBE, Role};
use gantry_replication::{Epoch, GroupRecord};
use parking_lot::Mutex;
use serde_json::json;

use super::lease::Leadership;
use super::mock::{Fate, Mock};
use super::rig::{Brokers, Operator, Turn, options, until};
use super::run::lead;
use crate::observe::Metrics;

/// The reasons and notes of all Events so far.
fn told(mock: &Mock) -> Vec<String> {
    let events = mock.paths().into_iter().filter(|path| path.contains("/events/"));
    let text = |path: String| {
        let event = mock.get(&path).unwrap();
        format!("{}: {}", event["reason"].as_str().unwrap(), event["note"].as_str().unwrap_or_default())
    };
    events.map(text).collect()
}

fn names(record: &GroupRecord) -> Vec<&str> {
    record.in_sync.iter().map(|member| member.name.as_str()).collect()
}

/// One write of each group's record meets its own fate while its master is being replaced.
#[test]
fn whatever_becomes_of_a_write_of_the_record_one_master_comes_of_it() {
    let mock = Mock::start();
    let fates = [
        ("conflict", Fate::Refused(409)),
        ("expired", Fate::Refused(410)),
        ("too-many", Fate::Refused(429)),
        ("broken", Fate::Refused(500)),
        ("overloaded", Fate::Refused(503)),
        ("late", Fate::Refused(504)),
        ("lost", Fate::Lost),
        ("unanswered", Fate::Unanswered),
    ];
    let _operator = Operator::start(&mock);
    let groups: BTreeMap<_, _> = fates.iter().map(|(name, _)| (*name, Brokers::start(&mock, name, "g"))).collect();
    let masters: BTreeMap<_, _> = groups
        .iter()
        .map(|(name, brokers)| {
            until("a first master", || brokers.master().is_some());
            (*name, (brokers.master().unwrap(), brokers.record().unwrap().epoch))
        })
        .collect();
    let mut left: BTreeMap<String, Fate> =
        fates.iter().map(|(name, fate)| (format!("/namespaces/{name}/brokergroups/g/status"), *fate)).collect();
    let met = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&met);
    mock.judge(move |call| {
        let of_record = call.method == "PATCH" && call.body["status"]["record"].is_object();
        let place = left.keys().find(|place| of_record && call.path.ends_with(*place)).cloned();
        let fate = place.and_then(|place| left.remove(&place));
        count.fetch_add(usize::from(fate.is_some()), Ordering::Relaxed);
        fate.unwrap_or(Fate::Served)
    });
    for (name, brokers) in &groups {
        brokers.restart(&masters[name].0);
    }
    for (name, brokers) in &groups {
        let newer = || brokers.record().is_some_and(|record| record.epoch > masters[name].1);
        until(name, || newer() && brokers.master().is_some());
        brokers.check_history();
    }
    assert_eq!(met.load(Ordering::Relaxed), fates.len());
}

/// Two groups of one name: the API server answers nothing right about the one, and the other doesn't notice.
#[test]
fn a_group_that_the_api_server_has_trouble_with_holds_up_no_other_of_its_name() {
    let mock = Mock::start();
    let mut turn = 0;
    mock.judge(move |call| {
        if !call.path.contains("/namespaces/shop/") {
            return Fate::Served;
        }
        turn += 1;
        [Fate::Refused(429), Fate::Refused(500), Fate::Refused(409), Fate::Lost][turn % 4]
    });
    let (shop, store) = (Brokers::start(&mock, "shop", "g"), Brokers::start(&mock, "store", "g"));
    let _operator = Operator::start(&mock);
    until("a first master of the other", || store.master().is_some());
    let first = store.master().unwrap();
    store.kill(&first, true);
    until("its successor", || store.master().is_some_and(|master| master != first));
    assert_eq!(shop.record(), None);
    mock.judge_nothing();
    until("the first master of the one", || shop.master().is_some());
    let (before, epoch) = (shop.master(), store.record().unwrap().epoch);
    store.begin(&first);
    until("the killed one is back as a slave", || store.report(&first).role == Role::Slave);
    store.restart(&store.master().unwrap());
    until("another failover of the other", || store.record().unwrap().epoch > epoch && store.master().is_some());
    assert_eq!((shop.master(), shop.record().unwrap().epoch), (before, Epoch(1)));
    shop.check_history();
    store.check_history();
}

#[test]
fn watches_that_have_expired_begin_anew_and_miss_nothing() {
    let mock = Mock::start();
    let left = Arc::new(Mutex::new(12));
    let count = Arc::clone(&left);
    mock.judge(move |call| {
        let mut left = count.lock();
        if !call.watch || *left == 0 {
            return Fate::Served;
        }
        *left -= 1;
        Fate::Refused(410)
    });
    let _operator = Operator::start(&mock);
    let early = Brokers::start(&mock, "shop", "early");
    until("all of them have expired", || *left.lock() == 0);
    let late = Brokers::start(&mock, "shop", "late");
    for brokers in [&early, &late] {
        until("a first master", || brokers.master().is_some());
        let first = brokers.master().unwrap();
        brokers.kill(&first, true);
        until("its successor", || brokers.master().is_some_and(|master| master != first));
    }
}

/// In virtual time: the API server refuses, or says nothing, for ten minutes.
async fn calls_in_ten_minutes_of(fate: Fate, mock: &Mock) -> usize {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    mock.judge(move |call| {
        if call.watch {
            return Fate::Served;
        }
        count.fetch_add(1, Ordering::Relaxed);
        fate
    });
    tokio::time::sleep(Duration::from_mins(10)).await;
    mock.judge_nothing();
    calls.load(Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn an_api_server_in_trouble_is_asked_seldom_and_its_groups_are_kept_soon_after() {
    let mock = Mock::start();
    let (client, options) = (mock.client(), options());
    let metrics = Arc::new(Metrics::new(10).unwrap());
    let leading = async { lead(&client, &options, Leadership::for_tests(), &metrics).await };
    let trouble = async {
        let group = |name: &str| {
            let metadata = json!({"name": name, "namespace": "shop", "uid": name, "generation": 1});
            let path = format!("/apis/gantry.rs/v1alpha1/namespaces/shop/brokergroups/{name}");
            mock.put(
                &path,
                json!({
                    "apiVersion": "gantry.rs/v1alpha1", "kind": "BrokerGroup", "metadata": metadata, "spec": {},
                }),
            );
            format!("/api/v1/namespaces/shop/pods/{name}-2")
        };
        let whole = async |pod: &str| {
            while mock.get(pod).is_none() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        whole(&group("a")).await;
        let pod = group("b");
        for (fate, pod) in [(Fate::Refused(503), pod), (Fate::Refused(429), group("c")), (Fate::Lost, group("d"))] {
            let calls = calls_in_ten_minutes_of(fate, &mock).await;
            // The elector's address twice a second, and each group every two.
            assert!((20..5_000).contains(&calls), "{calls} calls in ten minutes of {fate:?}");
            let since = tokio::time::Instant::now();
            whole(&pod).await;
            // Virtual, and no measurement: it is the longest pause between two tries.
            assert!(since.elapsed() < Duration::from_mins(1), "{:?} after ten minutes of {fate:?}", since.elapsed());
        }
    };
    tokio::select! {
        outcome = leading => panic!("{outcome:?}"),
        () = trouble => {}
    }
}

/// As after a restore of a backup: the record is older than what the replicas have promised.
#[test]
fn over_a_record_from_a_backup_nobody_is_elected_until_all_have_answered_and_it_is_said() {
    let mock = Mock::start();
    let brokers = Brokers::start(&mock, "shop", "g");
    let old = json!({"epoch": 3, "revision": 9, "master": "g-0#0000000000000000", "inSync": ["g-0#0000000000000000"]});
    mock.change(&brokers.path(), |group| group["status"] = json!({"record": old}));
    for (name, end) in [("g-0", 10), ("g-1", 30), ("g-2", 20)] {
        brokers.change_report(name, |report| {
            (report.promised, report.last_epoch, report.max_offset) = (Epoch(7), Epoch(7), end);
        });
    }
    brokers.kill("g-1", true);
    let _operator = Operator::start(&mock);
    until("the condition says so", || brokers.condition("Ready").contains("the record is from the past"));
    let said = brokers.condition("Ready");
    assert!(said.starts_with("False NoMaster: no master can be elected: the record is of epoch 3"), "{said}");
    assert!(said.contains("has promised epoch 7") && said.ends_with("g-1 did not answer yet"), "{said}");
    until("an Event says so", || {
        told(&mock).iter().any(|event| event.starts_with("NoMaster: ") && event.contains("past"))
    });
    assert_eq!(brokers.record().unwrap().epoch, Epoch(3));
    brokers.begin("g-1");
    until("the newest log's master", || brokers.master().as_deref() == Some("g-1"));
    assert_eq!(brokers.record().unwrap().epoch, Epoch(8));
}

#[test]
fn a_record_that_somebody_removes_during_a_failover_elects_nobody_until_it_is_there_again() {
    let mock = Mock::start();
    let brokers = Brokers::start(&mock, "shop", "g");
    let _operator = Operator::start(&mock);
    until("a first master", || brokers.master().is_some());
    let (first, record) = (brokers.master().unwrap(), mock.get(&brokers.path()).unwrap()["status"]["record"].clone());
    mock.before_next_patch(|group| {
        group["status"].as_object_mut().unwrap().remove("record");
    });
    brokers.restart(&first);
    until("the condition says so", || brokers.condition("Ready").contains("the record was lost"));
    assert_eq!((brokers.record(), brokers.master()), (None, None));
    mock.change(&brokers.path(), |group| group["status"]["record"] = record);
    until("a master of the next epoch", || brokers.master().is_some());
    assert_eq!(brokers.record().unwrap().epoch, Epoch(2));
}

/// Its session stands and it reports, but what it is asked it doesn't answer: nothing is known of it.
#[test]
fn a_replica_that_cannot_be_asked_does_not_count_as_caught_up() {
    let mock = Mock::start();
    let brokers = Brokers::start(&mock, "shop", "g");
    let _operator = Operator::start(&mock);
    until("a first master", || brokers.master().as_deref() == Some("g-0"));
    brokers.on_request(|name, code| if name == "g-1" && code == PROBE { Turn::Ignore } else { Turn::Obey });
    brokers.kill("g-0", true);
    until("its successor", || brokers.master().is_some_and(|master| master != "g-0"));
    let record = brokers.record().unwrap();
    assert_eq!((record.master.name.as_str(), names(&record)), ("g-2", vec!["g-2"]));
}

#[test]
fn a_master_that_the_elector_cannot_ask_does_not_count_as_down() {
    let mock = Mock::start();
    let brokers = Brokers::start(&mock, "shop", "g");
    let _operator = Operator::start(&mock);
    until("a first master", || brokers.master().as_deref() == Some("g-0"));
    brokers.cut_off("g-0");
    until("an Event says so", || told(&mock).iter().any(|event| event.starts_with("ElectorCutOff: ")));
    assert_eq!((brokers.record().unwrap().epoch, brokers.report("g-0").role), (Epoch(1), Role::Master));
}

/// Older and newer operators and schemas meet on one API server.
#[test]
fn one_object_that_cannot_be_read_says_so_and_stops_no_other() {
    let mock = Mock::start();
    for (name, spec) in [("odd", json!({"replicas": "three"})), ("huge", json!({"replicas": 300}))] {
        let metadata = json!({"name": name, "namespace": "shop", "uid": name, "generation": 4});
        mock.put(
            &format!("/apis/gantry.rs/v1alpha1/namespaces/shop/brokergroups/{name}"),
            json!({
                "apiVersion": "gantry.rs/v1alpha1", "kind": "BrokerGroup", "metadata": metadata, "spec": spec,
            }),
        );
    }
    let _operator = Operator::start(&mock);
    let good = Brokers::start(&mock, "shop", "g");
    until("the good one has a master", || good.master().is_some());
    let first = good.master().unwrap();
    good.kill(&first, true);
    until("its successor", || good.master().is_some_and(|master| master != first));
    for name in ["odd", "huge"] {
        let path = format!("/apis/gantry.rs/v1alpha1/namespaces/shop/brokergroups/{name}");
        let ready = || {
            let group = mock.get(&path).unwrap();
            let all = group["status"]["conditions"].as_array().cloned().unwrap_or_default();
            all.into_iter().find(|it| it["type"] == "Ready").unwrap_or_default()
        };
        until("the bad one says so", || ready()["reason"] == "InvalidSpec");
        let (message, generation) = (ready()["message"].to_string(), ready()["observedGeneration"].clone());
        assert!(message.contains("can't be read by this operator: spec.replicas: "), "{message}");
        assert_eq!(generation, 4);
    }
}
