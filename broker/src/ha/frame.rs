//! Gantry's HA frames.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | `G`: no offset of the classic HA protocol begins so, which tells the two apart |
//! | 1 | protocol version, 2 |
//! | 1 | kind |
//! | 1 | zero |
//! | 4 | length of what follows, big-endian, at most [`MAX_PAYLOAD_BYTES`] |
//!
//! `Hello`, `Welcome` and `Fenced` carry JSON; `Append`, `Ack` and `Heartbeat` fixed fields, big-endian. An append's bytes
//! are records as they lie in the file, with their CRC32C. What the master sends carries its pulse, whose time is echoed.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use gantry_replication::epochs::EpochTable;
use gantry_replication::handshake::Welcome;
use gantry_replication::{Epoch, Member, Millis};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::core::Pulse;

/// The first byte of every frame.
pub(super) const MAGIC: u8 = b'G';
const VERSION: u8 = 2;
const HEAD_BYTES: usize = 8;
/// Above any record, and any blank at a segment's end.
pub(super) const MAX_PAYLOAD_BYTES: u32 = 16 << 20;
/// Of a hello, which comes from anybody: room for an epoch table of ten thousand failovers.
pub(super) const MAX_HELLO_BYTES: u32 = 1 << 20;
/// Of an acknowledgement.
pub(super) const MAX_ACK_BYTES: u32 = 32;
const APPEND_HEAD_BYTES: usize = 53;
const HEARTBEAT_BYTES: usize = 25;
const SNAPSHOT_HEAD_BYTES: usize = 12;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Hello(Hello),
    Welcome(Welcome),
    Snapshot(Snapshot),
    Append(Append),
    Ack(Ack),
    Heartbeat { session: Epoch, confirm: u64, pulse: Pulse },
    Fenced(Fenced),
}

/// A slave opens a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Hello {
    pub(super) group: String,
    pub(super) token: String,
    pub(super) member: Member,
    pub(super) promised: Epoch,
    pub(super) epochs: EpochTable,
    /// Its log's oldest byte.
    pub(super) begin: u64,
    /// The end of its log.
    pub(super) end: u64,
    /// Drawn when its process began: two lives that show one store at once are a store and its copy.
    pub(super) life: u64,
}

/// The master doesn't take it, or ends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fenced {
    pub(super) reason: String,
}

/// Part of what a log's beginning no longer tells, sent after a welcome that says `anew`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    /// The whole snapshot's bytes.
    pub(super) total: u64,
    /// Never empty but in an empty snapshot.
    pub(super) bytes: Bytes,
}

/// A piece of the log, of one epoch and one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Append {
    pub(super) session: Epoch,
    /// The epoch that wrote the bytes, and where it began.
    pub(super) written_in: (Epoch, u64),
    pub(super) from: u64,
    pub(super) confirm: u64,
    pub(super) pulse: Pulse,
    /// CRC32C of the bytes.
    pub(super) crc: u32,
    pub(super) bytes: Bytes,
}

/// Everything up to here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ack {
    pub(super) session: Epoch,
    pub(super) written: u64,
    pub(super) flushed: u64,
    /// The time in the last [`Pulse`] that came: whoever knows it lived then or later. 0: none came yet.
    pub(super) echo: Millis,
}

/// Bytes that are no frame, or a peer that ended or failed.
#[derive(Debug, Error)]
pub(super) enum FrameError {
    #[error("not Gantry's HA protocol: the first byte is {0:#04x}; is this a replica of a Gantry group?")]
    Foreign(u8),
    #[error("HA protocol version {0}; this side speaks {VERSION}: upgrade the older of the two")]
    Version(u8),
    #[error("frame of unknown kind {0}")]
    Kind(u8),
    #[error("frame of {bytes} bytes is over the limit of {limit}")]
    TooLarge { bytes: u32, limit: u32 },
    #[error("frame of kind {kind} has {bytes} bytes, which can't be")]
    Length { kind: u8, bytes: usize },
    #[error("piece of the log at {from}: CRC32C {computed:#010x} instead of {told:#010x}; damaged on its way")]
    Crc { from: u64, told: u32, computed: u32 },
    #[error("unreadable: {0}")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Frame {
    fn kind(&self) -> u8 {
        match self {
            Self::Hello(_) => 1,
            Self::Welcome(_) => 2,
            Self::Append(_) => 3,
            Self::Ack(_) => 4,
            Self::Heartbeat { .. } => 5,
            Self::Fenced(_) => 6,
            Self::Snapshot(_) => 7,
        }
    }

