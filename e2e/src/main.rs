//! The numbers: rounds of failover, and throughput of pipelined sends; and the checker by hand.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use gantry_e2e::checker::{self, Circumstances};
use gantry_e2e::client::Library;
use gantry_e2e::failover::{self, Blow, Mode, Plan};
use gantry_e2e::{admin, bench, chaos, failover_times, history, measure};

#[derive(Parser)]
#[command(about = "Faults under load, benchmarks, and the history checker")]
struct Arguments {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Subcommand)]
enum Subcommands {
    /// Strikes the master in the middle of a load, again and again, and judges each round.
    Failover {
        /// The clients' library.
        #[arg(long, value_enum, default_value = "java")]
        client: Library,
        /// How the producers send; sync, but async for Go.
        #[arg(long, value_enum)]
        mode: Option<Mode>,
        /// What is done to the master.
        #[arg(long, value_enum, default_value = "kill")]
        blow: Blow,
        #[arg(long, default_value_t = 20)]
        rounds: u32,
        /// Messages of 1 KiB in each round.
        #[arg(long, default_value_t = 10_000)]
        messages: u64,
        /// Messages a second; 0: as fast as it goes.
        #[arg(long, default_value_t = 2_000)]
        rate: u64,
        /// Repeats an earlier run.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Mixes faults over network namespaces under a load, and judges them. Needs root.
    Chaos {
        /// The clients' library.
        #[arg(long, value_enum, default_value = "java")]
        client: Library,
        #[arg(long, default_value_t = 200)]
        rounds: u32,
        /// Repeats an earlier run's faults.
        #[arg(long)]
        seed: Option<u64>,
        /// Messages of 1 KiB a second.
        #[arg(long, default_value_t = 200)]
        rate: u64,
    },
    /// From a master's crash, freeze or switchover to the next acknowledged send of a stock Java client.
    FailoverTimes(failover_times::Options),
    /// Creates a topic and waits for its route.
    CreateTopic {
        topic: String,
        /// Name server, host:port.
        #[arg(long)]
        nameserver: String,
        /// The master, host:port.
        #[arg(long)]
        broker: String,
        #[arg(long, default_value_t = 4)]
        queues: i32,
    },
    /// Pipelined sends against any broker, or against a group started for it.
    Bench(bench::Options),
    /// `Async` against `Sync` at equal producers, on groups started for it.
    Costs(bench::Costs),
    /// An empty slave fetches a long log: how fast, and what it costs the producers.
    CatchUp(bench::CatchUp),
    /// Figures of the store.
    #[command(subcommand)]
    Store(measure::Measure),
    /// Judges history files.
    Check {
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Consumption wasn't finished: missing messages are not lost.
        #[arg(long)]
        undrained: bool,
        /// All sends were one-way: nothing could be acknowledged.
        #[arg(long)]
        oneway: bool,
        /// When something was done to the broker, in the history's microseconds.
        #[arg(long)]
        fault_us: Vec<i64>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Subcommands) -> anyhow::Result<ExitCode> {
    match command {
        Subcommands::Failover { client, mode, blow, rounds, messages, rate, seed } => {
            let mut plan = Plan { messages, rate, ..Plan::new(client, blow, rounds) };
            plan.mode = mode.unwrap_or(plan.mode);
            plan.seed = seed.unwrap_or(plan.seed);
            println!("{}", failover::run(&plan)?.table());
        }
        Subcommands::Chaos { client, rounds, seed, rate } => {
            let seed = seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
            println!("{}", chaos::run(&chaos::Plan { rate, ..chaos::Plan::new(client, rounds, seed) })?.table());
        }
        Subcommands::FailoverTimes(options) => println!("{}", failover_times::run(&options)?),
        Subcommands::CreateTopic { topic, nameserver, broker, queues } => {
            admin::create_topic(&nameserver, &broker, &topic, queues)?;
        }
        Subcommands::Bench(options) => println!("{}", bench::run(&options)?),
        Subcommands::Costs(options) => println!("{}", bench::costs(&options)?),
        Subcommands::CatchUp(options) => println!("{}", bench::catch_up(&options)?),
        Subcommands::Store(measure) => println!("{}", measure::run(&measure)?),
        Subcommands::Check { files, undrained, oneway, fault_us } => {
            let circumstances =
                Circumstances { drained: !undrained, oneway, faults_us: fault_us, ..Circumstances::default() };
            let verdict = checker::check(&history::read(&files)?, &circumstances);
            println!("{verdict}");
            return Ok(if verdict.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
    }
    Ok(ExitCode::SUCCESS)
}
