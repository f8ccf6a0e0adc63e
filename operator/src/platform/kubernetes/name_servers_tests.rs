//! Name servers over an API server that is none.

use serde_json::Value;

use super::super::lease::Leadership;
use super::super::mock::Mock;
use super::super::reconcile::tests::context;
use super::*;

const SERVERS: &str = "/apis/gantry.rs/v1alpha1/namespaces/shop/nameservers/main";
const SET: &str = "/apis/apps/v1/namespaces/shop/statefulsets/main-nameserver";

fn put(mock: &Mock, spec: &Value) {
    let object = json!({
        "apiVersion": "gantry.rs/v1alpha1", "kind": "NameServer",
        "metadata": {"name": "main", "namespace": "shop", "uid": "u1", "generation": 1}, "spec": spec,
    });
    mock.put(SERVERS, object);
}

async fn look(mock: &Mock) {
    let context = context(mock, Leadership::for_tests()).await;
    let object = serde_json::from_value(mock.get(SERVERS).unwrap()).unwrap();
    reconcile(&object, &context).await.unwrap();
}

fn condition(mock: &Mock, type_: &str) -> String {
    mock.condition(SERVERS, type_)
}

#[tokio::test]
async fn name_servers_get_their_objects_and_their_status_follows_the_pods() {
    let mock = Mock::start();
    put(&mock, &json!({}));
    look(&mock).await;
    let expected = [
        "/api/v1/namespaces/shop/services/main-nameserver",
        "/api/v1/namespaces/shop/services/main-nameserver-members",
        SET,
        SERVERS,
        "/apis/policy/v1/namespaces/shop/poddisruptionbudgets/main-nameserver",
    ];
    assert_eq!(mock.paths(), expected);
    assert_eq!(condition(&mock, "Ready"), "False NotAllReady: 0 of 2 name servers are ready");
    mock.change(SET, |set| {
        set["metadata"]["generation"] = 1.into();
        set["status"] = json!({"replicas": 2, "readyReplicas": 2, "updatedReplicas": 2, "observedGeneration": 1});
    });
    look(&mock).await;
    assert_eq!(condition(&mock, "Ready"), "True AllReady: 2 of 2 name servers are ready");
    let status = &mock.get(SERVERS).unwrap()["status"];
    assert_eq!((&status["ready"], &status["address"]), (&json!("2/2"), &json!("main-nameserver.shop.svc:9876")));
    assert_eq!(status["addresses"].as_array().unwrap().len(), 2);
    let patches = mock.patches();
    look(&mock).await;
    assert_eq!(
        mock.patches(),
        patches + 4,
        "its four objects are applied again, and no status is written that says nothing new"
    );
}

#[tokio::test]
async fn what_is_somebody_elses_is_left_alone_and_named() {
    let mock = Mock::start();
    put(&mock, &json!({}));
    let theirs = json!({"metadata": {"name": "main-nameserver", "namespace": "shop"}, "spec": {"replicas": 7}});
    mock.put(SET, theirs);
    look(&mock).await;
    assert_eq!(mock.get(SET).unwrap()["spec"], json!({"replicas": 7}));
    let ready = condition(&mock, "Ready");
    assert!(ready.starts_with("False Refused: StatefulSet main-nameserver is there already"), "{ready}");
    assert_eq!(mock.paths(), [SET, SERVERS], "nothing else is made");
}

#[tokio::test]
async fn a_spec_that_cannot_be_is_named_and_so_is_an_object_that_cannot_be_read() {
    for (spec, said) in [
        (json!({"replicas": 0}), "False InvalidSpec: spec.replicas: 0"),
        (json!({"replicas": "two"}), "False Unreadable: NameServer main can't be read by this operator"),
    ] {
        let mock = Mock::start();
        put(&mock, &spec);
        look(&mock).await;
        let ready = condition(&mock, "Ready");
        assert!(ready.starts_with(said), "{ready}");
        assert_eq!(mock.paths(), [SERVERS]);
    }
}
