//! What must be there.

use std::path::Path;

use gantry_store::{ReadError, ReadLog, Store, record};

use super::workload::{Driven, Message, Model, QUEUES, Stopped};
use crate::common::*;
use crate::crash_fs::CrashFs;

/// The store opens again and has what it must; life goes on; and what it then says to be flushed survives another power
/// loss: pages that a failed sync marked as clean don't count.
pub(super) fn after(fs: &CrashFs, root: &Path, model: &mut Model, random: &mut Random) {
    let reopen = |model: &mut Model| -> Result<Driven, Stopped> {
        let mut driven = Driven::open(fs, root)?;
        check(&driven, model)?;
        driven.dispatch(model)?;
        check_queues(&driven, model);
        Ok(driven)
    };
    let mut all = |model: &mut Model| -> Result<(), Stopped> {
        let mut driven = reopen(model)?;
        driven.append(model, &[700, 300])?;
        driven.settle(model)?;
        drop(driven);
        fs.lose_power(random);
        model.power_lost = true;
        reopen(model)?.close(model)
    };
    let done = all(model);
    assert!(done.is_ok(), "{}: doesn't go on: {done:?}", model.what);
}

/// Holds the log against the model, which then is what was found. Only a failing disk keeps it from that.
pub(super) fn check(driven: &Driven, model: &mut Model) -> Result<(), Stopped> {
    let store = &driven.opened.store;
    let oldest = store.min_offset().0;
    assert!((model.oldest..=model.deletable.max(model.oldest)).contains(&oldest), "{}: begins at {oldest}", model.what);
    model.oldest = oldest;
    model.log.retain(|message| message.at >= oldest);
    let found = messages(store)?;
    let expected: Vec<&Message> = model.log.iter().chain(&model.maybe).collect();
    assert!(found.len() <= expected.len(), "{}: {} messages of {}", model.what, found.len(), expected.len());
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let same = found.queue == expected.queue && found.body == expected.body;
        assert!(same && (index >= model.log.len() || found == expected), "{}: message {index} differs", model.what);
    }
    let floor = if model.power_lost { model.flushed_count() } else { model.log.len() };
    let cut = model.cut == Some(found.len());
    assert!(found.len() >= floor || cut, "{}: {} messages are there, {floor} must be", model.what, found.len());
    if let Some(keep) = model.cut {
        assert!(found.len() >= keep, "{}: {} messages after a cut to {keep}", model.what, found.len());
    }
    *model = Model { log: found, maybe: Vec::new(), cut: None, power_lost: false, ..std::mem::take(model) };
    Ok(())
}

fn check_queues(driven: &Driven, model: &Model) {
    driven.opened.assert_all_are_found_by_key();
    for queue in 0..QUEUES {
        let expected: Vec<_> = model.log.iter().filter(|message| message.queue == queue).collect();
        let expected: Vec<_> = expected.into_iter().map(|message| (message.number, message.body.clone())).collect();
        let found = driven.opened.consume("T", queue);
        assert!(found == expected, "{}: queue {queue} has {} of {}", model.what, found.len(), expected.len());
    }
}

/// The whole log, message by message.
fn messages(store: &Store) -> Result<Vec<Message>, Stopped> {
    let mut found = Vec::new();
    let mut from = store.min_offset();
    let stopped = |error: ReadError| Stopped(error.to_string());
    while let ReadLog::Bytes { bytes, next } = store.read_log(from, 0).map_err(stopped)? {
        // One record, or the blank.
        if let Ok(record) = record::decode(&bytes) {
            assert_eq!(record.physical, from);
            found.push(Message {
                queue: record.queue_id,
                number: record.queue_offset.0,
                count: record.count(),
                at: from.0,
                end: next.0,
                body: record.body.to_vec(),
            });
        }
        from = next;
    }
    Ok(found)
}
