//! Orders of the day and volumes, over an API server that is none.

use serde_json::{Value, json};

use super::super::mock::Mock;
use super::tests::{GROUP, condition, context, group, put_group};
use super::*;
use crate::plan::kubernetes::{HIBERNATE_ANNOTATION, PAUSED_ANNOTATION, SWITCHOVER_ANNOTATION};

const CORE: &str = "/api/v1/namespaces/shop";

fn annotate(mock: &Mock, key: &str, value: &str) {
    mock.change(GROUP, |group| group["metadata"]["annotations"] = json!({key: value}));
}

fn claim(mock: &Mock, replica: &str) -> Option<Value> {
    mock.get(&format!("{CORE}/persistentvolumeclaims/data-{replica}"))
}

fn pods(mock: &Mock) -> Vec<String> {
    let prefix = format!("{CORE}/pods/");
    mock.paths().iter().filter_map(|path| path.strip_prefix(&prefix)).map(str::to_owned).collect()
}

#[tokio::test]
async fn a_paused_group_is_not_touched_and_has_its_elector() {
    let mock = Mock::start();
    put_group(&mock, &json!({}));
    let context = context(&mock, Leadership::for_tests()).await;
    reconcile(&group(&mock), &context).await.unwrap();
    annotate(&mock, PAUSED_ANNOTATION, "true");
    mock.change(GROUP, |group| group["spec"]["replicas"] = json!(5));
    let before = mock.paths();
    reconcile(&group(&mock), &context).await.unwrap();
    assert_eq!(mock.paths(), before);
    assert_eq!(context.elector.groups(), ["shop/broker-a"]);
    assert!(condition(&mock, "Paused").starts_with("True Annotation"));
    assert!(condition(&mock, "Progressing").starts_with("False Paused"));
    mock.change(GROUP, |group| group["metadata"]["annotations"] = json!({}));
    reconcile(&group(&mock), &context).await.unwrap();
    assert_eq!(pods(&mock).len(), 5);
}

#[tokio::test]
async fn a_group_falls_asleep_and_wakes_up_with_its_volumes_and_its_record() {
    let mock = Mock::start();
    put_group(&mock, &json!({}));
    let context = context(&mock, Leadership::for_tests()).await;
    reconcile(&group(&mock), &context).await.unwrap();
    let record =
        json!({"epoch": 3, "revision": 4, "master": "broker-a-1#7", "inSync": ["broker-a-0#6", "broker-a-1#7"]});
    mock.change(GROUP, |group| group["status"]["record"] = record.clone());
    annotate(&mock, HIBERNATE_ANNOTATION, "true");
    let mut left = Vec::new();
    for _ in 0..3 {
        reconcile(&group(&mock), &context).await.unwrap();
        assert!(context.elector.groups().is_empty(), "nobody decides meanwhile");
        left.push(pods(&mock).join(" "));
    }
    assert_eq!(left, ["broker-a-1 broker-a-2", "broker-a-1", ""], "the record's master goes last");
    reconcile(&group(&mock), &context).await.unwrap();
    assert!(condition(&mock, "Hibernated").starts_with("True NoPods"));
    let asleep = mock.get(GROUP).unwrap();
    assert_eq!((&asleep["status"]["record"], &asleep["status"]["inSync"]), (&record, &json!("2/3")));
    assert!(claim(&mock, "broker-a-2").is_some());
    mock.change(GROUP, |group| group["metadata"]["annotations"] = json!({}));
    reconcile(&group(&mock), &context).await.unwrap();
    assert_eq!((pods(&mock).len(), context.elector.groups().len()), (3, 1));
}

#[tokio::test]
async fn a_switchover_that_is_asked_for_is_done_once_and_its_annotation_goes() {
    let mock = Mock::start();
    put_group(&mock, &json!({}));
    let context = context(&mock, Leadership::for_tests()).await;
    reconcile(&group(&mock), &context).await.unwrap();
    // Nobody has ever been master: the elector refuses.
    annotate(&mock, SWITCHOVER_ANNOTATION, "broker-a-1");
    reconcile(&group(&mock), &context).await.unwrap();
    assert_eq!(mock.get(GROUP).unwrap()["metadata"]["annotations"], json!({}));
    // Another order that comes while one is carried out stays.
    annotate(&mock, SWITCHOVER_ANNOTATION, "broker-a-1");
    let stale = group(&mock);
    annotate(&mock, SWITCHOVER_ANNOTATION, "broker-a-2");
    reconcile(&stale, &context).await.unwrap();
    assert_eq!(mock.get(GROUP).unwrap()["metadata"]["annotations"][SWITCHOVER_ANNOTATION], "broker-a-2");
}

