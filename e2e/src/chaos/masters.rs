//! Never two masters that both acknowledge: judged by what acknowledgements say, and by the replicas' tables of epochs.
//!
//! An acknowledgement carries the message's offset id: the address of the replica that appended it, and where in the log.
//! The table epoch → start offset says in which epoch that place was written. So
//! - all acknowledgements of an epoch come from one replica, and
//! - once an acknowledgement of an epoch has arrived, no send that begins later is acknowledged in an older one.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::history::Event;

/// One line of a replica's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct EpochStart {
    epoch: u64,
    start: u64,
}

#[derive(Deserialize)]
struct ReplicaFile {
    epochs: Vec<EpochStart>,
}

/// A replica's table, from its store directory.
pub(super) fn epochs(store: &Path) -> anyhow::Result<Vec<EpochStart>> {
    let path = store.join("replica.json");
    let bytes = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let file: ReplicaFile = serde_json::from_slice(&bytes).with_context(|| format!("reading {}", path.display()))?;
    Ok(file.epochs)
}

#[derive(Clone, Copy, Debug)]
struct Ack<'a> {
    id: &'a str,
    started_us: i64,
    ended_us: i64,
    replica: Ipv4Addr,
    offset: u64,
    epoch: u64,
}

impl fmt::Display for Ack<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, started_us, ended_us, replica, offset, epoch } = self;
        write!(
            f,
            "{id}, sent at {started_us} us, acknowledged at {ended_us} us by {replica} in epoch {epoch}, offset {offset}"
        )
    }
}

/// Judges a history against the table. Returns each acknowledged message with its place in the log; what is wrong is an
/// error.
pub(super) fn judge<'a>(events: &'a [Event], epochs: &[EpochStart]) -> anyhow::Result<Vec<(&'a str, u64)>> {
    let mut acks = attribute(events, epochs)?;
    one_replica_an_epoch(&acks)?;
    no_older_epoch_later(&mut acks)?;
    Ok(acks.iter().map(|ack| (ack.id, ack.offset)).collect())
}

fn attribute<'a>(events: &'a [Event], epochs: &[EpochStart]) -> anyhow::Result<Vec<Ack<'a>>> {
    let mut started: HashMap<(&str, u32), i64> = HashMap::new();
    let mut acks = Vec::new();
    for event in events {
        match event {
            Event::Start { id, attempt, t, .. } => {
                started.insert((id, *attempt), *t);
            }
            Event::End { id, attempt, status, offset_msg_id, t, .. } if status == "OK" => {
                let place = offset_msg_id.as_deref().and_then(parse);
                let (replica, offset) =
                    place.with_context(|| format!("{id} was acknowledged without its place: {offset_msg_id:?}"))?;
                let line = epochs.partition_point(|line| line.start <= offset);
                let Some(line) = line.checked_sub(1) else { bail!("{id} lies at {offset}, before all epochs") };
                let started_us = started.get(&(id.as_str(), *attempt)).copied().unwrap_or(*t);
                acks.push(Ack { id, started_us, ended_us: *t, replica, offset, epoch: epochs[line].epoch });
            }
            _ => {}
        }
    }
    Ok(acks)
}

/// Address, port and physical offset in hexadecimal: 4, 4 and 8 bytes.
fn parse(id: &str) -> Option<(Ipv4Addr, u64)> {
    if id.len() != 32 || !id.is_ascii() {
        return None;
    }
    let address = u32::from_str_radix(&id[..8], 16).ok()?;
    Some((Ipv4Addr::from(address), u64::from_str_radix(&id[16..], 16).ok()?))
}

fn one_replica_an_epoch(acks: &[Ack]) -> anyhow::Result<()> {
    let mut masters: BTreeMap<u64, &Ack> = BTreeMap::new();
    for ack in acks {
        let first = masters.entry(ack.epoch).or_insert(ack);
        if first.replica != ack.replica {
            bail!("two replicas acknowledged in epoch {}: {first} and {ack}", ack.epoch);
        }
    }
    Ok(())
}

fn no_older_epoch_later(acks: &mut [Ack]) -> anyhow::Result<()> {
    let mut ended = acks.to_vec();
    ended.sort_unstable_by_key(|ack| ack.ended_us);
    acks.sort_unstable_by_key(|ack| ack.started_us);
    let mut ended = ended.iter().peekable();
    let mut newest: Option<&Ack> = None;
    for ack in &*acks {
        while let Some(before) = ended.next_if(|before| before.ended_us < ack.started_us) {
            if newest.is_none_or(|newest| newest.epoch < before.epoch) {
                newest = Some(before);
            }
        }
        if let Some(newest) = newest.filter(|newest| newest.epoch > ack.epoch) {
            bail!("two masters acknowledged: {newest}, and of a send that began after that, {ack}");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCHS: [EpochStart; 3] =
        [EpochStart { epoch: 1, start: 0 }, EpochStart { epoch: 4, start: 100 }, EpochStart { epoch: 5, start: 200 }];

    fn ack(replica: u8, offset: u64, started_us: i64, ended_us: i64) -> [Event; 2] {
        let id = format!("p-{started_us}");
        let start = Event::Start { id: id.clone(), attempt: 1, tag: None, t: started_us };
        let place = format!("0A6300{replica:02X}00002A9F{offset:016X}");
        let end = Event::End {
            id,
            attempt: 1,
            status: "OK".into(),
            queue: Some(0),
            offset: Some(1),
            offset_msg_id: Some(place),
            t: ended_us,
        };
        [start, end]
    }

    #[test]
    fn epochs_that_follow_each_other_are_fine_also_where_answers_cross() {
        let events = [ack(10, 10, 1, 2), ack(10, 99, 3, 9), ack(11, 100, 4, 6), ack(10, 200, 7, 8)].concat();
        assert_eq!(judge(&events, &EPOCHS).unwrap().len(), 4);
    }

    #[test]
    fn an_old_master_that_acknowledges_after_the_new_one_is_found() {
        let events = [ack(11, 150, 1, 2), ack(10, 99, 3, 4)].concat();
        let error = judge(&events, &EPOCHS).unwrap_err().to_string();
        assert!(error.starts_with("two masters acknowledged"), "{error}");
    }

    #[test]
    fn two_replicas_that_acknowledge_in_one_epoch_are_found() {
        let events = [ack(10, 150, 1, 2), ack(11, 160, 3, 4)].concat();
        let error = judge(&events, &EPOCHS).unwrap_err().to_string();
        assert!(error.starts_with("two replicas acknowledged in epoch 4"), "{error}");
    }

    #[test]
    fn an_acknowledgement_that_does_not_say_where_is_an_error() {
        let mut events = ack(10, 150, 1, 2);
        if let Event::End { offset_msg_id, .. } = &mut events[1] {
            *offset_msg_id = None;
        }
        assert!(judge(&events, &EPOCHS).is_err());
    }
}