    /// The frame as it goes on the wire, but for an append's bytes, which follow as they are: they are the log's own pages.
    pub(super) fn encode(&self) -> Result<(BytesMut, Bytes), FrameError> {
        let mut payload = BytesMut::with_capacity(HEAD_BYTES + APPEND_HEAD_BYTES);
        payload.put_slice(&[MAGIC, VERSION, self.kind(), 0, 0, 0, 0, 0]);
        let mut tail = Bytes::new();
        match self {
            Self::Hello(hello) => payload.extend_from_slice(&serde_json::to_vec(hello)?),
            Self::Welcome(welcome) => payload.extend_from_slice(&serde_json::to_vec(welcome)?),
            Self::Fenced(fenced) => payload.extend_from_slice(&serde_json::to_vec(fenced)?),
            Self::Append(append) => {
                put_all(
                    &mut payload,
                    [append.session.0, append.written_in.0.0, append.written_in.1, append.from, append.confirm],
                );
                put_pulse(&mut payload, append.pulse);
                payload.put_u32(append.crc);
                tail = append.bytes.clone();
            }
            Self::Snapshot(snapshot) => {
                payload.put_u64(snapshot.total);
                payload.put_u32(crc32c::crc32c(&snapshot.bytes));
                tail = snapshot.bytes.clone();
            }
            Self::Ack(ack) => put_all(&mut payload, [ack.session.0, ack.written, ack.flushed, ack.echo]),
            Self::Heartbeat { session, confirm, pulse } => {
                put_all(&mut payload, [session.0, *confirm]);
                put_pulse(&mut payload, *pulse);
            }
        }
        let length = payload.len() - HEAD_BYTES + tail.len();
        let length = u32::try_from(length).ok().filter(|length| *length <= MAX_PAYLOAD_BYTES);
        let length = length.ok_or(FrameError::TooLarge { bytes: u32::MAX, limit: MAX_PAYLOAD_BYTES })?;
        payload[4..HEAD_BYTES].copy_from_slice(&length.to_be_bytes());
        Ok((payload, tail))
    }

