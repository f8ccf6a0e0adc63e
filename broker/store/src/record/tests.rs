//! Records byte by byte, and what arbitrary bytes do.

use proptest::prelude::*;

use super::*;
use crate::{NewMessage, PhysicalOffset, QueueOffset};

const PLACEMENT: Placement =
    Placement { queue_offset: QueueOffset(7), physical: PhysicalOffset(0x0102_0304), store_timestamp_ms: 0x018C };

fn hello() -> NewMessage {
    NewMessage {
        topic: "T1".into(),
        queue_id: 3,
        flag: 5,
        sys_flag: 1,
        born_timestamp_ms: 0x0100,
        born_host: "10.1.2.3:4660".parse().unwrap(),
        store_host: "127.0.0.1:10911".parse().unwrap(),
        reconsume_times: 2,
        prepared_offset: 9,
        body: bytes::Bytes::from_static(b"hello"),
        properties: bytes::Bytes::from_static(b"TAGS\x01A\x02"),
    }
}

/// Without the CRC property.
fn encoded(message: &NewMessage) -> Vec<u8> {
    encoded_as(message, false)
}

fn encoded_as(message: &NewMessage, crc: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(message, PLACEMENT, crc, &mut bytes);
    assert_eq!(bytes.len() as u64, encoded_len(message, crc));
    bytes
}

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

/// Made by hand from the layout; CRC32("hello") is 3610A686.
const HELLO_V1: &str = "
    00000069 DAA320A7 3610A686 00000003 00000005
    0000000000000007 0000000001020304 00000001 0000000000000100
    0A010203 00001234 000000000000018C 7F000001 00002A9F
    00000002 0000000000000009
    00000005 68656C6C6F
    02 5431
    0007 54414753 01 41 02";

#[test]
fn a_v1_record_is_these_bytes() {
    assert_eq!(encoded(&hello()), hex(HELLO_V1));
}

/// The same; CRC32 & 0x7FFFFFFF of all but the last 20 bytes is 1778372485 (from Python's zlib).
const HELLO_V1_CRC: &str = "
    0000007D DAA320A7 3610A686 00000003 00000005
    0000000000000007 0000000001020304 00000001 0000000000000100
    0A010203 00001234 000000000000018C 7F000001 00002A9F
    00000002 0000000000000009
    00000005 68656C6C6F
    02 5431
    001B 54414753 01 41 02
    5F5F435243333223 01 35383432373338373731 02";

#[test]
fn the_crc_property_is_20_bytes_with_its_digits_backwards() {
    assert_eq!(encoded_as(&hello(), true), hex(HELLO_V1_CRC));
    let bytes = hex(HELLO_V1_CRC);
    let record = decode(&bytes).unwrap();
    assert_eq!(record.crc, RecordCrc::Is(1_778_372_485));
    assert_eq!(record.properties, &hello().properties[..], "it is none of the message's own");
    // Who knows nothing of it reads one more property.
    let raw = &bytes[bytes.len() - 27..];
    assert_eq!(crate::properties::get(raw, CRC_KEY), Some("5842738771"));
    assert_eq!(crate::properties::get(raw, "TAGS"), Some("A"));
}

#[test]
fn a_flipped_bit_is_found_wherever_it_is() {
    let message = NewMessage { body: vec![0x5A; 600].into(), properties: vec![b'p'; 700].into(), ..hello() };
    let good = encoded_as(&message, true);
    let judge = |bytes: &[u8]| check(bytes, PLACEMENT.physical, 1 << 20, true).map(|_| ());
    assert_eq!(judge(&good), Ok(()));
    for bit in 0..good.len() * 8 {
        let mut flipped = good.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(judge(&flipped).is_err(), "bit {} of byte {}", bit % 8, bit / 8);
    }
}

#[test]
fn another_records_crc_property_is_never_taken_for_ones_own() {
    let other = &hex(HELLO_V1_CRC)[125 - 20..];
    let mut near = other.to_vec();
    near[3] ^= 1;
    for foreign in
        [other.to_vec(), near, [other, other].concat(), [&b"a\x01b\x02"[..], other].concat(), b"a\x01b".to_vec()]
    {
        let message = NewMessage { properties: foreign.into(), ..hello() };
        for crc in [true, false] {
            let bytes = encoded_as(&message, crc);
            assert!(check(&bytes, PLACEMENT.physical, 1 << 20, true).is_ok(), "{message:?} {crc}");
        }
    }
    // A message that was read and is stored again: with one property, the new one.
    let again = NewMessage { properties: [&b"a\x01b\x02"[..], other].concat().into(), ..hello() };
    let bytes = encoded_as(&again, true);
    assert_eq!(decode(&bytes).unwrap().properties, b"a\x01b\x02");
}

