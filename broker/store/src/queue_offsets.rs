//! Which number the next message of each queue gets.
//!
//! It counts all that is *written*, dispatched or not, whoever wrote it: fed by append, raw append, recovery and
//! truncation. So a slave that becomes master goes on exactly where the log ends: never two messages at one
//! (queue, offset).

use std::collections::HashMap;
use std::sync::Arc;

use crate::queues::{Step, step};
use crate::record::{RecordView, has_queue_offset};

#[derive(Debug, Default)]
pub(crate) struct QueueOffsets {
    next: HashMap<Arc<str>, HashMap<u32, u64>>,
}

impl QueueOffsets {
    pub(crate) fn next(&self, topic: &str, queue_id: u32) -> u64 {
        self.next.get(topic).and_then(|queues| queues.get(&queue_id)).copied().unwrap_or(0)
    }

    /// Gives the next `count` numbers away; answers the first.
    pub(crate) fn assign(&mut self, topic: &Arc<str>, queue_id: u32, count: u16) -> u64 {
        let next = match self.next.get_mut(topic) {
            Some(queues) => queues.entry(queue_id).or_insert(0),
            None => self.next.entry(Arc::clone(topic)).or_default().entry(queue_id).or_insert(0),
        };
        let first = *next;
        *next += u64::from(count);
        first
    }

    /// What the consume queue says at open.
    pub(crate) fn set(&mut self, topic: &str, queue_id: u32, next: u64) {
        self.queues(topic).insert(queue_id, next);
    }

    /// A record is in the log; whether the numbers before it are missing.
    pub(crate) fn observe(&mut self, record: &RecordView<'_>) -> bool {
        if !has_queue_offset(record.sys_flag) {
            return false;
        }
        let offset = record.queue_offset.0;
        let next = self.queues(record.topic).entry(record.queue_id).or_insert(0);
        let step = step(*next, *next == 0, offset);
        if !matches!(step, Step::Repeated | Step::Implausible) {
            *next = record.next_offset().0;
        }
        step == Step::Gap
    }

    /// Topic, queue and next number of all queues.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, u32, u64)> {
        self.next.iter().flat_map(|(topic, queues)| queues.iter().map(move |(id, next)| (&**topic, *id, *next)))
    }

    /// A record is no longer in the log.
    pub(crate) fn take_back(&mut self, record: &RecordView<'_>) {
        if has_queue_offset(record.sys_flag) {
            let next = self.queues(record.topic).entry(record.queue_id).or_insert(0);
            *next = (*next).min(record.queue_offset.0);
        }
    }

    /// The log is empty and begins elsewhere.
    pub(crate) fn clear(&mut self) {
        self.next.clear();
    }

    fn queues(&mut self, topic: &str) -> &mut HashMap<u32, u64> {
        if !self.next.contains_key(topic) {
            self.next.insert(Arc::from(topic), HashMap::new());
        }
        self.next.get_mut(topic).unwrap_or_else(|| unreachable!("just inserted"))
    }
}
