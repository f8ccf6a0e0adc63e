//! fastjson's unquoted numeric keys, both ways.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter};

/// Puts quotes around unquoted integers that stand where a key stands (before a colon, outside of texts). `None` if
/// there are none.
pub(super) fn quote(json: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(json.len() + 16);
    let mut found = false;
    let mut rest = json;
    while let Some(&byte) = rest.first() {
        let length = match byte {
            b'"' => text_length(rest),
            b'-' | b'0'..=b'9' => number_length(rest),
            _ => 1,
        };
        let (token, after) = rest.split_at(length);
        if byte != b'"' && length >= 1 && byte_is_number(byte) && next_is_colon(after) {
            out.push(b'"');
            out.extend_from_slice(token);
            out.push(b'"');
            found = true;
        } else {
            out.extend_from_slice(token);
        }
        rest = after;
    }
    found.then_some(out)
}

fn byte_is_number(byte: u8) -> bool {
    byte == b'-' || byte.is_ascii_digit()
}

/// Length of the text that begins here, quotes included; to the end if it never ends.
fn text_length(json: &[u8]) -> usize {
    let mut escaped = false;
    for (index, &byte) in json.iter().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return index + 1,
            _ => {}
        }
    }
    json.len()
}

fn number_length(json: &[u8]) -> usize {
    1 + json[1..].iter().take_while(|byte| byte.is_ascii_digit()).count()
}

fn next_is_colon(json: &[u8]) -> bool {
    json.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b':')
}

/// Serializes with integer keys unquoted.
pub(super) fn to_vec<T: Serialize>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut out = Vec::new();
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, BareKeys::default()))?;
    Ok(out)
}

/// Holds a key's opening quote back until it is known whether a text or an integer follows.
#[derive(Default)]
struct BareKeys {
    in_key: bool,
    quote_owed: bool,
    bare: bool,
}

impl BareKeys {
    fn pay_quote<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        if std::mem::take(&mut self.quote_owed) { writer.write_all(b"\"") } else { Ok(()) }
    }

    fn number(&mut self) {
        self.bare |= std::mem::take(&mut self.quote_owed);
    }
}

impl Formatter for BareKeys {
    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.in_key = true;
        CompactFormatter.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.in_key = false;
        CompactFormatter.begin_object_value(writer)
    }

    fn begin_string<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.quote_owed = true;
        if self.in_key { Ok(()) } else { self.pay_quote(writer) }
    }

    fn end_string<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.pay_quote(writer)?;
        if std::mem::take(&mut self.bare) { Ok(()) } else { writer.write_all(b"\"") }
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        self.pay_quote(writer)?;
        CompactFormatter.write_string_fragment(writer, fragment)
    }

    fn write_char_escape<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        escape: serde_json::ser::CharEscape,
    ) -> io::Result<()> {
        self.pay_quote(writer)?;
        CompactFormatter.write_char_escape(writer, escape)
    }

    fn write_i64<W: ?Sized + Write>(&mut self, writer: &mut W, value: i64) -> io::Result<()> {
        self.number();
        CompactFormatter.write_i64(writer, value)
    }

    fn write_i32<W: ?Sized + Write>(&mut self, writer: &mut W, value: i32) -> io::Result<()> {
        self.number();
        CompactFormatter.write_i32(writer, value)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn integer_keys_get_quotes_and_nothing_else_does() {
        let cases = [
            (r#"{0:"a:1",-12 :{"x:3":[1,2]}}"#, Some(r#"{"0":"a:1","-12" :{"x:3":[1,2]}}"#)),
            (r#"{"brokerAddrs":{0:"127.0.0.1:10911"}}"#, Some(r#"{"brokerAddrs":{"0":"127.0.0.1:10911"}}"#)),
            (r#"{"a\"b":1,"c":"\\"}"#, None),
            (r#"{"unterminated"#, None),
            ("", None),
            ("1", None),
        ];
        for (json, quoted) in cases {
            assert_eq!(
                quote(json.as_bytes()).map(|json| String::from_utf8(json).unwrap()).as_deref(),
                quoted,
                "{json}"
            );
        }
    }

    #[test]
    fn integer_keys_are_written_bare_and_texts_of_digits_are_not() {
        let nested: BTreeMap<&str, BTreeMap<i64, &str>> = BTreeMap::from([
            ("7", BTreeMap::from([(-1, "1"), (0, "")])),
            ("", BTreeMap::new()),
            ("\"", BTreeMap::new()),
        ]);
        assert_eq!(String::from_utf8(to_vec(&nested).unwrap()).unwrap(), r#"{"":{},"\"":{},"7":{-1:"1",0:""}}"#);
        assert_eq!(to_vec(&(5, "x", [("5", 5_i32)])).unwrap(), br#"[5,"x",[["5",5]]]"#);
    }

    fn any_map() -> impl Strategy<Value = BTreeMap<i64, BTreeMap<String, String>>> {
        let texts = proptest::collection::btree_map(".{0,8}", "[0-9:\"\\\\{},a]{0,8}", 0..4);
        proptest::collection::btree_map(any::<i64>(), texts, 0..4)
    }

    proptest! {
        #[test]
        fn what_is_written_bare_is_read_back(map in any_map()) {
            let bare = to_vec(&map).unwrap();
            prop_assert_eq!(super::super::parse::<BTreeMap<i64, BTreeMap<String, String>>>(&bare).unwrap(), map);
        }

        #[test]
        fn quoting_never_panics(bytes in "[-0-9:\"\\\\ {}a]{0,40}") {
            let _quoted = quote(bytes.as_bytes());
        }
    }
}
