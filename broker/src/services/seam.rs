//! Where the services meet the rest of the broker: the log's writer and the replica's role.

use super::failure::Refusal;
use super::send_reply::SendReply;
use gantry_remoting::Connection;
use gantry_remoting::body::ha::{EpochEntry, HaRuntimeInfo};
use gantry_remoting::code::response;
use gantry_store::{Append, Appended, Disk};
use std::sync::Arc;

/// The way to the log's one writer.
pub trait Log: Send + Sync {
    /// Hands over all sends of one socket read, in order. Never blocks: what can't be taken is completed at once with
    /// [`SendFailure::Busy`]. Every submission's `done` is called exactly once, from any thread.
    fn submit(&self, sends: Vec<Submission>);
}

/// One message, or one client batch, on its way to the log.
pub struct Submission {
    /// What to append
    pub append: Append,
    /// What must have happened before `done` is called with success
    pub wait: Wait,
    /// Who waits
    pub done: Done,
}

/// What a send waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Flushed and replicated, as the broker is configured to
    Acked,
    /// In this broker's log (the producer's property `WAIT=false`)
    Written,
}

/// Called once with what became of a submission.
pub enum Done {
    /// A producer's send: answers its ticket
    Reply(SendReply),
    /// Anything else
    Call(Box<dyn FnOnce(Result<Appended, SendFailure>) + Send>),
}

impl Done {
    /// Whether a producer waits, and not the broker itself.
    pub fn is_producers(&self) -> bool {
        matches!(self, Done::Reply(_))
    }

    /// The connection of a producer that won't leave it when it is told to go away, since it doesn't know that code.
    pub fn clings_to(&self) -> Option<&Arc<Connection>> {
        match self {
            Done::Reply(SendReply { ticket, .. }) if !knows_go_away(ticket.client_version()) => {
                Some(ticket.connection())
            }
            _ => None,
        }
    }

    /// Tells whoever waits. Cheap enough for the log writer's thread: an answer is encoded into the connection's outbox.
    pub fn complete(self, result: Result<&Appended, SendFailure>) {
        match self {
            Done::Reply(reply) => reply.complete(result),
            Done::Call(call) => call(result.cloned()),
        }
    }
}

/// Why a send is not acknowledged. In the first two cases the message is in the log and may yet survive: clients
/// count these as success, and so must a checker count them as unknown.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SendFailure {
    /// Written, but not flushed within `syncFlushTimeout`
    #[error("written at {}, not flushed in time", .0.physical.0)]
    FlushDiskTimeout(Appended),
    /// Written, but not acknowledged by enough replicas within `slaveTimeout`
    #[error("written at {}, not replicated in time", .0.physical.0)]
    FlushSlaveTimeout(Appended),
    /// This replica is a slave
    #[error("this replica is a slave")]
    NotMaster,
    /// A planned switchover is under way: the client shall come back, to the new master
    #[error("the master is being switched over")]
    SwitchingOver,
    /// A master that must not serve; the text says why
    #[error("the master is fenced: {0}")]
    Fenced(String),
    /// Fewer in-sync replicas than `minInSyncReplicas`, refused before the append
    #[error("in-sync replicas not enough: {have} of {need}")]
    InSyncShort {
        /// in-sync replicas, the master included
        have: u32,
        /// `minInSyncReplicas`
        need: u32,
    },
    /// No room for another segment, or the disk is above its warning level; the text says which
    #[error("the broker's disk is full [{figures}]: {1}", figures = figures(.0))]
    DiskFull(Disk, String),
    /// Flow control
    #[error("{0}")]
    Busy(Busy),
    /// The message, or its properties, is longer than a record may be
    #[error("the message is illegal: {0}")]
    TooLarge(String),
    /// The store failed and takes nothing any more
    #[error("the store failed: {0}")]
    Store(String),
}

/// Why flow control refuses a send: RocketMQ's texts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Busy {
    /// The queue of sends is full
    #[error("[OVERLOAD]system busy, start flow control for a while")]
    Overload,
    /// The writer has been at one write for long, when the send came
    #[error("[REJECTREQUEST]system busy, start flow control for a while")]
    Rejected,
    /// The same, when the send had waited already
    #[error(
        "[PCBUSY_CLEAN_QUEUE]broker busy, start flow control for a while, period in queue: {period_ms}ms, size of queue: {queue}"
    )]
    PageCache {
        /// How long it had waited
        period_ms: u64,
        /// How many waited
        queue: usize,
    },
    /// The send had waited too long
    #[error(
        "[TIMEOUT_CLEAN_QUEUE]broker busy, start flow control for a while, period in queue: {period_ms}ms, size of queue: {queue}"
    )]
    TimedOut {
        /// How long it had waited
        period_ms: u64,
        /// How many waited
        queue: usize,
    },
}

