//! Subscription groups by request: 200, 201, 207, 352.

use super::failure::Refusal;
use super::groups::GroupConfig;
use super::{Services, json, now_ms, parse};
use gantry_remoting::body::topic_config::DataVersion;
use gantry_remoting::code::response;
use gantry_remoting::headers::admin::{DeleteSubscriptionGroup, GetSubscriptionGroup};
use gantry_remoting::{Command, Inbound, Response};
use serde::Serialize;
use std::collections::BTreeMap;

/// RocketMQ's `SubscriptionGroupWrapper`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AllGroups<'a> {
    subscription_group_table: BTreeMap<&'a str, &'a GroupConfig>,
    data_version: DataVersion,
}

impl Services {
    /// UPDATE_AND_CREATE_SUBSCRIPTIONGROUP; answered when the other replicas have it too.
    pub(super) fn update_group(&self, inbound: Inbound) {
        let Inbound { request, ticket } = inbound;
        let changed = self.master_only(&request).and_then(|()| {
            let config: GroupConfig = parse(&request)?;
            self.live.groups.put(config, now_ms())
        });
        self.answer_when_logged(changed, ticket);
    }

    /// DELETE_SUBSCRIPTIONGROUP, with its offsets if asked.
    pub(super) fn delete_group(&self, inbound: Inbound) {
        let Inbound { request, ticket } = inbound;
        let changed = self.master_only(&request).and_then(|()| {
            let header: DeleteSubscriptionGroup<'_> = request.header()?;
            self.live.groups.delete(header.group_name, now_ms());
            if header.clean_offset == Some(true) {
                self.live.offsets.delete_group(header.group_name);
            }
            Ok(())
        });
        self.answer_when_logged(changed, ticket);
    }

    /// GET_ALL_SUBSCRIPTIONGROUP_CONFIG.
    pub(super) fn all_groups(&self) -> Result<Response, Refusal> {
        let (data_version, groups) = self.live.groups.all();
        let table = groups.iter().map(|group| (group.group_name.as_str(), &**group)).collect();
        json(&AllGroups { subscription_group_table: table, data_version })
    }

    /// GET_SUBSCRIPTIONGROUP_CONFIG.
    pub(super) fn group_config(&self, request: &Command) -> Result<Response, Refusal> {
        let header: GetSubscriptionGroup<'_> = request.header()?;
        let Some(config) = self.live.groups.get(header.group) else {
            let text = format!("subscription group [{}] does not exist", header.group);
            return Err(Refusal::new(response::SUBSCRIPTION_GROUP_NOT_EXIST, text));
        };
        json(&*config)
    }
}
