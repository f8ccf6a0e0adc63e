//! Topics and consumer groups over an API server that is none and masters that are none, over real sockets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gantry_remoting::body::to_json;
use gantry_remoting::body::topic_config::{TopicConfig, TopicConfigs};
use gantry_remoting::code::{request, response};
use gantry_remoting::headers::admin::DeleteSubscriptionGroup;
use gantry_remoting::headers::topic::{CreateTopic, DeleteTopic};
use gantry_remoting::{Command, Connection, Handler, Inbound, Limits, Response, Server};
use gantry_replication::elector::Config;
use gantry_replication::master::Mode;
use gantry_replication::wire::Hello;
use gantry_replication::{Member, StoreId};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector;
use kube::runtime::watcher::Event;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::groups::Groups;
use super::keep::keep;
use super::kinds::Declared;
use super::masters::Masters;
use super::reconcile::{FINALIZER, Shared, reconcile};
use crate::api::{ConsumerGroup, GroupState, Topic};
use crate::elector::Group;
use crate::elector::tests::{Joined, hello, join, until};
use crate::platform::kubernetes::guard::Guard;
use crate::platform::kubernetes::lease::Leadership;
use crate::platform::kubernetes::mock::Mock;
use crate::platform::kubernetes::reconcile::Context;
use crate::platform::kubernetes::reconcile::tests::context;
use crate::platform::kubernetes::run::Scope;
use crate::platform::local::RecordFile;

const TOPICS: &str = "/apis/gantry.rs/v1alpha1/namespaces/shop/topics";
const CONSUMER_GROUPS: &str = "/apis/gantry.rs/v1alpha1/namespaces/shop/consumergroups";

/// A master's tables, and nothing else of it.
#[derive(Default)]
struct FakeMaster {
    topics: Mutex<BTreeMap<String, TopicConfig>>,
    groups: Mutex<BTreeMap<String, Map<String, Value>>>,
    refuses: Mutex<Option<String>>,
    asked: Mutex<Vec<i32>>,
}

impl Handler for FakeMaster {
    fn handle(&self, _: &Arc<Connection>, batch: &mut Vec<Inbound>) {
        for Inbound { request, ticket } in batch.drain(..) {
            self.asked.lock().push(request.code);
            match self.refuses.lock().clone() {
                Some(why) => ticket.reply_failure(response::SYSTEM_ERROR, why),
                None => ticket.reply(self.answer(&request)),
            }
        }
    }
}

impl FakeMaster {
    fn answer(&self, command: &Command) -> Response {
        match command.code {
            request::GET_ALL_TOPIC_CONFIG => {
                let all = TopicConfigs { topic_config_table: self.topics.lock().clone(), ..TopicConfigs::default() };
                return Response::success().with_body(to_json(&all).unwrap());
            }
            request::GET_ALL_SUBSCRIPTIONGROUP_CONFIG => {
                let all = json!({"subscriptionGroupTable": *self.groups.lock(), "dataVersion": {}});
                return Response::success().with_body(to_json(&all).unwrap());
            }
            request::UPDATE_AND_CREATE_TOPIC => {
                let header: CreateTopic<'_> = command.header().unwrap();
                let topic = TopicConfig {
                    topic_name: header.topic.to_owned(),
                    read_queue_nums: header.read_queue_nums,
                    write_queue_nums: header.write_queue_nums,
                    perm: header.perm,
                    ..TopicConfig::default()
                };
                self.topics.lock().insert(header.topic.to_owned(), topic);
            }
            request::DELETE_TOPIC_IN_BROKER => {
                let header: DeleteTopic<'_> = command.header().unwrap();
                self.topics.lock().remove(header.topic);
            }
            request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP => {
                let group: Map<String, Value> = serde_json::from_slice(&command.body.to_bytes()).unwrap();
                self.groups.lock().insert(group["groupName"].as_str().unwrap().to_owned(), group);
            }
            request::DELETE_SUBSCRIPTIONGROUP => {
                let header: DeleteSubscriptionGroup<'_> = command.header().unwrap();
                self.groups.lock().remove(header.group_name);
            }
            other => panic!("nobody should ask a master for {other}"),
        }
        Response::success()
    }

