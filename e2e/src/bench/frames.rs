//! SEND_MESSAGE_V2 requests with a JSON header, made once and stamped for each send; answers glanced at.

use anyhow::{Context, bail};

use super::Options;

/// Opaques have ten digits always, so that a stamp fits where the one before stood.
const FIRST_OPAQUE: u32 = 1_000_000_000;

/// One connection's requests: the same frame with another opaque, queue and unique key each time.
#[derive(Debug)]
pub(super) struct Request {
    frame: Vec<u8>,
    opaque_at: usize,
    key_at: usize,
    queue_at: usize,
}

const KEY_DIGITS: usize = 32;

impl Request {
    /// `connection` makes the unique keys of several connections different. At most ten queues: one digit.
    pub(super) fn new(options: &Options, connection: u32) -> anyhow::Result<Self> {
        let (topic, size) = (&options.topic, options.size);
        // A name of the same length that nobody knows is no key to index.
        let name = if options.without_keys { "SOME_KEY" } else { "UNIQ_KEY" };
        let opaque = FIRST_OPAQUE.to_string();
        let key = format!("{connection:08X}{:024X}", 0);
        let header = format!(
            "{{\"code\":310,\"flag\":0,\"language\":\"JAVA\",\"opaque\":{opaque},\"serializeTypeCurrentRPC\":\"JSON\",\
             \"version\":513,\"extFields\":{{\"a\":\"bench\",\"b\":\"{topic}\",\"c\":\"TBW102\",\"d\":\"4\",\"e\":\"0\",\
             \"f\":\"0\",\"g\":\"1700000000000\",\"h\":\"0\",\"i\":\"{name}\\u0001{key}\\u0002WAIT\\u0001true\",\
             \"j\":\"0\",\"k\":\"false\",\"m\":\"false\"}}}}"
        );
        let mut frame = Vec::with_capacity(header.len() + size + 8);
        frame.extend_from_slice(&(u32::try_from(4 + header.len() + size)?).to_be_bytes());
        frame.extend_from_slice(&(u32::try_from(header.len())?).to_be_bytes());
        frame.extend_from_slice(header.as_bytes());
        frame.extend((0..size).map(|n| b'a' + (n % 26) as u8));
        let find = |text: &str| header.find(text).map(|at| 8 + at).context("the header lacks what is stamped");
        Ok(Self {
            opaque_at: find(&opaque)?,
            key_at: find(&key)? + KEY_DIGITS - 10,
            queue_at: find("\"e\":\"")? + 5,
            frame,
        })
    }

    /// Appends the `number`-th request.
    pub(super) fn append_to(&mut self, out: &mut Vec<u8>, number: u32, queue: u32) {
        write_decimal(&mut self.frame[self.opaque_at..self.opaque_at + 10], FIRST_OPAQUE + number);
        write_decimal(&mut self.frame[self.key_at..self.key_at + 10], number);
        write_decimal(&mut self.frame[self.queue_at..=self.queue_at], queue % 10);
        out.extend_from_slice(&self.frame);
    }
}

/// An answer: to which request, and whether it was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) number: u32,
    pub(super) code: i32,
}

/// Takes whole answers from the front of `bytes` and returns how many bytes they had.
pub(super) fn take_answers(bytes: &[u8], mut answer: impl FnMut(Answer)) -> anyhow::Result<usize> {
    let mut taken = 0;
    while let Some(length) = bytes.get(taken..taken + 4) {
        let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
        let Some(frame) = bytes.get(taken + 4..taken + 4 + length) else { break };
        let header_bytes = frame.get(1..4).map(|bytes| bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)));
        let header = header_bytes.and_then(|length| frame.get(4..4 + length)).context("an answer without header")?;
        let opaque = number_after(header, b"\"opaque\":").context("an answer without opaque")?;
        let code = number_after(header, b"\"code\":").context("an answer without code")?;
        if opaque < i64::from(FIRST_OPAQUE) {
            bail!("an answer to opaque {opaque}, which was never asked");
        }
        answer(Answer { number: (opaque - i64::from(FIRST_OPAQUE)) as u32, code: code as i32 });
        taken += 4 + length;
    }
    Ok(taken)
}

fn number_after(header: &[u8], key: &[u8]) -> Option<i64> {
    let at = header.windows(key.len()).position(|window| window == key)? + key.len();
    let digits = header[at..].iter().take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0')))
}

fn write_decimal(place: &mut [u8], mut value: u32) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn a_stamped_frame_has_its_opaque_key_and_queue() {
        let mut request =
            Request::new(&Arguments::parse_from(["bench", "--topic", "T", "--size", "16"]).options, 3).unwrap();
        let mut out = Vec::new();
        request.append_to(&mut out, 41, 2);
        let first = out.len();
        request.append_to(&mut out, 42, 3);
        assert_eq!(out.len(), 2 * first);
        let text = String::from_utf8_lossy(&out[first..]).into_owned();
        assert!(text.contains("\"opaque\":1000000042,"), "{text}");
        assert!(text.contains("00000003") && text.contains("0000000042\\u0002"), "{text}");
        assert!(text.contains("\"e\":\"3\""), "{text}");
        assert_eq!(u32::from_be_bytes([out[0], out[1], out[2], out[3]]) as usize, first - 4);
    }

    #[test]
    fn answers_are_taken_whole_and_only_whole() {
        let header = br#"{"code":0,"extFields":{"queueOffset":"5"},"flag":1,"opaque":1000000007,"remark":null}"#;
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&(header.len() as u32 + 4).to_be_bytes());
        bytes.extend_from_slice(&(header.len() as u32).to_be_bytes());
        bytes.extend_from_slice(header);
        let whole = bytes.len();
        bytes.extend_from_slice(&bytes.clone()[..whole - 1]);
        let mut seen = Vec::new();
        assert_eq!(take_answers(&bytes, |answer| seen.push(answer)).unwrap(), whole);
        assert_eq!(seen, [Answer { number: 7, code: 0 }]);
    }
}
