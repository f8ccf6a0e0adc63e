//! REGISTER_BROKER: the topics of a broker, as JSON or in the compressed form that brokers send with `compressedRegister`.

use std::io::{self, Read};

use flate2::Crc;
use flate2::read::ZlibDecoder;
use serde::{Deserialize, Serialize};

use super::topic_config::{TopicConfig, TopicConfigs};
use super::{BodyError, null_as_default, parse};
use crate::version;

/// A compressed registration may unfold to this many bytes: some 400,000 topics.
const MAX_UNFOLDED_BYTES: u64 = 64 << 20;

/// Of a zlib stream with the usual window (RFC 1950).
const ZLIB_FIRST_BYTE: u8 = 0x78;

/// Body of REGISTER_BROKER (103).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RegisterBrokerBody {
    /// The broker's topics.
    pub topic_config_serialize_wrapper: TopicConfigs,
    /// Filter servers (obsolete).
    #[serde(deserialize_with = "null_as_default")]
    pub filter_server_list: Vec<String>,
}

impl RegisterBrokerBody {
    /// Reads the body of a broker of this version. An empty body is a broker without topics.
    pub fn decode(body: &[u8], compressed: bool, broker_version: i32) -> Result<Self, BodyError> {
        if body.is_empty() {
            return Ok(Self::default());
        }
        if broker_version < version::V3_0_11 {
            let topics = parse(body)?;
            return Ok(Self { topic_config_serialize_wrapper: topics, filter_server_list: Vec::new() });
        }
        // Apache's 5.x brokers compress and say that they didn't; JSON never begins like this.
        if compressed || body.starts_with(&[ZLIB_FIRST_BYTE]) {
            decode_compressed(body, MAX_UNFOLDED_BYTES)
        } else {
            parse(body)
        }
    }
}

/// What goes into the header's `bodyCrc32`: CRC-32 without its highest bit.
pub fn body_crc32(body: &[u8]) -> i32 {
    let mut crc = Crc::new();
    crc.update(body);
    (crc.sum() & 0x7FFF_FFFF) as i32
}

/// zlib of: `length 4, DataVersion as JSON | topics 4 | {length 4, topic as text}* | length 4, filter servers as JSON`,
/// then, from 5.0.0 on, the mappings of static topics, which are left unread.
fn decode_compressed(body: &[u8], max_unfolded_bytes: u64) -> Result<RegisterBrokerBody, BodyError> {
    let mut unfolded = Vec::new();
    let failed = |error: io::Error| BodyError::Compressed(error.to_string());
    ZlibDecoder::new(body).take(max_unfolded_bytes + 1).read_to_end(&mut unfolded).map_err(failed)?;
    if unfolded.len() as u64 > max_unfolded_bytes {
        return Err(BodyError::Compressed(format!("unfolds to more than {max_unfolded_bytes} bytes")));
    }
    let mut rest = unfolded.as_slice();
    let mut topics = TopicConfigs { data_version: parse(take_block(&mut rest)?)?, ..TopicConfigs::default() };
    for _ in 0..take_length(&mut rest)? {
        let topic = decode_topic(take_block(&mut rest)?)?;
        topics.topic_config_table.insert(topic.topic_name.clone(), topic);
    }
    let filter_server_list = parse::<Option<_>>(take_block(&mut rest)?)?.unwrap_or_default();
    Ok(RegisterBrokerBody { topic_config_serialize_wrapper: topics, filter_server_list })
}

/// `name readQueues writeQueues perm filterType [attributes as JSON]`, separated by single spaces.
fn decode_topic(text: &[u8]) -> Result<TopicConfig, BodyError> {
    let malformed = || BodyError::Compressed(format!("malformed topic `{}`", String::from_utf8_lossy(text)));
    let mut words = std::str::from_utf8(text).map_err(|_| malformed())?.splitn(6, ' ');
    let mut word = || words.next().ok_or_else(malformed);
    let number = |word: &str| word.parse::<i32>().map_err(|_| malformed());
    let mut topic = TopicConfig {
        topic_name: word()?.to_owned(),
        read_queue_nums: number(word()?)?,
        write_queue_nums: number(word()?)?,
        perm: number(word()?)?,
        topic_filter_type: word()?.to_owned(),
        ..TopicConfig::default()
    };
    if let Some(attributes) = words.next().filter(|attributes| !attributes.is_empty()) {
        topic.attributes = parse::<Option<_>>(attributes.as_bytes())?.unwrap_or_default();
    }
    Ok(topic)
}

fn take_block<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], BodyError> {
    let length = take_length(rest)?;
    let (block, after) =
        rest.split_at_checked(length).ok_or_else(|| BodyError::Compressed("a length points beyond the end".into()))?;
    *rest = after;
    Ok(block)
}

