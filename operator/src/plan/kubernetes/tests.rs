//! The objects of a group, field by field.

use std::collections::BTreeSet;
use std::fmt::Debug;

use gantry_replication::Epoch;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::*;

pub(super) fn blueprint(spec: Value) -> Blueprint {
    let mut group = BrokerGroup::new("broker-a", serde_json::from_value(spec).unwrap());
    group.metadata.namespace = Some("shop".to_owned());
    group.metadata.uid = Some("0-1-2".to_owned());
    let site = Site {
        image: "gantry:1".to_owned(),
        name_servers: "ns-0:9876;ns-1:9876".to_owned(),
        elector: "gantry-elector.gantry.svc:9880".to_owned(),
    };
    Blueprint::new(&group, &site).unwrap()
}

fn object(spec: Value, kind: Kind) -> Value {
    let objects = blueprint(spec).objects(Some("10.96.0.7".parse().unwrap()), None);
    objects.into_iter().find(|object| object.kind == kind).unwrap().body
}

/// Kubernetes' own type keeps every field of it: none is misspelt or in the wrong place.
pub(super) fn is_understood<T: DeserializeOwned + Serialize + Debug>(body: &Value) {
    let typed: T = serde_json::from_value(body.clone()).unwrap();
    let mut back = serde_json::to_value(&typed).unwrap();
    let mut body = body.clone();
    for value in [&mut back, &mut body] {
        // Absent, null and empty are one to Kubernetes.
        prune(value);
    }
    assert_eq!(back, body);
}

fn prune(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(prune);
            fields.retain(|_, value| !value.is_null() && *value != json!({}) && *value != json!([]));
        }
        Value::Array(items) => items.iter_mut().for_each(prune),
        _ => {}
    }
}

#[test]
fn kubernetes_understands_every_field_of_every_object() {
    let full = json!({
        "storage": {"storageClassName": "fast"}, "resources": {"limits": {"memory": "2Gi"}},
        "placement": {"nodeSelector": {"disk": "nvme"}, "tolerations": [{"key": "a", "operator": "Exists"}]},
        "externalAccess": {"type": "LoadBalancer", "annotations": {"a": "b"}, "sourceRanges": ["192.0.2.0/24"]},
    });
    for spec in [json!({}), full] {
        is_understood::<Pod>(&blueprint(spec.clone()).pod("broker-a-1").body);
        let mut objects = blueprint(spec.clone()).objects(Some("10.96.0.7".parse().unwrap()), None);
        objects.push(blueprint(spec).volume_claim("broker-a-0", None, true));
        for Object { kind, body, .. } in objects {
            match kind {
                Kind::Service => is_understood::<Service>(&body),
                Kind::ConfigMap => is_understood::<ConfigMap>(&body),
                Kind::PersistentVolumeClaim => is_understood::<PersistentVolumeClaim>(&body),
                Kind::PodDisruptionBudget => is_understood::<PodDisruptionBudget>(&body),
                Kind::NetworkPolicy => is_understood::<NetworkPolicy>(&body),
                Kind::Pod | Kind::StatefulSet => unreachable!("pods are made one by one, and not by a set"),
            }
        }
    }
    is_understood::<Secret>(&blueprint(json!({})).token_secret("s"));
    for ip in ["10.0.0.9", "fd00::9"] {
        let master = MasterAt { epoch: Epoch(3), replica: "broker-a-1".to_owned(), ip: ip.parse().unwrap() };
        let slice = master_slice("shop", "broker-a", "0-1-2", &master, Some("77"));
        is_understood::<EndpointSlice>(&slice);
        assert_eq!(epoch_of(&serde_json::from_value(slice).unwrap()), (Epoch(3), Some(ip)));
    }
}

#[test]
fn everything_but_volumes_goes_with_the_group_and_all_is_labelled_as_kubernetes_recommends() {
    let blueprint = blueprint(json!({}));
    let mut objects = blueprint.objects(Some("10.96.0.7".parse().unwrap()), None);
    objects.push(blueprint.pod("broker-a-0"));
    objects.push(blueprint.volume_claim("broker-a-0", None, true));
    for Object { kind, body, .. } in objects {
        let metadata = &body["metadata"];
        let owner = &metadata["ownerReferences"][0];
        if kind == Kind::PersistentVolumeClaim {
            assert!(owner.is_null(), "{body}");
        } else {
            assert_eq!((&owner["kind"], &owner["uid"]), (&json!("BrokerGroup"), &json!("0-1-2")), "{body}");
        }
        assert_eq!(metadata["namespace"], "shop");
        assert_eq!(metadata["labels"]["app.kubernetes.io/name"], "gantry-broker");
        assert_eq!(metadata["labels"]["app.kubernetes.io/managed-by"], "gantry-operator");
        assert_eq!(metadata["labels"][GROUP_LABEL], "broker-a");
    }
}

