use super::*;
use crate::StoreId;

fn member(n: u64) -> Member {
    Member::new(format!("r{n}"), StoreId(n))
}

fn record(epoch: u64, revision: u64, members: &[u64]) -> GroupRecord {
    let in_sync = members.iter().map(|&n| member(n)).collect();
    GroupRecord { epoch: Epoch(epoch), revision, master: member(0), in_sync }
}

/// A `Sync` master r0 of epoch 1 with these in-sync members, minimum 2, an empty log, all of them connected.
fn master(members: &[u64], durability: Durability) -> Master {
    let ends = LogEnds { written: 0, flushed: 0, confirmed: 0 };
    let config = Config::new(Mode::Sync, durability, 2);
    let mut master = Master::open(config, member(0), &record(1, 1, members), ends, 0);
    for &n in members.iter().filter(|&&n| n != 0) {
        master.connected(&member(n), 0, 0, 0);
    }
    master
}

fn ack(master: &mut Master, n: u64, at: u64, now: Millis) {
    assert!(master.acked(&member(n), Epoch(1), at, at, now, now));
}

#[test]
fn nothing_is_confirmed_before_every_in_sync_member_has_it() {
    let mut master = master(&[0, 1, 2], Durability::Written);
    master.local(100, 0);
    assert_eq!(master.confirm(1), 0);
    ack(&mut master, 1, 100, 1);
    assert_eq!(master.confirm(1), 0, "r2 has nothing yet");
    ack(&mut master, 2, 60, 1);
    assert_eq!(master.confirm(1), 60);
}

#[test]
fn with_flush_sync_only_what_is_on_disk_everywhere_counts() {
    let mut master = master(&[0, 1], Durability::Flushed);
    master.local(100, 40);
    assert!(master.acked(&member(1), Epoch(1), 100, 50, 1, 1));
    assert_eq!(master.confirm(1), 40);
    master.local(100, 100);
    assert_eq!(master.confirm(1), 50);
}

#[test]
fn an_acknowledgement_of_another_epoch_or_beyond_the_log_counts_for_nothing() {
    let mut master = master(&[0, 1], Durability::Written);
    master.local(100, 0);
    assert!(!master.acked(&member(1), Epoch(0), 100, 0, 1, 1));
    assert!(!master.acked(&member(1), Epoch(2), 100, 0, 1, 1));
    assert!(!master.acked(&member(1), Epoch(1), 101, 0, 1, 1));
    assert!(!master.acked(&member(9), Epoch(1), 100, 0, 1, 1), "nobody knows r9");
    assert_eq!(master.confirm(1), 0);
}

#[test]
fn a_slave_whose_log_is_said_to_end_beyond_the_masters_is_not_connected() {
    let mut master = master(&[0, 1], Durability::Written);
    master.local(100, 0);
    assert!(!master.connected(&member(1), 101, 1, 1));
    assert_eq!(master.confirm(1), 0);
    assert!(master.connected(&member(1), 100, 1, 1));
    assert_eq!(master.confirm(1), 100);
}

#[test]
fn a_dead_slave_holds_acknowledgements_until_the_record_has_dropped_it() {
    let mut master = master(&[0, 1, 2], Durability::Written);
    master.local(100, 0);
    ack(&mut master, 1, 100, 10);
    master.disconnected(&member(2), 10);
    assert_eq!(master.tick(400), None, "it may come back at once");
    let alter = master.tick(511).expect("gone for more than 500 ms");
    assert_eq!(alter.in_sync, record(1, 1, &[0, 1]).in_sync);
    assert_eq!(master.confirm(511), 0, "asked is not recorded: the set that counts is still the old one");
    master.recorded(&record(1, 2, &[0, 1]), 520, 520);
    assert_eq!(master.confirm(520), 100);
}