/// RocketMQ's sentence, and behind it what it leaves open.
fn disk_full_text(disk: &Disk, why: &str) -> String {
    format!(
        "service not available now. It may be caused by one of the following reasons: the broker's disk is full [{}], \
         messages are put to the slave, message store has been shut down, etc. ({why})",
        figures(disk)
    )
}

/// Used parts of 1 of the volumes of log, queues and index; -1 where the system doesn't say. As RocketMQ's `diskUtil`.
fn figures(disk: &Disk) -> String {
    let part = |percent: Option<u16>| percent.map_or(-1.0, |percent| f64::from(percent) / 100.0);
    let (log, queues) = (part(disk.log_percent), part(disk.queues_percent));
    format!("CL: {log:5.2} CQ: {queues:5.2} INDEX: {queues:5.2}")
}

/// MQVersion ordinal of 5.3.1: newer clients understand [`response::GO_AWAY`] and reconnect by themselves.
const VERSION_5_3_1: i32 = gantry_remoting::version::V5_3_1;

impl SendFailure {
    /// Is the message in the log all the same, and may survive?
    pub fn is_written(&self) -> bool {
        matches!(self, Self::FlushDiskTimeout(_) | Self::FlushSlaveTimeout(_))
    }

    /// RocketMQ's code and remark for this failure, for a client of this version (MQVersion ordinal). All of them but
    /// the over-long message are codes on which a producer tries again, or counts the send as done.
    pub fn refusal(&self, client_version: i32) -> Refusal {
        let code = match self {
            Self::FlushDiskTimeout(_) => response::FLUSH_DISK_TIMEOUT,
            Self::FlushSlaveTimeout(_) => response::FLUSH_SLAVE_TIMEOUT,
            Self::NotMaster => return busy("[REJECTREQUEST]system busy, start flow control for a while".into()),
            Self::SwitchingOver => return switching_over(client_version),
            Self::Fenced(_) | Self::Store(_) => {
                return Refusal::new(response::SERVICE_NOT_AVAILABLE, format!("service not available now. {self}"));
            }
            Self::DiskFull(disk, why) => {
                return Refusal::new(response::SERVICE_NOT_AVAILABLE, disk_full_text(disk, why));
            }
            Self::InSyncShort { .. } => response::SYSTEM_ERROR,
            Self::Busy(why) => return busy(why.to_string()),
            Self::TooLarge(_) => response::MESSAGE_ILLEGAL,
        };
        Refusal::new(code, self.to_string())
    }
}

/// How this replica replicates, for administrators who ask.
pub trait Replication: Send + Sync {
    /// Is it master?
    fn is_master(&self) -> bool;

    /// Its connections, to its slaves or to its master.
    fn ha_status(&self) -> HaRuntimeInfo;

    /// Its log's epochs, oldest first, and its log's end.
    fn epochs(&self) -> (Vec<EpochEntry>, i64);
}

/// What this replica is now, as far as clients are concerned.
pub trait Role: Send + Sync {
    /// May this broker answer pulls, offset queries, locks and heartbeats now? A send is judged by the log instead.
    fn serving(&self) -> Result<(), NotServing>;
}

/// Why a replica doesn't serve clients.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NotServing {
    /// It is a slave
    #[error("this replica is a slave")]
    Slave,
    /// It hands its mastership over
    #[error("the master is being switched over")]
    SwitchingOver,
    /// It is master, but doesn't know all yet that the log held before: in a moment
    #[error("the new master is not ready yet")]
    Opening,
    /// It is a master that must not serve; the text says why
    #[error("the master is fenced: {0}")]
    Fenced(String),
}

impl NotServing {
    /// A code on which clients try again.
    pub fn refusal(&self, client_version: i32) -> Refusal {
        match self {
            Self::Slave | Self::Fenced(_) => {
                Refusal::new(response::SERVICE_NOT_AVAILABLE, format!("service not available now. {self}"))
            }
            Self::SwitchingOver | Self::Opening => switching_over(client_version),
        }
    }
}

/// Whether a client of this version (MQVersion ordinal) leaves its connection when it is told to go away.
pub(super) fn knows_go_away(client_version: i32) -> bool {
    client_version > VERSION_5_3_1
}