    fn queues(&self, topic: &str) -> Option<(i32, i32)> {
        self.topics.lock().get(topic).map(|topic| (topic.read_queue_nums, topic.write_queue_nums))
    }
}

/// A broker group with a master, or one that has only been declared.
struct FakeGroup {
    master: Arc<FakeMaster>,
    _server: Server,
    _joined: Joined,
    _dir: tempfile::TempDir,
}

struct Rig {
    mock: Mock,
    context: Arc<Context>,
}

impl Rig {
    async fn new() -> Self {
        let mock = Mock::start();
        let context = Arc::new(context(&mock, Leadership::for_tests()).await);
        Self { mock, context }
    }

    fn declare_group(&self, name: &str, cluster: &str) {
        let path = format!("/apis/gantry.rs/v1alpha1/namespaces/shop/brokergroups/{name}");
        let group = json!({
            "apiVersion": "gantry.rs/v1alpha1", "kind": "BrokerGroup",
            "metadata": {"name": name, "namespace": "shop", "uid": name}, "spec": {"clusterName": cluster},
        });
        self.mock.put(&path, group);
    }

    async fn group(&self, name: &str, cluster: &str) -> FakeGroup {
        self.declare_group(name, cluster);
        let master = Arc::new(FakeMaster::default());
        let handler = Arc::clone(&master) as Arc<dyn Handler>;
        let server = Server::bind("127.0.0.1:0".parse().unwrap(), Limits::default(), handler).await.unwrap();
        let (dir, id) = (tempfile::tempdir().unwrap(), format!("shop/{name}"));
        let config = Config::new([format!("{name}-0")], Mode::Sync, 1);
        let group = Group { id: id.clone(), name: name.to_owned(), token: "secret".to_owned(), config };
        self.context.elector.add(group, RecordFile::new(dir.path().join("record.json")));
        let hello = Hello {
            group: name.to_owned(),
            member: Member::new(format!("{name}-0"), StoreId(1)),
            client_address: server.local_addr().to_string(),
            ..hello(0)
        };
        let joined = join(&self.context.elector, hello).await.unwrap();
        until("its master serves", || self.context.elector.view(&id).is_some_and(|view| view.serving)).await;
        FakeGroup { master, _server: server, _joined: joined, _dir: dir }
    }

    fn put(&self, path: &str, kind: &str, spec: &Value) {
        let name = path.rsplit('/').next().unwrap();
        let object = json!({
            "apiVersion": "gantry.rs/v1alpha1", "kind": kind, "spec": spec,
            "metadata": {
                "name": name, "namespace": "shop", "uid": format!("uid-{name}"), "generation": 1,
                "creationTimestamp": "2026-01-01T00:00:00Z",
            },
        });
        self.mock.put(path, object);
    }

    fn topic(&self, name: &str, spec: &Value) -> String {
        let path = format!("{TOPICS}/{name}");
        self.put(&path, "Topic", spec);
        path
    }

    /// An operator that remembers nothing: what brokers have is read anew.
    fn operator<T: Declared>(&self, folder: &str) -> Shared<T> {
        let (objects, mut writer) = reflector::store();
        for path in self.mock.paths().iter().filter(|path| path.starts_with(folder)) {
            writer.apply_watcher_event(&Event::Apply(self.read::<T>(path)));
        }
        Shared {
            context: Arc::clone(&self.context),
            groups: Arc::new(Groups::new(self.mock.client())),
            masters: Masters::new(),
            objects,
            recorder: Recorder::new(self.mock.client(), Reporter { controller: "test".to_owned(), instance: None }),
            amiss: Mutex::default(),
        }
    }

    fn read<T: Declared>(&self, path: &str) -> Guard<T> {
        serde_json::from_value(self.mock.get(path).unwrap()).unwrap()
    }

    async fn reconcile<T: Declared>(&self, path: &str) -> Duration {
        let operator = self.operator::<T>(path.rsplit_once('/').unwrap().0);
        reconcile(&self.read::<T>(path), &operator).await.unwrap()
    }

    fn condition(&self, path: &str, type_: &str) -> String {
        self.mock.condition(path, type_)
    }