#[test]
fn without_the_master_services_address_there_is_no_configuration_yet() {
    let kinds = |ip: Option<std::net::IpAddr>| -> Vec<_> {
        blueprint(json!({})).objects(ip, None).into_iter().map(|object| object.kind).collect()
    };
    assert!(!kinds(None).contains(&Kind::ConfigMap));
    assert!(kinds(Some("10.96.0.7".parse().unwrap())).contains(&Kind::ConfigMap));
}

#[test]
fn each_replica_has_a_configuration_that_names_no_pod_and_no_secret() {
    let data = &object(json!({"config": {"maxMessageSize": "7"}}), Kind::ConfigMap)["data"];
    let conf = data["broker-a-2.conf"].as_str().unwrap();
    for line in [
        "brokerName=broker-a",
        "brokerId=3",
        "gantryReplica=broker-a-2",
        "listenPort=10911",
        "haListenPort=10912",
        "storePathRootDir=/data/store",
        "gantryElectors=gantry-elector.gantry.svc:9880",
        "gantryAdvertisedMaster=10.96.0.7:10911",
        "maxMessageSize=7",
    ] {
        assert!(conf.lines().any(|found| found == line), "{line} is not in {conf}");
    }
    assert!(!conf.contains("gantryToken") && !conf.contains("brokerIP"), "{conf}");
    assert_eq!(data.as_object().unwrap().len(), 3);
}

#[test]
fn a_pod_is_nobodys_and_may_nothing() {
    let pod = blueprint(json!({})).pod("broker-a-1").body;
    let (spec, container) = (&pod["spec"], &pod["spec"]["containers"][0]);
    assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
    assert_eq!(spec["securityContext"]["runAsUser"], 65_532);
    assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!(spec["automountServiceAccountToken"], false);
    let security = json!({
        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
    });
    assert_eq!(container["securityContext"], security);
}

