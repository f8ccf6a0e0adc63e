//! HEART_BEAT, UNREGISTER_CLIENT, CHECK_CLIENT_CONFIG, GET_CONSUMER_LIST_BY_GROUP, LOCK/UNLOCK_BATCH_MQ.

use super::clients::{Changed, Client};
use super::failure::Refusal;
use super::filter::TagFilter;
use super::lock::QueueKey;
use super::names;
use super::{Services, json, now_ms, parse};
use gantry_remoting::body::client_check::CheckClient;
use gantry_remoting::body::consumer_list::ConsumerList;
use gantry_remoting::body::heartbeat::HeartbeatData;
use gantry_remoting::body::lock::{LockBatch, LockBatchResponse, MessageQueue};
use gantry_remoting::code::{request, response};
use gantry_remoting::headers::client::{
    GetConsumerListByGroup, HeartbeatResponse, NotifyConsumerIdsChanged, UnregisterClient,
};
use gantry_remoting::{Command, Connection, Response};
use std::sync::Arc;

impl Services {
    /// HEART_BEAT: who is there, in which groups. Groups and their retry topics are created by it.
    pub(super) fn heartbeat(&self, connection: &Arc<Connection>, request: &Command) -> Result<Response, Refusal> {
        let mut data: HeartbeatData = parse(request)?;
        data.consumer_data_set.retain(|consumer| match self.group_with_retry_topic(&consumer.group_name) {
            Ok(()) => true,
            Err(refusal) => {
                // One bad group of a client mustn't keep its others from consuming; RocketMQ passes over it too.
                tracing::warn!(group = consumer.group_name, client = data.client_id, %refusal, "consumer not registered");
                false
            }
        });
        let client = Client {
            connection: connection.id(),
            peer: connection.clone(),
            id: data.client_id.clone(),
            language: request.language,
            version: request.version,
        };
        self.notify(self.clients.heartbeat(&client, data, now_ms() as u64));
        if connection.is_closed() {
            // It ended while it was being registered, perhaps after `closed` had looked.
            self.notify(self.clients.disconnected(connection.id()));
        }
        let answer = HeartbeatResponse { supports_v2: false, subscription_changed: Some(true) };
        Ok(Response::success().with_header(&answer))
    }

    fn group_with_retry_topic(&self, group: &str) -> Result<(), Refusal> {
        let config = self.group(group)?;
        if config.retry_queue_nums > 0 {
            self.derived_topic(&names::retry_topic(group), config.retry_queue_nums)?;
        }
        Ok(())
    }

    /// UNREGISTER_CLIENT: a client leaves its groups in good order.
    pub(super) fn unregister_client(&self, connection: &Connection, request: &Command) -> Result<Response, Refusal> {
        let header: UnregisterClient<'_> = request.header()?;
        self.notify(self.clients.unregister(connection.id(), header.producer_group, header.consumer_group));
        Ok(Response::success())
    }

    /// CHECK_CLIENT_CONFIG: could this subscription be served?
    pub(super) fn check_client_config(request: &Command) -> Result<Response, Refusal> {
        let body: CheckClient = parse(request)?;
        if let Some(data) = body.subscription_data {
            TagFilter::parse(&data.sub_string, Some(&data.expression_type))?;
        }
        Ok(Response::success())
    }

    /// GET_CONSUMER_LIST_BY_GROUP: the client ids among which a group's queues are shared out.
    pub(super) fn consumer_list(&self, request: &Command) -> Result<Response, Refusal> {
        let header: GetConsumerListByGroup<'_> = request.header()?;
        let ids = self.clients.consumer_ids(header.consumer_group);
        if ids.is_empty() {
            let text = format!("no consumer for this group, {}", header.consumer_group);
            return Err(Refusal::new(response::SYSTEM_ERROR, text));
        }
        json(&ConsumerList { consumer_id_list: ids })
    }

    /// LOCK_BATCH_MQ: which of these queues does this client own now?
    pub(super) fn lock_queues(&self, request: &Command) -> Result<Response, Refusal> {
        let body: LockBatch = parse(request)?;
        let wanted = body.mq_set.iter().map(key).collect();
        let owned = self.locks.lock(&body.consumer_group, &body.client_id, wanted, now_ms() as u64);
        let locked = body.mq_set.into_iter().filter(|queue| owned.contains(&key(queue))).collect();
        json(&LockBatchResponse { locked })
    }

    /// UNLOCK_BATCH_MQ.
    pub(super) fn unlock_queues(&self, request: &Command) -> Result<Response, Refusal> {
        let body: LockBatch = parse(request)?;
        let queues: Vec<_> = body.mq_set.iter().map(key).collect();
        self.locks.unlock(&body.consumer_group, &body.client_id, &queues);
        Ok(Response::success())
    }

    /// Tells the members of changed groups to share out their queues anew.
    pub(super) fn notify(&self, changed: Vec<Changed<Arc<Connection>>>) {
        for Changed { group, members } in changed {
            if self.live.groups.get(&group).is_some_and(|config| !config.notify_consumer_ids_changed_enable) {
                continue;
            }
            for member in members {
                let notice = Command::request(request::NOTIFY_CONSUMER_IDS_CHANGED)
                    .with_header(&NotifyConsumerIdsChanged { consumer_group: &group });
                if let Err(problem) = member.send(notice) {
                    // It is closing, and will be taken out of the group by that.
                    tracing::debug!(peer = %member.peer(), group, %problem, "change of the group not told");
                }
            }
        }
    }
}

fn key(queue: &MessageQueue) -> QueueKey {
    QueueKey { topic: queue.topic.clone(), queue_id: queue.queue_id }
}
