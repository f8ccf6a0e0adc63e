//! `spec.preferredMaster`: who shall be master while it is in sync.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::status::GroupStatus;
use crate::plan::GroupPlan;

/// How often it is looked at.
const INTERVAL: Duration = Duration::from_secs(2);

/// A group must have been whole and served by one master for so long before it is moved.
const SETTLED: Duration = Duration::from_secs(10);

/// After a switchover that failed.
const RETRY: Duration = Duration::from_mins(1);

/// What a group prefers, and whether now is the time.
#[derive(Debug)]
pub(super) struct Preference {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    preferred: Option<String>,
    /// The master and epoch as last seen, and since when.
    settled: Option<(String, Option<u64>, Instant)>,
    not_before: Option<Instant>,
}

impl Preference {
    pub(super) fn new(group: &GroupPlan) -> Self {
        let preferred = group.preferred_master.clone();
        Self { inner: Mutex::new(Inner { preferred, settled: None, not_before: None }) }
    }

    pub(super) fn interval() -> Duration {
        INTERVAL
    }

    /// A switchover by hand counts more than the manifest, until the operator is started again.
    pub(super) fn override_with(&self, replica: &str) {
        if let Some(preferred) = &mut self.inner.lock().preferred {
            replica.clone_into(preferred);
        }
    }

    pub(super) fn failed(&self) {
        self.inner.lock().not_before = Some(Instant::now() + RETRY);
    }

    /// The preferred replica if it is not master, could be, and the group has settled.
    pub(super) fn due(&self, status: &GroupStatus) -> Option<String> {
        self.due_at(status, Instant::now())
    }

    fn due_at(&self, status: &GroupStatus, now: Instant) -> Option<String> {
        let mut inner = self.inner.lock();
        let preferred = inner.preferred.clone()?;
        let Some(master) = &status.master else {
            inner.settled = None;
            return None;
        };
        let since = match &inner.settled {
            Some((seen, epoch, since)) if seen == master && *epoch == status.epoch => *since,
            _ => {
                inner.settled = Some((master.clone(), status.epoch, now));
                now
            }
        };
        let fit = status
            .replicas
            .iter()
            .any(|replica| replica.name == preferred && replica.in_sync && replica.role.is_some());
        let patient =
            now.duration_since(since) >= SETTLED && inner.not_before.is_none_or(|not_before| now >= not_before);
        (*master != preferred && fit && patient).then_some(preferred)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::BrokerGroup;
    use crate::platform::local::status::ReplicaStatus;
    use gantry_replication::wire::Role;

    fn preference() -> Preference {
        let spec = serde_json::from_str(r#"{"preferredMaster": "a-1"}"#).unwrap();
        Preference::new(&GroupPlan::new(&BrokerGroup::new("a", spec)).unwrap())
    }

    fn status(master: Option<&str>, in_sync: bool) -> GroupStatus {
        let replica = |n: u32| ReplicaStatus {
            name: format!("a-{n}"),
            role: Some(Role::Slave),
            pid: None,
            address: None,
            max_offset: None,
            flushed_offset: None,
            confirm_offset: None,
            lag_bytes: None,
            in_sync,
            restarts: 0,
        };
        GroupStatus {
            name: "a".to_owned(),
            epoch: Some(1),
            master: master.map(str::to_owned),
            in_sync: Vec::new(),
            degraded: Some(false),
            nameserver: "127.0.0.1:1".parse().unwrap(),
            controller: "127.0.0.1:3".parse().unwrap(),
            address: "127.0.0.1:2".parse().unwrap(),
            replicas: (0..3).map(replica).collect(),
        }
    }

    #[test]
    fn the_preferred_replica_becomes_master_once_the_group_has_settled() {
        let (preference, start) = (preference(), Instant::now());
        assert_eq!(preference.due_at(&status(Some("a-0"), true), start), None);
        assert_eq!(preference.due_at(&status(Some("a-0"), true), start + SETTLED / 2), None);
        assert_eq!(preference.due_at(&status(Some("a-0"), true), start + SETTLED), Some("a-1".to_owned()));
        preference.failed();
        assert_eq!(preference.due_at(&status(Some("a-0"), true), start + SETTLED), None);
        assert_eq!(preference.due_at(&status(Some("a-0"), true), start + SETTLED + 2 * RETRY), Some("a-1".to_owned()));
    }

    #[test]
    fn nothing_is_moved_that_is_in_place_unfit_or_unsettled() {
        let (preference, start) = (preference(), Instant::now());
        let later = start + 2 * SETTLED;
        for (status, why) in [
            (status(Some("a-1"), true), "it is master"),
            (status(Some("a-0"), false), "it is not in sync"),
            (status(None, true), "nobody serves"),
        ] {
            preference.due_at(&status, start);
            assert_eq!(preference.due_at(&status, later), None, "{why}");
        }
        assert_eq!(preference.due_at(&status(Some("a-0"), true), later), None, "a new master settles first");
    }

    #[test]
    fn a_switchover_by_hand_counts_more() {
        let (preference, start) = (preference(), Instant::now());
        preference.override_with("a-2");
        preference.due_at(&status(Some("a-2"), true), start);
        assert_eq!(preference.due_at(&status(Some("a-2"), true), start + SETTLED), None);
    }
}
