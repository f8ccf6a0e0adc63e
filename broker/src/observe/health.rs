//! Probes: is this process alive, and does it do its part in the group? Each answer says why.

use gantry_store::{RecoveryPhase, RecoveryProgress};

use super::Observer;
use crate::core::{Core, Standing};
use crate::services::seam::{NotServing, Role as _};

/// Yes or no, and why.
pub(super) type Verdict = Result<String, String>;

impl Observer {
    /// `No`: nothing helps but to start it again.
    pub(super) fn is_alive(&self) -> Verdict {
        match self.parts.get().and_then(|parts| parts.core.hangs()) {
            Some(why) => Err(why),
            None => Ok("alive".to_owned()),
        }
    }

    /// `No`: it is neither a master that serves nor a slave that follows one.
    pub(super) fn is_ready(&self) -> Verdict {
        match self.parts.get() {
            None => Err(recovering(&self.recovery)),
            Some(parts) => role(&parts.core),
        }
    }

    /// `No`: it is master, and a slave in sync could take its place. Whoever stops this process does well to let that happen first.
    pub(super) fn may_leave(&self) -> Verdict {
        let Some(parts) = self.parts.get() else { return Ok("its store is not open".to_owned()) };
        let Standing::Master { epoch, .. } = *parts.core.watch_standing().borrow() else {
            return Ok("it is not master".to_owned());
        };
        match parts.core.slaves().iter().find(|slave| slave.in_sync && slave.connected) {
            Some(heir) => Err(format!("master of epoch {epoch}, and {} could take its place", heir.member.name)),
            None => Ok(format!("master of epoch {epoch}, and no slave could take its place")),
        }
    }
}

fn recovering(progress: &RecoveryProgress) -> String {
    let now = progress.snapshot();
    let what = match now.phase {
        RecoveryPhase::Waiting => return "the store is about to be opened".to_owned(),
        RecoveryPhase::ReadingLog => "the log is read from the last checkpoint on",
        RecoveryPhase::BuildingQueues => "consume queues are made from the log",
        RecoveryPhase::Done => return "the store is open, the broker begins".to_owned(),
    };
    format!("the store recovers: {what}, {} of {} bytes", now.done_bytes, now.total_bytes)
}

fn role(core: &Core) -> Verdict {
    let standing = core.watch_standing().borrow().clone();
    match (standing, core.serving()) {
        (Standing::Master { epoch, .. }, Ok(())) => Ok(format!("master of epoch {epoch}")),
        (Standing::Master { .. }, Err(why)) => Err(why.to_string()),
        (Standing::Fenced, _) => Err("it has not been told its role yet".to_owned()),
        // One whose clients wait to be sent to the next master follows that one already.
        (Standing::Slave { epoch, ha_address }, Err(NotServing::Slave | NotServing::SwitchingOver)) => {
            let upstream = core.upstream.status();
            match ha_address {
                _ if upstream.connected => Ok(format!("slave of epoch {epoch}, follows {}", upstream.address)),
                Some(address) => Err(format!("slave of epoch {epoch}, not connected to its master's {address}")),
                None => Err(format!("slave of epoch {epoch}, not told where its master is")),
            }
        }
        // Between the two looks the role changed.
        (Standing::Slave { .. }, _) => Err("its role changes just now".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::BrokerConfig;

    #[test]
    fn a_broker_whose_store_is_not_open_is_alive_and_not_ready() {
        let config = BrokerConfig::parse(BTreeMap::new()).unwrap();
        let observer = Observer::new(&config);
        assert!(observer.is_alive().is_ok());
        assert_eq!(observer.is_ready(), Err("the store is about to be opened".to_owned()));
        assert_eq!(observer.may_leave(), Ok("its store is not open".to_owned()));
    }
}
