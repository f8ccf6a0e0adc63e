//! A producer's batch (SEND_BATCH_MESSAGE): several messages in one body.
//!
//! Each: `size 4, magic 4, crc 4, flag 4, body length 4, body, properties length 2, properties`; size counts itself.

use bytes::{Buf, Bytes};

/// One message of a batch; body and properties are slices of the request's body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BatchMessage {
    /// The application's flag
    pub(super) flag: i32,
    /// As it came, compressed or not
    pub(super) body: Bytes,
    /// Encoded properties
    pub(super) properties: Bytes,
}

impl BatchMessage {
    /// Its properties, which were checked to be text.
    pub(super) fn properties(&self) -> &str {
        std::str::from_utf8(&self.properties).unwrap_or_default()
    }
}

/// Why a body is no batch.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadBatch {
    /// Nothing in it
    #[error("the batch is empty")]
    Empty,
    /// Too many for one append
    #[error("the batch has more than {MAX_MESSAGES} messages")]
    TooMany,
    /// A length that doesn't fit
    #[error("message {index} of the batch: {what} doesn't fit into the {left} bytes left")]
    Torn {
        /// which message, from 0
        index: usize,
        /// which length
        what: &'static str,
        /// bytes of the message, or of the batch, from there
        left: usize,
    },
    /// Properties that are no text
    #[error("message {0} of the batch: its properties are not UTF-8")]
    NotText(usize),
}

/// Most messages of one batch: a batch lies in the log in one piece, and its ids must fit the answer's header.
pub(super) const MAX_MESSAGES: usize = 16_384;

/// size, magic, crc, flag, body length
const HEAD_LEN: usize = 20;

/// Takes a batch apart without copying.
pub(super) fn decode(mut rest: Bytes) -> Result<Vec<BatchMessage>, BadBatch> {
    let mut messages = Vec::new();
    while !rest.is_empty() {
        if messages.len() == MAX_MESSAGES {
            return Err(BadBatch::TooMany);
        }
        messages.push(next(&mut rest, messages.len())?);
    }
    if messages.is_empty() { Err(BadBatch::Empty) } else { Ok(messages) }
}

fn next(rest: &mut Bytes, index: usize) -> Result<BatchMessage, BadBatch> {
    let torn = |what, left| BadBatch::Torn { index, what, left };
    if rest.len() < HEAD_LEN + 2 {
        return Err(torn("the head", rest.len()));
    }
    let size = (&rest[..]).get_u32() as usize;
    if size < HEAD_LEN + 2 || size > rest.len() {
        return Err(torn("the size", rest.len()));
    }
    let mut message = rest.split_to(size);
    message.advance(12);
    let flag = message.get_i32();
    let body_len = message.get_u32() as usize;
    if body_len + 2 > message.len() {
        return Err(torn("the body", message.len()));
    }
    let body = message.split_to(body_len);
    let properties_len = message.get_u16() as usize;
    if properties_len > message.len() {
        return Err(torn("the properties", message.len()));
    }
    let properties = message.split_to(properties_len);
    if std::str::from_utf8(&properties).is_err() {
        return Err(BadBatch::NotText(index));
    }
    Ok(BatchMessage { flag, body, properties })
}

#[cfg(test)]
pub(crate) fn encode(messages: &[(i32, &[u8], &str)]) -> Bytes {
    use bytes::BufMut;
    let mut out = bytes::BytesMut::new();
    for (flag, body, properties) in messages {
        out.put_u32((HEAD_LEN + body.len() + 2 + properties.len()) as u32);
        out.put_u64(0);
        out.put_i32(*flag);
        out.put_u32(body.len() as u32);
        out.put_slice(body);
        out.put_u16(properties.len() as u16);
        out.put_slice(properties.as_bytes());
    }
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_batch_comes_apart_as_it_was_put_together() {
        let batch = encode(&[(7, b"one", "k\u{1}v\u{2}"), (0, b"", "")]);
        let messages = decode(batch).unwrap();
        assert_eq!(messages.len(), 2);
        assert_eq!((messages[0].flag, &messages[0].body[..]), (7, &b"one"[..]));
        assert_eq!(&messages[0].properties[..], b"k\x01v\x02");
    }

    #[test]
    fn a_batch_cut_anywhere_is_refused_with_the_place() {
        let batch = encode(&[(0, b"one", "k\u{1}v"), (0, b"two", "")]);
        let first = 20 + 3 + 2 + 3;
        for cut in 1..batch.len() {
            let result = decode(batch.slice(..cut));
            if cut == first {
                assert_eq!(result.unwrap().len(), 1);
            } else {
                assert!(matches!(result, Err(BadBatch::Torn { .. })), "cut at {cut}");
            }
        }
        assert_eq!(decode(Bytes::new()), Err(BadBatch::Empty));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read_but_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(messages) = decode(bytes.into()) {
                prop_assert!(!messages.is_empty());
            }
        }
    }
}
