//! QUERY_MESSAGE: messages by key, or by their client's unique one.

use super::Services;
use super::failure::Refusal;
use super::names;
use gantry_remoting::code::response;
use gantry_remoting::headers::offset::{QueryMessage, QueryMessageResponse};
use gantry_remoting::{Body, Command, Response};
use gantry_store::Query;

impl Services {
    /// QUERY_MESSAGE: the newest messages with the key, oldest first, as RocketMQ gives them.
    pub(super) fn query_message(&self, request: &Command) -> Result<Response, Refusal> {
        let header: QueryMessage<'_> = request.header()?;
        let unique = header.unique.is_some_and(|unique| unique.eq_ignore_ascii_case("true"));
        if header.index_type.is_some_and(|kind| kind.eq_ignore_ascii_case("T")) {
            let text = "messages can't be queried by tag here, only by key (K) and unique key (U)";
            return Err(Refusal::new(response::REQUEST_CODE_NOT_SUPPORTED, text));
        }
        let settings = self.adjustable();
        let asked = if unique { settings.max_unique_query } else { u32::try_from(header.max_num).unwrap_or(0) };
        let query = Query {
            topic: header.topic,
            key: header.key,
            max_count: asked.min(settings.max_query) as usize,
            begin_ms: header.begin_timestamp,
            end_ms: header.end_timestamp,
        };
        if names::is_internal_topic(header.topic) {
            return Err(not_found());
        }
        let mut found = self.store.query(&query)?;
        if found.records.is_empty() {
            return Err(not_found());
        }
        found.records.reverse();
        let header = QueryMessageResponse {
            index_last_update_timestamp: found.newest_ms,
            index_last_update_physical: found.newest_physical.0 as i64,
        };
        Ok(Response::success().with_header(&header).with_body(Body::from(found.records)))
    }
}

fn not_found() -> Refusal {
    Refusal::new(response::QUERY_NOT_FOUND, "can not find message, maybe time range not correct")
}
