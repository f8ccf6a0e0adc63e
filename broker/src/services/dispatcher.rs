//! Each request to its service.

use super::Services;
use super::failure::Refusal;
use super::off_thread;
use super::send::Sends;
use super::update_config::update_config;
use gantry_remoting::code::request as code;
use gantry_remoting::code::response;
use gantry_remoting::{Command, Connection, Handler, Inbound, Latencies, Response};
use std::sync::Arc;

impl Handler for Services {
    /// All sends of one read go to the log as one hand-over, in order.
    fn handle(&self, connection: &Arc<Connection>, batch: &mut Vec<Inbound>) {
        let mut sends = Sends::default();
        let mut early = None;
        let leads = self.leads();
        for inbound in batch.drain(..) {
            match inbound.request.code {
                code if !leads && is_for_master(code) && !self.is_opening() => self.keep_stray(connection, inbound),
                code::SEND_MESSAGE | code::SEND_MESSAGE_V2 | code::SEND_BATCH_MESSAGE => self.send(inbound, &mut sends),
                code::CONSUMER_SEND_MSG_BACK => self.send_back(inbound, &mut sends),
                _ if *early.get_or_insert_with(|| self.is_between()) => self.keep(connection, inbound),
                _ => self.handle_one(connection, inbound),
            }
        }
        self.submit(sends);
    }

    fn latencies(&self) -> Option<Arc<Latencies>> {
        Some(Arc::clone(&self.latencies))
    }

    fn closed(&self, connection: &Arc<Connection>) {
        // Their tickets answer into a closed connection: nobody hears it.
        drop(self.waiting.leave(connection.id()));
        self.notify(self.clients.disconnected(connection.id()));
    }
}

/// What clients say to a master only: they have reached this replica by the master's address.
fn is_for_master(code: i32) -> bool {
    let sends = [code::SEND_MESSAGE, code::SEND_MESSAGE_V2, code::SEND_BATCH_MESSAGE, code::CONSUMER_SEND_MSG_BACK];
    sends.contains(&code) || [code::PULL_MESSAGE, code::LITE_PULL_MESSAGE].contains(&code)
}

impl Services {
    /// What was kept because there was no master, and there is one now: this replica.
    pub(super) fn serve(&self, connection: &Arc<Connection>, inbound: Inbound) {
        let mut sends = Sends::default();
        match inbound.request.code {
            code::SEND_MESSAGE | code::SEND_MESSAGE_V2 | code::SEND_BATCH_MESSAGE => self.send(inbound, &mut sends),
            code::CONSUMER_SEND_MSG_BACK => self.send_back(inbound, &mut sends),
            _ => self.handle_one(connection, inbound),
        }
        self.submit(sends);
    }

    /// Anything but a send.
    pub(super) fn handle_one(&self, connection: &Arc<Connection>, inbound: Inbound) {
        match inbound.request.code {
            code::PULL_MESSAGE | code::LITE_PULL_MESSAGE => self.pull(inbound),
            code::UPDATE_AND_CREATE_TOPIC => self.update_topic(inbound),
            code::DELETE_TOPIC_IN_BROKER => self.delete_topic(inbound),
            code::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP => self.update_group(inbound),
            code::DELETE_SUBSCRIPTIONGROUP => self.delete_group(inbound),
            code::QUERY_MESSAGE
            | code::VIEW_MESSAGE_BY_ID
            | code::SEARCH_OFFSET_BY_TIMESTAMP
            | code::GET_EARLIEST_MSG_STORETIME
            | code::GET_TOPIC_STATS_INFO
            | code::GET_CONSUME_STATS => self.answer_from_disk(connection, inbound),
            code::DELETE_EXPIRED_COMMITLOG => self.delete_expired_log(inbound),
            code::CLEAN_EXPIRED_CONSUMEQUEUE => self.clean_expired_queues(inbound),
            code::CLEAN_UNUSED_TOPIC => self.clean_unused_topics(inbound),
            _ => self.answer_now(connection, inbound),
        }
    }

