//! What one broker was given, for the next one on the same store to answer for: messages of all kinds at their places, keys, and how
//! far groups are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use gantry_remoting::Command;
use gantry_remoting::code::{request, response};
use gantry_remoting::headers::offset::{OffsetResponse, QueryConsumerOffset, UpdateConsumerOffset};

use crate::load::body_of;
use crate::wait;
use crate::wire::{self, Kept, Outgoing, Place, Sent, Wire};

/// The topic that a stock client reads.
pub const TOPIC: &str = "Orders";
const OTHER_TOPIC: &str = "Payments";
const GROUP: &str = "billing";
const QUEUES: i32 = 4;
const SINGLES: u64 = 15;
const BATCH: u64 = 5;
const PATIENCE: Duration = Duration::from_mins(1);

/// Everything that was acknowledged so far.
#[derive(Debug, Default)]
pub struct Ledger {
    messages: Vec<Message>,
    /// Ids of delayed messages, which come to [`TOPIC`] when it is time.
    delayed: BTreeSet<String>,
    /// By queue of [`TOPIC`].
    offsets: BTreeMap<i32, i64>,
    fills: u64,
}

#[derive(Debug)]
struct Message {
    topic: &'static str,
    queue: i32,
    offset: i64,
    id: String,
    properties: Vec<(String, String)>,
    body: Bytes,
}

impl Ledger {
    /// Sends one of each kind and more; all of it must be acknowledged.
    pub async fn fill(&mut self, wire: &Wire) -> anyhow::Result<()> {
        let fill = self.fills;
        self.fills += 1;
        for topic in [TOPIC, OTHER_TOPIC] {
            for queue in 0..QUEUES {
                for number in 0..SINGLES {
                    let mut message = outgoing(&format!("{topic}.{fill}.{queue}-{number}"));
                    if number == 0 && queue == 0 {
                        // Larger than a page, a read, a batch of replication.
                        message.body = vec![b'x'; 300 << 10].into();
                    }
                    let place = acked(wire.send(topic, queue, &message).await?)?;
                    self.note(topic, &place, 0, message);
                }
            }
            let batch: Vec<_> = (0..BATCH).map(|number| outgoing(&format!("{topic}.{fill}.batch-{number}"))).collect();
            let place = acked(wire.send_batch(topic, 1, &batch).await?)?;
            for (number, message) in (0..).zip(batch) {
                self.note(topic, &place, number, message);
            }
        }
        let id = format!("{TOPIC}.{fill}.later-0");
        let mut message = outgoing(&id);
        message.properties.push(("DELAY".into(), "1".into()));
        acked(wire.send(TOPIC, 2, &message).await?)?;
        self.delayed.insert(id);
        create_group(wire).await?;
        for queue in 0..QUEUES {
            let offset = (self.fills * 3).cast_signed() + i64::from(queue);
            commit(wire, queue, offset).await?;
            self.offsets.insert(queue, offset);
        }
        Ok(())
    }

    fn note(&mut self, topic: &'static str, place: &Place, number: i64, message: Outgoing) {
        let id = message.properties[0].1.clone();
        let (queue, offset) = (place.queue, place.offset + number);
        self.messages.push(Message { topic, queue, offset, id, properties: message.properties, body: message.body });
    }

    /// Waits until the store's snapshots say how far the group is: a broker that is killed may lose the last moments of that.
    pub fn wait_snapshots(&self, store: &Path) -> anyhow::Result<()> {
        let file = store.join("config/consumerOffset.json");
        wait::until("a snapshot of the offsets", PATIENCE, || {
            // Apache writes numbers as names without quotes.
            let text: String = std::fs::read_to_string(&file)?.chars().filter(|c| !" \t\n\"".contains(*c)).collect();
            let of_group = text.split_once(&format!("{TOPIC}@{GROUP}:{{")).map_or("", |(_, rest)| rest);
            let of_group = of_group.split_once('}').map_or("", |(of_group, _)| of_group);
            let said: Vec<&str> = of_group.split(',').collect();
            let all = self.offsets.iter().all(|(queue, offset)| said.contains(&format!("{queue}:{offset}").as_str()));
            Ok(all.then_some(()))
        })
    }

    /// Holds a broker against it: every message where it was, whole, nothing else, and offsets as they were.
    pub async fn check(&self, wire: &Wire) -> anyhow::Result<()> {
        for topic in [TOPIC, OTHER_TOPIC] {
            for queue in 0..QUEUES {
                self.check_queue(wire, topic, queue).await.with_context(|| format!("{topic} queue {queue}"))?;
            }
        }
        self.wait_delayed(wire).await?;
        for (queue, offset) in &self.offsets {
            let found = committed(wire, *queue).await?;
            ensure!(found == Some(*offset), "{GROUP} is at {found:?} of {TOPIC} queue {queue}, not at {offset}");
        }
        Ok(())
    }

    async fn check_queue(&self, wire: &Wire, topic: &str, queue: i32) -> anyhow::Result<()> {
        let min = wire.min_offset(topic, queue).await?;
        ensure!(min == 0, "begins at {min}");
        let kept = wire.drain(topic, queue, 0).await?;
        for (number, message) in kept.iter().enumerate() {
            ensure!(message.offset == number as i64, "offset {} where {number} is expected", message.offset);
        }
        let mut there: HashMap<i64, &Kept> = kept.iter().map(|kept| (kept.offset, kept)).collect();
        for message in self.messages.iter().filter(|message| message.topic == topic && message.queue == queue) {
            let kept = there
                .remove(&message.offset)
                .with_context(|| format!("{} at {} is lost", message.id, message.offset))?;
            message.is_kept_as(kept)?;
        }
        for other in there.values() {
            let id = other.properties.get("KEYS").map_or("", String::as_str);
            ensure!(self.delayed.contains(id) && other.body == body_of(id), "nobody sent {other:?}");
        }
        Ok(())
    }