#[test]
fn a_body_crc_never_has_its_highest_bit() {
    // CRC32("123456789") is CBF43926.
    let message = NewMessage { body: bytes::Bytes::from_static(b"123456789"), ..hello() };
    assert_eq!(encoded(&message)[8..12], [0x4B, 0xF4, 0x39, 0x26]);
}

#[test]
fn ipv6_hosts_take_20_bytes_and_set_their_flags() {
    let message = NewMessage {
        born_host: "[2001:db8::1]:4660".parse().unwrap(),
        store_host: "[::1]:10911".parse().unwrap(),
        ..hello()
    };
    let expected = hex("
        00000081 DAA320A7 3610A686 00000003 00000005
        0000000000000007 0000000001020304 00000031 0000000000000100
        20010DB8000000000000000000000001 00001234 000000000000018C 00000000000000000000000000000001 00002A9F
        00000002 0000000000000009
        00000005 68656C6C6F
        02 5431
        0007 54414753 01 41 02");
    assert_eq!(encoded(&message), expected);
    // A client that lies about its address family doesn't shift the fields behind it.
    let lying = NewMessage { sys_flag: 0x31, ..hello() };
    assert_eq!(encoded(&lying), hex(HELLO_V1));
}

#[test]
fn a_topic_of_more_than_127_bytes_makes_a_v2_record() {
    let short = encoded(&NewMessage { topic: "t".repeat(127).into(), ..hello() });
    assert_eq!(short[4..8], [0xDA, 0xA3, 0x20, 0xA7]);
    let long = encoded(&NewMessage { topic: "t".repeat(128).into(), ..hello() });
    assert_eq!(long[4..8], [0xDA, 0xA3, 0x20, 0xAB]);
    assert_eq!(long.len(), short.len() + 2);
    let body_end = 84 + 4 + 5;
    assert_eq!(long[body_end..body_end + 3], [0, 128, b't']);
    assert_eq!(decode(&long).unwrap().topic.len(), 128);
}

#[test]
fn a_blank_is_the_rest_of_the_segment_and_its_magic_code() {
    let mut bytes = Vec::new();
    put_blank(0x1234, &mut bytes);
    assert_eq!(bytes, hex("00001234 CBD43194"));
    assert_eq!(check(&bytes, PhysicalOffset(0), 0x1234, true), Ok(Checked::Blank(0x1234)));
    assert!(matches!(check(&bytes, PhysicalOffset(0), 0x1235, true), Err(Reason::Room { .. })));
}

#[test]
fn a_record_that_says_that_it_ends_within_its_head_is_none() {
    for size in 1..8_u32 {
        let bytes = [size.to_be_bytes(), MAGIC_V1.to_be_bytes()].concat().repeat(20);
        assert!(matches!(decode(&bytes), Err(Reason::Structure(_))), "{size}");
    }
}

#[test]
fn message_ids_are_host_port_and_offset_in_hexadecimal() {
    let v4 = "127.0.0.1:10911".parse().unwrap();
    assert_eq!(message_id(v4, PhysicalOffset(0xABC)), "7F00000100002A9F0000000000000ABC");
    let v6 = "[2001:db8::1]:10911".parse().unwrap();
    assert_eq!(message_id(v6, PhysicalOffset(1)), "20010DB800000000000000000000000100002A9F0000000000000001");
    for host in [v4, v6] {
        assert_eq!(parse_message_id(&message_id(host, PhysicalOffset(77))), Some((host, PhysicalOffset(77))));
    }
    for wrong in
        ["", "7F", "7F00000100002A9F0000000000000ABG", "7F00000100FF2A9F0000000000000ABC", "é".repeat(16).as_str()]
    {
        assert_eq!(parse_message_id(wrong), None, "{wrong}");
    }
}

#[test]
fn each_kind_of_damage_is_named() {
    let good = hex(HELLO_V1);
    let place = PhysicalOffset(0x0102_0304);
    let judge = |bytes: &[u8]| check(bytes, place, 4096, true).map(|_| ());
    assert_eq!(judge(&good), Ok(()));
    assert_eq!(judge(&[0; 200]), Err(Reason::Zeros));
    assert!(matches!(judge(&good[..good.len() - 1]), Err(Reason::CutOff { have: 104, need: 105 })));
    assert_eq!(check(&good, PhysicalOffset(1), 4096, true).unwrap_err(), Reason::Elsewhere(0x0102_0304));
    assert!(matches!(check(&good, place, 105 + 7, true), Err(Reason::Room { size: 105, room: 112 })));
    assert!(check(&good, place, 105 + 8, true).is_ok());
    let changed = |at: usize, to: u8| {
        let mut bytes = good.clone();
        bytes[at] = to;
        judge(&bytes)
    };
    assert!(matches!(changed(4, 0), Err(Reason::Magic(_))));
    assert!(matches!(changed(90, b'H'), Err(Reason::BodyCrc { .. })));
    assert_eq!(changed(87, 200), Err(Reason::Structure("body")));
    assert_eq!(changed(94, 0), Err(Reason::Structure("topic")), "a topic with a zero");
    assert_eq!(changed(94, b'/'), Err(Reason::Structure("topic")), "a topic that is a path");
    assert_eq!(changed(97, 6), Err(Reason::Structure("end")));
}

#[test]
fn properties_that_lost_a_sector_are_damage_and_others_with_zeros_are_not() {
    let message = NewMessage { properties: vec![b'p'; 2000].into(), ..hello() };
    let good = encoded(&message);
    let place = PLACEMENT.physical;
    let first = good.len() - 2000;
    let boundaries: Vec<_> = (first..good.len()).filter(|at| (place.0 as usize + at).is_multiple_of(512)).collect();
    assert_eq!(boundaries.len(), 4);
    for begin in boundaries {
        let end = (begin + 512).min(good.len());
        let mut lost = good.clone();
        lost[begin..end].fill(0);
        assert!(check(&lost, place, 1 << 20, true).is_err(), "sector at {begin}");
        assert!(check(&lost, place, 1 << 20, false).is_ok());
        lost[end - 1] = 1;
        assert!(check(&lost, place, 1 << 20, true).is_ok(), "somebody's zeros at {begin}");
    }
}

fn hosts() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![any::<([u8; 4], u16)>().prop_map(SocketAddr::from), any::<([u8; 16], u16)>().prop_map(SocketAddr::from),]
}

