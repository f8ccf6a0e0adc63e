//! What the fuzz targets (`broker/store/fuzz`) do with bytes, and a bounded run of it for ordinary tests: whatever the bytes
//! are, decoding doesn't panic, and what is decoded encodes to the same bytes again.

use crate::properties::{self, Builder, PROPERTY_SEPARATOR, is_encodable};
use crate::queues::Layout;
use crate::record::{self, Checked, MAGIC_V2, MAX_TOPIC_BYTES_V1, Placement, RecordCrc, RecordView};
use crate::{NewMessage, PhysicalOffset};

/// Takes `bytes` for a record, and for the beginning of a segment.
pub fn record(bytes: &[u8]) {
    if let Ok(record) = record::decode(bytes) {
        let size = record.size as usize;
        assert!(size <= bytes.len(), "a record of {size} in {} bytes", bytes.len());
        let whole = record::check(bytes, record.physical, u64::MAX, true);
        if let Ok(Checked::Record(record)) = whole
            && is_canonical(&bytes[..size], &record)
        {
            let mut encoded = Vec::new();
            let placement = Placement {
                queue_offset: record.queue_offset,
                physical: record.physical,
                store_timestamp_ms: record.store_timestamp_ms,
            };
            record::encode(&message(&record), placement, record.crc != RecordCrc::None, &mut encoded);
            assert_eq!(encoded, &bytes[..size], "{record:?}");
        }
        properties(record.properties);
    }
    segment(bytes);
}

/// Takes `bytes` for encoded properties.
pub fn properties(bytes: &[u8]) {
    let pairs: Vec<_> = properties::iter(bytes).collect();
    let mut builder = Builder::new();
    for (key, value) in &pairs {
        assert_eq!(properties::get(bytes, key), pairs.iter().rfind(|(name, _)| name == key).map(|(_, value)| *value));
        if is_encodable(value) {
            builder.push(key, value);
        }
    }
    let built = builder.build();
    assert!(properties::iter(&built).eq(pairs.iter().copied().filter(|(_, value)| is_encodable(value))));

    let mut builder = Builder::from_encoded(bytes);
    builder.set("k", "v");
    let set = builder.build();
    assert_eq!(properties::get(&set, "k"), Some("v"));
    assert!(properties::iter(&set).filter(|(key, _)| *key != "k").eq(pairs.into_iter().filter(|(key, _)| *key != "k")));
}

/// Takes `bytes` for a consume queue's units.
pub fn queue_units(bytes: &[u8]) {
    for layout in Layout::ALL {
        let mut count = 0;
        for (unit, encoded) in layout.decode_all(0, bytes).zip(bytes.chunks(layout.unit_bytes())) {
            let mut again = Vec::new();
            layout.put(unit, &mut again);
            // What batch units end with is always the same.
            let kept = encoded.len().min(38);
            assert_eq!(again[..kept], encoded[..kept]);
            assert!(unit.end() >= unit.physical && unit.next() >= unit.first);
            assert!(!layout.is_blank(unit) || !layout.is_empty(unit));
            count += 1;
        }
        assert_eq!(count, bytes.len() / layout.unit_bytes());
    }
}

/// Goes from record to record as recovery does.
fn segment(bytes: &[u8]) {
    let mut at = 0;
    while at < bytes.len() {
        let room = (bytes.len() - at) as u64;
        match record::check(&bytes[at..], PhysicalOffset(at as u64), room, true) {
            Ok(Checked::Record(record)) => at += record.size as usize,
            Ok(Checked::Blank(size)) => at += size as usize,
            Err(_) => return,
        }
    }
    assert_eq!(at, bytes.len(), "no record is longer than its segment");
}

/// Whether a record was written as Gantry would: the layout that its topic's length asks for, the body's CRC right (where
/// the record has its own, nobody looks at that one), and a separator before the CRC property.
fn is_canonical(bytes: &[u8], record: &RecordView<'_>) -> bool {
    let is_v2 = bytes[4..8] == MAGIC_V2.to_be_bytes();
    let separated = record.properties.last().is_none_or(|last| *last == PROPERTY_SEPARATOR);
    is_v2 == (record.topic.len() > MAX_TOPIC_BYTES_V1)
        && record.body_crc == crc32fast::hash(record.body) & 0x7FFF_FFFF
        && (record.crc == RecordCrc::None || separated)
}

fn message(record: &RecordView<'_>) -> NewMessage {
    NewMessage {
        topic: record.topic.into(),
        queue_id: record.queue_id,
        flag: record.flag,
        sys_flag: record.sys_flag,
        born_timestamp_ms: record.born_timestamp_ms,
        born_host: record.born_host,
        store_host: record.store_host,
        reconsume_times: record.reconsume_times,
        prepared_offset: record.prepared_offset,
        body: record.body.to_vec().into(),
        properties: record.properties.to_vec().into(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// Mutations of each file of the corpus.
    const MUTATIONS: u64 = 20_000;

    /// The target's corpus, by file name.
    fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let entries = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = entries.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
        files.sort();
        assert!(files.len() > 1, "{} has its seeds", directory.display());
        files
    }

    /// A small generator: the same seed, the same numbers.
    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 11) as usize % limit.max(1)
        }
    }

    fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
        const TELLING: [u8; 8] = [0, 1, 2, 0x10, 0x7F, 0x80, 0xFE, 0xFF];
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len());
            match random.below(6) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
                1 if !bytes.is_empty() => bytes[at] = TELLING[random.below(TELLING.len())],
                2 => bytes.truncate(at),
                3 => bytes.insert(at.min(bytes.len()), random.below(256) as u8),
                4 if !bytes.is_empty() => _ = bytes.remove(at),
                _ => {
                    let again = bytes[at.min(bytes.len())..].to_vec();
                    bytes.extend_from_slice(&again[..again.len().min(64)]);
                }
            }
        }
    }

    fn run(target: &str, seed: u64, judge: fn(&[u8])) {
        for (path, original) in corpus(target) {
            judge(&original);
            for number in 0..MUTATIONS {
                let mut bytes = original.clone();
                mutate(&mut bytes, &mut Random((seed + number).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1));
                let judged = std::panic::catch_unwind(|| judge(&bytes));
                assert!(judged.is_ok(), "{} mutated with seed {}: {bytes:02x?}", path.display(), seed + number);
            }
        }
    }

    #[test]
    fn records_of_the_corpus_and_mutations_of_them() {
        run("record", 1, record);
    }

    #[test]
    fn properties_of_the_corpus_and_mutations_of_them() {
        run("properties", 1_000_000, properties);
    }

    #[test]
    fn queue_units_of_the_corpus_and_mutations_of_them() {
        run("queue_units", 2_000_000, queue_units);
    }

    #[test]
    fn the_corpus_holds_records_that_are_whole_and_encode_to_themselves() {
        let whole = corpus("record").into_iter().filter(|(_, bytes)| {
            record::decode(bytes).is_ok_and(|record| {
                let checked = record::check(bytes, record.physical, u64::MAX, true);
                checked.is_ok() && is_canonical(&bytes[..record.size as usize], &record)
            })
        });
        assert!(whole.count() >= 4);
    }
}