    /// Reads one frame, whose payload has at most `limit` bytes.
    pub(super) async fn read(from: &mut (impl AsyncRead + Unpin), limit: u32) -> Result<Self, FrameError> {
        let mut head = [0; HEAD_BYTES];
        // The first byte alone first: a foreign peer may never send eight.
        from.read_exact(&mut head[..1]).await?;
        if head[0] != MAGIC {
            return Err(FrameError::Foreign(head[0]));
        }
        from.read_exact(&mut head[1..]).await?;
        if head[1] != VERSION {
            return Err(FrameError::Version(head[1]));
        }
        let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        if length > limit {
            return Err(FrameError::TooLarge { bytes: length, limit });
        }
        let mut payload = BytesMut::with_capacity(length as usize);
        let mut rest = from.take(u64::from(length));
        while payload.len() < length as usize {
            if rest.read_buf(&mut payload).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
        Self::decode(head[2], payload.freeze())
    }

    fn decode(kind: u8, mut payload: Bytes) -> Result<Self, FrameError> {
        let bytes = payload.len();
        let fixed = |wanted: usize| if bytes == wanted { Ok(()) } else { Err(FrameError::Length { kind, bytes }) };
        Ok(match kind {
            1 => Self::Hello(serde_json::from_slice(&payload)?),
            2 => Self::Welcome(serde_json::from_slice(&payload)?),
            3 => {
                if bytes < APPEND_HEAD_BYTES {
                    return Err(FrameError::Length { kind, bytes });
                }
                let session = Epoch(payload.get_u64());
                let written_in = (Epoch(payload.get_u64()), payload.get_u64());
                let (from, confirm) = (payload.get_u64(), payload.get_u64());
                let (pulse, told) = (get_pulse(&mut payload), payload.get_u32());
                check_crc(from, told, &payload)?;
                Self::Append(Append { session, written_in, from, confirm, pulse, crc: told, bytes: payload })
            }
            4 => {
                fixed(MAX_ACK_BYTES as usize)?;
                let (session, written) = (Epoch(payload.get_u64()), payload.get_u64());
                Self::Ack(Ack { session, written, flushed: payload.get_u64(), echo: payload.get_u64() })
            }
            5 => {
                fixed(HEARTBEAT_BYTES)?;
                let (session, confirm) = (Epoch(payload.get_u64()), payload.get_u64());
                Self::Heartbeat { session, confirm, pulse: get_pulse(&mut payload) }
            }
            6 => Self::Fenced(serde_json::from_slice(&payload)?),
            7 => {
                if bytes < SNAPSHOT_HEAD_BYTES {
                    return Err(FrameError::Length { kind, bytes });
                }
                let (total, told) = (payload.get_u64(), payload.get_u32());
                check_crc(0, told, &payload)?;
                Self::Snapshot(Snapshot { total, bytes: payload })
            }
            other => return Err(FrameError::Kind(other)),
        })
    }
}

fn check_crc(from: u64, told: u32, bytes: &[u8]) -> Result<(), FrameError> {
    let computed = crc32c::crc32c(bytes);
    if computed == told { Ok(()) } else { Err(FrameError::Crc { from, told, computed }) }
}

fn put_pulse(to: &mut BytesMut, pulse: Pulse) {
    to.put_u64(pulse.at);
    to.put_u8(u8::from(pulse.alive));
}

fn get_pulse(from: &mut Bytes) -> Pulse {
    Pulse { at: from.get_u64(), alive: from.get_u8() == 1 }
}

fn put_all<const N: usize>(to: &mut BytesMut, numbers: [u64; N]) {
    for number in numbers {
        to.put_u64(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_replication::StoreId;
    use proptest::prelude::*;

    fn wire(frame: &Frame) -> Vec<u8> {
        let (head, tail) = frame.encode().unwrap();
        [&head[..], &tail[..]].concat()
    }

    fn read(mut bytes: &[u8]) -> Result<Frame, FrameError> {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(Frame::read(&mut bytes, MAX_PAYLOAD_BYTES))
    }

    fn append(bytes: &[u8]) -> Frame {
        let bytes = Bytes::copy_from_slice(bytes);
        let crc = crc32c::crc32c(&bytes);
        let pulse = Pulse { at: 5, alive: true };
        Frame::Append(Append {
            session: Epoch(7),
            written_in: (Epoch(3), 64),
            from: 128,
            confirm: 96,
            pulse,
            crc,
            bytes,
        })
    }

    #[test]
    fn every_frame_reads_back_as_it_was_written() {
        let member = Member::new("r1", StoreId(5));
        let mut epochs = EpochTable::default();
        epochs.open(Epoch(3), 64).unwrap();
        let frames = [
            Frame::Hello(Hello {
                group: "g".into(),
                token: "t".into(),
                member,
                promised: Epoch(3),
                epochs: epochs.clone(),
                begin: 1,
                end: 9,
                life: 3,
            }),
            Frame::Snapshot(Snapshot { total: 20, bytes: Bytes::from_static(b"half of it") }),
            append(b"records"),
            Frame::Ack(Ack { session: Epoch(7), written: 2, flushed: 1, echo: 8 }),
            Frame::Heartbeat { session: Epoch(7), confirm: 1, pulse: Pulse { at: 6, alive: false } },
            Frame::Fenced(Fenced { reason: "no".into() }),
        ];
        for frame in frames {
            assert_eq!(read(&wire(&frame)).unwrap(), frame);
        }
    }

    #[test]
    fn a_flipped_bit_in_the_log_is_found() {
        let mut bytes = wire(&append(b"records"));
        *bytes.last_mut().unwrap() ^= 1;
        assert!(matches!(read(&bytes), Err(FrameError::Crc { from: 128, .. })));
    }

    #[test]
    fn a_classic_slave_and_a_newer_gantry_are_told_apart() {
        assert!(matches!(read(&0_u64.to_be_bytes()), Err(FrameError::Foreign(0))));
        assert!(matches!(read(&[b'G', 3, 1, 0, 0, 0, 0, 0]), Err(FrameError::Version(3))));
        assert!(matches!(read(&[b'G', 2, 3, 0, 0xff, 0, 0, 0]), Err(FrameError::TooLarge { .. })));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(kind in 0u8..9, payload in prop::collection::vec(any::<u8>(), 0..200)) {
            let _outcome = Frame::decode(kind, Bytes::from(payload));
        }
    }
}
