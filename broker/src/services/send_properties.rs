//! A producer's message properties: what the broker must know of them, and how they are stored.

use bytes::{BufMut, Bytes, BytesMut};

/// Property names that mean something to the broker (RocketMQ's `MessageConst`).
pub(super) mod key {
    /// The client's own message id
    pub(in crate::services) const UNIQUE_ID: &str = "UNIQ_KEY";
    /// `false`: answer as soon as it is written
    pub(in crate::services) const WAIT: &str = "WAIT";
    /// Delay level
    pub(in crate::services) const DELAY: &str = "DELAY";
    /// Half message of a transaction
    pub(in crate::services) const TRANSACTION: &str = "TRAN_MSG";
    /// The CRC of a record that the message was read from: never another one's
    pub(in crate::services) const RECORD_CRC: &str = gantry_store::record::CRC_KEY;
    /// How many messages the record of a batch holds, and the number of the first: never what a client says
    pub(in crate::services) const INNER_NUM: &str = gantry_store::record::INNER_NUM;
    pub(in crate::services) const INNER_BASE: &str = gantry_store::record::INNER_BASE;
    /// The cluster's name
    pub(in crate::services) const CLUSTER: &str = "CLUSTER";
    /// Where a delayed message really goes
    pub(in crate::services) const REAL_TOPIC: &str = "REAL_TOPIC";
    /// and to which queue
    pub(in crate::services) const REAL_QUEUE: &str = "REAL_QID";
    /// The topic a retried message came from
    pub(in crate::services) const RETRY_TOPIC: &str = "RETRY_TOPIC";
    /// The id of the message that was retried first
    pub(in crate::services) const ORIGIN_MESSAGE_ID: &str = "ORIGIN_MESSAGE_ID";
    /// Delivery at any time, three ways to say it
    pub(in crate::services) const TIMERS: [&str; 3] = ["TIMER_DELAY_SEC", "TIMER_DELAY_MS", "TIMER_DELIVER_MS"];
}

/// What one look at encoded properties found. The texts are borrowed from them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Scan<'a> {
    /// The client's id of the message
    pub(super) unique_id: Option<&'a str>,
    /// `WAIT=false`
    pub(super) no_wait: bool,
    /// `DELAY`, as it is written
    pub(super) delay: Option<&'a str>,
    /// `TRAN_MSG=true`
    pub(super) transaction: bool,
    /// The name of a timer property
    pub(super) timer: Option<&'a str>,
    /// Some property is not stored as it came
    rewrite: bool,
}

impl<'a> Scan<'a> {
    /// Looks through `key 0x01 value 0x02 …` once.
    pub(super) fn of(properties: &'a str) -> Self {
        let mut scan = Self::default();
        for (name, value) in pairs(properties) {
            match name {
                key::UNIQUE_ID => scan.unique_id = Some(value),
                key::WAIT => (scan.no_wait, scan.rewrite) = (value == "false", true),
                key::CLUSTER | key::RECORD_CRC | key::INNER_NUM | key::INNER_BASE => scan.rewrite = true,
                key::DELAY => scan.delay = Some(value),
                key::TRANSACTION => scan.transaction = value.eq_ignore_ascii_case("true"),
                _ if key::TIMERS.contains(&name) => scan.timer = Some(name),
                _ => {}
            }
        }
        scan
    }

    /// The delay level; `None` for none, or one that isn't a number.
    pub(super) fn delay_level(&self) -> Option<i32> {
        self.delay?.parse().ok()
    }
}

/// Writes properties as the log keeps them, into a buffer that many messages share: without `WAIT`, which only meant
/// this broker, without what is of another record (CRC, size of a batch), and with `extra` (`CLUSTER`, or where a delayed message goes) at the end.
pub(super) fn store(properties: &str, scan: &Scan<'_>, extra: &[(&str, &str)], arena: &mut BytesMut) -> Bytes {
    let extra_len: usize = extra.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    arena.reserve(properties.len() + 1 + extra_len);
    if scan.rewrite || extra.len() > 1 {
        let kept = |name: &str| {
            !matches!(name, key::WAIT | key::RECORD_CRC | key::INNER_NUM | key::INNER_BASE)
                && extra.iter().all(|(new, _)| *new != name)
        };
        for (name, value) in pairs(properties).filter(|(name, _)| kept(name)) {
            put(arena, name, value);
        }
    } else {
        arena.put_slice(properties.as_bytes());
        if properties.as_bytes().last().is_some_and(|last| *last != 2) {
            arena.put_u8(2);
        }
    }
    for (name, value) in extra {
        put(arena, name, value);
    }
    arena.split().freeze()
}

fn pairs(properties: &str) -> impl Iterator<Item = (&str, &str)> {
    properties
        .split('\u{2}')
        .filter_map(|pair| pair.split_once('\u{1}'))
        .filter(|(name, value)| !name.is_empty() && !value.is_empty())
}

fn put(out: &mut BytesMut, name: &str, value: &str) {
    out.put_slice(name.as_bytes());
    out.put_u8(1);
    out.put_slice(value.as_bytes());
    out.put_u8(2);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(properties: &str, extra: &[(&str, &str)]) -> String {
        let bytes = store(properties, &Scan::of(properties), extra, &mut BytesMut::new());
        String::from_utf8(bytes.to_vec()).unwrap().replace('\u{1}', "=").replace('\u{2}', ";")
    }

    #[test]
    fn what_the_broker_must_know_is_found_in_one_pass() {
        let scan = Scan::of(
            "UNIQ_KEY\u{1}id\u{2}WAIT\u{1}false\u{2}DELAY\u{1}3\u{2}TRAN_MSG\u{1}true\u{2}TIMER_DELAY_MS\u{1}5",
        );
        assert_eq!((scan.unique_id, scan.no_wait, scan.delay_level()), (Some("id"), true, Some(3)));
        assert_eq!((scan.transaction, scan.timer), (true, Some("TIMER_DELAY_MS")));
        assert_eq!(Scan::of(""), Scan::default());
    }

    #[test]
    fn wait_is_not_stored_and_the_cluster_is_stored_once() {
        let cluster = [(key::CLUSTER, "c")];
        assert_eq!(stored("a\u{1}1\u{2}WAIT\u{1}true\u{2}b\u{1}2", &cluster), "a=1;b=2;CLUSTER=c;");
        assert_eq!(stored("CLUSTER\u{1}x\u{2}a\u{1}1\u{2}", &cluster), "a=1;CLUSTER=c;");
        assert_eq!(stored("a\u{1}1", &cluster), "a=1;CLUSTER=c;");
        assert_eq!(stored("", &cluster), "CLUSTER=c;");
        assert_eq!(stored("__CRC32#\u{1}5842738771\u{2}a\u{1}1\u{2}", &cluster), "a=1;CLUSTER=c;");
    }
}