#[test]
fn a_joining_slave_is_counted_before_the_record_is_asked() {
    let mut master = master(&[0, 1], Durability::Written);
    master.local(100, 0);
    ack(&mut master, 1, 100, 1);
    assert_eq!(master.confirm(1), 100);
    master.connected(&member(2), 90, 2, 2);
    assert_eq!(master.tick(2), None, "it lacks what is confirmed");
    master.local(200, 0);
    ack(&mut master, 1, 200, 3);
    assert_eq!(master.confirm(3), 100, "r2 counts already");
    ack(&mut master, 2, 150, 4);
    let alter = master.tick(4).expect("r2 has all that is confirmed");
    assert_eq!(alter.in_sync, record(1, 1, &[0, 1, 2]).in_sync);
    assert_eq!(master.confirm(4), 150);
    master.disconnected(&member(2), 5);
    assert_eq!(master.tick(600), None);
    assert_eq!(master.confirm(600), 150, "the record may hold r2 by now: it counts until the answer says otherwise");
    master.recorded(&record(1, 2, &[0, 1, 2]), 610, 610);
    assert_eq!(master.confirm(610), 150);
}

#[test]
fn a_joining_slave_needs_all_that_the_log_held_when_the_epoch_began() {
    // The master before has acknowledged up to 100; this one knows of 60.
    let ends = LogEnds { written: 100, flushed: 100, confirmed: 60 };
    let config = Config::new(Mode::Sync, Durability::Written, 2);
    let mut master = Master::open(config, member(0), &record(1, 1, &[0, 1]), ends, 0);
    master.connected(&member(2), 80, 1, 1);
    ack(&mut master, 2, 80, 1);
    assert_eq!(master.tick(2), None, "r2 has all of the 60, and may lack what was acknowledged");
    ack(&mut master, 2, 100, 3);
    assert_eq!(master.tick(4).map(|alter| alter.in_sync), Some(record(1, 1, &[0, 1, 2]).in_sync));
}

#[test]
fn an_unanswered_request_is_repeated_until_its_fate_is_known() {
    let mut master = master(&[0, 1], Durability::Written);
    master.connected(&member(2), 0, 0, 0);
    let first = master.tick(0).expect("an empty log is caught up at once");
    assert_eq!(master.tick(500), None);
    master.disconnected(&member(2), 500);
    let again = master.tick(1_000).expect("unknown fate is asked for again though r2 is gone");
    assert_eq!((first.revision, again.revision), (1, 1), "only one of them can be granted");
    master.local(10, 0);
    ack(&mut master, 1, 10, 1_001);
    master.recorded(&record(1, 1, &[0, 1]), 1_001, 1_001);
    assert_eq!(master.confirm(1_001), 0, "over this record they may still be");
    master.recorded(&record(1, 2, &[0, 1]), 1_002, 1_002);
    assert_eq!(master.confirm(1_002), 10);
}

#[test]
fn of_requests_made_on_one_record_the_next_record_settles_all() {
    let mut master = master(&[0, 1], Durability::Written);
    master.config.min_in_sync = 1;
    master.disconnected(&member(1), 0);
    let without = master.tick(600).expect("r1 is gone");
    assert_eq!((without.revision, without.in_sync), (1, record(1, 1, &[0]).in_sync));
    assert!(master.connected(&member(1), 0, 700, 700));
    let with = master.tick(1_700).expect("r1 is back, and the first request's fate is not known");
    assert_eq!(with.in_sync, record(1, 1, &[0, 1]).in_sync);
    master.local(10, 0);
    assert_eq!(master.confirm(1_720), 0, "either may be granted any moment");
    master.recorded(&record(1, 2, &[0]), 1_730, 1_730);
    assert_eq!(master.confirm(1_730), 10, "the first was, so the second never will be");
    ack(&mut master, 1, 10, 1_740);
    assert_eq!(
        master.tick(2_800).map(|alter| (alter.revision, alter.in_sync)),
        Some((2, record(1, 2, &[0, 1]).in_sync))
    );
}

#[test]
fn an_older_record_heard_late_changes_nothing() {
    let mut master = master(&[0, 1], Durability::Written);
    master.recorded(&record(1, 5, &[0, 1, 2]), 1, 1);
    master.recorded(&record(1, 4, &[0, 1]), 2, 2);
    master.local(10, 0);
    ack(&mut master, 1, 10, 3);
    assert_eq!(master.confirm(3), 0, "r2 is in the newer record");
}