    fn is_being_deleted(&self, path: &str) {
        self.mock.change(path, |object| object["metadata"]["deletionTimestamp"] = "2026-01-02T00:00:00Z".into());
    }

    fn finalizers(&self, path: &str) -> Value {
        self.mock.get(path).unwrap()["metadata"]["finalizers"].clone()
    }
}

#[tokio::test]
async fn a_topic_gets_its_queues_on_each_group_of_its_cluster_and_on_a_new_one() {
    let rig = Rig::new().await;
    let (a, b, other) = (rig.group("a", "shop").await, rig.group("b", "shop").await, rig.group("o", "other").await);
    let topic =
        rig.topic("orders", &json!({"clusterName": "shop", "name": "Orders", "readQueues": 4, "writeQueues": 4}));
    rig.reconcile::<Topic>(&topic).await;
    assert_eq!((a.master.queues("Orders"), b.master.queues("Orders")), (Some((4, 4)), Some((4, 4))));
    assert!(other.master.asked.lock().is_empty(), "it is of another cluster");
    assert_eq!(rig.condition(&topic, "Ready"), "True OnAllGroups: it is on 2 of 2 groups");
    assert!(rig.condition(&topic, "Synced").starts_with("True AsDeclared"));
    let status = &rig.mock.get(&topic).unwrap()["status"];
    assert_eq!((&status["name"], &status["onGroups"]), (&json!("Orders"), &json!("2/2")));
    assert_eq!(status["observedGeneration"], 1);

    let c = rig.group("c", "shop").await;
    rig.reconcile::<Topic>(&topic).await;
    assert_eq!(c.master.queues("Orders"), Some((4, 4)));
    assert_eq!(rig.mock.get(&topic).unwrap()["status"]["onGroups"], "3/3");
}

#[tokio::test]
async fn what_is_as_declared_is_neither_asked_for_nor_written_again() {
    let rig = Rig::new().await;
    let a = rig.group("a", "DefaultCluster").await;
    let topic = rig.topic("t", &json!({}));
    rig.reconcile::<Topic>(&topic).await;
    let (patches, asked) = (rig.mock.patches(), a.master.asked.lock().len());
    let operator = rig.operator::<Topic>(TOPICS);
    for _ in 0..3 {
        reconcile(&rig.read::<Topic>(&topic), &operator).await.unwrap();
    }
    assert_eq!(rig.mock.patches(), patches);
    assert_eq!(a.master.asked.lock()[asked..], [request::GET_ALL_TOPIC_CONFIG], "read once for all");
}

#[tokio::test]
async fn what_somebody_changed_is_put_back_and_told() {
    let rig = Rig::new().await;
    let a = rig.group("a", "DefaultCluster").await;
    let topic = rig.topic("t", &json!({}));
    rig.reconcile::<Topic>(&topic).await;
    a.master.topics.lock().get_mut("t").unwrap().write_queue_nums = 2;
    rig.reconcile::<Topic>(&topic).await;
    assert_eq!(a.master.queues("t"), Some((8, 8)));
    let events: Vec<_> = rig.mock.paths().into_iter().filter(|path| path.contains("/events/")).collect();
    let event = rig.mock.get(&events[0]).unwrap();
    assert_eq!((&event["reason"], &event["note"]), (&json!("DriftCorrected"), &json!("a: writeQueues 2 -> 8")));

    a.master.topics.lock().get_mut("t").unwrap().read_queue_nums = 16;
    rig.reconcile::<Topic>(&topic).await;
    assert!(rig.condition(&topic, "Ready").starts_with("True"));
    let synced = rig.condition(&topic, "Synced");
    assert!(synced.starts_with("False Drifted: a: 16 read queues are there, 8 are declared"), "{synced}");
    assert_eq!(a.master.queues("t"), Some((16, 8)), "messages may be in them");
}

