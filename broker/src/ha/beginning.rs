//! What the records say that a log no longer begins with: metadata, and the numbers of queues of which nothing is left. A slave whose log
//! is taken anew gets it first.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use gantry_store::{QueueNumber, QueueOffset, Store};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Duration;

use super::frame::{Frame, MAX_PAYLOAD_BYTES, Snapshot};
use super::session::{read, write};
use crate::core::Beginning;

/// Of a snapshot in one frame.
const PART_BYTES: usize = 1 << 20;
/// A snapshot at most; metadata of a hundred thousand topics are some tens of MiB.
const MAX_BYTES: u64 = 1 << 30;

/// Who has the metadata.
pub trait Metadata: Send + Sync {
    /// All that is confirmed.
    fn snapshot(&self) -> Result<Bytes>;
    /// Takes over another replica's [`Self::snapshot`], durably.
    fn install(&self, snapshot: &[u8]) -> Result<()>;
}

/// As it goes over the wire, in JSON.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Contents {
    /// Topic, queue, the next message's number.
    queue_numbers: Vec<(String, u32, u64)>,
    /// The metadata's own text.
    metadata: String,
}

/// The master's side.
pub(super) async fn send(
    to: &mut (impl AsyncWrite + Unpin),
    store: &Store,
    metadata: &Arc<dyn Metadata>,
    patience: Duration,
) -> Result<()> {
    let (store, metadata) = (store.clone(), Arc::clone(metadata));
    let encoded = tokio::task::spawn_blocking(move || encode(&store, &*metadata)).await;
    let bytes = encoded.context("the snapshot broke off")??;
    let total = bytes.len() as u64;
    let mut rest = bytes;
    loop {
        let part = rest.split_to(rest.len().min(PART_BYTES));
        write(to, &Frame::Snapshot(Snapshot { total, bytes: part }), patience).await?;
        if rest.is_empty() {
            return Ok(());
        }
    }
}

fn encode(store: &Store, metadata: &dyn Metadata) -> Result<Bytes> {
    let numbers = store.queue_numbers().context("can't read the queues' numbers")?;
    let queue_numbers =
        numbers.iter().map(|number| (number.topic.to_string(), number.queue_id, number.next.0)).collect();
    let metadata = String::from_utf8(metadata.snapshot()?.to_vec())?;
    Ok(Bytes::from(serde_json::to_vec(&Contents { queue_numbers, metadata })?))
}

/// The slave's side.
pub(super) async fn receive(
    from: &mut (impl AsyncRead + Unpin),
    metadata: &Arc<dyn Metadata>,
    patience: Duration,
) -> Result<Beginning> {
    let mut bytes = Vec::new();
    loop {
        let Snapshot { total, bytes: part } = match read(from, MAX_PAYLOAD_BYTES, patience).await? {
            Frame::Snapshot(snapshot) => snapshot,
            other => bail!("the master sent {other:?} where a snapshot's part belongs"),
        };
        bytes.extend_from_slice(&part);
        let have = bytes.len() as u64;
        if total > MAX_BYTES || have > total || (part.is_empty() && have < total) {
            bail!("a snapshot of {total} bytes, of which {have} came, can't be");
        }
        if have == total {
            break;
        }
    }
    let Contents { queue_numbers, metadata: tables } =
        serde_json::from_slice(&bytes).context("the master's snapshot")?;
    let number = |(topic, queue_id, next): (String, u32, u64)| QueueNumber {
        topic: topic.into(),
        queue_id,
        next: QueueOffset(next),
    };
    let metadata = Arc::clone(metadata);
    let install = Box::new(move || metadata.install(tables.as_bytes()));
    Ok(Beginning { queue_numbers: queue_numbers.into_iter().map(number).collect(), install })
}
