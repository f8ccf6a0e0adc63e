//! Frames on their own: what is written is read back, and no bytes do harm.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use bytes::{BufMut, BytesMut};
use gantry_remoting::frame::{self, EncodeError, FrameError, MAX_FRAME_BYTES, MAX_HEADER_BYTES};
use gantry_remoting::{Command, ExtFields, Language, SerializeType};
use proptest::prelude::*;

fn language() -> impl Strategy<Value = Language> {
    (0_u8..14).prop_map(Language::from_code)
}

/// Texts with what needs escaping: quotes, RocketMQ's property separators, code points of every length.
fn text() -> impl Strategy<Value = String> {
    "[a-z\"\\\\\u{1}\u{2}\u{7f}é中😀\n/]{0,12}"
}

fn command() -> impl Strategy<Value = Command> {
    let ext = proptest::collection::vec((text(), text()), 0..20);
    let serialize = prop_oneof![Just(SerializeType::Json), Just(SerializeType::RocketMq)];
    let numbers = (i32::from(i16::MIN)..=i32::from(i16::MAX), 0..i32::from(i16::MAX), any::<i32>(), any::<i32>());
    let body = proptest::collection::vec(any::<u8>(), 0..64);
    (numbers, language(), proptest::option::of(text()), ext, body, serialize).prop_map(
        |((code, version, opaque, flag), language, remark, ext, body, serialize)| Command {
            code,
            language,
            version,
            opaque,
            flag,
            // A binary header can't tell an empty remark from none.
            remark: remark.filter(|remark| !remark.is_empty()),
            ext: ext.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(),
            body: body.into(),
            serialize,
        },
    )
}

fn encoded(command: &Command) -> BytesMut {
    BytesMut::from(&frame::encode(command, MAX_FRAME_BYTES).unwrap()[..])
}

proptest! {
    #[test]
    fn a_frame_reads_back_in_both_serializations(command in command()) {
        let mut bytes = encoded(&command);
        prop_assert_eq!(frame::decode(&mut bytes, MAX_FRAME_BYTES).unwrap(), Some(command));
        prop_assert!(bytes.is_empty());
    }

    #[test]
    fn frames_arrive_whole_wherever_the_stream_is_cut(commands in proptest::collection::vec(command(), 1..4), cut: prop::sample::Index) {
        let whole: Vec<u8> = commands.iter().flat_map(|command| encoded(command).to_vec()).collect();
        let cut = cut.index(whole.len());
        let (mut buffer, mut read) = (BytesMut::new(), Vec::new());
        for part in [&whole[..cut], &whole[cut..]] {
            buffer.put_slice(part);
            while let Some(command) = frame::decode(&mut buffer, MAX_FRAME_BYTES).unwrap() {
                read.push(command);
            }
        }
        prop_assert_eq!(read, commands);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        let mut buffer = BytesMut::from(&bytes[..]);
        while let Ok(Some(_)) = frame::decode(&mut buffer, MAX_FRAME_BYTES) {}
    }

    #[test]
    fn a_frame_with_any_byte_changed_never_panics(command in command(), at: prop::sample::Index, byte: u8) {
        let mut bytes = encoded(&command);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        while let Ok(Some(_)) = frame::decode(&mut bytes, MAX_FRAME_BYTES) {}
    }

    #[test]
    fn a_plausible_frame_around_any_header_never_panics(header: Vec<u8>, serialization in 0_u32..3) {
        let mut buffer = raw_frame(serialization, &header);
        while let Ok(Some(_)) = frame::decode(&mut buffer, MAX_FRAME_BYTES) {}
    }
}

fn raw_frame(serialization: u32, header: &[u8]) -> BytesMut {
    let mut buffer = BytesMut::new();
    buffer.put_u32(4 + header.len() as u32);
    buffer.put_u32(serialization << 24 | header.len() as u32);
    buffer.put_slice(header);
    buffer
}

fn decode_json(header: &str) -> Result<Command, FrameError> {
    frame::decode(&mut raw_frame(0, header.as_bytes()), MAX_FRAME_BYTES).map(Option::unwrap)
}

#[test]
fn every_cut_of_a_frame_waits_for_the_rest() {
    let command = Command::request(10).with_body(b"body".to_vec());
    let whole = encoded(&command);
    for length in 0..whole.len() {
        let mut part = BytesMut::from(&whole[..length]);
        assert!(matches!(frame::decode(&mut part, MAX_FRAME_BYTES), Ok(None)), "{length} bytes");
        assert_eq!(part.len(), length);
        assert!(frame::missing_bytes(&part) > 0 && frame::missing_bytes(&part) <= whole.len() - length);
    }
    assert_eq!(frame::missing_bytes(&whole), 0);
}

