//! The answer to a send, kept with its submission and written straight to the producer's connection.

use super::seam::SendFailure;
use super::traffic::Incoming;
use bytes::Bytes;
use gantry_remoting::Body;
use gantry_remoting::Ticket;
use gantry_remoting::code::response;
use gantry_remoting::headers::send::SendMessageResponse;
use gantry_store::{Appended, record};
use std::net::SocketAddr;
use std::sync::Arc;

/// What a producer will be told, but for the offsets.
pub struct SendReply {
    /// The request to answer
    pub ticket: Ticket,
    /// The queue the producer thinks of: for a delayed message, not the one it lies in
    pub queue_id: u32,
    /// The client's own message id, if it sent one (UTF-8)
    pub unique_id: Option<Bytes>,
    /// The id of a batch that is one record (UTF-8): tells the client that its messages have no ids of their own
    pub batch_id: Option<Bytes>,
    /// Where it is counted
    pub incoming: Arc<Incoming>,
    /// `regionId`
    pub region: Arc<str>,
    /// This broker's address, as in the records: part of a message's id
    pub store_host: SocketAddr,
}

impl SendReply {
    /// Answers the producer. Called from the log writer's thread.
    pub fn complete(self, result: Result<&Appended, SendFailure>) {
        match result {
            Ok(appended) => self.success(response::SUCCESS, None, appended),
            // In the log, but not as safe as asked for: clients count it as sent, with a status of its own.
            Err(failure @ (SendFailure::FlushDiskTimeout(_) | SendFailure::FlushSlaveTimeout(_))) => {
                let refusal = failure.refusal(self.ticket.client_version());
                let (SendFailure::FlushDiskTimeout(appended) | SendFailure::FlushSlaveTimeout(appended)) = &failure
                else {
                    unreachable!("matched above")
                };
                self.success(refusal.code, Some(&refusal.remark), appended);
            }
            Err(failure) => {
                let refusal = failure.refusal(self.ticket.client_version());
                self.ticket.reply_failure(refusal.code, refusal.remark);
            }
        }
    }

    fn success(self, code: i32, remark: Option<&str>, appended: &Appended) {
        self.incoming.count(appended);
        if self.ticket.is_oneway() {
            return;
        }
        let mut msg_id = String::with_capacity(appended.each.len() * 33);
        for physical in &appended.each {
            if !msg_id.is_empty() {
                msg_id.push(',');
            }
            msg_id.push_str(&record::message_id(self.store_host, *physical));
        }
        let header = SendMessageResponse {
            msg_id: &msg_id,
            queue_id: self.queue_id as i32,
            queue_offset: appended.first_queue_offset.0 as i64,
            transaction_id: text(self.unique_id.as_ref()),
            batch_uniq_id: text(self.batch_id.as_ref()),
            recall_handle: None,
            region: Some(&self.region),
            trace_on: Some(true),
        };
        self.ticket.reply_with(code, remark, &header, Body::empty());
    }
}

fn text(bytes: Option<&Bytes>) -> Option<&str> {
    bytes.and_then(|bytes| std::str::from_utf8(bytes).ok())
}
