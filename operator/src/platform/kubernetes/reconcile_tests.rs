//! A group over an API server that is none.

use gantry_replication::wire::Hello;
use serde_json::{Value, json};
use tokio::sync::mpsc::unbounded_channel;

use super::super::mock::{Mock, RETRY_AFTER_SECONDS};
use super::*;
use crate::elector::tests::{hello, join, until};

pub(super) const GROUP: &str = "/apis/gantry.rs/v1alpha1/namespaces/shop/brokergroups/broker-a";

pub(in crate::platform::kubernetes) async fn context(mock: &Mock, leadership: Leadership) -> Context {
    let (notices, _told) = unbounded_channel();
    let metrics = Arc::new(Metrics::new(10).unwrap());
    let board = Arc::new(Board::new(mock.client(), leadership.clone(), Arc::clone(&metrics), notices));
    let listener = Arc::clone(&board) as Arc<dyn crate::elector::Listener>;
    Context {
        client: mock.client(),
        site: Site { image: "gantry:1".to_owned(), name_servers: "ns:9876".to_owned(), elector: "e:9880".to_owned() },
        leadership,
        elector: ElectorServer::listen("127.0.0.1:0".parse().unwrap(), listener).await.unwrap(),
        board,
        nodes: Arc::default(),
        metrics,
        places: Places::default(),
        known: Mutex::default(),
    }
}

pub(super) fn put_group(mock: &Mock, spec: &Value) {
    mock.put(
        GROUP,
        json!({
            "apiVersion": "gantry.rs/v1alpha1", "kind": "BrokerGroup",
            "metadata": {"name": "broker-a", "namespace": "shop", "uid": "u1", "generation": 1}, "spec": spec,
        }),
    );
}

pub(super) fn group(mock: &Mock) -> BrokerGroup {
    serde_json::from_value(mock.get(GROUP).unwrap()).unwrap()
}

pub(super) fn condition(mock: &Mock, type_: &str) -> String {
    let status = group(mock).status.unwrap();
    let condition = status.conditions.into_iter().find(|condition| condition.type_ == type_).unwrap();
    format!("{} {}: {}", condition.status, condition.reason, condition.message)
}

#[tokio::test]
async fn a_new_group_gets_all_its_objects_its_elector_and_a_status() {
    let mock = Mock::start();
    put_group(&mock, &json!({"replicas": 2}));
    let context = context(&mock, Leadership::for_tests()).await;
    reconcile(&group(&mock), &context).await.unwrap();
    let core = "/api/v1/namespaces/shop";
    let expected = [
        format!("{core}/configmaps/broker-a"),
        format!("{core}/persistentvolumeclaims/data-broker-a-0"),
        format!("{core}/persistentvolumeclaims/data-broker-a-1"),
        format!("{core}/pods/broker-a-0"),
        format!("{core}/pods/broker-a-1"),
        format!("{core}/secrets/broker-a-token"),
        format!("{core}/services/broker-a"),
        format!("{core}/services/broker-a-master"),
        GROUP.to_owned(),
        "/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies/broker-a".to_owned(),
        "/apis/policy/v1/namespaces/shop/poddisruptionbudgets/broker-a".to_owned(),
    ];
    assert_eq!(mock.paths(), expected);
    assert_eq!(context.elector.groups(), ["shop/broker-a"]);
    assert!(condition(&mock, "Progressing").starts_with("True Creating"));
    assert!(condition(&mock, "Ready").starts_with("False NoMaster"));
    assert_eq!(group(&mock).status.unwrap().observed_generation, Some(1));
    context.forget("shop/broker-a");
    assert!(context.elector.groups().is_empty());
}

#[tokio::test]
async fn what_is_as_it_shall_be_is_not_written_again() {
    let mock = Mock::start();
    put_group(&mock, &json!({}));
    let context = context(&mock, Leadership::for_tests()).await;
    for _ in 0..2 {
        reconcile(&group(&mock), &context).await.unwrap();
    }
    let before = mock.patches();
    reconcile(&group(&mock), &context).await.unwrap();
    assert_eq!(mock.patches(), before);
}

