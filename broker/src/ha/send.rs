//! Sends a slave the log, as it grows.

use std::sync::atomic::Ordering;

use anyhow::{Context, Result, bail};
use gantry_replication::bucket::Bucket;
use gantry_replication::epochs::EpochTable;
use gantry_store::{PhysicalOffset, ReadLog};
use tokio::time::{Duration, Instant, sleep_until};

use super::HaConfig;
use super::cold::Cold;
use super::frame::{Append, Fenced, Frame};
use super::link::{Counters, Link};
use super::session::write;
use super::tls::Writing;
use crate::core::{Core, Standing};

/// A confirm offset that moved after the last piece was sent is told after this long at most.
const CONFIRM_WITHIN: Duration = Duration::from_millis(5);

pub(super) struct Sender<'a> {
    core: &'a Core,
    config: &'a HaConfig,
    counters: &'a Counters,
    link: &'a Link,
    /// Never changes in a session, whose epoch is the last one.
    epochs: EpochTable,
}

impl<'a> Sender<'a> {
    pub(super) fn new(
        core: &'a Core,
        config: &'a HaConfig,
        counters: &'a Counters,
        link: &'a Link,
        epochs: EpochTable,
    ) -> Self {
        Self { core, config, counters, link, epochs }
    }

    /// Sends from `next` on until the connection fails or this is not its epoch's master any more.
    pub(super) async fn run(&self, mut next: u64, mut to: Writing) -> Result<()> {
        let core = self.core;
        let (mut written, mut moved, mut standing) = (core.watch_written(), core.watch_moved(), core.watch_standing());
        let (epoch, patience) = (self.link.epoch, self.config.housekeeping);
        let mut told = u64::MAX;
        let mut catch_up = CatchUp::new(self);
        loop {
            if !matches!(*standing.borrow_and_update(), Standing::Master { epoch: now, .. } if now == epoch) {
                let reason = format!("no longer master of epoch {epoch}");
                write(&mut to, &Frame::Fenced(Fenced { reason: reason.clone() }), patience).await?;
                bail!(reason);
            }
            written.borrow_and_update();
            moved.borrow_and_update();
            let marks = core.store.watermarks();
            let confirm = marks.confirmed.0;
            let warm_from = marks.written.0.saturating_sub(self.config.cold_lag_bytes);
            let is_cold = next < warm_from;
            let read = if is_cold {
                catch_up.cold.read(next, warm_from).await?
            } else {
                core.store.read_log(PhysicalOffset(next), self.config.batch_bytes)?
            };
            if let Some(append) = self.piece(next, confirm, read)? {
                let (from, bytes) = (append.from, append.bytes.len() as u64);
                next = from + bytes;
                told = confirm;
                if is_cold {
                    catch_up.keep_rate(&mut to, bytes, confirm).await?;
                }
                write(&mut to, &Frame::Append(append), patience).await?;
                self.link.sent(bytes, next);
                self.counters.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
                if is_cold {
                    self.counters.cold_bytes.fetch_add(bytes, Ordering::Relaxed);
                    catch_up.cold.sent(from, next);
                }
                continue;
            }
            let idle_until = Instant::now() + self.config.heartbeat;
            let mut quiet_until = if told == confirm { idle_until } else { Instant::now() + CONFIRM_WITHIN };
            let grew = loop {
                tokio::select! {
                    changed = written.changed() => { changed?; break true }
                    changed = standing.changed() => { changed?; break true }
                    changed = moved.changed() => {
                        changed?;
                        if core.store.watermarks().confirmed.0 != told {
                            quiet_until = quiet_until.min(Instant::now() + CONFIRM_WITHIN);
                        }
                    }
                    () = sleep_until(quiet_until) => break false,
                }
            };
            if !grew {
                told = core.store.watermarks().confirmed.0;
                write(&mut to, &Frame::Heartbeat { session: epoch, confirm: told, pulse: core.pulse() }, patience)
                    .await?;
            }
        }
    }

    /// The next piece of the log, of one epoch, out of what was read.
    fn piece(&self, from: u64, confirm: u64, read: ReadLog) -> Result<Option<Append>> {
        match read {
            ReadLog::AtEnd => Ok(None),
            ReadLog::Gone { oldest } => bail!("it needs the log from {from}, but the oldest byte left is {oldest}"),
            ReadLog::Bytes { mut bytes, .. } => {
                let entry =
                    self.epochs.epoch_at(from).with_context(|| format!("no epoch is known of offset {from}"))?;
                let following = self.epochs.entries().iter().find(|other| other.epoch > entry.epoch);
                if let Some(following) = following {
                    bytes.truncate(usize::try_from(following.start - from).unwrap_or(usize::MAX).min(bytes.len()));
                }
                let written_in = (entry.epoch, entry.start);
                let (session, pulse, crc) = (self.link.epoch, self.core.pulse(), crc32c::crc32c(&bytes));
                Ok(Some(Append { session, written_in, from, confirm, pulse, crc, bytes }))
            }
        }
    }
}

/// What is needed only for a slave that is far behind.
struct CatchUp<'a> {
    sender: &'a Sender<'a>,
    cold: Cold,
    bucket: Option<Bucket>,
}

impl<'a> CatchUp<'a> {
    fn new(sender: &'a Sender<'a>) -> Self {
        Self { sender, cold: Cold::new(sender.core.store.clone()), bucket: None }
    }

    /// Waits until `bytes` more may be sent; the slave hears its master meanwhile.
    async fn keep_rate(&mut self, to: &mut Writing, bytes: u64, confirm: u64) -> Result<()> {
        let (config, now) = (self.sender.config, self.sender.core.clock.now_ms());
        let rate = config.cold_rate.get();
        if self.bucket.as_ref().map(Bucket::rate) != rate {
            self.bucket = rate.map(|rate| Bucket::new(rate, rate / 10, now));
        }
        let Some(bucket) = &mut self.bucket else { return Ok(()) };
        let until = Instant::now() + Duration::from_millis(bucket.take(bytes, now));
        while Instant::now() < until {
            let heartbeat = Instant::now() + config.heartbeat;
            sleep_until(until.min(heartbeat)).await;
            if heartbeat < until {
                let pulse = self.sender.core.pulse();
                let frame = Frame::Heartbeat { session: self.sender.link.epoch, confirm, pulse };
                write(to, &frame, config.housekeeping).await?;
            }
        }
        Ok(())
    }
}
