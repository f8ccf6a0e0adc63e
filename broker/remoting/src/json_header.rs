//! Headers as JSON objects.

use std::fmt;

use bytes::{BufMut, BytesMut};
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::command::{Command, SerializeType};
use crate::ext_fields::ExtFields;
use crate::frame::Head;
use crate::header::{FieldSink, Fields};
use crate::language::Language;

/// Reads a header straight into a [`Command`]; unknown keys are skipped.
pub(crate) fn decode(header: &[u8]) -> Result<Command, serde_json::Error> {
    let mut json = serde_json::Deserializer::from_slice(header);
    let command = json.deserialize_map(HeaderVisitor { header_bytes: header.len() })?;
    json.end()?;
    Ok(command)
}

/// Appends the header.
pub(crate) fn encode(out: &mut BytesMut, head: &Head<'_>, fields: &impl Fields) {
    let mut number = itoa::Buffer::new();
    out.put_slice(b"{\"code\":");
    out.put_slice(number.format(head.code).as_bytes());
    out.put_slice(b",\"flag\":");
    out.put_slice(number.format(head.flag).as_bytes());
    out.put_slice(b",\"language\":\"");
    out.put_slice(head.language.name().as_bytes());
    out.put_slice(b"\",\"opaque\":");
    out.put_slice(number.format(head.opaque).as_bytes());
    out.put_slice(b",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":");
    out.put_slice(number.format(head.version).as_bytes());
    if let Some(remark) = head.remark {
        out.put_slice(b",\"remark\":");
        put_string(out, remark);
    }
    let mut sink = JsonSink { out, any: false };
    fields.encode(&mut sink);
    if sink.any {
        out.put_u8(b'}');
    }
    out.put_u8(b'}');
}

/// Writes ext fields as the members of `extFields`, which is opened with the first one.
struct JsonSink<'a> {
    out: &'a mut BytesMut,
    any: bool,
}

impl JsonSink<'_> {
    fn separate(&mut self) {
        self.out.put_slice(if self.any { b"," } else { b",\"extFields\":{" });
        self.any = true;
    }
}

impl FieldSink for JsonSink<'_> {
    fn put(&mut self, key: &str, value: &str) {
        self.separate();
        put_string(self.out, key);
        self.out.put_u8(b':');
        put_string(self.out, value);
    }

    fn put_plain(&mut self, key: &str, value: &str) {
        self.separate();
        for part in [b"\"", key.as_bytes(), b"\":\"", value.as_bytes(), b"\""] {
            self.out.put_slice(part);
        }
    }
}

/// A JSON string, quoted and escaped.
fn put_string(out: &mut BytesMut, text: &str) {
    let plain = |byte: &u8| *byte >= 0x20 && *byte != b'"' && *byte != b'\\';
    out.put_u8(b'"');
    let mut rest = text.as_bytes();
    while let Some(stop) = rest.iter().position(|byte| !plain(byte)) {
        out.put_slice(&rest[..stop]);
        put_escape(out, rest[stop]);
        rest = &rest[stop + 1..];
    }
    out.put_slice(rest);
    out.put_u8(b'"');
}

fn put_escape(out: &mut BytesMut, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'"' | b'\\' => out.put_slice(&[b'\\', byte]),
        _ => out.put_slice(&[b'\\', b'u', b'0', b'0', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]),
    }
}

struct HeaderVisitor {
    header_bytes: usize,
}

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Command;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a header object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Command, A::Error> {
        let mut command = Command { serialize: SerializeType::Json, ..Command::default() };
        let mut code = None;
        while let Some(key) = map.next_key_seed(KeySeed)? {
            match key {
                Key::Code => code = Some(map.next_value()?),
                Key::Flag => command.flag = map.next_value()?,
                Key::Opaque => command.opaque = map.next_value()?,
                Key::Version => command.version = map.next_value()?,
                Key::Language => command.language = map.next_value_seed(LanguageSeed)?,
                Key::Remark => command.remark = map.next_value()?,
                Key::ExtFields => command.ext = map.next_value_seed(ExtSeed { capacity: self.header_bytes })?,
                Key::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        command.code = code.ok_or_else(|| de::Error::missing_field("code"))?;
        Ok(command)
    }
}

enum Key {
    Code,
    Flag,
    Opaque,
    Version,
    Language,
    Remark,
    ExtFields,
    Other,
}

/// Defines a seed that takes any JSON string without owning it.
macro_rules! string_seed {
    ($name:ident -> $value:ty, $expecting:literal, $from:expr) => {
        struct $name;

        impl<'de> DeserializeSeed<'de> for $name {
            type Value = $value;

            fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<$value, D::Error> {
                deserializer.deserialize_str(self)
            }
        }

        impl Visitor<'_> for $name {
            type Value = $value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($expecting)
            }

            fn visit_str<E>(self, text: &str) -> Result<$value, E> {
                Ok($from(text))
            }
        }
    };
}

string_seed!(LanguageSeed -> Language, "a language's name", Language::from_name);
string_seed!(KeySeed -> Key, "a header's key", |key: &str| match key {
    "code" => Key::Code,
    "flag" => Key::Flag,
    "opaque" => Key::Opaque,
    "version" => Key::Version,
    "language" => Key::Language,
    "remark" => Key::Remark,
    "extFields" => Key::ExtFields,
    _ => Key::Other,
});

struct ExtSeed {
    capacity: usize,
}

impl<'de> DeserializeSeed<'de> for ExtSeed {
    type Value = ExtFields;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<ExtFields, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ExtSeed {
    type Value = ExtFields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of ext fields, or null")
    }

    fn visit_unit<E>(self) -> Result<ExtFields, E> {
        Ok(ExtFields::new())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ExtFields, A::Error> {
        let mut ext = ExtFields::with_text_capacity(self.capacity);
        let mut more = true;
        while more {
            ext.append_pair(|text| {
                let Some(()) = map.next_key_seed(TextSeed(text))?.map(|_| ()) else {
                    more = false;
                    return Ok(None);
                };
                let value_start = text.len();
                Ok(map.next_value_seed(TextSeed(text))?.then_some(value_start))
            })?;
        }
        Ok(ext)
    }
}

/// Appends a scalar as text; `false` for null. Lenient clients write numbers and booleans as such.
struct TextSeed<'a>(&'a mut String);

impl<'de> DeserializeSeed<'de> for TextSeed<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for TextSeed<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number, a boolean or null")
    }

    fn visit_str<E>(self, text: &str) -> Result<bool, E> {
        Ok(self.put(text))
    }

    fn visit_u64<E>(self, value: u64) -> Result<bool, E> {
        Ok(self.put(itoa::Buffer::new().format(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<bool, E> {
        Ok(self.put(itoa::Buffer::new().format(value)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<bool, E> {
        Ok(self.put(&value.to_string()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<bool, E> {
        Ok(self.put(if value { "true" } else { "false" }))
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }
}

impl TextSeed<'_> {
    fn put(self, text: &str) -> bool {
        self.0.push_str(text);
        true
    }
}
