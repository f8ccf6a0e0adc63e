//! `gantry store`: a store's directory looked at and repaired, for operators. What `inspect` prints as JSON has stable keys; what
//! it prints as text hasn't.

mod print;
mod repair;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use gantry_store::Config;
use gantry_store::inspect::{Depth, Finding, Report, look};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::replica;

/// What can be done with a store's directory.
#[derive(Subcommand)]
pub enum StoreCommand {
    /// Shows what is in a store directory. Nothing is changed; a broker may be running on it.
    Inspect(InspectArgs),
    /// Repairs a store directory whose broker is stopped.
    Repair(repair::RepairArgs),
}

/// Where the store is.
#[derive(Args)]
pub struct Place {
    /// The store directory: storePathRootDir.
    #[arg(value_name = "DIR")]
    root: PathBuf,
    /// Where the log is, if not in DIR/commitlog: storePathCommitLog.
    #[arg(long, value_name = "DIR")]
    commitlog: Option<PathBuf>,
}

/// Arguments of `inspect`.
#[derive(Args)]
pub struct InspectArgs {
    #[command(flatten)]
    place: Place,
    /// Read everything: every record with its CRC, every consume queue unit with its record. Exit status 2: something is damaged.
    #[arg(long)]
    verify: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs a command; prints to standard output.
pub fn run(command: &StoreCommand) -> Result<ExitCode> {
    match command {
        StoreCommand::Inspect(args) => inspect(args),
        StoreCommand::Repair(args) => repair::run(args),
    }
}

impl Place {
    fn config(&self) -> Config {
        Config { commit_log_directory: self.commitlog.clone(), ..Config::new(&self.root) }
    }
}

fn inspect(args: &InspectArgs) -> Result<ExitCode> {
    let depth = if args.verify { Depth::Everything } else { Depth::Heads };
    let bar = bar();
    let mut report = look(&args.place.config(), depth, &mut |done, total| advance(&bar, done, total))?;
    bar.finish_and_clear();
    let path = args.place.root.join(replica::FILE);
    let replica = read_json(&path, &mut report)?;
    if args.json {
        let mut json = serde_json::to_value(&report)?;
        json["replica"] = replica;
        print::line(&serde_json::to_string_pretty(&json)?)?;
    } else {
        print::report(&report, &replica)?;
    }
    Ok(if report.damage.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

/// A JSON file's content; null if there is none, or if it is damaged, which the report then says.
fn read_json(path: &std::path::Path, report: &mut Report) -> Result<Value> {
    let bytes = gantry_store::atomic_file::read(path).with_context(|| format!("can't read {}", path.display()))?;
    let Some(bytes) = bytes else { return Ok(Value::Null) };
    Ok(serde_json::from_slice(&bytes).unwrap_or_else(|error| {
        let problem = format!("damaged: {error}");
        report.damage.push(Finding { file: path.to_owned(), offset: None, problem });
        Value::Null
    }))
}

/// Shown on a terminal only.
fn bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn advance(bar: &ProgressBar, done: u64, total: u64) {
    bar.set_length(total);
    bar.set_position(done);
}
