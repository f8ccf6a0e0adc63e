//! The generator: one task a connection, a window of sends, and the tally of answers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Options;
use super::frames::{Request, take_answers};

/// An answer that takes longer ends the run.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Numbers begin again after so many: they become opaques of ten digits that fit RocketMQ's signed 32 bits.
const NUMBERS: u32 = 1_000_000_000;
const READ_BYTES: usize = 256 << 10;

/// How many were answered, and how fast.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    acked: u64,
    refused: u64,
    /// Acknowledged sends by latency, in steps of ten microseconds; the last one holds all that took longer.
    latencies: Vec<u32>,
}

const STEP_US: u128 = 10;
const STEPS: usize = 500_000;

impl Tally {
    fn new() -> Self {
        Self { acked: 0, refused: 0, latencies: vec![0; STEPS] }
    }

    fn add(&mut self, code: i32, latency: Duration) {
        if code == 0 {
            self.acked += 1;
            self.latencies[((latency.as_micros() / STEP_US) as usize).min(STEPS - 1)] += 1;
        } else {
            self.refused += 1;
        }
    }

    pub(super) fn acked(&self) -> u64 {
        self.acked
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    /// The latency that this share of the acknowledged sends stayed below, in milliseconds.
    pub(super) fn quantile_ms(&self, share: f64) -> f64 {
        let wanted = (self.acked as f64 * share).ceil() as u64;
        let mut sum = 0;
        let step = self.latencies.iter().position(|count| {
            sum += u64::from(*count);
            sum >= wanted
        });
        (step.unwrap_or(STEPS) + 1) as f64 * STEP_US as f64 / 1000.0
    }
}

/// Connections that send.
pub(super) struct Sending {
    tasks: tokio::sync::Mutex<JoinSet<anyhow::Result<()>>>,
    tally: Arc<Mutex<Tally>>,
    stop: Arc<AtomicBool>,
}

/// Connects and begins to send.
pub(super) async fn start(options: &Options, broker: &str) -> anyhow::Result<Sending> {
    let tally = Arc::new(Mutex::new(Tally::new()));
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    for connection in 0..options.connections {
        let lane = Lane::connect(options, broker, connection).await?;
        tasks.spawn(lane.run(Arc::clone(&tally), Arc::clone(&stop)));
    }
    Ok(Sending { tasks: tokio::sync::Mutex::new(tasks), tally, stop })
}

impl Sending {
    /// Lets it send for a while; a connection that ends is an error.
    pub(super) async fn go_on(&self, time: Duration) -> anyhow::Result<()> {
        let mut tasks = self.tasks.lock().await;
        match tokio::time::timeout(time, tasks.join_next()).await {
            Err(_) => Ok(()),
            Ok(Some(ended)) => bail!("a connection ended: {:?}", ended?),
            Ok(None) => bail!("there is no connection"),
        }
    }

    /// What was counted so far; counting begins anew.
    pub(super) fn take(&self) -> Tally {
        std::mem::replace(&mut *self.tally.lock().unwrap_or_else(PoisonError::into_inner), Tally::new())
    }

    /// Stops sending and returns what was counted until now.
    pub(super) async fn stop(self) -> anyhow::Result<Tally> {
        let tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.stop.store(true, Ordering::Release);
        while let Some(ended) = self.tasks.lock().await.join_next().await {
            ended??;
        }
        Ok(tally)
    }
}

/// One connection with its window of sends. A request's number is `turn * window + slot`, so that an answer finds its
/// slot whatever the order in which answers come.
struct Lane {
    stream: TcpStream,
    request: Request,
    queues: u32,
    /// When the send of each slot began; `None`: the slot is free.
    window: Vec<Option<Instant>>,
    free: Vec<usize>,
    turn: u32,
}

impl Lane {
    async fn connect(options: &Options, broker: &str, connection: u32) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(broker).await.with_context(|| format!("connecting to {broker}"))?;
        stream.set_nodelay(true)?;
        let window = options.in_flight as usize;
        Ok(Self {
            stream,
            request: Request::new(options, connection)?,
            queues: options.queues.clamp(1, 10) as u32,
            window: vec![None; window],
            free: (0..window).collect(),
            turn: 0,
        })
    }

    async fn run(mut self, tally: Arc<Mutex<Tally>>, stop: Arc<AtomicBool>) -> anyhow::Result<()> {
        let (mut input, mut output) = (Vec::with_capacity(READ_BYTES), Vec::new());
        loop {
            if !stop.load(Ordering::Acquire) {
                self.fill_window(&mut output);
                self.stream.write_all(&output).await.context("sending")?;
            } else if self.free.len() == self.window.len() {
                return Ok(());
            }
            input.reserve(READ_BYTES);
            let read = tokio::time::timeout(ANSWER_WITHIN, self.stream.read_buf(&mut input)).await;
            if read.context("no answer")?.context("reading answers")? == 0 {
                bail!("the broker closed the connection with {} sends on their way", self.window.len());
            }
            let taken = self.take(&input, &tally)?;
            input.drain(..taken);
        }
    }

    fn fill_window(&mut self, output: &mut Vec<u8>) {
        output.clear();
        let now = Instant::now();
        while let Some(slot) = self.free.pop() {
            self.window[slot] = Some(now);
            let window = self.window.len() as u32;
            let number = self.turn % (NUMBERS / window) * window + slot as u32;
            self.request.append_to(output, number, self.turn % self.queues);
            self.turn = self.turn.wrapping_add(1);
        }
    }

    fn take(&mut self, input: &[u8], tally: &Mutex<Tally>) -> anyhow::Result<usize> {
        let now = Instant::now();
        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        take_answers(input, |answer| {
            let slot = answer.number as usize % self.window.len();
            if let Some(sent) = self.window[slot].take() {
                tally.add(answer.code, now - sent);
                self.free.push(slot);
            }
        })
    }
}
