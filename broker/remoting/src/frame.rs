//! Frames: `length 4 | serialization 1 | header length 3 | header | body`; the length doesn't count itself.
//!
//! Decoding never panics whatever the bytes are, and never reserves more memory than has come plus a bounded step:
//! a length field alone costs nothing.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::command::{Command, SerializeType};
use crate::header::Fields;
use crate::language::Language;
use crate::{binary_header, json_header};

/// RocketMQ's bound on a frame (`com.rocketmq.remoting.frameMaxLength`), in bytes.
pub const MAX_FRAME_BYTES: usize = 16 << 20;

/// Gantry's bound on a header in bytes. RocketMQ has none of its own; its largest real header carries 32 KiB of properties.
pub const MAX_HEADER_BYTES: usize = 1 << 20;

const LENGTH_BYTES: usize = 4;
const HEADER_WORD_BYTES: usize = 4;

/// What is wrong with bytes that should be a frame. There is no way to find the next frame after it.
#[derive(Debug, Error)]
pub enum FrameError {
    /// Not plausible as a frame's length.
    #[error("frame of {bytes} bytes, the limit is {limit} (is the peer speaking another protocol?)")]
    TooLarge {
        /// The length field.
        bytes: u32,
        /// The limit.
        limit: usize,
    },
    /// The frame doesn't even hold the word that says how long its header is.
    #[error("frame of {bytes} bytes, at least 4 are needed")]
    TooShort {
        /// The length field.
        bytes: u32,
    },
    /// The header is longer than the frame, or than the limit.
    #[error("header of {bytes} bytes in a frame of {frame_bytes} bytes, the limit is {MAX_HEADER_BYTES}")]
    HeaderLength {
        /// The header's length.
        bytes: usize,
        /// The frame's length.
        frame_bytes: usize,
    },
    /// Neither JSON nor RocketMQ's binary layout.
    #[error("header serialization {0}, known are 0 (JSON) and 1 (ROCKETMQ)")]
    Serialization(u8),
    /// The JSON header isn't one.
    #[error("JSON header: {0}")]
    Json(#[from] serde_json::Error),
    /// The binary header isn't one.
    #[error("binary header: {0}")]
    Binary(&'static str),
}

/// Why a command can't be written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// The frame would be too large for the peer.
    #[error("frame of {bytes} bytes, the limit is {limit}")]
    FrameTooLarge {
        /// The frame's length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The header alone is too large.
    #[error("header of {bytes} bytes, the limit is {MAX_HEADER_BYTES}")]
    HeaderTooLarge {
        /// The header's length.
        bytes: usize,
    },
}

/// Takes the first frame off `buffer`; `None` until it is whole. After an error the rest of `buffer` means nothing.
pub fn decode(buffer: &mut BytesMut, max_frame_bytes: usize) -> Result<Option<Command>, FrameError> {
    let Some(length) = peek_length(buffer, max_frame_bytes)? else { return Ok(None) };
    if buffer.len() < LENGTH_BYTES + length {
        return Ok(None);
    }
    buffer.advance(LENGTH_BYTES);
    let word = buffer.get_u32();
    let header_length = (word & 0x00FF_FFFF) as usize;
    let body_start = HEADER_WORD_BYTES + header_length;
    if body_start > length || header_length > MAX_HEADER_BYTES {
        return Err(FrameError::HeaderLength { bytes: header_length, frame_bytes: length });
    }
    let header = &buffer[..header_length];
    let mut command = match (word >> 24) as u8 {
        0 => json_header::decode(header)?,
        1 => binary_header::decode(header)?,
        other => return Err(FrameError::Serialization(other)),
    };
    buffer.advance(header_length);
    command.body = split_body(buffer, length - body_start).into();
    Ok(Some(command))
}

/// How many more bytes the first frame of `buffer` needs; 0 when it is whole. For sizing the next read.
pub fn missing_bytes(buffer: &BytesMut) -> usize {
    match buffer.first_chunk::<LENGTH_BYTES>() {
        None => LENGTH_BYTES + HEADER_WORD_BYTES - buffer.len(),
        Some(length) => (LENGTH_BYTES + u32::from_be_bytes(*length) as usize).saturating_sub(buffer.len()),
    }
}

/// A frame's fields besides ext fields and body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head<'a> {
    pub(crate) code: i32,
    pub(crate) language: Language,
    pub(crate) version: i32,
    pub(crate) opaque: i32,
    pub(crate) flag: i32,
    pub(crate) remark: Option<&'a str>,
    pub(crate) serialize: SerializeType,
}

impl<'a> Head<'a> {
    pub(crate) fn of(command: &'a Command) -> Self {
        Self {
            code: command.code,
            language: command.language,
            version: command.version,
            opaque: command.opaque,
            flag: command.flag,
            remark: command.remark.as_deref(),
            serialize: command.serialize,
        }
    }
}

/// Appends lengths and header of a frame whose body of `body_bytes` the caller writes next. On an error `out` is as before.
///
/// What doesn't fit a binary header (a code of more than two bytes) is written as a JSON one: each frame says for itself
/// how its header is written.
pub(crate) fn encode_head(
    out: &mut BytesMut,
    head: &Head<'_>,
    fields: &impl Fields,
    body_bytes: usize,
    max_frame_bytes: usize,
) -> Result<(), EncodeError> {
    let start = out.len();
    out.put_u64(0);
    let binary = head.serialize == SerializeType::RocketMq && binary_header::encode(out, head, fields);
    if !binary {
        out.truncate(start + LENGTH_BYTES + HEADER_WORD_BYTES);
        json_header::encode(out, head, fields);
    }
    let header_bytes = out.len() - start - LENGTH_BYTES - HEADER_WORD_BYTES;
    let frame_bytes = HEADER_WORD_BYTES + header_bytes + body_bytes;
    if header_bytes > MAX_HEADER_BYTES || frame_bytes > max_frame_bytes.min(u32::MAX as usize) {
        out.truncate(start);
        return Err(if header_bytes > MAX_HEADER_BYTES {
            EncodeError::HeaderTooLarge { bytes: header_bytes }
        } else {
            EncodeError::FrameTooLarge { bytes: frame_bytes, limit: max_frame_bytes }
        });
    }
    let mut lengths = &mut out[start..start + LENGTH_BYTES + HEADER_WORD_BYTES];
    lengths.put_u32(frame_bytes as u32);
    lengths.put_u32(u32::from(binary) << 24 | header_bytes as u32);
    Ok(())
}

/// The whole frame of `command`, copied together. Connections write the parts instead; this is for tools and tests.
pub fn encode(command: &Command, max_frame_bytes: usize) -> Result<Bytes, EncodeError> {
    let mut out = BytesMut::new();
    encode_head(&mut out, &Head::of(command), &command.ext, command.body.len(), max_frame_bytes)?;
    for part in command.body.parts() {
        out.extend_from_slice(part);
    }
    Ok(out.freeze())
}

/// `None` until the length field is whole.
fn peek_length(buffer: &BytesMut, max_frame_bytes: usize) -> Result<Option<usize>, FrameError> {
    let Some(bytes) = buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let length = u32::from_be_bytes(*bytes);
    if length as usize > max_frame_bytes {
        Err(FrameError::TooLarge { bytes: length, limit: max_frame_bytes })
    } else if (length as usize) < HEADER_WORD_BYTES {
        Err(FrameError::TooShort { bytes: length })
    } else {
        Ok(Some(length as usize))
    }
}

/// An empty body must not keep the read buffer alive.
fn split_body(buffer: &mut BytesMut, length: usize) -> Bytes {
    if length == 0 { Bytes::new() } else { buffer.split_to(length).freeze() }
}
