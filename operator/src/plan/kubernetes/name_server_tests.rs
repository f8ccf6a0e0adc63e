//! The objects of a `NameServer`, field by field.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::{Value, json};

use super::tests::is_understood;
use super::{Kind, NameServerBlueprint, Site};
use crate::api::NameServer;

fn blueprint(name: &str, spec: Value) -> Result<NameServerBlueprint, String> {
    let mut object = NameServer::new(name, serde_json::from_value(spec).unwrap());
    object.metadata.namespace = Some("shop".to_owned());
    object.metadata.uid = Some("0-1-2".to_owned());
    let site = Site { image: "gantry:1".to_owned(), name_servers: "x:1".to_owned(), elector: "e:9880".to_owned() };
    NameServerBlueprint::new(&object, &site)
}

fn objects(spec: Value) -> Vec<(Kind, String, Value)> {
    let objects = blueprint("main", spec).unwrap().objects();
    objects.into_iter().map(|object| (object.kind, object.name, object.body)).collect()
}

#[test]
fn kubernetes_understands_every_field_of_every_object_and_each_goes_with_its_name_server() {
    let full = json!({
        "replicas": 3, "image": "mine:2", "resources": {"limits": {"memory": "128Mi"}},
        "placement": {"nodeSelector": {"disk": "nvme"}, "tolerations": [{"key": "a", "operator": "Exists"}]},
    });
    for spec in [json!({}), full] {
        for (kind, name, body) in objects(spec) {
            match kind {
                Kind::StatefulSet => is_understood::<StatefulSet>(&body),
                Kind::Service => is_understood::<Service>(&body),
                Kind::PodDisruptionBudget => is_understood::<PodDisruptionBudget>(&body),
                other => panic!("a name server has no {other:?}"),
            }
            assert!(name.starts_with("main-nameserver"), "{name}");
            let owner = &body["metadata"]["ownerReferences"][0];
            assert_eq!((&owner["kind"], &owner["uid"]), (&json!("NameServer"), &json!("0-1-2")));
            assert_eq!(body["metadata"]["labels"]["app.kubernetes.io/managed-by"], "gantry-operator");
        }
    }
}

#[test]
fn what_the_spec_says_is_in_the_pods() {
    let set = |spec: Value| objects(spec).remove(0).2["spec"].clone();
    let plain = set(json!({}));
    assert_eq!(plain["replicas"], 2);
    assert_eq!(plain["template"]["spec"]["containers"][0]["image"], "gantry:1");
    let said = set(json!({
        "replicas": 3, "image": "mine:2", "resources": {"limits": {"memory": "128Mi"}},
        "placement": {
            "nodeSelector": {"disk": "nvme"}, "tolerations": [{"key": "a"}], "spread": {"topologyKey": "rack", "required": true},
        },
    }));
    let (pod, container) = (&said["template"]["spec"], &said["template"]["spec"]["containers"][0]);
    assert_eq!((&said["replicas"], &container["image"]), (&json!(3), &json!("mine:2")));
    assert_eq!(container["resources"]["limits"]["memory"], "128Mi");
    assert_eq!((&pod["nodeSelector"]["disk"], &pod["tolerations"][0]["key"]), (&json!("nvme"), &json!("a")));
    assert_eq!(pod["topologySpreadConstraints"][0]["topologyKey"], "rack");
    assert_eq!(pod["topologySpreadConstraints"][0]["whenUnsatisfiable"], "DoNotSchedule");
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
}

/// The selector of a StatefulSet can't be changed, and neither can what Services select by without losing pods for a while.
#[test]
fn clients_are_led_to_ready_members_by_a_stable_address_and_brokers_to_all() {
    let objects = objects(json!({}));
    let service = |name: &str| {
        objects.iter().find(|(kind, it, _)| *kind == Kind::Service && it == name).unwrap().2["spec"].clone()
    };
    let (clients, members) = (service("main-nameserver"), service("main-nameserver-members"));
    assert_eq!((&clients["type"], &clients["clusterIP"]), (&json!("ClusterIP"), &Value::Null));
    assert_eq!((&members["clusterIP"], &members["publishNotReadyAddresses"]), (&json!("None"), &json!(true)));
    let selector = json!({"app.kubernetes.io/name": "gantry-nameserver", "gantry.rs/name-server": "main"});
    let set = &objects[0].2["spec"];
    assert_eq!(set["selector"]["matchLabels"], selector);
    assert_eq!((&clients["selector"], &members["selector"]), (&selector, &selector));
    for (label, value) in selector.as_object().unwrap() {
        assert_eq!(set["template"]["metadata"]["labels"][label], *value);
    }
    let blueprint = blueprint("main", json!({})).unwrap();
    assert_eq!(blueprint.address(), "main-nameserver.shop.svc:9876");
    let each = [0, 1].map(|ordinal| format!("main-nameserver-{ordinal}.main-nameserver-members.shop.svc:9876"));
    assert_eq!(blueprint.addresses(), each);
}

#[test]
fn what_cannot_be_is_refused_by_name_of_the_field() {
    for (name, spec, said) in [
        ("main", json!({"replicas": 0}), "spec.replicas: 0 is not between 1 and 9"),
        ("main", json!({"replicas": 10}), "spec.replicas: 10 is not"),
        ("Main", json!({}), "metadata.name must be"),
    ] {
        let why = blueprint(name, spec.clone()).map(drop).unwrap_err();
        assert!(why.contains(said), "{spec}: {why}");
    }
}
