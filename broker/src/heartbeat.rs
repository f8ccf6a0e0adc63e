//! The record by which an idle master proves its disk: appended and flushed like a message, in a topic of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use gantry_store::{Append, NewMessage};

/// Its topic; nobody can subscribe to it, and no name server hears of it.
const TOPIC: &str = "GANTRY_SYS_HEARTBEAT";

/// One such record.
pub(crate) fn record(host: SocketAddr) -> Append {
    let born = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
    let message = NewMessage {
        topic: Arc::from(TOPIC),
        queue_id: 0,
        flag: 0,
        sys_flag: 0,
        born_timestamp_ms: born,
        born_host: host,
        store_host: host,
        reconsume_times: 0,
        prepared_offset: 0,
        body: Bytes::new(),
        properties: Bytes::new(),
    };
    message.into()
}