#[tokio::test]
async fn a_group_that_cannot_be_served_is_told_and_tried_ever_less_often_and_keeps_no_other_waiting() {
    let rig = Rig::new().await;
    let (a, b) = (rig.group("a", "DefaultCluster").await, rig.group("b", "DefaultCluster").await);
    *a.master.refuses.lock() = Some("the disk is full".to_owned());
    rig.declare_group("c", "DefaultCluster");
    let topic = rig.topic("t", &json!({}));
    let operator = rig.operator::<Topic>(TOPICS);
    let mut pauses = Vec::new();
    for _ in 0..7 {
        pauses.push(reconcile(&rig.read::<Topic>(&topic), &operator).await.unwrap().as_secs());
    }
    assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60]);
    assert_eq!(b.master.queues("t"), Some((8, 8)));
    let ready = rig.condition(&topic, "Ready");
    let expected =
        "False Refused: a: its master refused: the disk is full (code 1); c: no replica is known to serve as master";
    assert_eq!(ready, expected);
    let states: Vec<GroupState> =
        serde_json::from_value::<Vec<crate::api::AtGroup>>(rig.mock.get(&topic).unwrap()["status"]["groups"].clone())
            .unwrap()
            .into_iter()
            .map(|at| at.state)
            .collect();
    assert_eq!(states, [GroupState::Refused, GroupState::Synced, GroupState::NoMaster]);

    *a.master.refuses.lock() = None;
    rig.mock.remove("/apis/gantry.rs/v1alpha1/namespaces/shop/brokergroups/c");
    assert_eq!(rig.reconcile::<Topic>(&topic).await.as_secs(), 15);
    assert!(rig.condition(&topic, "Ready").starts_with("True"));
}

#[tokio::test]
async fn a_topic_of_a_cluster_without_groups_says_so() {
    let rig = Rig::new().await;
    let topic = rig.topic("t", &json!({"clusterName": "nowhere"}));
    rig.reconcile::<Topic>(&topic).await;
    assert_eq!(rig.condition(&topic, "Ready"), "False NoGroup: no BrokerGroup of this namespace is of cluster nowhere");
}

#[tokio::test]
async fn a_deleted_object_takes_its_topic_along_only_if_it_says_so() {
    let rig = Rig::new().await;
    let a = rig.group("a", "DefaultCluster").await;
    let (kept, goes) = (rig.topic("kept", &json!({})), rig.topic("goes", &json!({"deletionPolicy": "Delete"})));
    for topic in [&kept, &goes] {
        rig.reconcile::<Topic>(topic).await;
    }
    assert_eq!((rig.finalizers(&kept), rig.finalizers(&goes)), (Value::Null, json!([FINALIZER])));
    rig.mock.change(&goes, |object| object["metadata"]["finalizers"].as_array_mut().unwrap().push("others/own".into()));
    rig.declare_group("c", "DefaultCluster");
    for topic in [&kept, &goes] {
        rig.is_being_deleted(topic);
        rig.reconcile::<Topic>(topic).await;
    }
    assert_eq!((a.master.queues("kept"), a.master.queues("goes")), (Some((8, 8)), None));
    let ready = rig.condition(&goes, "Ready");
    assert_eq!(ready, "False Deleting: not deleted yet at c: no replica is known to serve as master");
    assert_eq!(rig.finalizers(&goes), json!([FINALIZER, "others/own"]), "it waits for the group that has no master");
    rig.mock.remove("/apis/gantry.rs/v1alpha1/namespaces/shop/brokergroups/c");
    rig.reconcile::<Topic>(&goes).await;
    assert_eq!(rig.finalizers(&goes), json!(["others/own"]));
}

#[tokio::test]
async fn a_policy_that_is_changed_to_retain_lets_the_object_go() {
    let rig = Rig::new().await;
    let topic = rig.topic("t", &json!({"deletionPolicy": "Delete"}));
    rig.reconcile::<Topic>(&topic).await;
    rig.mock.change(&topic, |object| object["spec"]["deletionPolicy"] = "Retain".into());
    rig.reconcile::<Topic>(&topic).await;
    assert_eq!(rig.finalizers(&topic), json!([]));
}

