//! What an inspection looks like on a terminal.

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::{Context, Result};
use gantry_store::inspect::{Finding, Report};
use serde_json::Value;

/// A line on standard output.
pub(super) fn line(text: &str) -> Result<()> {
    writeln!(std::io::stdout().lock(), "{text}").context("can't write to standard output")
}

/// The whole report.
pub(super) fn report(report: &Report, replica: &Value) -> Result<()> {
    let mut out = String::new();
    write_report(&mut out, report, replica)?;
    line(out.trim_end())
}

fn write_report(out: &mut String, report: &Report, replica: &Value) -> Result<()> {
    let state = match (report.running, report.abort) {
        (true, _) => "a broker is running on it: read only, and of this moment",
        (false, true) => "not running; the last stop was unclean",
        (false, false) => "not running; the last stop was clean",
    };
    writeln!(out, "store       {}, {state}", report.directory.display())?;
    let records = report.log.records.map_or_else(String::new, |records| format!(", {records} records"));
    writeln!(out, "log         {} to {}{records}", report.log.oldest, report.log.end)?;
    write_checkpoint(out, report)?;
    if report.interrupted_recovery {
        writeln!(out, "recovery    was interrupted; the next start goes on with it")?;
    }
    write_replica(out, replica)?;
    write_segments(out, report)?;
    if !report.queues.is_empty() {
        writeln!(out, "\n{:<40} {:>6} {:>14} {:>14} {:>6}", "topic", "queue", "min", "max", "files")?;
    }
    for queue in &report.queues {
        writeln!(out, "{:<40} {:>6} {:>14} {:>14} {:>6}", queue.topic, queue.queue, queue.min, queue.max, queue.files)?;
    }
    if !report.index_files.is_empty() {
        writeln!(out, "\n{:<24} {:>24} {:>24} {:>12}", "index file", "from", "to", "entries")?;
    }
    for index in &report.index_files {
        let (begin, end) = (time(Some(index.begin_ms)), time(Some(index.end_ms)));
        writeln!(out, "{:<24} {begin:>24} {end:>24} {:>12}", index.name, index.entries)?;
    }
    for tail in &report.divergent {
        writeln!(out, "\ncut tail    divergent/{} ({} bytes)", tail.name, tail.bytes)?;
    }
    if let Some(tail) = &report.torn_tail {
        writeln!(out, "\ntorn tail   {}: cut at the next start", finding(tail))?;
    }
    let verdict = match (report.damage.is_empty(), report.verified) {
        (true, true) => "\nno damage: every record and every consume queue unit was read",
        (true, false) => "\nno damage seen; --verify reads everything",
        (false, _) => "\nDAMAGE",
    };
    writeln!(out, "{verdict}")?;
    for damage in &report.damage {
        writeln!(out, "  {}", finding(damage))?;
    }
    Ok(())
}

fn write_checkpoint(out: &mut String, report: &Report) -> Result<()> {
    match &report.checkpoint.gantry {
        Some(gantry) => {
            let (dispatched, confirmed, flushed) = (gantry.dispatched, gantry.confirmed, gantry.flushed);
            let cut = gantry.cut.map_or_else(String::new, |cut| format!(", being cut at {cut}"));
            let clean = if gantry.clean { ", clean" } else { "" };
            writeln!(out, "checkpoint  dispatched {dispatched}, confirmed {confirmed}, flushed {flushed}{cut}{clean}")?;
        }
        None => writeln!(out, "checkpoint  none of Gantry's that holds: the next start reads the whole log")?,
    }
    if let Some(rocketmq) = &report.checkpoint.rocketmq {
        let (physic, logics, index) = (rocketmq.physic_ms, rocketmq.logics_ms, rocketmq.index_ms);
        writeln!(
            out,
            "            RocketMQ's: log {}, queues {}, index {}, confirm offset {}",
            time(Some(physic)),
            time(Some(logics)),
            time(Some(index)),
            rocketmq.confirm_offset
        )?;
    }
    Ok(())
}

fn write_replica(out: &mut String, replica: &Value) -> Result<()> {
    if replica.is_null() {
        return Ok(());
    }
    let text = |key: &str| replica[key].as_str().map_or_else(|| replica[key].to_string(), str::to_owned);
    writeln!(out, "replica     store id {}, promised epoch {}", text("storeId"), text("promised"))?;
    for epoch in replica["epochs"].as_array().into_iter().flatten() {
        writeln!(out, "            epoch {} from {}", epoch["epoch"], epoch["start"])?;
    }
    Ok(())
}

fn write_segments(out: &mut String, report: &Report) -> Result<()> {
    writeln!(
        out,
        "\n{:<22} {:>14} {:>10} {:>24} {:>24}",
        "segment", "bytes", "records", "first message", "last message"
    )?;
    for segment in &report.segments {
        let records = segment.records.map_or_else(|| "-".to_owned(), |records| records.to_string());
        let (first, last) = (time(segment.first_store_ms), time(segment.last_store_ms));
        writeln!(out, "{:<22} {:>14} {records:>10} {first:>24} {last:>24}", segment.name, segment.bytes)?;
    }
    Ok(())
}

pub(super) fn finding(finding: &Finding) -> String {
    let at = finding.offset.map_or_else(String::new, |offset| format!(" at {offset}"));
    format!("{}{at}: {}", finding.file.display(), finding.problem)
}

/// A time in UTC; `-` where there is none.
pub(super) fn time(ms: Option<i64>) -> String {
    let time = ms.filter(|ms| *ms > 0).and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| "-".to_owned(), |time| time.to_string())
}
