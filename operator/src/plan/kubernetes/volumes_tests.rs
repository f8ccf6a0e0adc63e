//! What becomes of a group's volumes, and that the last copies stay.

use std::collections::BTreeSet;

use super::super::{PodSeen, Wishes, next_step};
use super::*;

fn claim() -> ClaimSeen {
    let size = Some("20Gi".to_owned());
    ClaimSeen { uid: "c".to_owned(), requested: size.clone(), capacity: size, ..ClaimSeen::default() }
}

/// Pods and volumes 0 to 2 of group `a`, in sync, with this master; `change` makes of them what the test is about.
fn seen(master: &str, change: impl FnOnce(&mut Observed)) -> Observed {
    let pod = |n: u32| PodSeen { uid: format!("u{n}"), hash: "new".to_owned(), ready: true, ..PodSeen::default() };
    let mut seen = Observed {
        pods: (0..3).map(|n| (format!("a-{n}"), pod(n))).collect(),
        master: Some(master.to_owned()),
        in_sync: (0..3).map(|n| (format!("a-{n}"), 100)).collect(),
        claims: (0..3).map(|n| (format!("a-{n}"), claim())).collect(),
    };
    change(&mut seen);
    seen
}

fn with_wanted<T>(replicas: u32, min_in_sync: usize, counted: &[&str], look: impl FnOnce(Wanted<'_>) -> T) -> T {
    let (wishes, counted) = (Wishes::default(), counted.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>());
    let replicas = (0..replicas).map(|n| format!("a-{n}")).collect();
    look(Wanted {
        replicas: &replicas,
        hash: "new",
        min_in_sync,
        preferred: None,
        wishes: &wishes,
        record_master: None,
        counted: &counted,
    })
}

const ALL: [&str; 3] = ["a-0", "a-1", "a-2"];

fn step(seen: &Observed) -> Step {
    with_wanted(3, 2, &ALL, |wanted| next_step(wanted, seen))
}

fn waits(step: &Step) -> &str {
    match step {
        Step::Wait(why) => why,
        other => panic!("{other:?}"),
    }
}

/// Its pod is gone, and with it its session.
fn gone(seen: &mut Observed, name: &str) {
    seen.pods.remove(name);
    seen.in_sync.remove(name);
}

#[test]
fn a_volume_that_is_deleted_takes_its_pod_along_and_then_comes_an_empty_one() {
    for (master, replica) in [("a-0", "a-2"), ("a-2", "a-0"), ("a-1", "a-2")] {
        let mut now = seen(master, |seen| seen.claims.get_mut(replica).unwrap().deleting = true);
        assert!(matches!(step(&now), Step::Delete { replica: gone, .. } if gone == replica), "{:?}", step(&now));
        now.pods.get_mut(replica).unwrap().deleting = true;
        assert_eq!(step(&now), Step::Settled);
        gone(&mut now, replica);
        let why = step(&now);
        assert_eq!(waits(&why), format!("{replica}'s volume is being deleted; then it gets an empty one"));
        now.claims.remove(replica);
        assert_eq!(step(&now), Step::Create(vec![replica.to_owned()]));
    }
}

#[test]
fn a_masters_volume_goes_after_a_switchover() {
    let now = seen("a-0", |seen| seen.claims.get_mut("a-0").unwrap().deleting = true);
    assert!(matches!(step(&now), Step::Switchover { to, .. } if to == "a-1"));
}

#[test]
fn the_last_copies_stay() {
    let deleting = |seen: &mut Observed| seen.claims.get_mut("a-0").unwrap().deleting = true;
    let alone = seen("a-0", |seen| {
        deleting(seen);
        seen.in_sync.retain(|name, _| name == "a-0");
    });
    let why = step(&alone);
    assert!(waits(&why).starts_with("a-0's volume is to go, and its pod stays until it may: no other"), "{why:?}");
    let few = seen("a-1", |seen| {
        deleting(seen);
        seen.in_sync.remove("a-2");
    });
    assert!(waits(&step(&few)).contains("only 1 of 2 others are known"), "below minInSync");
    let nobody_serves = seen("a-1", |seen| {
        deleting(seen);
        seen.master = None;
    });
    assert!(waits(&step(&nobody_serves)).contains("no master serves"));
    let single = with_wanted(1, 1, &["a-0"], |wanted| {
        next_step(
            wanted,
            &seen("a-0", |seen| {
                deleting(seen);
                seen.pods.retain(|name, _| name == "a-0");
                seen.in_sync.retain(|name, _| name == "a-0");
            }),
        )
    });
    assert!(waits(&single).contains("its pod stays"), "{single:?}");
}

#[test]
fn a_volume_that_is_gone_is_made_anew_only_where_another_replica_has_everything() {
    let without_claim = |change: fn(&mut Observed)| {
        seen("a-1", |seen| {
            gone(seen, "a-0");
            seen.claims.remove("a-0");
            change(seen);
        })
    };
    assert_eq!(step(&without_claim(|_| {})), Step::Create(vec!["a-0".to_owned()]));
    let all_gone = without_claim(|seen| {
        seen.in_sync.clear();
        seen.master = None;
    });
    let why = step(&all_gone);
    assert_eq!(
        waits(&why),
        "a-0's volume is gone, and it gets no empty one: no other replica is known to have every acknowledged message"
    );
    // The others come back first, whatever became of this one.
    let all_down = without_claim(|seen| {
        seen.in_sync.clear();
        seen.pods.clear();
        seen.master = None;
    });
    assert_eq!(step(&all_down), Step::Create(vec!["a-1".to_owned(), "a-2".to_owned()]));
    // What it had doesn't count, or there never was anything.
    let not_counted = with_wanted(3, 2, &["a-1", "a-2"], |wanted| next_step(wanted, &all_gone));
    assert_eq!(not_counted, Step::Create(vec!["a-0".to_owned()]));
}

#[test]
fn a_lost_volume_is_deleted_when_its_pod_is_gone_and_others_have_everything() {
    let mut now = seen("a-1", |seen| seen.claims.get_mut("a-0").unwrap().lost = true);
    assert!(matches!(step(&now), Step::Delete { replica, .. } if replica == "a-0"));
    gone(&mut now, "a-0");
    assert_eq!(step(&now), Step::DeleteClaim { replica: "a-0".to_owned(), uid: "c".to_owned() });
    now.in_sync.clear();
    assert!(waits(&step(&now)).starts_with("a-0's volume is lost, and it gets no empty one"));
}

#[test]
fn volumes_of_replicas_that_are_not_wanted_are_nobodys_business() {
    let extra = seen("a-0", |seen| {
        gone(seen, "a-2");
        seen.claims.get_mut("a-2").unwrap().lost = true;
    });
    assert_eq!(with_wanted(2, 1, &ALL, |wanted| next_step(wanted, &extra)), Step::Settled);
}

#[test]
fn quantities_are_compared_by_what_they_mean() {
    assert_eq!(bytes("1Gi"), Some(1 << 30));
    assert_eq!(bytes("1073741824"), bytes("1024Mi"));
    assert!(bytes("1G") < bytes("1Gi"));
    assert_eq!([bytes("1.5Gi"), bytes("1e3"), bytes("Gi"), bytes("")], [None; 4]);
}

#[test]
fn the_condition_tells_what_is_worth_knowing_of_volumes() {
    let fact = |size: &str, refused: Option<&str>, change: fn(&mut ClaimSeen)| {
        let now = seen("a-0", |seen| change(seen.claims.get_mut("a-1").unwrap()));
        with_wanted(3, 2, &ALL, |wanted| {
            let (status, reason, message) = VolumesStanding::new(wanted, size, &now, refused.map(str::to_owned)).fact();
            format!("{status} {reason}: {message}")
        })
    };
    assert_eq!(fact("20Gi", None, |_| {}), "true AsSpecified: each replica has its volume");
    assert_eq!(fact("30Gi", Some("no"), |_| {}), "false Refused: no");
    let grows = fact("30Gi", None, |claim| claim.requested = Some("30Gi".to_owned()));
    assert_eq!(grows, "false Growing: not as large yet as asked for: a-1 (20Gi)");
    let smaller = fact("10Gi", None, |_| {});
    assert!(smaller.starts_with("true LargerThanAsked: volumes don't shrink") && smaller.contains("a-2 (20Gi)"));
    let going = fact("20Gi", None, |claim| claim.deleting = true);
    assert_eq!(going, "false Replacing: a-1's volume is being deleted; then it gets an empty one");
}
