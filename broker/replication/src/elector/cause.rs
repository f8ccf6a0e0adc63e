//! Why a group got another master.

use std::fmt;

/// Why a master was elected in place of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The master's process ended, or came back as another that is not master.
    ProcessEnded,
    /// Its process answers but its disk or its writer doesn't.
    DataPlane,
    /// Nothing is heard of it, neither here nor by the in-sync slaves.
    Silent,
    /// The record itself was wrong: a replica had promised a newer epoch.
    PastRecord,
    /// Somebody asked for it.
    Switchover,
}

impl Cause {
    /// One word, for a metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Self::ProcessEnded => "process_ended",
            Self::DataPlane => "data_plane",
            Self::Silent => "silent",
            Self::PastRecord => "past_record",
            Self::Switchover => "switchover",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ProcessEnded => "failover (the master's process ended)",
            Self::DataPlane => "failover (the master's disk or writer is stuck)",
            Self::Silent => "failover (the master is silent and no in-sync slave hears it)",
            Self::PastRecord => "new epoch (the group record was restored from the past)",
            Self::Switchover => "switchover",
        })
    }
}