    /// Where an answer comes from the disk, as like as not, no network thread waits for it.
    fn answer_from_disk(&self, connection: &Arc<Connection>, inbound: Inbound) {
        let connection = Arc::clone(connection);
        if let Err(inbound) =
            self.off_thread(inbound, move |services, inbound| services.answer_now(&connection, inbound))
        {
            let refusal = Refusal::new(response::SYSTEM_BUSY, off_thread::BUSY);
            inbound.ticket.reply_failure(refusal.code, refusal.remark);
        }
    }

    fn answer_now(&self, connection: &Arc<Connection>, inbound: Inbound) {
        let Inbound { request, ticket } = inbound;
        match self.answer(connection, &request) {
            Ok(response) => ticket.reply(response),
            Err(refusal) => ticket.reply_failure(refusal.code, refusal.remark),
        }
    }

    fn answer(&self, connection: &Arc<Connection>, request: &Command) -> Result<Response, Refusal> {
        match request.code {
            code::UNREGISTER_CLIENT => return self.unregister_client(connection, request),
            code::CHECK_CLIENT_CONFIG => return Self::check_client_config(request),
            code::GET_ALL_TOPIC_CONFIG => return self.all_topics(),
            code::GET_TOPIC_CONFIG => return self.topic_config(request),
            code::GET_ALL_SUBSCRIPTIONGROUP_CONFIG => return self.all_groups(),
            code::GET_SUBSCRIPTIONGROUP_CONFIG => return self.group_config(request),
            code::UPDATE_BROKER_CONFIG => return update_config(request),
            code::GET_BROKER_CONFIG => return Ok(self.broker_config()),
            code::GET_BROKER_RUNTIME_INFO => return self.runtime_info(),
            code::GET_SYSTEM_TOPIC_LIST_FROM_BROKER => return self.system_topics(),
            code::GET_ALL_CONSUMER_OFFSET => return self.all_offsets(),
            code::GET_ALL_DELAY_OFFSET => return self.all_delay_offsets(),
            code::GET_BROKER_HA_STATUS => return self.ha_status(),
            code::GET_BROKER_EPOCH_CACHE => return self.epoch_cache(),
            _ => {}
        }
        // From here on only the master knows, or may decide.
        self.role.serving().map_err(|why| why.refusal(request.version))?;
        match request.code {
            code::HEART_BEAT => self.heartbeat(connection, request),
            code::GET_CONSUMER_LIST_BY_GROUP => self.consumer_list(request),
            code::LOCK_BATCH_MQ => self.lock_queues(request),
            code::UNLOCK_BATCH_MQ => self.unlock_queues(request),
            code::QUERY_CONSUMER_OFFSET => self.query_offset(request),
            code::UPDATE_CONSUMER_OFFSET => self.update_offset(request),
            code::GET_MAX_OFFSET => self.max_offset(request),
            code::GET_MIN_OFFSET => self.min_offset(request),
            code::SEARCH_OFFSET_BY_TIMESTAMP => self.search_offset(request),
            code::GET_EARLIEST_MSG_STORETIME => self.earliest_store_time(request),
            code::QUERY_MESSAGE => self.query_message(request),
            code::VIEW_MESSAGE_BY_ID => self.view_message(request),
            code::GET_CONSUMER_CONNECTION_LIST => self.consumer_connections(request),
            code::GET_PRODUCER_CONNECTION_LIST => self.producer_connections(request),
            code::GET_TOPIC_STATS_INFO => self.topic_stats(request),
            code::GET_CONSUME_STATS => self.consume_stats(request),
            unknown => {
                let name = code::name(unknown).map_or_else(String::new, |name| format!(" ({name})"));
                let text = format!("request type {unknown}{name} not supported");
                Err(Refusal::new(response::REQUEST_CODE_NOT_SUPPORTED, text))
            }
        }
    }
}
