//! What goes into the log, and the receipt for it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::{PhysicalOffset, QueueOffset};

/// One message, or a client's batch: its records lie side by side in one segment, or none is written.
#[derive(Clone, Debug, Default)]
pub struct Append {
    /// At least one message; consecutive queue offsets where topic and queue are the same.
    pub messages: SmallVec<[NewMessage; 1]>,
}

/// A message before it has offsets. The fields are those of the record, see [`crate::record`].
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// 1 to [`Config::max_topic_bytes`](crate::Config::max_topic_bytes) bytes.
    pub topic: Arc<str>,
    /// The queue within the topic.
    pub queue_id: u32,
    /// The user's flag, kept as it is.
    pub flag: i32,
    /// RocketMQ's system flag; the two address family bits (4 and 5) are set from the hosts.
    pub sys_flag: i32,
    /// When the client made it, ms since 1970.
    pub born_timestamp_ms: i64,
    /// The client.
    pub born_host: SocketAddr,
    /// This broker, as the offset message id names it.
    pub store_host: SocketAddr,
    /// How often it was consumed in vain.
    pub reconsume_times: i32,
    /// The prepared transaction's offset; 0 without one.
    pub prepared_offset: i64,
    /// At most [`Config::max_message_bytes`](crate::Config::max_message_bytes).
    pub body: Bytes,
    /// Encoded `key 0x01 value 0x02 …`, at most [`MAX_BYTES`](crate::properties::MAX_BYTES); see [`crate::properties`].
    pub properties: Bytes,
}

/// Where an [`Append`] lies: written, which is neither flushed nor confirmed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The first message's number in its queue; 0 for prepared and rolled back transaction records, which have none.
    pub first_queue_offset: QueueOffset,
    /// Where the first record begins.
    pub physical: PhysicalOffset,
    /// Where each record begins, in order.
    pub each: SmallVec<[PhysicalOffset; 2]>,
    /// Where the last record ends: what must be below a watermark for the whole to be.
    pub end: PhysicalOffset,
    /// The records' store timestamp, ms since 1970.
    pub store_timestamp_ms: i64,
    /// Messages in it.
    pub count: u32,
}

impl From<NewMessage> for Append {
    fn from(message: NewMessage) -> Self {
        Self { messages: SmallVec::from_buf([message]) }
    }
}

/// What a truncation took away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truncated {
    /// How much was cut; 0 when the log ended there already.
    pub bytes: u64,
    /// Where the cut bytes were kept, if they were to be and there were any: the raw log from `to` to its old end.
    pub kept: Option<PathBuf>,
}
