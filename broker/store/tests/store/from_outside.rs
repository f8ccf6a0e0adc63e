//! A store looked at and repaired from outside.

use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::common::*;
use gantry_store::Config;
use gantry_store::inspect::{Depth, Report, look};
use gantry_store::repair::{Repair, RepairError};

const SEGMENT_1: &str = "commitlog/00000000000000016384";

/// Messages over three segments and two queues, all visible, the store closed; where each begins.
fn filled(root: &Path) -> Vec<u64> {
    let mut opened = open_in(root);
    let places = (0..60_u8).map(|number| opened.put("T", u32::from(number % 2), &[number; 700]).physical.0).collect();
    opened.confirm_all();
    opened.close();
    places
}

fn looked(root: &Path, depth: Depth) -> Report {
    look(&Config::new(root), depth, &mut |done, total| assert!(done <= total, "{done} of {total}")).unwrap()
}

fn write_at(root: &Path, name: &str, at: u64, bytes: &[u8]) {
    std::fs::OpenOptions::new().write(true).open(root.join(name)).unwrap().write_all_at(bytes, at).unwrap();
}

#[test]
fn an_inspection_tells_what_is_there_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let places = filled(directory.path());
    let before = std::fs::read(directory.path().join("checkpoint")).unwrap();
    let heads = looked(directory.path(), Depth::Heads);
    let all = looked(directory.path(), Depth::Everything);
    assert!(heads.damage.is_empty() && all.damage.is_empty() && all.torn_tail.is_none(), "{:?}", all.damage);
    assert_eq!((all.log.oldest, all.log.records, heads.log.records), (0, Some(60), None));
    assert_eq!(all.log.end, heads.log.end);
    assert!(all.log.end > *places.last().unwrap());
    assert_eq!(all.segments[0].first_store_ms, Some(1_700_000_000_000));
    assert!(all.segments[0].records.unwrap() + all.segments[1].records.unwrap() < 60);
    let queues: Vec<_> = all.queues.iter().map(|queue| (&*queue.topic, queue.queue, queue.min, queue.max)).collect();
    assert_eq!(queues, [("T", 0, 0, 30), ("T", 1, 0, 30)]);
    let gantry = all.checkpoint.gantry.unwrap();
    assert!(gantry.clean && gantry.flushed == all.log.end && gantry.dispatched == all.log.end);
    assert!(!all.abort && !all.running);
    assert_eq!(std::fs::read(directory.path().join("checkpoint")).unwrap(), before);
}

#[test]
fn a_running_broker_is_told_of_and_not_disturbed_and_keeps_repairs_away() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path());
    let mut opened = open_in(directory.path());
    // A lock isn't seen by the process that holds it: the broker's process is another one.
    let report = looked(directory.path(), Depth::Everything);
    assert!(report.abort && report.damage.is_empty());
    assert!(matches!(Repair::lock(&Config::new(directory.path())), Err(RepairError::Locked(_))));
    opened.put("T", 0, b"goes on");
    opened.close();
    assert!(Repair::lock(&Config::new(directory.path())).is_ok());
}

#[test]
fn every_spoiled_record_and_unit_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let places = filled(directory.path());
    write_at(directory.path(), SEGMENT_1, places[30] - SEGMENT_BYTES + 100, &[0xFF; 4]);
    write_at(directory.path(), "consumequeue/T/1/00000000000000000000", 5 * 20, &[0x22; 8]);
    let report = looked(directory.path(), Depth::Everything);
    let found: Vec<_> = report.damage.iter().map(|finding| (finding.offset.unwrap(), &*finding.problem)).collect();
    assert!(found.iter().any(|(at, problem)| *at == places[30] && problem.contains("CRC")), "{found:?}");
    assert!(found.iter().any(|(at, problem)| *at == 5 && problem.contains("not its message")), "{found:?}");
    assert!(report.damage[0].file.ends_with(SEGMENT_1));
}

#[test]
fn missing_short_and_foreign_files_are_found() {
    type Spoil = fn(&Path);
    let cases: [(&str, Spoil); 5] = [
        ("is missing", |root| std::fs::remove_file(root.join(SEGMENT_1)).unwrap()),
        ("has 5000 bytes", |root| {
            std::fs::OpenOptions::new().write(true).open(root.join(SEGMENT_1)).unwrap().set_len(5000).unwrap();
        }),
        ("no segment", |root| std::fs::write(root.join("commitlog/readme"), "x").unwrap()),
        ("version 9", |root| write_at(root, "checkpoint", 75, &[9])),
        ("ends at 0, but the log has messages up to 30", |root| {
            std::fs::remove_dir_all(root.join("consumequeue/T/1")).unwrap();
        }),
    ];
    for (expected, spoil) in cases {
        let directory = tempfile::tempdir().unwrap();
        filled(directory.path());
        spoil(directory.path());
        let damage = looked(directory.path(), Depth::Everything).damage;
        assert!(damage.iter().any(|finding| finding.problem.contains(expected)), "{expected}: {damage:?}");
    }
}

