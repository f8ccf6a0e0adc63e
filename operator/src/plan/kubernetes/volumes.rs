//! Which volumes come and go. A volume that is lost is replaced by an empty one, which its replica fills from the master's: only while others
//! have everything that was acknowledged. The last copies are never given up.

use super::rollout::{best_candidate, delete};
use super::{Observed, Step, Wanted};

/// A replica's PersistentVolumeClaim as it is seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimSeen {
    /// Kubernetes' own name for it.
    pub uid: String,
    /// Somebody has told it to go; it stays as long as a pod uses it.
    pub deleting: bool,
    /// Kubernetes says that its volume is gone.
    pub lost: bool,
    /// The size that it asks for.
    pub requested: Option<String>,
    /// The size that it has.
    pub capacity: Option<String>,
    /// Its storage class.
    pub class: Option<String>,
}

impl ClaimSeen {
    /// A pod may be made on it.
    pub fn is_usable(&self) -> bool {
        !self.deleting && !self.lost
    }
}

/// Whether a pod of this replica may be made now; if not, why.
pub(super) fn may_be_made(replica: &str, wanted: Wanted<'_>, seen: &Observed) -> Result<(), String> {
    match seen.claims.get(replica) {
        Some(claim) if claim.is_usable() => Ok(()),
        Some(claim) if claim.deleting => Err(format!("{replica}'s volume is being deleted; then it gets an empty one")),
        Some(_) => Err(format!("{replica}'s volume is lost")),
        // It never had anything, or nothing that counts.
        None if !wanted.counted.contains(replica) => Ok(()),
        None => others_have_everything(replica, 1, seen)
            .map_err(|why| format!("{replica}'s volume is gone, and it gets no empty one: {why}")),
    }
}

/// The others of the in-sync set that are known to live, with a master.
fn others_have_everything(replica: &str, at_least: usize, seen: &Observed) -> Result<(), String> {
    let others = seen.in_sync.keys().filter(|name| *name != replica).count();
    if seen.master.is_some() && others >= at_least {
        return Ok(());
    }
    let known = if others == 0 {
        "no other replica is".to_owned()
    } else if others < at_least {
        format!("only {others} of {at_least} others are")
    } else {
        "no master serves, so that no other replica is".to_owned()
    };
    Err(format!("{known} known to have every acknowledged message"))
}

/// A pod whose volume is to go, or is lost, goes first: a volume stays as long as a pod uses it.
pub(super) fn lost_volume(wanted: Wanted<'_>, seen: &Observed) -> Option<Step> {
    let (replica, claim) =
        seen.claims.iter().find(|(name, claim)| !claim.is_usable() && wanted.replicas.contains(*name))?;
    match seen.pods.get(replica) {
        Some(pod) if pod.deleting => None,
        Some(pod) => {
            Some(give_up(replica, wanted, seen).unwrap_or_else(|| delete(replica, pod, "its volume is to go")))
        }
        // Kubernetes is about to remove it.
        None if claim.deleting => None,
        None => Some(match others_have_everything(replica, 1, seen) {
            Ok(()) => Step::DeleteClaim { replica: replica.clone(), uid: claim.uid.clone() },
            Err(why) => Step::Wait(format!("{replica}'s volume is lost, and it gets no empty one: {why}")),
        }),
    }
}

/// What has to come before, or keeps it from going.
fn give_up(replica: &str, wanted: Wanted<'_>, seen: &Observed) -> Option<Step> {
    let stays = |why: String| Step::Wait(format!("{replica}'s volume is to go, and its pod stays until it may: {why}"));
    if let Err(why) = others_have_everything(replica, wanted.min_in_sync.max(1), seen) {
        return Some(stays(why));
    }
    (seen.master.as_deref() == Some(replica)).then(|| match best_candidate(wanted, seen) {
        Some(to) => Step::Switchover { to, why: "the master's volume is to go", urgent: false },
        None => stays("no other replica could be master".to_owned()),
    })
}

/// Bytes of a Kubernetes quantity; none where it isn't a whole number of them.
pub(super) fn bytes(quantity: &str) -> Option<u128> {
    let digits = quantity.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit: u128 = match &quantity[digits.len()..] {
        "" => 1,
        "k" => 1000,
        "M" => 1000_u128.pow(2),
        "G" => 1000_u128.pow(3),
        "T" => 1000_u128.pow(4),
        "P" => 1000_u128.pow(5),
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        _ => return None,
    };
    digits.parse::<u128>().ok()?.checked_mul(unit)
}

/// How the volumes are, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumesStanding {
    /// What Kubernetes refused of them, if it did.
    pub refused: Option<String>,
    /// Those that are going, gone or lost, in words.
    pub replacing: Vec<String>,
    /// Those that are not as large yet as they ask to be.
    pub growing: Vec<String>,
    /// Those that are larger than `spec.storage.size`.
    pub larger: Vec<String>,
}

impl VolumesStanding {
    /// Of the replicas that there shall be.
    pub fn new(wanted: Wanted<'_>, size: &str, seen: &Observed, refused: Option<String>) -> Self {
        let mut standing = Self { refused, ..Self::default() };
        for replica in wanted.replicas {
            if let Err(why) = may_be_made(replica, wanted, seen) {
                standing.replacing.push(why);
            }
            let Some(claim) = seen.claims.get(replica).filter(|claim| claim.is_usable()) else { continue };
            let sizes = |text: &Option<String>| text.as_deref().and_then(bytes);
            let (requested, capacity, wanted) = (sizes(&claim.requested), sizes(&claim.capacity), bytes(size));
            let told = |text: &Option<String>| format!("{replica} ({})", text.as_deref().unwrap_or("?"));
            if capacity.is_some() && capacity < requested {
                standing.growing.push(told(&claim.capacity));
            } else if wanted.is_some() && requested > wanted {
                standing.larger.push(told(&claim.requested));
            }
        }
        standing
    }

    /// For the condition `VolumesReady`: status, reason, message.
    pub(super) fn fact(&self) -> (bool, &'static str, String) {
        if !self.replacing.is_empty() {
            return (false, "Replacing", self.replacing.join("; "));
        }
        if let Some(why) = &self.refused {
            return (false, "Refused", why.clone());
        }
        if !self.growing.is_empty() {
            return (false, "Growing", format!("not as large yet as asked for: {}", self.growing.join(", ")));
        }
        if !self.larger.is_empty() {
            let message = format!("volumes don't shrink, these stay larger: {}", self.larger.join(", "));
            return (true, "LargerThanAsked", message);
        }
        (true, "AsSpecified", "each replica has its volume".to_owned())
    }
}

#[cfg(test)]
#[path = "volumes_tests.rs"]
mod tests;
