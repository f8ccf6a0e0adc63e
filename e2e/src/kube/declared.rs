//! What brokers and name servers in pods have, asked by the wire: the operator's own word on that is no proof.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, bail};
use gantry_remoting::body::subscription_group::SubscriptionGroupConfig;
use gantry_remoting::body::topic_config::TopicConfig;
use gantry_remoting::body::{self, route::TopicRouteData};
use gantry_remoting::code::{request, response};
use gantry_remoting::headers::admin::GetSubscriptionGroup;
use gantry_remoting::headers::route::GetRouteInfo;
use gantry_remoting::headers::topic::GetTopicConfig;
use gantry_remoting::{Client, Command, Limits};
use serde::de::DeserializeOwned;

use super::forward::Forward;
use super::installation::Installation;
use crate::admin::topic_request;

const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const BROKER_PORT: u16 = 10_911;
const NAME_SERVER_PORT: u16 = 9_876;

/// One broker or name server, for as long as this value lives.
pub struct Asked {
    forward: Forward,
}

impl Asked {
    /// A broker's pod.
    pub fn broker(installation: &Installation<'_>, pod: &str) -> anyhow::Result<Self> {
        Ok(Self { forward: Forward::open(installation, pod, BROKER_PORT)? })
    }

    /// A name server's pod.
    pub fn name_server(installation: &Installation<'_>, pod: &str) -> anyhow::Result<Self> {
        Ok(Self { forward: Forward::open(installation, pod, NAME_SERVER_PORT)? })
    }

    /// Queues to read and to write, where the broker has the topic.
    pub fn queues(&self, topic: &str) -> anyhow::Result<Option<(i32, i32)>> {
        let command = Command::request(request::GET_TOPIC_CONFIG).with_header(&GetTopicConfig { topic });
        let config: Option<TopicConfig> = self.ask(command, &[response::TOPIC_NOT_EXIST])?;
        Ok(config.map(|topic| (topic.read_queue_nums, topic.write_queue_nums)))
    }

    /// As an administrator would, by hand.
    pub fn set_queues(&self, topic: &str, queues: i32) -> anyhow::Result<()> {
        self.answer(topic_request(topic, queues, None), &[]).map(drop)
    }

    /// A consumer group's settings, where the broker has them.
    pub fn consumer_group(&self, group: &str) -> anyhow::Result<Option<SubscriptionGroupConfig>> {
        let header = GetSubscriptionGroup { group };
        let command = Command::request(request::GET_SUBSCRIPTIONGROUP_CONFIG).with_header(&header);
        self.ask(command, &[response::SUBSCRIPTION_GROUP_NOT_EXIST])
    }

    /// The broker groups that a name server knows to have the topic.
    pub fn groups_of(&self, topic: &str) -> anyhow::Result<BTreeSet<String>> {
        let header = GetRouteInfo { topic, accept_standard_json_only: Some(true) };
        let command = Command::request(request::GET_ROUTEINFO_BY_TOPIC).with_header(&header);
        let route: Option<TopicRouteData> = self.ask(command, &[response::TOPIC_NOT_EXIST])?;
        Ok(route.unwrap_or_default().queue_datas.into_iter().map(|queues| queues.broker_name).collect())
    }

    /// Nothing for one of the codes in `nothing`.
    fn ask<T: DeserializeOwned>(&self, command: Command, nothing: &[i32]) -> anyhow::Result<Option<T>> {
        let answer = self.answer(command, nothing)?;
        if answer.code != response::SUCCESS {
            return Ok(None);
        }
        body::parse(&answer.body.to_bytes()).map(Some).context("its answer")
    }

    fn answer(&self, command: Command, nothing: &[i32]) -> anyhow::Result<Command> {
        let (code, address) = (command.code, self.forward.address());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let answer = runtime.block_on(async {
            let client = Client::new(&address, Limits::default(), None);
            client.invoke(command, ANSWER_WITHIN).await
        });
        let answer = answer.with_context(|| format!("request {code} to {address}"))?;
        if answer.code == response::SUCCESS || nothing.contains(&answer.code) {
            return Ok(answer);
        }
        bail!("request {code} to {address}: code {} {}", answer.code, answer.remark.unwrap_or_default())
    }
}