#[test]
fn the_set_never_shrinks_below_the_minimum_and_sends_are_refused_meanwhile() {
    let mut master = master(&[0, 1, 2], Durability::Written);
    master.disconnected(&member(1), 0);
    master.disconnected(&member(2), 100);
    let alter = master.tick(1_000).expect("one may go");
    assert_eq!(alter.in_sync, record(1, 1, &[0, 2]).in_sync, "the one that failed first");
    master.recorded(&record(1, 2, &[0, 2]), 1_001, 1_001);
    assert_eq!(master.tick(60_000), None);
    assert_eq!(master.may_append(1_001), Err(Refusal::InSyncShort { have: 1, need: 2 }));
    assert_eq!((master.in_sync().len(), master.alive_in_sync(1_001)), (2, 1), "one of the set has failed");
    master.connected(&member(2), 0, 61_000, 61_000);
    master.recorded(&record(1, 2, &[0, 2]), 61_000, 61_000);
    assert_eq!(master.may_append(61_000), Ok(()));
}

#[test]
fn a_member_that_came_back_with_less_than_it_acknowledged_leaves_at_once() {
    let mut master = master(&[0, 1], Durability::Written);
    master.local(100, 100);
    ack(&mut master, 1, 100, 1);
    assert_eq!(master.confirm(1), 100);
    master.connected(&member(1), 40, 2, 2);
    let alter = master.tick(2).expect("r1 lost acknowledged messages");
    assert_eq!(alter.in_sync, record(1, 1, &[0]).in_sync);
}

#[test]
fn degrade_goes_on_with_one_copy_and_says_so() {
    let mut master = master(&[0, 1], Durability::Written);
    master.config.degrade = true;
    master.disconnected(&member(1), 0);
    master.tick(501).expect("r1 may go");
    master.recorded(&record(1, 2, &[0]), 502, 502);
    assert!(master.degraded());
    master.local(10, 0);
    assert_eq!(master.confirm(503), 10);
    assert_eq!(master.may_append(503), Ok(()));
}

#[test]
fn a_master_that_hears_nobody_fences_itself_and_one_that_hears_its_slaves_does_not() {
    let mut master = master(&[0, 1], Durability::Written);
    master.local(10, 10);
    ack(&mut master, 1, 10, 5_000);
    assert_eq!(master.may_append(5_001), Ok(()), "the elector is away, the slave is not");
    assert!(master.may_serve(10_100).is_err(), "both are silent");
    let before = master.confirm(5_001);
    master.local(20, 20);
    assert_eq!(master.confirm(10_100), before, "a fenced master confirms nothing");
    master.recorded(&record(1, 1, &[0, 1]), 10_200, 10_200);
    assert_eq!(master.may_serve(10_201), Ok(()));
}

#[test]
fn a_master_that_was_alone_and_is_cut_off_while_a_slave_joins_fences_itself() {
    let ends = LogEnds { written: 0, flushed: 0, confirmed: 0 };
    let config = Config::new(Mode::Async, Durability::Written, 1);
    let mut master = Master::open(config, member(0), &record(1, 1, &[0]), ends, 0);
    assert_eq!(master.may_append(60_000), Ok(()), "nobody else can be elected");
    master.recorded(&record(1, 1, &[0]), 60_000, 60_000);
    assert!(master.connected(&member(1), 0, 60_000, 60_000));
    ack(&mut master, 1, 0, 60_000);
    master.tick(60_001).expect("r1 is asked for; the answer never comes, and nothing else");
    assert_eq!(master.may_append(64_900), Ok(()));
    assert!(matches!(master.may_append(65_002), Err(Refusal::Fenced { .. })));
}

