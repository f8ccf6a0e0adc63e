//! Every order of roles.

use super::*;

/// Pods of replicas 0 to 2 of group `a`, in sync, master first; `change` makes of them what the test is about.
fn seen(change: impl FnOnce(&mut Observed)) -> Observed {
    let pod = |n: u32| PodSeen { uid: format!("u{n}"), hash: "new".to_owned(), ready: true, ..PodSeen::default() };
    let mut seen = Observed {
        pods: (0..3).map(|n| (format!("a-{n}"), pod(n))).collect(),
        master: Some("a-0".to_owned()),
        in_sync: (0..3).map(|n| (format!("a-{n}"), 100)).collect(),
        ..Observed::default()
    };
    change(&mut seen);
    seen
}

fn pod<'a>(seen: &'a mut Observed, name: &str) -> &'a mut PodSeen {
    seen.pods.get_mut(name).unwrap()
}

fn step_of(replicas: u32, min_in_sync: usize, preferred: Option<&str>, seen: &Observed) -> Step {
    let replicas = (0..replicas).map(|n| format!("a-{n}")).collect();
    let (wishes, counted) = (Wishes::default(), BTreeSet::new());
    let record_master = seen.master.as_deref();
    let wanted = Wanted {
        replicas: &replicas,
        hash: "new",
        min_in_sync,
        preferred,
        wishes: &wishes,
        record_master,
        counted: &counted,
    };
    next_step(wanted, seen)
}

fn step(seen: &Observed) -> Step {
    step_of(3, 2, None, seen)
}

fn said(step: &Step) -> String {
    match step {
        Step::Create(names) => format!("create {}", names.join(" ")),
        Step::Delete { replica, uid, .. } => format!("delete {replica} {uid}"),
        Step::Switchover { to, .. } => format!("switchover {to}"),
        Step::Wait(why) => format!("wait: {why}"),
        other => format!("{other:?}").to_lowercase(),
    }
}

#[test]
fn a_group_that_is_as_it_shall_be_is_left_alone() {
    assert_eq!(step(&seen(|_| {})), Step::Settled);
}

#[test]
fn what_is_missing_is_made_at_once() {
    let step = step(&seen(|seen| {
        seen.pods.retain(|name, _| name == "a-1");
        seen.master = None;
    }));
    assert_eq!(said(&step), "create a-0 a-2");
}

#[test]
fn a_changed_spec_rolls_slaves_then_switches_over_then_rolls_the_old_master() {
    for master in 0..3 {
        let mut now = seen(|seen| {
            seen.master = Some(format!("a-{master}"));
            seen.pods.values_mut().for_each(|pod| pod.hash = "old".to_owned());
        });
        let mut order = Vec::new();
        loop {
            let step = step(&now);
            order.push(said(&step));
            match step {
                Step::Delete { replica, .. } => {
                    // Gone, and while it is, nothing else is touched.
                    now.pods.remove(&replica);
                    now.in_sync.remove(&replica);
                    assert_eq!(said(&self::step(&now)), format!("create {replica}"));
                    let fresh = PodSeen { uid: "fresh".to_owned(), hash: "new".to_owned(), ..PodSeen::default() };
                    now.pods.insert(replica.clone(), fresh);
                    if now.pods.values().any(|pod| pod.hash == "old") {
                        assert!(said(&self::step(&now)).starts_with("wait"), "not ready");
                        pod(&mut now, &replica).ready = true;
                        assert!(said(&self::step(&now)).starts_with("wait"), "not in sync");
                    }
                    pod(&mut now, &replica).ready = true;
                    now.in_sync.insert(replica, 100);
                }
                Step::Switchover { to, .. } => {
                    assert_eq!(now.pods[&to].hash, "new");
                    now.master = Some(to);
                }
                Step::Settled => break,
                other => panic!("{other:?}"),
            }
        }
        let kinds: Vec<_> = order.iter().map(|said| said.split(' ').next().unwrap()).collect();
        assert_eq!(kinds, ["delete", "delete", "switchover", "delete", "settled"], "{order:?}");
        assert!(order[3].starts_with(&format!("delete a-{master} ")), "{order:?}");
    }
}

