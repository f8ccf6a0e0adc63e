//! The `gantry-operator` binary.

use std::process::ExitCode;

use clap::Parser as _;
use gantry_operator::cli::Cli;

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = gantry_remoting::open_files::raise() {
        complain(&anyhow::Error::new(error).context("the limit of open files stays low; raise it with `ulimit -n`"));
    }
    match cli.run().await {
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