#[test]
fn a_deposed_master_never_confirms_again() {
    let mut master = master(&[0, 1], Durability::Written);
    master.local(10, 10);
    ack(&mut master, 1, 10, 1);
    master.heard_of(Epoch(2));
    assert_eq!(master.confirm(1), 0);
    master.recorded(&record(1, 9, &[0, 1]), 2, 2);
    assert_eq!(master.may_serve(2), Err(Refusal::Deposed { mine: Epoch(1), newer: Epoch(2) }));
    assert_eq!(master.tick(1_000), None);
}

#[test]
fn asynchronous_mode_confirms_what_the_master_has() {
    let ends = LogEnds { written: 50, flushed: 20, confirmed: 0 };
    let config = Config::new(Mode::Async, Durability::Written, 2);
    let mut master = Master::open(config, member(0), &record(1, 1, &[0, 1]), ends, 0);
    assert_eq!(master.confirm(0), 50);
}

#[test]
fn a_switchover_waits_until_the_candidate_has_everything_confirmed() {
    let mut master = master(&[0, 1, 2], Durability::Written);
    master.local(10, 10);
    ack(&mut master, 1, 10, 1);
    master.confirm(1);
    assert!(!master.is_drained_to(&member(1)), "r2 still owes an acknowledgement");
    ack(&mut master, 2, 10, 1);
    master.confirm(1);
    assert!(master.is_drained_to(&member(1)));
    master.disconnected(&member(1), 2);
    assert!(!master.is_drained_to(&member(1)));
}

#[test]
fn a_slave_that_keeps_up_under_load_stays_and_one_that_falls_ever_further_behind_leaves() {
    let ends = LogEnds { written: 0, flushed: 0, confirmed: 0 };
    let config = Config::new(Mode::Async, Durability::Written, 1);
    let mut master = Master::open(config, member(0), &record(1, 1, &[0, 1, 2]), ends, 0);
    master.connected(&member(1), 0, 0, 0);
    master.connected(&member(2), 0, 0, 0);
    for now in (0..30_000).step_by(100) {
        master.local(now * 10, now * 10);
        master.confirm(now);
        ack(&mut master, 1, (now * 10).saturating_sub(3_000), now); // always 300 ms behind
        ack(&mut master, 2, now * 2, now); // a fifth of the speed
        if let Some(alter) = master.tick(now) {
            assert!(now > 15_000, "at {now}");
            assert_eq!(alter.in_sync, record(1, 1, &[0, 1]).in_sync);
            return;
        }
    }
    panic!("r2 never left");
}

#[test]
fn a_slave_far_behind_in_bytes_leaves_and_joins_only_when_it_is_near_again() {
    let mut master = master(&[0, 1, 2], Durability::Written);
    let (gap, near) = (master.config.gap_bytes, master.config.join_lag_bytes);
    master.local(gap, 0);
    ack(&mut master, 1, gap, 10);
    assert_eq!(master.tick(2_000), None, "just not too far");
    master.local(gap + 1, 0);
    ack(&mut master, 1, gap + 1, 2_010);
    ack(&mut master, 2, 0, 2_010);
    assert_eq!(master.tick(2_020), None, "a moment is nothing");
    ack(&mut master, 1, gap + 1, 3_000);
    ack(&mut master, 2, 0, 3_000);
    let alter = master.tick(3_100).expect("more than a second");
    assert_eq!(alter.in_sync, record(1, 1, &[0, 1]).in_sync);
    master.recorded(&record(1, 2, &[0, 1]), 3_110, 3_110);
    assert_eq!(master.confirm(3_110), gap + 1, "nobody waits for it any more");

    let behind = gap - near;
    ack(&mut master, 1, gap + 1, 9_000);
    ack(&mut master, 2, behind, 9_000);
    assert_eq!(master.tick(9_000), None);
    master.local(gap + 100, 0);
    ack(&mut master, 1, gap + 100, 9_010);
    assert_eq!(master.confirm(9_010), gap + 100, "nearer, but not so near that anybody would wait for it");
    ack(&mut master, 2, behind + 2_000, 9_020);
    assert_eq!(master.tick(9_020), None);
    master.local(gap + 200, 0);
    ack(&mut master, 1, gap + 200, 9_030);
    assert_eq!(master.confirm(9_030), gap + 100, "considered: it counts");
    ack(&mut master, 2, gap + 200, 9_040);
    assert_eq!(master.tick(9_040).map(|alter| alter.in_sync), Some(record(1, 1, &[0, 1, 2]).in_sync));
}