#[test]
fn a_java_header_is_read() {
    let header = r#"{"code":310,"extFields":{"a":"group","i":"KEYS\u0001k\u0002","j":0,"k":false,"x":null},"flag":0,
        "language":"JAVA","opaque":7,"serializeTypeCurrentRPC":"JSON","version":513,"later":{"deep":[1]}}"#;
    let command = decode_json(header).unwrap();
    assert_eq!((command.code, command.opaque, command.version, command.language), (310, 7, 513, Language::Java));
    let fields = [("a", "group"), ("i", "KEYS\u{1}k\u{2}"), ("j", "0"), ("k", "false")];
    assert_eq!(command.ext.iter().collect::<Vec<_>>(), fields);
}

#[test]
fn malformed_headers_are_errors_that_say_why() {
    let cases = [
        (r#"{"flag":0}"#, "missing field `code`"),
        (r#"{"code":"x"}"#, "invalid type: string \"x\", expected i32"),
        (r#"{"code":10,"extFields":[1]}"#, "an object of ext fields"),
        (r#"{"code":10,"extFields":{"a":{}}}"#, "a text, a number"),
        (r#"{"code":10} trailing"#, "trailing characters"),
        (r#"{"code":99999999999}"#, "invalid value"),
        ("[]", "invalid type"),
        ("", "EOF"),
    ];
    for (header, reason) in cases {
        let error = decode_json(header).unwrap_err().to_string();
        assert!(error.contains(reason), "{header}: {error}");
    }
}

#[test]
fn implausible_lengths_are_errors_before_anything_is_reserved() {
    let decode = |bytes: &[u8]| frame::decode(&mut BytesMut::from(bytes), MAX_FRAME_BYTES);
    let error = decode(b"GET / HTTP/1.1\r\n").unwrap_err().to_string();
    assert!(error.contains("another protocol"), "{error}");
    assert!(matches!(decode(&[0, 0, 0, 3, 0, 0, 0]), Err(FrameError::TooShort { bytes: 3 })));
    assert!(matches!(decode(&[0, 0, 0, 8, 0, 0, 0, 5, 0, 0, 0, 0]), Err(FrameError::HeaderLength { bytes: 5, .. })));
    assert!(matches!(decode(&[0, 0, 0, 4, 9, 0, 0, 0]), Err(FrameError::Serialization(9))));
    assert!(frame::missing_bytes(&BytesMut::from(&[0xff_u8; 4][..])) > 0);
}

#[test]
fn a_binary_header_that_lies_about_its_lengths_is_an_error() {
    let command = Command {
        serialize: SerializeType::RocketMq,
        remark: Some("why".into()),
        ext: ExtFields::from_iter([("key", "value")]),
        ..Command::request(1)
    };
    let whole = frame::encode(&command, MAX_FRAME_BYTES).unwrap();
    // The lengths of remark, ext fields, key and value, each a byte too long or negative.
    for (at, bytes) in [(8 + 13, 4), (8 + 20, 4), (8 + 24, 2), (8 + 29, 4)] {
        let mut longer = BytesMut::from(&whole[..]);
        longer[at + bytes - 1] += 100;
        assert!(frame::decode(&mut longer, MAX_FRAME_BYTES).is_err(), "length at {at}");
        let mut negative = BytesMut::from(&whole[..]);
        negative[at] = 0xff;
        assert!(frame::decode(&mut negative, MAX_FRAME_BYTES).is_err(), "length at {at}");
    }
}

#[test]
fn a_code_of_more_than_two_bytes_falls_back_to_a_json_header() {
    let command = Command { serialize: SerializeType::RocketMq, ..Command::request(40_001) };
    let read = frame::decode(&mut encoded(&command), MAX_FRAME_BYTES).unwrap().unwrap();
    assert_eq!((read.code, read.serialize), (40_001, SerializeType::Json));
}

#[test]
fn what_is_too_large_is_not_written() {
    let body = Command::request(10).with_body(vec![0; 100]);
    assert!(matches!(frame::encode(&body, 100), Err(EncodeError::FrameTooLarge { limit: 100, .. })));
    let mut header = Command::request(10);
    header.ext.set("i", &"x".repeat(MAX_HEADER_BYTES));
    assert!(matches!(frame::encode(&header, MAX_FRAME_BYTES), Err(EncodeError::HeaderTooLarge { .. })));
}
