//! What happened, as the clients noted it: JSON lines, one event a line.
//!
//! Every client program writes the same events. Time is microseconds of the wall clock at the program's start plus
//! its monotonic clock since: it never runs backwards inside one program, and can be compared between programs of
//! one machine. A message's id is `<producer>-<sequence>`; it is the message's key and stands in its body.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "e", rename_all = "lowercase")]
pub enum Event {
    /// A producer begins. `hidden` is how many attempts its library may add to each send without telling.
    Producer {
        /// The producer's name, the first part of its messages' ids.
        #[serde(rename = "p")]
        producer: String,
        /// Attempts that the library may make by itself inside one send.
        hidden: u32,
        /// When, in microseconds.
        t: i64,
    },
    /// A consumer begins.
    Consumer {
        /// The consumer's name.
        #[serde(rename = "c")]
        consumer: String,
        /// Its consumer group.
        group: String,
        /// Whether it notes each queue's messages in the order in which the library delivers them.
        ordered: bool,
        /// When, in microseconds.
        t: i64,
    },
    /// A send begins.
    Start {
        /// The message.
        id: String,
        /// Counted from 1; grows when the program sends the message again.
        #[serde(rename = "a")]
        attempt: u32,
        /// Its tag, where it has one.
        #[serde(rename = "g", default, skip_serializing_if = "Option::is_none")]
        tag: Option<String>,
        /// When, in microseconds.
        t: i64,
    },
    /// A send ended: with an answer, or with an error.
    End {
        /// The message.
        id: String,
        /// The attempt that ended.
        #[serde(rename = "a")]
        attempt: u32,
        /// `OK`, another send status, or an error's class. Only `OK` acknowledges; the rest is unknown.
        #[serde(rename = "s")]
        status: String,
        /// Queue, where the broker named one.
        #[serde(rename = "q", default, skip_serializing_if = "Option::is_none")]
        queue: Option<i32>,
        /// Queue offset, where the broker named one.
        #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
        offset: Option<i64>,
        /// Offset message id, where the broker named one.
        #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
        offset_msg_id: Option<String>,
        /// When, in microseconds.
        t: i64,
    },
    /// The library failed one attempt inside a send, and told so by a hook.
    Inner {
        /// The message.
        id: String,
        /// The error's class.
        #[serde(rename = "s")]
        status: String,
        /// When, in microseconds.
        t: i64,
    },
    /// A message was delivered.
    Recv(Delivery),
}

/// One delivery of one message to one consumer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// The message's key.
    pub id: String,
    /// Who got it.
    #[serde(rename = "c")]
    pub consumer: String,
    /// The topic it was stored in: `%RETRY%group` for a retried one.
    #[serde(rename = "tp")]
    pub topic: String,
    /// Its queue there.
    #[serde(rename = "q")]
    pub queue: i32,
    /// Its offset in that queue.
    #[serde(rename = "o")]
    pub offset: i64,
    /// How often it was sent back before.
    #[serde(rename = "r", default)]
    pub reconsume_times: i32,
    /// Whether the body carries this id and a right CRC.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub intact: bool,
    /// Whether the consumer answered that it wants it later again.
    #[serde(default, skip_serializing_if = "is_no")]
    pub later: bool,
    /// When, in microseconds.
    pub t: i64,
}

impl Event {
    /// When it happened, in microseconds.
    pub fn at_us(&self) -> i64 {
        match self {
            Self::Producer { t, .. }
            | Self::Consumer { t, .. }
            | Self::Start { t, .. }
            | Self::End { t, .. }
            | Self::Inner { t, .. } => *t,
            Self::Recv(delivery) => delivery.t,
        }
    }
}

/// The producer of a message id, or `None` where the id has no sequence.
pub fn producer_of(id: &str) -> Option<&str> {
    id.rsplit_once('-').filter(|(_, sequence)| sequence.parse::<u64>().is_ok()).map(|(producer, _)| producer)
}

/// Reads whole histories and puts their events in order of time. A line that can't be read is an error that names it.
pub fn read(files: &[impl AsRef<Path>]) -> anyhow::Result<Vec<Event>> {
    let mut events = Vec::new();
    for file in files {
        read_one(file.as_ref(), &mut events)?;
    }
    // Stable: events of one program keep the order in which it wrote them, even within one microsecond.
    events.sort_by_key(Event::at_us);
    Ok(events)
}

fn read_one(file: &Path, events: &mut Vec<Event>) -> anyhow::Result<()> {
    let reader = BufReader::new(File::open(file).with_context(|| format!("opening the history {}", file.display()))?);
    for (index, line) in reader.lines().enumerate() {
        let line = line.with_context(|| format!("reading the history {}", file.display()))?;
        match serde_json::from_str(&line) {
            Ok(event) => events.push(event),
            Err(error) => bail!("{}:{}: not an event: {error}: {line}", file.display(), index + 1),
        }
    }
    Ok(())
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_yes(value: &bool) -> bool {
    *value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_no(value: &bool) -> bool {
    !*value
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn events_of_several_files_come_in_order_of_time() {
        let mut one = tempfile::NamedTempFile::new().unwrap();
        let mut two = tempfile::NamedTempFile::new().unwrap();
        writeln!(one, r#"{{"e":"start","id":"p.0-1","a":1,"t":30}}"#).unwrap();
        writeln!(one, r#"{{"e":"end","id":"p.0-1","a":1,"s":"OK","q":2,"o":7,"m":"AB","t":40}}"#).unwrap();
        writeln!(two, r#"{{"e":"recv","id":"p.0-1","c":"c","tp":"T","q":2,"o":7,"r":0,"t":35}}"#).unwrap();
        let events = read(&[one.path(), two.path()]).unwrap();
        assert_eq!(events.iter().map(Event::at_us).collect::<Vec<_>>(), [30, 35, 40]);
        let Event::Recv(delivery) = &events[1] else { panic!("{:?}", events[1]) };
        assert!(delivery.intact && !delivery.later);
    }

    #[test]
    fn a_line_that_is_no_event_is_named() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, r#"{{"e":"start","id":"p.0-1","a":1,"t":30}}"#).unwrap();
        writeln!(file, "{{\"e\":\"start\"").unwrap();
        let error = read(&[file.path()]).unwrap_err().to_string();
        assert!(error.contains(":2: not an event"), "{error}");
    }

    #[test]
    fn the_producer_is_what_stands_before_the_last_hyphen() {
        assert_eq!(producer_of("run-3.0-17"), Some("run-3.0"));
        assert_eq!(producer_of("nothing"), None);
        assert_eq!(producer_of("a-b"), None);
    }
}