fn take_length(rest: &mut &[u8]) -> Result<usize, BodyError> {
    let (length, after) = rest.split_first_chunk().ok_or_else(|| BodyError::Compressed("it ends too early".into()))?;
    *rest = after;
    usize::try_from(i32::from_be_bytes(*length)).map_err(|_| BodyError::Compressed("a negative length".into()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::ZlibEncoder;

    use super::*;

    fn compress(blocks: &[&[u8]], topics: &[&str]) -> Vec<u8> {
        let mut plain = Vec::new();
        let mut block = |bytes: &[u8]| {
            plain.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
            plain.extend_from_slice(bytes);
        };
        block(blocks[0]);
        let mut listed = (topics.len() as u32).to_be_bytes().to_vec();
        for topic in topics {
            listed.extend_from_slice(&(topic.len() as u32).to_be_bytes());
            listed.extend_from_slice(topic.as_bytes());
        }
        plain.extend_from_slice(&listed);
        for bytes in &blocks[1..] {
            plain.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
            plain.extend_from_slice(bytes);
        }
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::best());
        zlib.write_all(&plain).unwrap();
        zlib.finish().unwrap()
    }

    const VERSION: &[u8] = br#"{"counter":3,"stateVersion":0,"timestamp":1700000000000}"#;

    #[test]
    fn a_compressed_registration_is_read() {
        let topics = ["t 4 8 6 SINGLE_TAG {\"message.type\":\"FIFO NORMAL\"}", "old 1 1 2 MULTI_TAG"];
        let body = RegisterBrokerBody::decode(&compress(&[VERSION, b"[]"], &topics), true, version::V5_5_0).unwrap();
        let table = &body.topic_config_serialize_wrapper.topic_config_table;
        assert_eq!((table["t"].read_queue_nums, table["t"].write_queue_nums, table["old"].perm), (4, 8, 2));
        assert_eq!(table["t"].attributes["message.type"], "FIFO NORMAL");
        assert_eq!(body.topic_config_serialize_wrapper.data_version.counter, 3);
    }

    #[test]
    fn a_compressed_registration_that_says_it_is_not_is_read_all_the_same() {
        let body = compress(&[VERSION, b"[]"], &["t 4 8 6 SINGLE_TAG"]);
        let body = RegisterBrokerBody::decode(&body, false, version::V5_5_0).unwrap();
        assert_eq!(body.topic_config_serialize_wrapper.topic_config_table["t"].write_queue_nums, 8);
    }

    #[test]
    fn what_can_t_be_read_is_an_error_at_every_length() {
        let whole = compress(&[VERSION, b"[]"], &["t 4 8 6 SINGLE_TAG"]);
        for length in 1..whole.len() {
            // zlib's own checksum comes last, so only the whole stream is right.
            assert!(RegisterBrokerBody::decode(&whole[..length], true, version::V5_5_0).is_err(), "{length} bytes");
        }
        let error = RegisterBrokerBody::decode(&compress(&[VERSION, b"[]"], &["t 4 x 6 T"]), true, 401).unwrap_err();
        assert_eq!(error.to_string(), "compressed registration: malformed topic `t 4 x 6 T`");
    }

    #[test]
    fn the_crc_is_the_usual_one_without_its_sign() {
        assert_eq!(body_crc32(b"123456789"), 0x4BF4_3926);
    }

    #[test]
    fn a_bomb_is_refused() {
        let topic = "t 4 8 6 SINGLE_TAG";
        let bomb = compress(&[VERSION, b"[]"], &[topic; 1000]);
        assert!(decode_compressed(&bomb, 1 << 20).is_ok());
        let error = decode_compressed(&bomb, 10_000).unwrap_err();
        assert_eq!(error.to_string(), "compressed registration: unfolds to more than 10000 bytes");
    }

    #[test]
    fn json_is_read_with_or_without_its_optional_parts() {
        let json = br#"{"filterServerList":[],"topicConfigSerializeWrapper":{"dataVersion":{"counter":2,"timestamp":5},
            "mappingDataVersion":{},"topicConfigTable":{"t":{"attributes":{},"order":false,"perm":6,"readQueueNums":8,
            "topicFilterType":"SINGLE_TAG","topicName":"t","topicSysFlag":0,"writeQueueNums":8}}}}"#;
        let body = RegisterBrokerBody::decode(json, false, version::V4_9_4).unwrap();
        assert_eq!(body.topic_config_serialize_wrapper.topic_config_table["t"].read_queue_nums, 8);
        assert_eq!(RegisterBrokerBody::decode(b"", false, 0).unwrap(), RegisterBrokerBody::default());
    }
}