#[test]
fn nothing_is_rolled_below_min_in_sync() {
    let old = |seen: &mut Observed| pod(seen, "a-2").hash = "old".to_owned();
    let blocked = said(&step_of(3, 3, None, &seen(old)));
    assert_eq!(blocked, "wait: a-2 can't be rolled: without it fewer than minInSync (3) would be in sync");
    let one_behind = seen(|seen| {
        old(seen);
        seen.in_sync.remove("a-1");
    });
    assert!(said(&step(&one_behind)).starts_with("wait: a-1 is to be ready and in sync"));
}

#[test]
fn a_pod_that_does_not_start_with_the_old_spec_is_replaced_first() {
    let step = step(&seen(|seen| {
        seen.pods.values_mut().for_each(|pod| pod.hash = "old".to_owned());
        pod(seen, "a-1").ready = false;
        seen.in_sync.remove("a-1");
    }));
    assert_eq!(said(&step), "delete a-1 u1");
}

#[test]
fn a_single_replica_is_rolled_though_nobody_serves_meanwhile() {
    let alone = seen(|seen| {
        seen.pods.retain(|name, _| name == "a-0");
        seen.in_sync.retain(|name, _| name == "a-0");
        pod(seen, "a-0").hash = "old".to_owned();
    });
    assert_eq!(said(&step_of(1, 1, None, &alone)), "delete a-0 u0");
}

#[test]
fn a_master_whose_pod_is_deleted_hands_over_first_and_to_the_best() {
    let leaving = |seen: &mut Observed| pod(seen, "a-0").deleting = true;
    assert_eq!(said(&step(&seen(leaving))), "switchover a-1", "of equals the first");
    let longer = seen(|seen| {
        leaving(seen);
        seen.in_sync.insert("a-2".to_owned(), 101);
    });
    assert_eq!(said(&step(&longer)), "switchover a-2", "who has more");
    let preferred = step_of(3, 2, Some("a-2"), &seen(leaving));
    assert_eq!(said(&preferred), "switchover a-2", "who is preferred");
    let both = seen(|seen| {
        leaving(seen);
        pod(seen, "a-1").deleting = true;
    });
    assert_eq!(said(&step(&both)), "switchover a-2", "not to one that goes as well");
    let nobody = seen(|seen| {
        leaving(seen);
        seen.in_sync.retain(|name, _| name == "a-0");
    });
    assert_eq!(step(&nobody), Step::Settled, "there is nobody to hand over to");
}

#[test]
fn a_master_leaves_a_cordoned_node_for_one_that_is_not() {
    let cordoned = |seen: &mut Observed| pod(seen, "a-0").cordoned = true;
    assert_eq!(said(&step(&seen(cordoned))), "switchover a-1");
    assert_eq!(said(&step_of(3, 2, Some("a-0"), &seen(cordoned))), "switchover a-1", "preferred or not");
    let two = seen(|seen| {
        cordoned(seen);
        pod(seen, "a-1").cordoned = true;
    });
    assert_eq!(said(&step(&two)), "switchover a-2");
    let all = seen(|seen| seen.pods.values_mut().for_each(|pod| pod.cordoned = true));
    assert_eq!(step(&all), Step::Settled, "there is nowhere to go");
    let evicted = seen(|seen| {
        seen.pods.values_mut().for_each(|pod| pod.cordoned = true);
        pod(seen, "a-0").deleting = true;
    });
    assert_eq!(said(&step(&evicted)), "switchover a-1", "one that will leave is better than none");
    let evicted_alone = seen(|seen| {
        pod(seen, "a-0").deleting = true;
        pod(seen, "a-1").cordoned = true;
    });
    assert_eq!(said(&step(&evicted_alone)), "switchover a-2", "it stays");
}

