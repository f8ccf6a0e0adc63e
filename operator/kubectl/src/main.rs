//! `kubectl gantry`: looks at BrokerGroups, and gives the few orders that no manifest has a place for.
//!
//! It speaks to the API server alone, with the rights of whoever runs it: what it orders it writes into annotations, and the operator
//! carries that out. It reads a group's status by field names, so that it goes with older and newer operators.

mod cli;
mod connection;
mod fence;
mod group;
mod logs;
mod report;
mod status;
mod switchover;

use std::process::ExitCode;

use clap::Parser as _;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match cli::Cli::parse().run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// On standard error, where people look and pipes don't.
#[expect(clippy::print_stderr, reason = "the one place where a failure reaches the person who asked")]
fn complain(line: &str) {
    eprintln!("{line}");
}

/// On standard output.
fn print(text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| anyhow::anyhow!("can't write to standard output: {error}"))
}
