//! Orders of the day, for every role.

use std::collections::BTreeSet;

use super::super::{PodSeen, next_step};
use super::*;

/// Pods 0 to 2 of group `a`, in sync, with this master.
fn seen(master: Option<&str>) -> Observed {
    let pod = |n: u32| PodSeen { uid: format!("u{n}"), hash: "new".to_owned(), ready: true, ..PodSeen::default() };
    Observed {
        pods: (0..3).map(|n| (format!("a-{n}"), pod(n))).collect(),
        master: master.map(str::to_owned),
        in_sync: (0..3).map(|n| (format!("a-{n}"), 100)).collect(),
        ..Observed::default()
    }
}

fn wishes(annotations: &[(&str, &str)]) -> Wishes {
    let all = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Wishes::of(Some(&all))
}

fn step_of(wishes: &Wishes, preferred: Option<&str>, record_master: &str, seen: &Observed) -> Step {
    let (replicas, counted) = ((0..3).map(|n| format!("a-{n}")).collect(), BTreeSet::new());
    let record_master = Some(record_master);
    let wanted = Wanted {
        replicas: &replicas,
        hash: "new",
        min_in_sync: 2,
        preferred,
        wishes,
        record_master,
        counted: &counted,
    };
    next_step(wanted, seen)
}

#[test]
fn only_true_is_true_and_a_replica_is_a_name() {
    assert_eq!(Wishes::of(None), Wishes::default());
    assert_eq!(wishes(&[(PAUSED_ANNOTATION, "yes"), (HIBERNATE_ANNOTATION, "false")]), Wishes::default());
    let all = wishes(&[(PAUSED_ANNOTATION, "true"), (HIBERNATE_ANNOTATION, "true"), (SWITCHOVER_ANNOTATION, " a-1 ")]);
    assert_eq!(all, Wishes { paused: true, hibernate: true, switchover_to: Some("a-1".to_owned()) });
}

#[test]
fn a_paused_group_is_left_as_it_is_but_for_a_master_whose_pod_is_deleted() {
    let paused = wishes(&[(PAUSED_ANNOTATION, "true"), (HIBERNATE_ANNOTATION, "true"), (SWITCHOVER_ANNOTATION, "a-1")]);
    let mut changed = seen(Some("a-0"));
    changed.pods.remove("a-1");
    changed.pods.get_mut("a-2").unwrap().hash = "old".to_owned();
    assert_eq!(step_of(&paused, Some("a-2"), "a-0", &changed), Step::Paused);
    changed.pods.get_mut("a-0").unwrap().deleting = true;
    assert!(matches!(step_of(&paused, None, "a-0", &changed), Step::Switchover { to, .. } if to == "a-2"));
}

#[test]
fn a_switchover_that_is_asked_for_comes_before_all_but_a_master_that_leaves() {
    for (master, to) in [("a-0", "a-2"), ("a-2", "a-0"), ("a-1", "a-2")] {
        let asked = wishes(&[(SWITCHOVER_ANNOTATION, to)]);
        let mut now = seen(Some(master));
        now.pods.values_mut().for_each(|pod| pod.hash = "old".to_owned());
        let requested = Step::Requested { to: to.to_owned(), refusal: None };
        assert_eq!(step_of(&asked, None, master, &now), requested);
        now.pods.get_mut(master).unwrap().deleting = true;
        assert!(matches!(step_of(&asked, None, master, &now), Step::Switchover { urgent: true, .. }));
    }
}

#[test]
fn a_switchover_that_cannot_be_is_refused_with_the_reason() {
    let refusal = |to: &str, preferred: Option<&str>, seen: &Observed| match step_of(
        &wishes(&[(SWITCHOVER_ANNOTATION, to)]),
        preferred,
        "a-0",
        seen,
    ) {
        Step::Requested { refusal, .. } => refusal.unwrap_or_default(),
        other => panic!("{other:?}"),
    };
    let mut now = seen(Some("a-0"));
    assert_eq!(refusal("a-7", None, &now), "\"a-7\" is no replica of this group (a-0, a-1, a-2)");
    assert!(refusal("a-1", Some("a-0"), &now).starts_with("spec.preferredMaster is a-0: the group would switch back"));
    assert_eq!(refusal("a-1", Some("a-1"), &now), "");
    now.pods.get_mut("a-1").unwrap().cordoned = true;
    assert_eq!(refusal("a-1", None, &now), "a-1's node is cordoned: the group would switch back");
    now.pods.get_mut("a-1").unwrap().deleting = true;
    assert_eq!(refusal("a-1", None, &now), "a-1's pod is ending");
    now.pods.remove("a-1");
    assert_eq!(refusal("a-1", None, &now), "a-1 has no pod");
}

#[test]
fn a_group_falls_asleep_slaves_first_whoever_is_master() {
    for master in ["a-0", "a-1", "a-2"] {
        let asleep = wishes(&[(HIBERNATE_ANNOTATION, "true")]);
        // Nobody decides any more, so nobody is known to serve: the record says who was master.
        let mut now = seen(None);
        now.in_sync.clear();
        let mut order = Vec::new();
        loop {
            match step_of(&asleep, None, master, &now) {
                Step::Delete { replica, uid, .. } => {
                    let pod = now.pods.get_mut(&replica).unwrap();
                    assert_eq!((&pod.uid, pod.deleting), (&uid, false));
                    pod.deleting = true;
                    order.push(replica);
                }
                Step::Wait(_) => {
                    assert!(order.len() == 2 || order.len() == 3, "slaves go at once, {order:?}");
                    now.pods.retain(|_, pod| !pod.deleting);
                }
                Step::Hibernated => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((order.len(), order.last().map(String::as_str)), (3, Some(master)));
        assert!(matches!(step_of(&Wishes::default(), None, master, &now), Step::Create(all) if all.len() == 3));
    }
}