#[test]
fn a_cut_at_damage_keeps_what_it_takes_away_and_the_store_opens_again() {
    type Spoil = fn(&Path, u64);
    let cases: [(&str, Spoil); 5] = [
        ("a flipped bit", |root, at| write_at(root, SEGMENT_1, at + 100, &[0xFF; 4])),
        ("zeros", |root, at| write_at(root, SEGMENT_1, at, &[0; 512])),
        ("a missing segment", |root, _| std::fs::remove_file(root.join(SEGMENT_1)).unwrap()),
        ("a short segment", |root, at| {
            std::fs::OpenOptions::new().write(true).open(root.join(SEGMENT_1)).unwrap().set_len(at + 50).unwrap();
        }),
        ("no checkpoint either", |root, at| {
            write_at(root, SEGMENT_1, at + 100, &[0xFF; 4]);
            std::fs::remove_file(root.join("checkpoint")).unwrap();
        }),
    ];
    for (what, spoil) in cases {
        let directory = tempfile::tempdir().unwrap();
        let places = filled(directory.path());
        spoil(directory.path(), places[30] - SEGMENT_BYTES);
        let repair = Repair::lock(&Config::new(directory.path())).unwrap();
        let plan = repair.plan_cut_at_damage(&mut |_, _| {}).unwrap().unwrap();
        let expected = if what == "a missing segment" { SEGMENT_BYTES } else { places[30] };
        assert_eq!(plan.at, expected, "{what}: {:?}", plan.damage);
        let behind = std::fs::read(directory.path().join("commitlog/00000000000000032768")).unwrap();
        let kept = repair.cut(&plan).unwrap();
        drop(repair);
        assert!(kept.iter().map(|path| path.metadata().unwrap().len()).sum::<u64>() == plan.kept_bytes, "{what}");
        let tail = kept.iter().find(|path| path.to_string_lossy().contains("/00000000000000032768-")).unwrap();
        let tail = std::fs::read(tail).unwrap();
        assert!(tail.len() > 1000 && behind[..tail.len()] == tail, "{what}: the tail is kept as it was");

        let mut opened = open_in(directory.path());
        let written = opened.store.watermarks().written.0;
        assert!(written <= plan.at, "{what}: {written}");
        opened.confirm_all();
        let left = opened.consume("T", 0).len() + opened.consume("T", 1).len();
        assert_eq!(left, places.iter().filter(|place| **place < written).count(), "{what}");
        opened.put("T", 0, b"life goes on");
        opened.close();
        assert!(looked(directory.path(), Depth::Everything).damage.is_empty(), "{what}");
    }
}

#[test]
fn a_cut_at_an_offset_must_be_a_records_end_and_below_the_checkpoint_is_fine() {
    let directory = tempfile::tempdir().unwrap();
    let places = filled(directory.path());
    let repair = Repair::lock(&Config::new(directory.path())).unwrap();
    let refused = repair.plan_cut(places[10] + 1);
    assert!(matches!(refused, Err(RepairError::NotABoundary { before, .. }) if before == places[10]));
    assert!(matches!(repair.plan_cut(1 << 40), Err(RepairError::OutOfRange { .. })));
    assert!(repair.plan_cut_at_damage(&mut |_, _| {}).unwrap().is_none());
    let plan = repair.plan_cut(places[10]).unwrap();
    assert_eq!((plan.records, plan.store_ms), (50, Some((1_700_000_000_000, 1_700_000_000_000))));
    repair.cut(&plan).unwrap();
    drop(repair);
    let opened = open_in(directory.path());
    opened.confirm_all();
    assert_eq!(opened.store.watermarks().written.0, places[10]);
    assert_eq!(opened.consume("T", 0).len() + opened.consume("T", 1).len(), 10);
    opened.close();
}

#[test]
fn removed_queues_are_made_again() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path());
    Repair::lock(&Config::new(directory.path())).unwrap().remove_queues().unwrap();
    assert!(!directory.path().join("consumequeue").exists());
    let opened = open_in(directory.path());
    assert_eq!(opened.consume("T", 0).len(), 30);
    opened.close();
}
