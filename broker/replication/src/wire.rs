//! What brokers and the elector say to each other, as JSON bodies of remoting requests.
//!
//! A broker opens the connection and keeps it: the connection is its session, and losing it is a sign. The codes are Gantry's own;
//! RocketMQ's that fit a binary header end below them.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Epoch, GroupRecord, Member};

/// Broker → elector, the first request of a session: [`Hello`], answered by [`Heard`].
pub const HELLO: i32 = 20_001;
/// Broker → elector, each [`REPORT_INTERVAL_MS`] and at each change: [`Report`], answered by [`Heard`].
pub const REPORT: i32 = 20_002;
/// Broker → elector, a master's wish to change the in-sync set: [`AlterInSync`], answered by [`Altered`].
pub const ALTER_IN_SYNC: i32 = 20_003;
/// Elector → broker: [`Directive`], answered by [`Report`] once it has been carried out, or by an error that says why not.
pub const DIRECTIVE: i32 = 20_011;
/// Elector → broker: no body, answered by a fresh [`Report`].
pub const PROBE: i32 = 20_012;
/// Elector → broker: [`Settings`](crate::settings::Settings), answered by a fresh [`Report`] once they apply, or by an error that says
/// why none of them does.
pub const CONFIGURE: i32 = 20_013;

/// How often a broker reports when nothing changes.
pub const REPORT_INTERVAL_MS: u64 = 250;

/// Who opens the session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// The group it belongs to.
    pub group: String,
    /// The group's secret.
    pub token: String,
    /// The replica and its store.
    pub member: Member,
    /// Where clients reach this very broker, `host:port`.
    pub client_address: String,
    /// Where slaves reach it, `host:port`.
    pub ha_address: String,
    /// Its process id.
    pub pid: u32,
    /// Preference among equals, higher is better.
    pub priority: i32,
    /// Where it runs, if told.
    pub zone: Option<String>,
    /// How it is.
    pub report: Report,
}

/// What a replica is at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Serves nobody and follows nobody yet.
    Fenced,
    /// Follows a master.
    Slave,
    /// Serves as master.
    Master,
}

/// How a replica is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_excessive_bools, reason = "facts that don't depend on each other")]
pub struct Report {
    /// What it is.
    pub role: Role,
    /// The highest epoch it accepted.
    pub promised: Epoch,
    /// The newest revision of that epoch's record that its process has heard of; 0: none.
    #[serde(default)]
    pub revision: u64,
    /// The epoch of its log's last bytes: its rank in an election, before the offset.
    pub last_epoch: Epoch,
    /// Oldest byte retained.
    pub min_offset: u64,
    /// End of its log.
    pub max_offset: u64,
    /// End of what is on disk.
    pub flushed_offset: u64,
    /// End of what is confirmed, as far as it knows.
    pub confirm_offset: u64,
    /// A slave: milliseconds since its master's data plane was last heard; none if it has no master or no connection to it.
    pub master_heard_ms_ago: Option<u64>,
    /// A master: sends are parked for a switchover, and everything is on the candidate.
    #[serde(default)]
    pub drained: bool,
    /// A master: whether its disk and its writer have answered lately ([`DATA_PLANE_MS`]).
    #[serde(default)]
    pub data_plane_alive: bool,
    /// Whether the log holds all that this replica acknowledged. False after a machine's crash without SYNC_FLUSH, until a master
    /// has given it back.
    #[serde(default)]
    pub intact: bool,
    /// A master: it has fewer copies than asked for and goes on all the same (`onShortage: Degrade`, or `Async` mode).
    #[serde(default)]
    pub degraded: bool,
    /// The last tail that this replica cut from its log since its process began.
    #[serde(default)]
    pub last_cut: Option<CutTail>,
    /// Which settings apply, see [`Settings::digest`](crate::settings::Settings::digest); none: it can't change any while it runs.
    #[serde(default)]
    pub settings: Option<u64>,
}

/// A tail that a replica cut from its log to follow its master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CutTail {
    /// Grows with each cut in the life of a process.
    pub number: u64,
    /// The epoch of the master that it follows.
    pub epoch: Epoch,
    /// Where the tail began.
    pub from: u64,
    /// Its bytes.
    pub bytes: u64,
    /// The file where it is kept, if it is.
    pub kept: Option<String>,
    /// It was to be kept, but the disk had no room for a copy.
    #[serde(default)]
    pub no_room: bool,
}

impl fmt::Display for CutTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { epoch, from, bytes, .. } = self;
        write!(f, "cut {bytes} bytes from {from} on, which the master of epoch {epoch} doesn't have")?;
        match &self.kept {
            Some(path) => write!(f, "; they are kept in {path}"),
            None if self.no_room => write!(f, "; they are not kept: the disk has no room for a copy"),
            None => write!(f, "; they are not kept"),
        }
    }
}

/// A data plane that has not completed an append and a flush for this long is dead, though its process answers.
pub const DATA_PLANE_MS: u64 = 4_000;

/// What the elector answers to a hello and to each report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Heard {
    /// The group record, none before the first election.
    pub record: Option<GroupRecord>,
}

/// What a broker is told to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "be")]
pub enum Directive {
    /// Open the record's epoch and serve.
    Master {
        /// It names the receiver as master.
        record: GroupRecord,
    },
    /// Follow the record's master.
    Slave {
        /// The record.
        record: GroupRecord,
        /// Where its master sends the log from, if known by now.
        #[serde(rename = "haAddress")]
        ha_address: Option<String>,
    },
    /// A planned switchover begins: park sends, and report `drained` once `to` has everything.
    Park {
        /// Void in any other epoch.
        epoch: Epoch,
        /// The candidate.
        to: Member,
    },
    /// The switchover was given up: serve again.
    Unpark {
        /// Void in any other epoch.
        epoch: Epoch,
    },
}

/// A master's wish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AlterInSync {
    /// Its epoch; in any other the wish is void.
    pub epoch: Epoch,
    /// The record's revision that the master goes by; over any other the wish is void.
    pub revision: u64,
    /// The whole set wanted.
    pub in_sync: BTreeSet<Member>,
}

/// The record after the wish was granted, or as it stands if it was void. No answer means that its fate is unknown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Altered {
    /// The record.
    pub record: GroupRecord,
}