/// GO_AWAY makes a new client reconnect and send the same request again without its caller noticing; older ones don't
/// know the code and retry on SYSTEM_BUSY.
fn switching_over(client_version: i32) -> Refusal {
    let text = "the master is being switched over, try again";
    if knows_go_away(client_version) {
        Refusal::new(response::GO_AWAY, text)
    } else {
        busy(format!("[REJECTREQUEST]{text}"))
    }
}

fn busy(remark: String) -> Refusal {
    Refusal::new(response::SYSTEM_BUSY, remark)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_store::{PhysicalOffset, QueueOffset};

    fn appended() -> Appended {
        Appended {
            first_queue_offset: QueueOffset(0),
            physical: PhysicalOffset(7),
            each: [PhysicalOffset(7)].into_iter().collect(),
            end: PhysicalOffset(99),
            store_timestamp_ms: 1,
            count: 1,
        }
    }

    fn disk() -> Disk {
        Disk { log_percent: Some(91), queues_percent: None, full: true, hanging_bytes: 0, deleted_segments: 0 }
    }

    #[test]
    fn the_texts_are_rocketmqs() {
        let remark = |failure: SendFailure| failure.refusal(513).remark;
        assert_eq!(
            remark(SendFailure::DiskFull(disk(), "no space".into())),
            "service not available now. It may be caused by one of the following reasons: the broker's disk is full \
             [CL:  0.91 CQ: -1.00 INDEX: -1.00], messages are put to the slave, message store has been shut down, etc. \
             (no space)"
        );
        let waited = Busy::TimedOut { period_ms: 201, queue: 3 };
        assert_eq!(
            remark(SendFailure::Busy(waited)),
            "[TIMEOUT_CLEAN_QUEUE]broker busy, start flow control for a while, period in queue: 201ms, size of queue: 3"
        );
        let stuck = Busy::PageCache { period_ms: 1001, queue: 12 };
        assert_eq!(
            remark(SendFailure::Busy(stuck)),
            "[PCBUSY_CLEAN_QUEUE]broker busy, start flow control for a while, period in queue: 1001ms, size of queue: 12"
        );
        assert_eq!(remark(SendFailure::Busy(Busy::Overload)), "[OVERLOAD]system busy, start flow control for a while");
        assert_eq!(
            remark(SendFailure::Busy(Busy::Rejected)),
            "[REJECTREQUEST]system busy, start flow control for a while"
        );
    }

    #[test]
    fn every_refused_send_is_answered_by_a_code_that_producers_retry_on() {
        // `DefaultMQProducer`'s own list.
        let retried = [1, 2, 14, 16, 17, 204, 205, response::GO_AWAY];
        let failures = [
            SendFailure::NotMaster,
            SendFailure::SwitchingOver,
            SendFailure::Fenced("why".into()),
            SendFailure::InSyncShort { have: 1, need: 2 },
            SendFailure::DiskFull(disk(), "99 %".into()),
            SendFailure::Busy(Busy::Overload),
            SendFailure::Busy(Busy::TimedOut { period_ms: 201, queue: 3 }),
            SendFailure::Store("EIO".into()),
        ];
        for failure in failures {
            for version in [401, VERSION_5_3_1, 513] {
                let refusal = failure.refusal(version);
                assert!(retried.contains(&refusal.code), "{failure:?} at {version}: {refusal:?}");
            }
            assert!(!failure.is_written());
        }
        assert_eq!(SendFailure::TooLarge("x".into()).refusal(513).code, response::MESSAGE_ILLEGAL);
    }

    #[test]
    fn what_is_written_is_told_as_an_uncertain_success() {
        for (failure, code) in [
            (SendFailure::FlushDiskTimeout(appended()), response::FLUSH_DISK_TIMEOUT),
            (SendFailure::FlushSlaveTimeout(appended()), response::FLUSH_SLAVE_TIMEOUT),
        ] {
            assert!(failure.is_written());
            assert_eq!(failure.refusal(513).code, code);
        }
    }

    #[test]
    fn only_clients_that_know_it_are_told_to_go_away() {
        for (version, code) in
            [(513, response::GO_AWAY), (VERSION_5_3_1, response::SYSTEM_BUSY), (401, response::SYSTEM_BUSY)]
        {
            assert_eq!(SendFailure::SwitchingOver.refusal(version).code, code);
            assert_eq!(NotServing::SwitchingOver.refusal(version).code, code);
        }
    }
}
