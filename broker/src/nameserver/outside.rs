//! The port for clients outside the cluster: the same routes, with the addresses that lead there from outside.
//!
//! It answers questions and changes nothing: whoever reaches it from anywhere can neither register a broker nor delete a topic.

use std::sync::Arc;

use gantry_remoting::{Connection, Handler, Inbound};

use super::handler::{Names, log_refusal};
use super::refusal::Refusal;

pub(super) struct Outside(pub(super) Arc<Names>);

impl Handler for Outside {
    fn handle(&self, connection: &Arc<Connection>, batch: &mut Vec<Inbound>) {
        for Inbound { request, ticket } in batch.drain(..) {
            let answer = self.0.answer_outside(&request);
            ticket.reply(answer.unwrap_or_else(|refusal: Refusal| {
                log_refusal(connection, request.code, &refusal);
                refusal.into_response()
            }));
        }
    }
}
