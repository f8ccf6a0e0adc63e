//! Finding messages by key.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::read_log::record_at;
use crate::index::{has_key, key_hash};
use crate::shared::Shared;
use crate::{PhysicalOffset, Query, QueryResult, ReadError, record};

pub(super) fn query(shared: &Shared, query: &Query<'_>) -> Result<QueryResult, ReadError> {
    let mut found: Vec<Bytes> = Vec::new();
    let mut last = None;
    let mut visit = |physical: u64| {
        // A message can have one key twice; its entries follow each other.
        if last.replace(physical) != Some(physical) {
            found.extend(matching(shared, physical, query));
        }
        if found.len() < query.max_count { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    let newest = shared.index.newest();
    if query.max_count > 0 {
        let between = (query.begin_ms, query.end_ms);
        let searched = shared.index.find(key_hash(query.topic, query.key), between, &mut visit);
        searched.map_err(|(path, source)| ReadError::Io { path, source })?;
    }
    Ok(QueryResult { records: found, newest_ms: newest.timestamp_ms, newest_physical: PhysicalOffset(newest.physical) })
}

/// The record at a place that the index names, if it is one that was asked for: the log may have lost it, and two keys may
/// have one hash.
fn matching(shared: &Shared, physical: u64, query: &Query<'_>) -> Option<Bytes> {
    let bytes = record_at(shared, PhysicalOffset(physical))?;
    let record = record::decode(&bytes).ok()?;
    let asked = (query.begin_ms..=query.end_ms).contains(&record.store_timestamp_ms)
        && record.topic == query.topic
        && has_key(&record, query.key);
    asked.then(|| bytes.clone())
}
