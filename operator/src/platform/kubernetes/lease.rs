//! Which operator leads: a Lease, taken and renewed by its `resourceVersion`.
//!
//! Clocks of two machines are never compared. Who leads knows by its own monotonic clock until when: [`HOLD`] after it *began* the last
//! renewal that succeeded. Who waits takes the lease after it has seen it unchanged for [`DURATION`] by its own clock. As `HOLD` is
//! shorter, the old one has stopped before the new one begins; and should a write of the old one still be under way, the record's
//! compare-and-set and the slice's epoch decide, not this.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::api::{CallError, call};

/// Unchanged for so long, a lease may be taken.
const DURATION: Duration = Duration::from_secs(6);
/// So long after the beginning of a renewal, who renewed leads.
const HOLD: Duration = Duration::from_secs(4);
/// Between two looks at the lease.
const INTERVAL: Duration = Duration::from_secs(1);

/// Whether this operator leads.
#[derive(Clone, Debug, Default)]
pub(super) struct Leadership {
    until: Arc<Mutex<Option<Instant>>>,
}

impl Leadership {
    /// An error unless it leads now. To be asked before every write.
    pub(super) fn check(&self) -> Result<(), CallError> {
        if self.holds() { Ok(()) } else { Err(CallError::NotLeading) }
    }

    pub(super) fn holds(&self) -> bool {
        self.until.lock().is_some_and(|until| Instant::now() < until)
    }

    fn set(&self, until: Option<Instant>) {
        *self.until.lock() = until;
    }

    /// One that holds for an hour, for tests of others.
    #[cfg(test)]
    pub(super) fn for_tests() -> Self {
        let leadership = Self::default();
        leadership.set(Some(Instant::now() + Duration::from_hours(1)));
        leadership
    }
}

/// One that would lead.
#[derive(Debug)]
pub(super) struct Candidate {
    api: Api<Lease>,
    name: String,
    identity: String,
    leadership: Leadership,
    /// The lease's version, and since when it has been that.
    seen: Option<(String, Instant)>,
}

/// What is to be done about a lease.
#[derive(Debug, PartialEq, Eq)]
enum Claim {
    Create,
    Take,
    Renew,
    Wait,
}

impl Candidate {
    pub(super) fn new(api: Api<Lease>, name: &str, identity: &str) -> Self {
        let (name, identity) = (name.to_owned(), identity.to_owned());
        Self { api, name, identity, leadership: Leadership::default(), seen: None }
    }

    pub(super) fn leadership(&self) -> &Leadership {
        &self.leadership
    }

    /// Until this operator leads.
    pub(super) async fn until_leading(&mut self) {
        while !self.look().await {
            sleep(INTERVAL).await;
        }
        info!(lease = self.name, identity = self.identity, "this operator leads");
    }

    /// Until it doesn't any more.
    pub(super) async fn until_lost(&mut self) {
        loop {
            sleep(INTERVAL).await;
            self.look().await;
            if !self.leadership.holds() {
                warn!(lease = self.name, "this operator does not lead any more");
                return;
            }
        }
    }

    /// Looks at the lease once, and takes or renews it if it may.
    async fn look(&mut self) -> bool {
        let began = Instant::now();
        match self.claim(began).await {
            Ok(true) => self.leadership.set(Some(began + HOLD)),
            Ok(false) => self.leadership.set(None),
            // Not renewed: it goes on until its time is over.
            Err(error) => warn!(lease = self.name, %error, "the lease can't be read or renewed"),
        }
        self.leadership.holds()
    }

