//! Headers in RocketMQ's binary layout:
//! `code 2 | language 1 | version 2 | opaque 4 | flag 4 | remark length 4, remark | ext length 4 | {key length 2, key, value length 4, value}*`.

use bytes::{BufMut, BytesMut};

use crate::command::{Command, SerializeType};
use crate::ext_fields::ExtFields;
use crate::frame::{FrameError, Head};
use crate::header::{FieldSink, Fields};
use crate::language::Language;

/// Reads a header.
pub(crate) fn decode(header: &[u8]) -> Result<Command, FrameError> {
    let mut rest = Reader(header);
    let mut command = Command {
        code: i32::from(i16::from_be_bytes(rest.array()?)),
        language: Language::from_code(u8::from_be_bytes(rest.array()?)),
        version: i32::from(i16::from_be_bytes(rest.array()?)),
        opaque: i32::from_be_bytes(rest.array()?),
        flag: i32::from_be_bytes(rest.array()?),
        serialize: SerializeType::RocketMq,
        ..Command::default()
    };
    let remark_length = rest.length()?;
    let remark = rest.text(remark_length)?;
    command.remark = (!remark.is_empty()).then(|| remark.to_owned());
    let ext_length = rest.length()?;
    command.ext = decode_ext(Reader(rest.take(ext_length)?))?;
    Ok(command)
}

/// Appends the header; `false` if a code, version or key doesn't fit its two bytes: then `out` holds a part of it.
pub(crate) fn encode(out: &mut BytesMut, head: &Head<'_>, fields: &impl Fields) -> bool {
    let (Ok(code), Ok(version)) = (i16::try_from(head.code), i16::try_from(head.version)) else { return false };
    out.put_i16(code);
    out.put_u8(head.language.code());
    out.put_i16(version);
    out.put_i32(head.opaque);
    out.put_i32(head.flag);
    let remark = head.remark.unwrap_or_default();
    out.put_u32(remark.len() as u32);
    out.put_slice(remark.as_bytes());
    let ext_start = out.len();
    out.put_u32(0);
    let mut sink = BinarySink { out, keys_fit: true };
    fields.encode(&mut sink);
    let keys_fit = sink.keys_fit;
    let ext_length = (out.len() - ext_start - 4) as u32;
    out[ext_start..ext_start + 4].copy_from_slice(&ext_length.to_be_bytes());
    keys_fit
}

struct BinarySink<'a> {
    out: &'a mut BytesMut,
    keys_fit: bool,
}

impl FieldSink for BinarySink<'_> {
    fn put(&mut self, key: &str, value: &str) {
        let Ok(key_length) = u16::try_from(key.len()) else {
            self.keys_fit = false;
            return;
        };
        self.out.put_u16(key_length);
        self.out.put_slice(key.as_bytes());
        self.out.put_u32(value.len() as u32);
        self.out.put_slice(value.as_bytes());
    }
}

fn decode_ext(mut rest: Reader<'_>) -> Result<ExtFields, FrameError> {
    let mut ext = ExtFields::with_text_capacity(rest.0.len());
    while !rest.0.is_empty() {
        let key_length = usize::from(u16::from_be_bytes(rest.array()?));
        let key = rest.text(key_length)?;
        let value_length = rest.length()?;
        ext.set(key, rest.text(value_length)?);
    }
    Ok(ext)
}

/// Takes bytes off the front, or says that there aren't enough.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], FrameError> {
        let (taken, rest) =
            self.0.split_at_checked(length).ok_or(FrameError::Binary("a length points beyond the header's end"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(FrameError::Binary("the header ends too early"))?;
        self.0 = rest;
        Ok(*taken)
    }

    fn length(&mut self) -> Result<usize, FrameError> {
        let length = i32::from_be_bytes(self.array()?);
        usize::try_from(length).map_err(|_| FrameError::Binary("a negative length"))
    }

    fn text(&mut self, length: usize) -> Result<&'a str, FrameError> {
        std::str::from_utf8(self.take(length)?).map_err(|_| FrameError::Binary("a text that is not UTF-8"))
    }
}