#[tokio::test]
async fn of_two_that_declare_the_same_the_older_one_counts_and_the_other_takes_nothing_along() {
    let rig = Rig::new().await;
    let a = rig.group("a", "DefaultCluster").await;
    let first = rig.topic("first", &json!({"name": "T"}));
    let second =
        rig.topic("second", &json!({"name": "T", "readQueues": 4, "writeQueues": 4, "deletionPolicy": "Delete"}));
    rig.mock.change(&second, |object| object["metadata"]["creationTimestamp"] = "2026-01-01T00:00:01Z".into());
    for topic in [&first, &second] {
        rig.reconcile::<Topic>(topic).await;
    }
    assert_eq!(a.master.queues("T"), Some((8, 8)));
    let ready = rig.condition(&second, "Ready");
    assert_eq!(ready, "False Duplicate: first is older and declares the same; delete one of the two");
    rig.is_being_deleted(&second);
    rig.reconcile::<Topic>(&second).await;
    assert_eq!((a.master.queues("T"), rig.finalizers(&second)), (Some((8, 8)), json!([])));
}

#[tokio::test]
async fn a_consumer_group_is_made_put_back_and_deleted_with_what_it_does_not_declare_left_alone() {
    let rig = Rig::new().await;
    let a = rig.group("a", "DefaultCluster").await;
    let path = format!("{CONSUMER_GROUPS}/g");
    rig.put(&path, "ConsumerGroup", &json!({"name": "G", "retryMaxTimes": 3, "deletionPolicy": "Delete"}));
    rig.reconcile::<ConsumerGroup>(&path).await;
    let setting = |field: &str| a.master.groups.lock().get("G").map(|group| group[field].clone());
    assert_eq!((setting("retryMaxTimes"), setting("consumeEnable")), (Some(json!(3)), Some(json!(true))));
    assert!(rig.condition(&path, "Synced").starts_with("True"));
    {
        let mut groups = a.master.groups.lock();
        let group = groups.get_mut("G").unwrap();
        group.insert("consumeEnable".to_owned(), json!(false));
        group.insert("groupRetryPolicy".to_owned(), json!({"type": "CUSTOMIZED"}));
    }
    rig.reconcile::<ConsumerGroup>(&path).await;
    assert_eq!(setting("consumeEnable"), Some(json!(true)));
    assert_eq!(setting("groupRetryPolicy"), Some(json!({"type": "CUSTOMIZED"})));
    rig.is_being_deleted(&path);
    rig.reconcile::<ConsumerGroup>(&path).await;
    assert_eq!((setting("groupName"), rig.finalizers(&path)), (None, json!([])));
}

#[tokio::test]
async fn one_object_that_cannot_be_read_is_told_about_and_stops_no_other() {
    let rig = Rig::new().await;
    let a = rig.group("a", "DefaultCluster").await;
    let bad = rig.topic("bad", &json!({"perm": "Sometimes"}));
    let good = rig.topic("good", &json!({}));
    rig.mock.put(
        "/apis/gantry.rs/v1alpha1/namespaces/shop/brokergroups/bad",
        json!({
            "apiVersion": "gantry.rs/v1alpha1", "kind": "BrokerGroup",
            "metadata": {"name": "bad", "namespace": "shop", "uid": "bad"}, "spec": {"replicas": "many"},
        }),
    );
    let scope = Scope::of(rig.mock.client(), "shop");
    let keeping = tokio::spawn(keep::<Topic>(scope, Arc::clone(&rig.context), "test".to_owned()));
    let has_status = |path: &str| !rig.mock.get(path).unwrap()["status"]["conditions"].is_null();
    until("both are told about", || has_status(&bad) && has_status(&good)).await;
    assert_eq!(a.master.queues("good"), Some((8, 8)));
    let ready = rig.condition(&bad, "Ready");
    assert!(ready.starts_with("False Unreadable: ") && ready.contains("Sometimes"), "{ready}");
    keeping.abort();
}

#[tokio::test]
async fn who_does_not_lead_asks_nobody() {
    let rig = Rig::new().await;
    let a = rig.group("a", "DefaultCluster").await;
    let topic = rig.topic("t", &json!({}));
    let lost = Arc::new(context(&rig.mock, Leadership::default()).await);
    let operator = Shared { context: lost, ..rig.operator::<Topic>(TOPICS) };
    reconcile(&rig.read::<Topic>(&topic), &operator).await.unwrap_err();
    assert!(a.master.asked.lock().is_empty());
}