#[test]
fn nobody_becomes_master_on_a_cordoned_node_as_long_as_the_master_can_stay() {
    let preferred = seen(|seen| pod(seen, "a-1").cordoned = true);
    assert_eq!(step_of(3, 2, Some("a-1"), &preferred), Step::Settled);
    let rolled = seen(|seen| {
        pod(seen, "a-0").hash = "old".to_owned();
        pod(seen, "a-1").cordoned = true;
        pod(seen, "a-2").cordoned = true;
    });
    assert!(said(&step(&rolled)).starts_with("wait: a-0 is to be rolled"), "it would come back at once");
}

#[test]
fn fewer_replicas_take_the_highest_first_and_never_the_master() {
    assert_eq!(said(&step_of(2, 1, None, &seen(|_| {}))), "delete a-2 u2");
    let high_master = seen(|seen| seen.master = Some("a-2".to_owned()));
    assert_eq!(said(&step_of(2, 1, None, &high_master)), "switchover a-0");
    let lagging = seen(|seen| {
        seen.in_sync.remove("a-1");
    });
    assert_eq!(said(&step_of(2, 2, None, &lagging)), "wait: a-2 is to be removed when 2 others are in sync");
}

#[test]
fn fewer_replicas_go_one_after_the_other() {
    let first_goes = seen(|seen| pod(seen, "a-2").deleting = true);
    assert_eq!(said(&step_of(1, 1, None, &first_goes)), "wait: a-2 is going first");
}

#[test]
fn a_pod_that_was_evicted_is_replaced() {
    assert_eq!(said(&step(&seen(|seen| pod(seen, "a-1").ended = true))), "delete a-1 u1");
}

#[test]
fn the_preferred_replica_becomes_master_when_it_is_fit() {
    let step = |seen: &Observed| said(&step_of(3, 2, Some("a-1"), seen));
    assert_eq!(step(&seen(|_| {})), "switchover a-1");
    assert_eq!(step(&seen(|seen| seen.master = Some("a-1".to_owned()))), "settled");
    assert_eq!(step(&seen(|seen| pod(seen, "a-1").ready = false)), "settled");
    assert_eq!(step(&seen(|seen| seen.master = None)), "settled", "unknown is not another");
}

#[test]
fn a_fenced_master_is_switched_away_from_and_a_fenced_replica_is_left_as_it_is() {
    let fenced = |seen: &mut Observed, name: &str| pod(seen, name).fenced = true;
    let all_fenced = |names: &[&str]| {
        seen(|seen| {
            for name in names {
                fenced(seen, name);
            }
        })
    };
    assert_eq!(said(&step(&seen(|seen| fenced(seen, "a-0")))), "switchover a-1");
    let both = all_fenced(&["a-0", "a-1"]);
    assert_eq!(said(&step(&both)), "switchover a-2", "not to one that is fenced as well");
    let all = all_fenced(&["a-0", "a-1", "a-2"]);
    assert_eq!(step(&all), Step::Settled, "it serves on");
    let ended = seen(|seen| {
        fenced(seen, "a-1");
        pod(seen, "a-1").ended = true;
    });
    assert_eq!(step(&ended), Step::Settled);
    let stale = seen(|seen| {
        fenced(seen, "a-1");
        pod(seen, "a-1").ready = false;
        seen.pods.values_mut().for_each(|pod| pod.hash = "old".to_owned());
    });
    assert_eq!(said(&step(&stale)), "wait: the spec has changed; nothing is rolled while a-1 is fenced");
    let extra = seen(|seen| fenced(seen, "a-2"));
    assert_eq!(said(&step_of(2, 1, None, &extra)), "wait: a-2 is to be removed, but it is fenced");
    let preferred = seen(|seen| fenced(seen, "a-1"));
    assert_eq!(said(&step_of(3, 2, Some("a-1"), &preferred)), "settled");
}