prop_compose! {
    fn messages()(
        topic in "[%a-zA-Z0-9_-]{1,255}",
        numbers in any::<(u16, i32, i32, i64, i32, i64)>(),
        (born_host, store_host) in (hosts(), hosts()),
        body in prop::collection::vec(any::<u8>(), 0..300),
        properties in prop::collection::vec(1..=255_u8, 0..300),
    ) -> NewMessage {
        let (queue_id, flag, sys_flag, born_timestamp_ms, reconsume_times, prepared_offset) = numbers;
        NewMessage {
            topic: topic.into(), queue_id: queue_id.into(), flag, sys_flag, born_timestamp_ms, born_host, store_host,
            reconsume_times, prepared_offset, body: body.into(), properties: properties.into(),
        }
    }
}

proptest! {
    #![proptest_config(crate::property_config())]

    #[test]
    fn what_is_encoded_is_decoded_again(message in messages(), crc in any::<bool>()) {
        let bytes = encoded_as(&message, crc);
        let checked = check(&bytes, PLACEMENT.physical, bytes.len() as u64 + 8, true);
        let Ok(Checked::Record(record)) = checked else { panic!("{checked:?}") };
        prop_assert_eq!(record.topic, &*message.topic);
        prop_assert_eq!(record.body, &message.body[..]);
        prop_assert!(record.properties.starts_with(&message.properties));
        prop_assert!(record.properties.len() - message.properties.len() <= usize::from(crc));
        prop_assert_eq!(record.crc != RecordCrc::None, crc);
        prop_assert_eq!((record.born_host, record.store_host), (message.born_host, message.store_host));
        prop_assert_eq!((record.queue_id, record.flag), (message.queue_id, message.flag));
        prop_assert_eq!(record.sys_flag & !0x30, message.sys_flag & !0x30);
        prop_assert_eq!(record.queue_offset, PLACEMENT.queue_offset);
        prop_assert_eq!(record.born_timestamp_ms, message.born_timestamp_ms);
        prop_assert_eq!(record.store_timestamp_ms, PLACEMENT.store_timestamp_ms);
        prop_assert_eq!((record.reconsume_times, record.prepared_offset), (message.reconsume_times, message.prepared_offset));
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), v2 in any::<bool>()) {
        let _any = decode(&bytes).is_ok();
        let mut record = bytes;
        if record.len() >= 8 {
            let size = record.len() as u32;
            record[..4].copy_from_slice(&size.to_be_bytes());
            record[4..8].copy_from_slice(&if v2 { MAGIC_V2 } else { MAGIC_V1 }.to_be_bytes());
        }
        let _one = check(&record, PhysicalOffset(0), 4096, true).is_ok();
    }

    #[test]
    fn a_record_cut_short_anywhere_is_no_record(
        message in messages(), crc in any::<bool>(), cut in any::<prop::sample::Index>(),
    ) {
        let bytes = encoded_as(&message, crc);
        let cut = cut.index(bytes.len());
        prop_assert!(check(&bytes[..cut], PLACEMENT.physical, 1 << 20, true).is_err());
        // And as it lies in a segment whose rest was never written.
        let mut torn = bytes.clone();
        torn[cut..].fill(0);
        torn.extend_from_slice(&[0; 600]);
        let whole = torn[..bytes.len()] == bytes[..];
        let checked = check(&torn, PLACEMENT.physical, 1 << 20, true);
        if whole {
            prop_assert!(checked.is_ok());
        } else {
            prop_assert!(checked.is_err());
        }
    }
}