#[tokio::test]
async fn volumes_grow_and_follow_the_deletion_policy_those_of_former_replicas_too() {
    let mock = Mock::start();
    put_group(&mock, &json!({}));
    let context = context(&mock, Leadership::for_tests()).await;
    reconcile(&group(&mock), &context).await.unwrap();
    let bound = json!({"phase": "Bound", "capacity": {"storage": "20Gi"}});
    for replica in ["broker-a-0", "broker-a-1", "broker-a-2"] {
        mock.change(&format!("{CORE}/persistentvolumeclaims/data-{replica}"), |claim| claim["status"] = bound.clone());
    }
    mock.change(GROUP, |group| {
        group["spec"] = json!({"replicas": 2, "storage": {"size": "30Gi", "deletionPolicy": "Delete"}});
    });
    reconcile(&group(&mock), &context).await.unwrap();
    let size = |replica: &str| claim(&mock, replica).unwrap()["spec"]["resources"]["requests"]["storage"].clone();
    let owners = |replica: &str| claim(&mock, replica).unwrap()["metadata"]["ownerReferences"].clone();
    assert_eq!((size("broker-a-1"), size("broker-a-2")), (json!("30Gi"), json!("20Gi")));
    for replica in ["broker-a-1", "broker-a-2"] {
        assert_eq!(owners(replica)[0]["kind"], "BrokerGroup", "{replica}");
    }
    reconcile(&group(&mock), &context).await.unwrap();
    let growing = condition(&mock, "VolumesReady");
    assert!(growing.starts_with("False Growing: not as large yet as asked for: broker-a-0 (20Gi)"), "{growing}");
}

#[tokio::test]
async fn a_volume_that_may_not_grow_says_so_and_stops_nothing() {
    let mock = Mock::start();
    put_group(&mock, &json!({}));
    let context = context(&mock, Leadership::for_tests()).await;
    reconcile(&group(&mock), &context).await.unwrap();
    mock.change(GROUP, |group| group["spec"] = json!({"replicas": 4, "storage": {"size": "30Gi"}}));
    mock.refuse_patches_of("persistentvolumeclaims", 403);
    reconcile(&group(&mock), &context).await.unwrap();
    let refused = condition(&mock, "VolumesReady");
    assert!(
        refused.starts_with("False Refused: PersistentVolumeClaim data-broker-a-0: refused by the test (403"),
        "{refused}"
    );
    let progress = condition(&mock, "Progressing");
    assert!(progress.starts_with("True Creating: making the pods of broker-a-3"), "{progress}");
    assert_eq!(pods(&mock).len(), 3, "no pod without a volume");
    mock.refuse_no_patches();
    reconcile(&group(&mock), &context).await.unwrap();
    assert_eq!(pods(&mock).len(), 4);
}

#[tokio::test]
async fn a_volume_that_is_gone_is_not_made_anew_while_no_other_replica_is_known_to_have_everything() {
    let mock = Mock::start();
    put_group(&mock, &json!({}));
    let context = context(&mock, Leadership::for_tests()).await;
    reconcile(&group(&mock), &context).await.unwrap();
    let counted = ["broker-a-0#0", "broker-a-1#1", "broker-a-2#2"];
    let record = json!({"epoch": 1, "revision": 1, "master": "broker-a-0#0", "inSync": counted});
    mock.change(GROUP, |group| group["status"]["record"] = record);
    mock.remove(&format!("{CORE}/persistentvolumeclaims/data-broker-a-2"));
    mock.remove(&format!("{CORE}/pods/broker-a-2"));
    reconcile(&group(&mock), &context).await.unwrap();
    assert!(claim(&mock, "broker-a-2").is_none());
    let told = condition(&mock, "VolumesReady");
    assert!(told.starts_with("False Replacing: broker-a-2's volume is gone, and it gets no empty one"), "{told}");
    let progress = condition(&mock, "Progressing");
    assert!(progress.starts_with("True Waiting: broker-a-2's volume is gone"), "{progress}");
}
