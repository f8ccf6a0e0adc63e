//! Whole records out of pieces that are cut anywhere.

use bytes::{Bytes, BytesMut};
use gantry_store::record::{self, Checked, MAGIC_BLANK, MAGIC_V1, MAGIC_V2, Reason};
use gantry_store::{Damage, PhysicalOffset};

/// Above any record, and any blank at a segment's end.
const MAX_RECORD_BYTES: usize = 32 << 20;
const HEAD_BYTES: usize = 8;

/// The log's bytes from a record's beginning on, as far as they have come.
pub(super) struct Assembler {
    /// Where `buffer` begins in the log.
    at: u64,
    buffer: BytesMut,
    segment_bytes: u64,
}

impl Assembler {
    /// Begins at `at`, where a record does.
    pub(super) fn new(at: u64, segment_bytes: u64) -> Self {
        Self { at, buffer: BytesMut::new(), segment_bytes }
    }

    /// The next piece.
    pub(super) fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// All whole records there are, up to a segment's end, and where they begin; none if there is none. Each is checked,
    /// its body's CRC too: nothing on the way here did.
    pub(super) fn take(&mut self) -> Result<Option<(u64, Bytes)>, Damage> {
        let segment_end = self.at - self.at % self.segment_bytes + self.segment_bytes;
        let mut len = 0;
        while self.at + (len as u64) < segment_end {
            let at = PhysicalOffset(self.at + len as u64);
            let Some(bytes) = self.whole(len).map_err(|reason| Damage { at, reason })? else { break };
            let room = segment_end - at.0;
            let size = match record::check(bytes, at, room, true).map_err(|reason| Damage { at, reason })? {
                Checked::Record(record) => record.size,
                Checked::Blank(size) => size,
            };
            len += size as usize;
        }
        if len == 0 {
            return Ok(None);
        }
        let from = self.at;
        self.at += len as u64;
        Ok(Some((from, self.buffer.split_to(len).freeze())))
    }

    /// The record that begins `from` bytes into the buffer, once all of it is there.
    fn whole(&self, from: usize) -> Result<Option<&[u8]>, Reason> {
        let rest = &self.buffer[from..];
        let Some(head) = rest.first_chunk::<HEAD_BYTES>() else { return Ok(None) };
        let [size, magic] = [0, 4].map(|at| head[at..at + 4].iter().fold(0_u32, |n, &byte| n << 8 | u32::from(byte)));
        match magic {
            MAGIC_V1 | MAGIC_V2 | MAGIC_BLANK => {}
            0 if size == 0 => return Err(Reason::Zeros),
            other => return Err(Reason::Magic(other)),
        }
        let size = size as usize;
        if !(HEAD_BYTES..=MAX_RECORD_BYTES).contains(&size) {
            return Err(Reason::Structure("size"));
        }
        Ok(rest.get(..size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_store::record::{Placement, encode, put_blank};
    use gantry_store::{NewMessage, QueueOffset};
    use proptest::prelude::*;
    use std::net::SocketAddr;

    const SEGMENT: u64 = 4096;

    /// A log of messages of these body lengths, segments ended by blanks as they should be.
    fn log(start: u64, bodies: &[usize]) -> Vec<u8> {
        let host = SocketAddr::from(([127, 0, 0, 1], 1));
        let mut log = Vec::new();
        for (number, &body) in bodies.iter().enumerate() {
            let message = NewMessage {
                topic: "t".into(),
                queue_id: 0,
                flag: 0,
                sys_flag: 0,
                born_timestamp_ms: 1,
                born_host: host,
                store_host: host,
                reconsume_times: 0,
                prepared_offset: 0,
                body: vec![7; body].into(),
                properties: Bytes::new(),
            };
            let room = SEGMENT - (start + log.len() as u64) % SEGMENT;
            if record::encoded_len(&message, false) + 8 > room {
                let end = log.len() + room as usize;
                put_blank(room as u32, &mut log);
                // What lies behind a blank's head is whatever the file held.
                log.resize(end, 0xEE);
            }
            let placement = Placement {
                queue_offset: QueueOffset(number as u64),
                physical: PhysicalOffset(start + log.len() as u64),
                store_timestamp_ms: 2,
            };
            encode(&message, placement, false, &mut log);
        }
        log
    }

    fn assemble(start: u64, log: &[u8], pieces: &[usize]) -> Result<Vec<(u64, Bytes)>, Damage> {
        let mut assembler = Assembler::new(start, SEGMENT);
        let (mut rest, mut taken) = (log, Vec::new());
        for &piece in pieces.iter().cycle() {
            if rest.is_empty() {
                return Ok(taken);
            }
            let (now, later) = rest.split_at(piece.min(rest.len()));
            rest = later;
            assembler.push(now);
            while let Some(records) = assembler.take()? {
                taken.push(records);
            }
        }
        Ok(taken)
    }

    proptest! {
        #[test]
        fn however_it_is_cut_the_log_comes_out_in_whole_records_within_segments(
            bodies in prop::collection::vec(0_usize..2000, 1..30),
            pieces in prop::collection::vec(1_usize..5000, 1..10),
            skipped in 0_u64..4,
        ) {
            let start = skipped * SEGMENT;
            let log = log(start, &bodies);
            let taken = assemble(start, &log, &pieces).unwrap();
            let mut end = start;
            for (from, bytes) in &taken {
                prop_assert_eq!(*from, end);
                end += bytes.len() as u64;
                prop_assert_eq!(from / SEGMENT, (end - 1) / SEGMENT, "within one segment");
            }
            prop_assert_eq!(taken.iter().flat_map(|(_, bytes)| bytes.to_vec()).collect::<Vec<_>>(), log);
        }
    }

    #[test]
    fn a_flipped_bit_in_a_body_is_found() {
        let mut log = log(0, &[300]);
        log[200] ^= 1;
        let damage = assemble(0, &log, &[64]).unwrap_err();
        assert!(matches!(damage.reason, Reason::BodyCrc { .. }), "{damage}");
    }

    #[test]
    fn a_master_with_other_segments_is_found_at_its_first_blank() {
        let log = log(0, &[1000; 5]);
        let mut assembler = Assembler::new(0, 2 * SEGMENT);
        assembler.push(&log);
        let damage = loop {
            match assembler.take() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("not found"),
                Err(damage) => break damage,
            }
        };
        assert!(matches!(damage.reason, Reason::Room { .. }), "{damage}");
    }
}