    /// Whether the lease is this operator's now.
    async fn claim(&mut self, now: Instant) -> Result<bool, CallError> {
        let lease = call(self.api.get_opt(&self.name)).await?;
        let claim = self.decide(lease.as_ref(), now);
        let written = match claim {
            Claim::Wait => return Ok(false),
            Claim::Create => call(self.api.create(&PostParams::default(), &self.lease(None))).await,
            Claim::Take | Claim::Renew => {
                call(self.api.replace(&self.name, &PostParams::default(), &self.lease(lease.as_ref()))).await
            }
        };
        match written {
            Ok(lease) => {
                self.seen = lease.metadata.resource_version.map(|version| (version, now));
                Ok(true)
            }
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn decide(&mut self, lease: Option<&Lease>, now: Instant) -> Claim {
        let Some(lease) = lease else { return Claim::Create };
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let since = match &self.seen {
            Some((seen, since)) if *seen == version => *since,
            _ => {
                self.seen = Some((version, now));
                now
            }
        };
        if holder == self.identity {
            Claim::Renew
        } else if holder.is_empty() || now.duration_since(since) >= DURATION {
            Claim::Take
        } else {
            Claim::Wait
        }
    }

    fn lease(&self, old: Option<&Lease>) -> Lease {
        let spec = old.and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let ours = spec.holder_identity.as_deref() == Some(&*self.identity);
        let now = MicroTime(Timestamp::now());
        let metadata = old.map_or_else(
            || ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
            |lease| lease.metadata.clone(),
        );
        Lease {
            metadata,
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: Some(DURATION.as_secs() as i32),
                acquire_time: if ours { spec.acquire_time } else { Some(now.clone()) },
                renew_time: Some(now),
                lease_transitions: Some(spec.lease_transitions.unwrap_or(0) + i32::from(!ours && old.is_some())),
                ..LeaseSpec::default()
            }),
        }
    }

    /// Gives the lease back, so that the next one need not wait.
    pub(super) async fn release(&mut self) {
        let led = self.leadership.holds();
        self.leadership.set(None);
        if !led {
            return;
        }
        if let Err(error) = self.give_back().await {
            warn!(lease = self.name, %error, "the lease was not given back; another operator waits until it is over");
        }
    }

    async fn give_back(&self) -> Result<(), CallError> {
        let Some(mut lease) = call(self.api.get_opt(&self.name)).await? else { return Ok(()) };
        match &mut lease.spec {
            Some(spec) if spec.holder_identity.as_deref() == Some(&*self.identity) => spec.holder_identity = None,
            _ => return Ok(()),
        }
        call(self.api.replace(&self.name, &PostParams::default(), &lease)).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::kubernetes::mock::Mock;
    use serde_json::json;

    const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/ops/leases/gantry-operator";

    fn candidate(mock: &Mock, identity: &str) -> Candidate {
        Candidate::new(Api::namespaced(mock.client(), "ops"), "gantry-operator", identity)
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_leads_and_the_second_waits_until_the_lease_has_not_changed_for_its_duration() {
        let mock = Mock::start();
        let (mut first, mut second) = (candidate(&mock, "one"), candidate(&mock, "two"));
        assert!(first.look().await);
        assert!(!second.look().await);
        tokio::time::advance(DURATION / 2).await;
        assert!(!second.look().await);
        tokio::time::advance(DURATION / 4).await;
        assert!(!first.leadership().holds(), "who could not renew stopped before");
        assert!(!second.look().await);
        tokio::time::advance(DURATION / 4).await;
        assert!(second.look().await);
        assert!(!first.look().await, "it has another holder");
        assert_eq!(mock.get(PATH).unwrap()["spec"]["leaseTransitions"], 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewed_lease_is_not_taken() {
        let mock = Mock::start();
        let (mut first, mut second) = (candidate(&mock, "one"), candidate(&mock, "two"));
        for _ in 0..20 {
            assert!(first.look().await);
            assert!(!second.look().await);
            tokio::time::advance(DURATION / 2).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_the_api_server_leadership_ends_by_the_own_clock_and_not_at_once() {
        let mock = Mock::start();
        let mut first = candidate(&mock, "one");
        assert!(first.look().await);
        mock.refuse_all_with(503);
        tokio::time::advance(HOLD / 2).await;
        assert!(first.look().await, "one failed renewal is none");
        tokio::time::advance(HOLD / 2).await;
        assert!(!first.look().await);
        first.leadership().check().unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_was_given_back_is_taken_at_once() {
        let mock = Mock::start();
        let (mut first, mut second) = (candidate(&mock, "one"), candidate(&mock, "two"));
        assert!(first.look().await);
        first.release().await;
        assert!(!first.leadership().holds());
        assert!(second.look().await);
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_who_take_it_at_once_one_wins() {
        let mock = Mock::start();
        mock.put(
            PATH,
            json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": "gantry-operator", "namespace": "ops"}, "spec": {},
            }),
        );
        let (mut first, mut second) = (candidate(&mock, "one"), candidate(&mock, "two"));
        let both = tokio::join!(first.look(), second.look());
        assert!(both.0 || both.1);
        let holder = mock.get(PATH).unwrap()["spec"]["holderIdentity"].clone();
        assert_eq!(both.0, holder == "one");
        assert_eq!(both.1, holder == "two");
    }
}
