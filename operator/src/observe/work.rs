//! Reconciles that are under way, and those that are due: what is only seen while nothing comes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A group that there is: its id, and the generation of its spec.
pub(crate) type Known = (String, i64);

#[derive(Debug, Default)]
pub(super) struct Work {
    /// By the group's id.
    groups: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    /// That was looked at last.
    generation: i64,
    running_since: Option<Instant>,
    due: Option<Instant>,
}

impl Work {
    pub(super) fn began(&mut self, id: &str, generation: i64, now: Instant) {
        let entry = Entry { generation, running_since: Some(now), due: None };
        self.groups.insert(id.to_owned(), entry);
    }

    /// And is to be looked at again after a while, or nobody knows when.
    pub(super) fn ended(&mut self, id: &str, again: Option<Instant>) {
        if let Some(entry) = self.groups.get_mut(id) {
            (entry.running_since, entry.due) = (None, again);
        }
    }

    pub(super) fn forget(&mut self, id: &str) {
        self.groups.remove(id);
    }

    pub(super) fn clear(&mut self) {
        self.groups.clear();
    }

    pub(super) fn in_progress(&self) -> usize {
        self.groups.values().filter(|entry| entry.running_since.is_some()).count()
    }

    /// Age of the oldest that is under way.
    pub(super) fn oldest(&self, now: Instant) -> Duration {
        let since = self.groups.values().filter_map(|entry| entry.running_since).min();
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// How many of the groups that there are should be reconciled by now and aren't.
    pub(super) fn waiting(&self, known: &[Known], now: Instant) -> usize {
        let waits = |(id, generation): &&Known| match self.groups.get(id) {
            None => true,
            Some(entry) if entry.running_since.is_some() => false,
            Some(entry) => entry.generation != *generation || entry.due.is_some_and(|due| due <= now),
        };
        known.iter().filter(waits).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_waits_when_it_is_new_or_changed_or_overdue_and_not_while_it_is_reconciled() {
        let (mut work, start) = (Work::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let known = |generation| [("shop/a".to_owned(), generation)];
        assert_eq!(work.waiting(&known(1), at(0)), 1, "nobody has looked at it yet");
        work.began("shop/a", 1, at(1));
        assert_eq!((work.waiting(&known(2), at(2)), work.in_progress()), (0, 1));
        assert_eq!(work.oldest(at(31)), Duration::from_secs(30));
        work.ended("shop/a", Some(at(42)));
        assert_eq!((work.in_progress(), work.oldest(at(33))), (0, Duration::ZERO));
        assert_eq!(work.waiting(&known(1), at(41)), 0);
        assert_eq!(work.waiting(&known(2), at(41)), 1, "its spec has changed");
        assert_eq!(work.waiting(&known(1), at(42)), 1, "its time has come");
        work.forget("shop/a");
        assert_eq!(work.waiting(&[], at(43)), 0);
    }
}