#[test]
fn a_slave_that_cannot_keep_up_is_considered_less_and_less_often() {
    let mut master = master(&[0, 1], Durability::Written);
    let mut considered = Vec::new();
    let mut counted = false;
    for now in (0..60_000).step_by(10) {
        master.local(10_000 + now, 0);
        ack(&mut master, 1, 10_000 + now, now);
        if now == 0 {
            master.connected(&member(2), 0, now, now);
        }
        // Alive and near, yet it never gets there.
        assert!(master.acked(&member(2), Epoch(1), now / 2, now / 2, now, now));
        master.confirm(now);
        assert_eq!(master.tick(now), None);
        let counts = master.membership.considered().count() == 1;
        if counts && !counted {
            considered.push(now);
        }
        counted = counts;
    }
    let pauses: Vec<_> = considered.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(considered.len() >= 5 && considered.len() <= 9, "{considered:?}");
    assert!(
        pauses.windows(2).all(|pair| pair[1] >= pair[0]) && pauses.last().is_some_and(|&last| last >= 10_000),
        "{pauses:?}"
    );
}

#[test]
fn going_on_with_too_few_copies_is_declared_and_ends_by_itself() {
    let mut master = master(&[0, 1], Durability::Written);
    master.config.degrade = true;
    assert!(!master.degraded());
    master.disconnected(&member(1), 0);
    master.tick(600).expect("it may shrink below the minimum");
    assert!(!master.degraded(), "asked is not recorded");
    master.recorded(&record(1, 2, &[0]), 610, 610);
    master.local(100, 0);
    assert_eq!((master.degraded(), master.may_append(610), master.confirm(610)), (true, Ok(()), 100));
    master.connected(&member(1), 100, 700, 700);
    master.tick(710).expect("it is back");
    master.recorded(&record(1, 3, &[0, 1]), 720, 720);
    assert!(!master.degraded());
}

#[test]
fn an_answer_that_was_long_under_way_proves_nothing_newer_than_its_question() {
    let mut master = master(&[0, 1], Durability::Written);
    let fence = master.config.fence_after_ms;
    assert_eq!(fence, 5_000);
    master.recorded(&record(1, 1, &[0, 1]), 1_000, 9_000);
    assert_eq!(master.may_serve(6_000), Ok(()));
    assert_eq!(master.may_serve(9_000), Err(Refusal::Fenced { silent_ms: 8_000 }));
    master.recorded(&record(1, 1, &[0, 1]), 500, 9_001);
    assert_eq!(
        master.may_serve(9_001),
        Err(Refusal::Fenced { silent_ms: 8_001 }),
        "an older question takes nothing back"
    );
}

#[test]
fn what_lay_in_the_sockets_of_a_stopped_master_is_no_sign_of_life() {
    let mut master = master(&[0, 1], Durability::Written);
    assert!(master.acked(&member(1), Epoch(1), 0, 0, 1_000, 1_010));
    // Stopped at 1 500; what r1 said until then is read at 9 000.
    assert!(master.acked(&member(1), Epoch(1), 0, 0, 1_400, 9_000));
    assert_eq!(master.may_serve(9_000), Err(Refusal::Fenced { silent_ms: 9_000 }));
    assert!(master.connected(&member(1), 0, 1_450, 9_010), "nor is an answer to an old welcome");
    assert!(master.may_serve(9_010).is_err());
    assert!(master.acked(&member(1), Epoch(1), 0, 0, 9_011, 9_020));
    assert_eq!(master.may_serve(9_020), Ok(()));
    assert!(!master.acked(&member(1), Epoch(1), 0, 0, 9_022, 9_021), "nobody can have heard what was not sent yet");
}