/// Brokers that are none, over real sockets: what they do is seen in the API server's objects.
#[tokio::test]
async fn a_lost_master_is_followed_by_the_record_the_slice_and_the_status() {
    const GROUP: &str = "/apis/gantry.rs/v1alpha1/namespaces/shop/brokergroups/g";
    const SLICE: &str = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices/g-master";
    let mock = Mock::start();
    mock.put(
        GROUP,
        json!({
            "apiVersion": "gantry.rs/v1alpha1", "kind": "BrokerGroup",
            "metadata": {"name": "g", "namespace": "shop", "uid": "u1", "generation": 1}, "spec": {},
        }),
    );
    let group = || -> BrokerGroup { serde_json::from_value(mock.get(GROUP).unwrap()).unwrap() };
    let leads_to = || mock.get(SLICE).map(|slice| slice["endpoints"][0]["targetRef"]["name"].clone());
    let context = context(&mock, Leadership::for_tests()).await;
    reconcile(&group(), &context).await.unwrap();
    let secret = mock.get("/api/v1/namespaces/shop/secrets/g-token").unwrap();
    let token = secret["stringData"]["token"].as_str().unwrap();
    let mut brokers = Vec::new();
    for ordinal in 0..3 {
        let hello = Hello { token: token.to_owned(), ..hello(ordinal) };
        brokers.push(join(&context.elector, hello).await.unwrap());
    }
    until("the Service leads to the first master", || leads_to() == Some("g-0".into())).await;
    until("the view says so", || context.elector.view("shop/g").unwrap().serving).await;
    reconcile(&group(), &context).await.unwrap();
    let status = group().status.unwrap();
    assert_eq!((status.master.as_deref(), status.in_sync.as_deref()), (Some("g-0"), Some("3/3")));
    assert_eq!(status.record.unwrap().epoch, 1, "the status that is applied leaves the record alone");

    brokers[0].connection.close("its container is killed");
    context.elector.ended("shop/g", "g-0");
    until("the Service leads to another", || leads_to() == Some("g-1".into())).await;
    until("the view says so", || context.elector.view("shop/g").unwrap().serving).await;
    reconcile(&group(), &context).await.unwrap();
    let status = group().status.unwrap();
    assert_eq!(status.master.as_deref(), Some("g-1"));
    assert_eq!(status.record.unwrap().epoch, 2);
    let failover = status.last_failover.unwrap();
    assert_eq!((failover.from.as_deref(), failover.to.as_str(), failover.epoch), (Some("g-0"), "g-1", 2));
    // An end that is told while the session still stands doesn't count.
    assert!(["MasterDied", "MasterSilent"].contains(&failover.cause.as_str()), "{failover:?}");
    let (detection, total) = (failover.detection_ms.unwrap(), failover.total_ms.unwrap());
    assert!(detection <= total, "found out after {detection} ms, served after {total} ms");
}

#[tokio::test]
async fn a_master_service_that_somebody_deleted_is_made_anew() {
    let mock = Mock::start();
    put_group(&mock, &json!({}));
    let context = context(&mock, Leadership::for_tests()).await;
    reconcile(&group(&mock), &context).await.unwrap();
    let before = mock.paths();
    mock.remove("/api/v1/namespaces/shop/services/broker-a-master");
    reconcile(&group(&mock), &context).await.unwrap();
    assert_eq!(mock.paths(), before);
}

#[tokio::test]
async fn a_group_whose_name_server_is_missing_says_so_and_goes_on() {
    let mock = Mock::start();
    put_group(&mock, &json!({"nameServer": "main"}));
    let context = context(&mock, Leadership::for_tests()).await;
    reconcile(&group(&mock), &context).await.unwrap();
    let ready = condition(&mock, "Ready");
    assert_eq!(ready, "False NoNameServer: spec.nameServer: there is no NameServer main in this namespace");
    assert!(mock.get("/api/v1/namespaces/shop/pods/broker-a-2").is_some());
    let name_server = json!({"metadata": {"name": "main", "namespace": "shop"}});
    mock.put("/apis/gantry.rs/v1alpha1/namespaces/shop/nameservers/main", name_server);
    reconcile(&group(&mock), &context).await.unwrap();
    assert!(condition(&mock, "Ready").starts_with("False NoMaster"));
}

#[tokio::test]
async fn an_invalid_group_says_so_and_nothing_is_made() {
    let mock = Mock::start();
    put_group(&mock, &json!({"config": {"brokerId": "7"}}));
    let context = context(&mock, Leadership::for_tests()).await;
    reconcile(&group(&mock), &context).await.unwrap();
    assert_eq!(mock.paths(), [GROUP]);
    let ready = condition(&mock, "Ready");
    assert!(ready.starts_with("False InvalidSpec: BrokerGroup broker-a: spec.config.brokerId"), "{ready}");
}

#[tokio::test]
async fn too_many_requests_are_an_error_that_is_tried_again() {
    let mock = Mock::start();
    put_group(&mock, &json!({}));
    let context = context(&mock, Leadership::for_tests()).await;
    mock.refuse_all_with(429);
    let error = reconcile(&group(&mock), &context).await.map(drop).unwrap_err();
    assert_eq!(error.code(), Some(429));
    assert!(error.to_string().contains("refused by the test (429"), "{error}");
    assert_eq!(error.retry_in(), Duration::from_secs(RETRY_AFTER_SECONDS), "as it asks for");
    mock.refuse_all_with(503);
    let error = reconcile(&group(&mock), &context).await.map(drop).unwrap_err();
    assert!(error.retry_in() < Duration::from_secs(RETRY_AFTER_SECONDS), "it asks for nothing");
}

#[tokio::test]
async fn who_does_not_lead_makes_nothing() {
    let mock = Mock::start();
    put_group(&mock, &json!({}));
    let context = context(&mock, Leadership::default()).await;
    assert!(matches!(reconcile(&group(&mock), &context).await, Err(CallError::NotLeading)));
    assert_eq!(mock.paths(), [GROUP]);
}
