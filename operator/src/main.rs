//! The `gantry-operator` binary.

use std::process::ExitCode;

use clap::Parser as _;
use gantry_operator::cli::Cli;

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    match Cli::parse().run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "the one place where a failure reaches the person who asked")]
fn complain(error: &anyhow::Error) {
    eprintln!("gantry-operator: {error:#}");
}