    async fn wait_delayed(&self, wire: &Wire) -> anyhow::Result<()> {
        let mut left = self.delayed.clone();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !left.is_empty() {
            for kept in wire.drain(TOPIC, 2, 0).await? {
                left.remove(kept.properties.get("KEYS").map_or("", String::as_str));
            }
            ensure!(tokio::time::Instant::now() < deadline, "delayed messages never came: {left:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Asks for messages by their keys and unique keys: each must be found where it is.
    pub async fn check_keys(&self, wire: &Wire) -> anyhow::Result<()> {
        for message in self.messages.iter().step_by(7) {
            for (name, value) in
                message.properties.iter().filter(|(name, _)| matches!(name.as_str(), "KEYS" | "UNIQ_KEY"))
            {
                for key in value.split(' ') {
                    let found = query(wire, message.topic, key, name == "UNIQ_KEY").await?;
                    let is_it = |kept: &Kept| (kept.queue, kept.offset) == (message.queue, message.offset);
                    ensure!(found.iter().any(is_it), "{name} {key} of {}: {} others found", message.id, found.len());
                }
            }
        }
        Ok(())
    }

    /// Where each message of [`TOPIC`] that wasn't delayed is, and which one it is.
    pub fn places(&self) -> BTreeMap<(i32, i64), &str> {
        let of_topic = self.messages.iter().filter(|message| message.topic == TOPIC);
        of_topic.map(|message| ((message.queue, message.offset), message.id.as_str())).collect()
    }

    /// How many different messages [`TOPIC`] has.
    pub fn count(&self) -> usize {
        self.places().len() + self.delayed.len()
    }
}

impl Message {
    fn is_kept_as(&self, kept: &Kept) -> anyhow::Result<()> {
        ensure!(kept.body == self.body, "{} has another body", self.id);
        for (name, value) in &self.properties {
            let found = kept.properties.get(name);
            ensure!(found == Some(value), "{}: {name} is {found:?}, not {value}", self.id);
        }
        Ok(())
    }
}

/// A message with tag, keys, unique key and a property of its own; `KEYS` comes first.
fn outgoing(id: &str) -> Outgoing {
    let unique = format!(
        "{:032X}",
        id.bytes().fold(1_u128, |sum, byte| sum.wrapping_mul(0x1_0000_01B3).wrapping_add(byte.into()))
    );
    let tag = if id.len().is_multiple_of(2) { "A" } else { "B" };
    let properties = [("KEYS", id), ("UNIQ_KEY", &unique), ("TAGS", tag), ("größe", "drei €")];
    let properties = properties.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    Outgoing { properties, body: body_of(id) }
}

fn acked(sent: Sent) -> anyhow::Result<Place> {
    match sent {
        Sent::Ok(place) => Ok(place),
        Sent::Refused(code, remark) => bail!("a send was answered {code} {remark}"),
    }
}

async fn create_group(wire: &Wire) -> anyhow::Result<()> {
    let body = format!(r#"{{"groupName":"{GROUP}","consumeEnable":true,"retryQueueNums":1,"retryMaxTimes":16}}"#);
    let answer = wire
        .invoke(Command::request(request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP).with_body(Bytes::from(body)))
        .await?;
    ensure!(answer.code == response::SUCCESS, "creating group {GROUP}: {} {:?}", answer.code, answer.remark);
    Ok(())
}

async fn commit(wire: &Wire, queue: i32, offset: i64) -> anyhow::Result<()> {
    let header = UpdateConsumerOffset { consumer_group: GROUP, topic: TOPIC, queue_id: queue, commit_offset: offset };
    let answer = wire.invoke(Command::request(request::UPDATE_CONSUMER_OFFSET).with_header(&header)).await?;
    ensure!(answer.code == response::SUCCESS, "committing an offset: {} {:?}", answer.code, answer.remark);
    Ok(())
}

async fn committed(wire: &Wire, queue: i32) -> anyhow::Result<Option<i64>> {
    let header =
        QueryConsumerOffset { consumer_group: GROUP, topic: TOPIC, queue_id: queue, set_zero_if_not_found: None };
    let answer = wire.invoke(Command::request(request::QUERY_CONSUMER_OFFSET).with_header(&header)).await?;
    Ok((answer.code == response::SUCCESS)
        .then(|| answer.header::<OffsetResponse>())
        .transpose()?
        .map(|found| found.offset))
}

/// QUERY_MESSAGE (12): messages of a topic with a key, whenever they were stored.
async fn query(wire: &Wire, topic: &str, key: &str, unique: bool) -> anyhow::Result<Vec<Kept>> {
    let mut command = Command::request(request::QUERY_MESSAGE);
    let fields = [("topic", topic), ("key", key), ("maxNum", "32"), ("beginTimestamp", "0")];
    for (name, value) in fields {
        command.ext.set(name, value);
    }
    command.ext.set("endTimestamp", &i64::MAX.to_string());
    command.ext.set("_UNIQUE_KEY_QUERY", if unique { "true" } else { "false" });
    let answer = wire.invoke(command).await?;
    match answer.code {
        response::SUCCESS => wire::decode(&answer.body.to_bytes()),
        code => bail!("asking for key {key} of {topic}: {code} {}", answer.remark.unwrap_or_default()),
    }
}