#[test]
fn what_the_spec_says_of_a_pod_is_in_it() {
    let spec = json!({
        "image": "mine:2", "resources": {"limits": {"memory": "2Gi"}}, "storage": {"size": "7Gi", "storageClassName": "fast"},
        "placement": {
            "nodeSelector": {"disk": "nvme"}, "tolerations": [{"key": "a"}],
            "spread": {"topologyKey": "rack", "required": true},
        },
    });
    let pod = blueprint(spec.clone()).pod("broker-a-1").body;
    let (pod_spec, container) = (&pod["spec"], &pod["spec"]["containers"][0]);
    assert_eq!(container["image"], "mine:2");
    assert_eq!(container["resources"]["limits"]["memory"], "2Gi");
    assert_eq!(pod_spec["nodeSelector"]["disk"], "nvme");
    assert_eq!(pod_spec["tolerations"][0]["key"], "a");
    let spread = &pod_spec["topologySpreadConstraints"];
    assert_eq!((&spread[0]["topologyKey"], &spread[0]["whenUnsatisfiable"]), (&json!("rack"), &json!("DoNotSchedule")));
    assert_eq!(spread[1]["topologyKey"], "topology.kubernetes.io/zone");
    assert_eq!(spread[1]["whenUnsatisfiable"], "ScheduleAnyway");
    let claim = blueprint(spec).volume_claim("broker-a-0", None, true).body;
    assert_eq!(claim["metadata"]["name"], "data-broker-a-0");
    assert_eq!(claim["spec"]["resources"]["requests"]["storage"], "7Gi");
    assert_eq!(claim["spec"]["storageClassName"], "fast");
    let plain = blueprint(json!({})).pod("broker-a-1").body;
    assert_eq!(plain["spec"]["containers"][0]["image"], "gantry:1");
    let name_servers = |pod: &Value| pod["spec"]["containers"][0]["args"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(name_servers(&plain), "ns-0:9876;ns-1:9876");
    let by_name = blueprint(json!({"nameServer": "main"})).pod("broker-a-1").body;
    assert_eq!(name_servers(&by_name), "main-nameserver-members.shop.svc:9876");
}

#[test]
fn a_master_that_is_told_to_end_waits_for_its_successor_and_has_time_to_flush_after_that() {
    let spec = &blueprint(json!({})).pod("broker-a-1").body["spec"];
    let container = &spec["containers"][0];
    let hook = container["lifecycle"]["preStop"]["exec"]["command"].as_array().unwrap();
    let words: Vec<_> = hook.iter().map(|word| word.as_str().unwrap()).collect();
    assert_eq!(words[..4], ["/usr/local/bin/gantry", "hand-over", "--port", "5557"]);
    assert_eq!(container["env"][0]["name"], "POD_IP", "that is where its probes listen");
    let hand_over: u64 = words[5].parse().unwrap();
    assert!(spec["terminationGracePeriodSeconds"].as_u64().unwrap() >= hand_over + 60);
}

#[test]
fn volumes_go_with_their_group_where_it_says_so() {
    let owners = |policy: &str| {
        let claim = blueprint(json!({"storage": {"deletionPolicy": policy}})).volume_claim("broker-a-1", None, true);
        claim.body["metadata"]["ownerReferences"].as_array().unwrap().len()
    };
    assert_eq!((owners("Retain"), owners("Delete")), (0, 1));
}

#[test]
fn a_volume_that_is_there_grows_and_never_shrinks_and_keeps_its_class() {
    let size_and_class = |present: Option<&ClaimSeen>, grow: bool| {
        let blueprint = blueprint(json!({"storage": {"size": "20Gi", "storageClassName": "fast"}}));
        let spec = blueprint.volume_claim("broker-a-1", present, grow).body["spec"].clone();
        let text = |value: &Value| value.as_str().unwrap_or("none").to_owned();
        (text(&spec["resources"]["requests"]["storage"]), text(&spec["storageClassName"]))
    };
    let present = |size: &str, class: Option<&str>| ClaimSeen {
        requested: Some(size.to_owned()),
        class: class.map(str::to_owned),
        ..ClaimSeen::default()
    };
    let told = |size: &str, class: &str| (size.to_owned(), class.to_owned());
    assert_eq!(size_and_class(None, true), told("20Gi", "fast"));
    assert_eq!(size_and_class(Some(&present("10Gi", Some("slow"))), true), told("20Gi", "slow"));
    assert_eq!(size_and_class(Some(&present("10Gi", Some("slow"))), false), told("10Gi", "slow"), "not asked to");
    assert_eq!(size_and_class(Some(&present("30Gi", None)), true), told("30Gi", "none"));
}

#[test]
fn a_recovery_of_hours_is_no_failure_and_a_hang_of_half_a_minute_is() {
    let container = &blueprint(json!({})).pod("broker-a-1").body["spec"]["containers"][0];
    let patience = |probe: &str| {
        let probe = &container[probe];
        probe["periodSeconds"].as_u64().unwrap() * probe["failureThreshold"].as_u64().unwrap()
    };
    assert!(patience("startupProbe") >= 12 * 3600);
    assert_eq!(patience("livenessProbe"), 30);
    assert!(patience("readinessProbe") <= 2);
}

#[test]
fn the_hash_follows_what_brokers_read_and_nothing_else() {
    let hash = |spec: Value| blueprint(spec).spec_hash();
    let plain = hash(json!({}));
    for same in [
        json!({"replicas": 4}),
        json!({"preferredMaster": "broker-a-1"}),
        json!({"storage": {"size": "1Ti"}}),
        json!({"storage": {"deletionPolicy": "Delete"}}),
        json!({"externalAccess": {"type": "NodePort"}}),
        json!({"config": {"fileReservedTime": "48"}}),
    ] {
        assert_eq!(hash(same.clone()), plain, "{same}");
    }
    let changes = [
        json!({"image": "x"}),
        json!({"clusterName": "x"}),
        json!({"nameServer": "main"}),
        json!({"flush": "Sync"}),
        json!({"replication": {"mode": "Async"}}),
        json!({"replication": {"minInSync": 1}}),
        json!({"replication": {"onShortage": "Degrade"}}),
        json!({"resources": {"limits": {"memory": "1Gi"}}}),
        json!({"config": {"maxMessageSize": "1"}}),
        json!({"placement": {"nodeSelector": {"a": "b"}}}),
        json!({"placement": {"tolerations": [{"key": "a"}]}}),
        json!({"placement": {"spread": {"topologyKey": "rack"}}}),
        json!({"placement": {"spread": {"required": true}}}),
    ];
    let hashes: BTreeSet<_> = changes.iter().map(|change| hash(change.clone())).chain([plain.clone()]).collect();
    assert_eq!(hashes.len(), changes.len() + 1, "two of them have one hash");
    let mut other_site = blueprint(json!({}));
    other_site.site.image = "gantry:2".to_owned();
    assert_eq!(other_site.spec_hash(), plain, "a newer operator, whose default image is newer, rolls nobody");
    assert_eq!(plain, "35f5bdfe3488d354", "this hash is on pods of running groups: changed, it starts them all again");
}

#[test]
fn what_brokers_take_while_they_run_is_in_their_configuration_too() {
    let blueprint = blueprint(json!({"config": {"fileReservedTime": "48", "maxMessageSize": "7"}}));
    let settings = blueprint.live_settings(Some("mq.example.org:30911"));
    let pairs: Vec<_> = settings.0.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(pairs, ["fileReservedTime=48", "gantryExternalMaster=mq.example.org:30911"]);
    let objects = blueprint.objects(Some("10.96.0.7".parse().unwrap()), Some("mq.example.org:30911"));
    let conf = objects.into_iter().find(|object| object.kind == Kind::ConfigMap).unwrap().body;
    let conf = conf["data"]["broker-a-0.conf"].as_str().unwrap();
    for pair in pairs {
        assert!(conf.lines().any(|line| line == pair), "{pair} is not in {conf}");
    }
}
