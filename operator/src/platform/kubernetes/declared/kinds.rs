//! What topics and consumer groups are to a master.

use std::collections::BTreeMap;
use std::fmt::Debug;

use gantry_remoting::Command;
use gantry_remoting::body::topic_config::{TopicConfig, TopicConfigs};
use gantry_remoting::body::{self, BodyError};
use gantry_remoting::code::request;
use gantry_remoting::headers::admin::DeleteSubscriptionGroup;
use gantry_remoting::headers::topic::{CreateTopic, DeleteTopic};
use k8s_openapi::NamespaceResourceScope;
use kube::Resource;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::api::{ConsumerGroup, DeclaredStatus, DeletionPolicy, Topic};
use crate::plan::declared::{Planned, TopicChange, plan_consumer_group, plan_topic};

/// A change as a master is asked for it.
#[derive(Clone, Debug)]
pub(in crate::platform::kubernetes) struct Asked<S> {
    pub(super) command: Command,
    /// What the master has afterwards.
    pub(super) becomes: S,
}

/// A kind that is declared.
pub(in crate::platform::kubernetes) trait Declared:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Serialize
    + Send
    + Sync
    + 'static
{
    /// What a master has of one.
    type Seen: Clone + Send + Sync + 'static;

    /// Its name at the brokers.
    fn name(&self) -> &str;
    fn cluster(&self) -> &str;
    fn deletion_policy(&self) -> DeletionPolicy;
    fn status(&self) -> Option<&DeclaredStatus>;

    /// Asks a master for all that it has.
    fn list() -> Command;
    /// Its answer, by name.
    fn read(body: &[u8]) -> Result<BTreeMap<String, Self::Seen>, BodyError>;
    /// What to do at a master that has `seen`, or nothing of that name.
    fn plan(&self, seen: Option<&Self::Seen>) -> Result<Planned<Asked<Self::Seen>>, BodyError>;
    /// Asks a master to have nothing of that name.
    fn delete(&self) -> Command;
    /// What a master has, in words.
    fn words(seen: &Self::Seen) -> String;
}

impl Declared for Topic {
    type Seen = TopicConfig;

    fn name(&self) -> &str {
        self.spec.name.as_deref().or(self.metadata.name.as_deref()).unwrap_or_default()
    }

    fn cluster(&self) -> &str {
        &self.spec.cluster_name
    }

    fn deletion_policy(&self) -> DeletionPolicy {
        self.spec.deletion_policy
    }

    fn status(&self) -> Option<&DeclaredStatus> {
        self.status.as_ref()
    }

    fn list() -> Command {
        Command::request(request::GET_ALL_TOPIC_CONFIG)
    }

    fn read(body: &[u8]) -> Result<BTreeMap<String, TopicConfig>, BodyError> {
        Ok(body::parse::<TopicConfigs>(body)?.topic_config_table)
    }

    fn plan(&self, seen: Option<&TopicConfig>) -> Result<Planned<Asked<TopicConfig>>, BodyError> {
        let Planned { becomes: TopicChange { becomes, attributes }, needed, differs, cannot } =
            plan_topic(self.name(), &self.spec, seen);
        let header = CreateTopic {
            topic: &becomes.topic_name,
            default_topic: "TBW102",
            read_queue_nums: becomes.read_queue_nums,
            write_queue_nums: becomes.write_queue_nums,
            perm: becomes.perm,
            topic_filter_type: &becomes.topic_filter_type,
            topic_sys_flag: Some(becomes.topic_sys_flag),
            order: Some(becomes.order),
            attributes: (!attributes.is_empty()).then_some(attributes.as_str()),
            force: None,
        };
        let command = Command::request(request::UPDATE_AND_CREATE_TOPIC).with_header(&header);
        Ok(Planned { becomes: Asked { command, becomes }, needed, differs, cannot })
    }

    fn delete(&self) -> Command {
        Command::request(request::DELETE_TOPIC_IN_BROKER).with_header(&DeleteTopic { topic: self.name() })
    }

    fn words(seen: &TopicConfig) -> String {
        format!("{} queues to read, {} to write", seen.read_queue_nums, seen.write_queue_nums)
    }
}

/// As a master answers: settings as they are, so that what this operator doesn't know goes back as it came.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AllGroups {
    subscription_group_table: BTreeMap<String, Map<String, Value>>,
}

impl Declared for ConsumerGroup {
    type Seen = Map<String, Value>;

    fn name(&self) -> &str {
        self.spec.name.as_deref().or(self.metadata.name.as_deref()).unwrap_or_default()
    }

    fn cluster(&self) -> &str {
        &self.spec.cluster_name
    }

    fn deletion_policy(&self) -> DeletionPolicy {
        self.spec.deletion_policy
    }

    fn status(&self) -> Option<&DeclaredStatus> {
        self.status.as_ref()
    }

    fn list() -> Command {
        Command::request(request::GET_ALL_SUBSCRIPTIONGROUP_CONFIG)
    }

    fn read(body: &[u8]) -> Result<BTreeMap<String, Map<String, Value>>, BodyError> {
        Ok(body::parse::<AllGroups>(body)?.subscription_group_table)
    }

    fn plan(&self, seen: Option<&Map<String, Value>>) -> Result<Planned<Asked<Map<String, Value>>>, BodyError> {
        let Planned { becomes, needed, differs, cannot } = plan_consumer_group(self.name(), &self.spec, seen);
        let command =
            Command::request(request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP).with_body(body::to_json(&becomes)?);
        Ok(Planned { becomes: Asked { command, becomes }, needed, differs, cannot })
    }

    fn delete(&self) -> Command {
        let header = DeleteSubscriptionGroup { group_name: self.name(), clean_offset: Some(true) };
        Command::request(request::DELETE_SUBSCRIPTIONGROUP).with_header(&header)
    }

    fn words(_: &Map<String, Value>) -> String {
        "settings as declared".to_owned()
    }
}
