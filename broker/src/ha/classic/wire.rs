//! The twelve bytes before each piece of the log, big-endian: its offset (8), its length (4).

use anyhow::{Result, bail};

/// Bytes of a header.
pub(super) const HEADER_BYTES: usize = 12;

/// Apache's slaves hold a piece in a buffer of 4 MiB, with its header.
const MAX_PIECE_BYTES: u32 = 4 << 20;

/// What a master says before a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Where the piece belongs; of a heartbeat: where the next will.
    pub(super) offset: u64,
    /// Its bytes; 0 is a heartbeat.
    pub(super) len: u32,
}

impl Header {
    /// Reads a header; one that no master writes is an error.
    pub(super) fn decode(bytes: [u8; HEADER_BYTES]) -> Result<Self> {
        let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |number, &byte| number << 8 | u64::from(byte));
        let (offset, len) = (number(&bytes[..8]), number(&bytes[8..]) as u32);
        if i64::try_from(offset).is_err() || len > MAX_PIECE_BYTES {
            bail!("it announces {len} bytes at {offset}: that is not RocketMQ's HA protocol");
        }
        Ok(Self { offset, len })
    }

    /// Writes a header.
    pub(super) fn encode(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&self.offset.to_be_bytes());
        bytes[8..].copy_from_slice(&self.len.to_be_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_header_reads_back(offset in 0..=i64::MAX as u64, len in 0..=MAX_PIECE_BYTES) {
            let header = Header { offset, len };
            prop_assert_eq!(Header::decode(header.encode()).unwrap(), header);
        }

        #[test]
        fn other_protocols_are_told_apart(bytes: [u8; HEADER_BYTES]) {
            if let Ok(header) = Header::decode(bytes) {
                prop_assert_eq!(header.encode(), bytes);
            }
        }
    }

    #[test]
    fn gantrys_own_frames_are_no_headers() {
        Header::decode(*b"G\x01\x06\0\0\0\0\x20{\"re").unwrap_err();
    }
}
