//! The `gantry` binary: broker and name server.

use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use gantry_broker::broker::Broker;
use gantry_broker::config::BrokerConfig;
use gantry_broker::exchange::{self, ExchangeArgs};
use gantry_broker::hand_over::{self, HandOverArgs};
use gantry_broker::nameserver;
use gantry_broker::observe::document_metrics;
use gantry_broker::store_tool::{self, StoreCommand};
use gantry_logging::{Format, Level};
use gantry_remoting::open_files;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::fmt::writer::BoxMakeWriter;

/// A RocketMQ-compatible message broker.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// How lines of the log look: text or json. logFormat of a broker.conf overrides it.
    #[arg(long, global = true, value_name = "FORMAT", env = "GANTRY_LOG_FORMAT", default_value_t = Format::Text)]
    log_format: Format,
}

#[derive(Subcommand)]
enum Command {
    /// Runs a broker.
    Broker(BrokerArgs),
    /// Runs a name server.
    Nameserver(NameserverArgs),
    /// Sends messages by the name server's route and receives them again: does a group work from here?
    Exchange(ExchangeArgs),
    /// Waits until the broker of this machine or pod may be stopped: until it is not master any more, or nobody could take its place. For
    /// a preStop hook.
    HandOver(HandOverArgs),
    /// Prints what metrics a broker has, as docs/metrics.md.
    Metrics,
    /// Looks at or repairs a store directory.
    #[command(subcommand)]
    Store(StoreCommand),
}

#[derive(Args)]
struct BrokerArgs {
    /// broker.conf, in RocketMQ's properties format. Of several, a later one wins: a secret may lie in a file of its own.
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    config: Vec<PathBuf>,
    /// One key, over those of the files: for what is known only at the start, such as a pod's address.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Name servers, `host:port` with `;` between them; overrides namesrvAddr.
    #[arg(short = 'n', long = "namesrv", value_name = "ADDRESSES", env = "NAMESRV_ADDR")]
    name_servers: Option<String>,
    /// Stop when standard input ends: for whoever starts this as a child process.
    #[arg(long)]
    exit_with_stdin: bool,
}

#[derive(Args)]
struct NameserverArgs {
    /// Where to listen; port 0: given by the system.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:9876")]
    listen: SocketAddr,
    /// Where to answer clients outside the cluster, with addresses that they can reach (`gantryExternalMaster`) [default: nowhere].
    #[arg(long, value_name = "ADDRESS")]
    external_listen: Option<SocketAddr>,
    /// Stop when standard input ends: for whoever starts this as a child process.
    #[arg(long)]
    exit_with_stdin: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // A broker's configuration says what its log is like: it is read before the first line.
    let config = match &cli.command {
        Command::Broker(args) => Some(args.read()),
        _ => None,
    };
    let done = start_log(&cli, config.as_ref()).and_then(|()| carry_out(cli, config));
    match done {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start_log(cli: &Cli, config: Option<&Result<BrokerConfig>>) -> Result<()> {
    let config = config.and_then(|config| config.as_ref().ok());
    let format = config.and_then(|config| config.log_format).unwrap_or(cli.log_format);
    let level = config.and_then(|config| config.log_level.clone()).unwrap_or_else(Level::from_env);
    Ok(gantry_logging::start(format, &level, BoxMakeWriter::new(std::io::stderr))?)
}

fn carry_out(cli: Cli, config: Option<Result<BrokerConfig>>) -> Result<ExitCode> {
    match &cli.command {
        Command::Store(command) => store_tool::run(command),
        Command::HandOver(args) => hand_over::run(args).and_then(|said| print(&said)).map(|()| ExitCode::SUCCESS),
        Command::Metrics => print(&document_metrics()).map(|()| ExitCode::SUCCESS),
        _ => run(cli, config.transpose()?).map(|()| ExitCode::SUCCESS),
    }
}

fn run(cli: Cli, config: Option<BrokerConfig>) -> Result<()> {
    if let Err(error) = open_files::raise() {
        tracing::warn!(%error, "the limit of open files stays low; raise it with `ulimit -n` for many queues or clients");
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("can't start the runtime")?;
    runtime.block_on(async {
        match (cli.command, config) {
            (Command::Broker(args), Some(config)) => broker(config, args.exit_with_stdin).await,
            (Command::Nameserver(args), _) => name_server(args).await,
            (Command::Exchange(args), _) => exchange::run(&args).await,
            (Command::Broker(_), None) => bail!("the configuration was not read"),
            (Command::Store(_) | Command::HandOver(_) | Command::Metrics, _) => unreachable!("it needs no runtime"),
        }
    })
}

impl BrokerArgs {
    fn read(&self) -> Result<BrokerConfig> {
        let mut config = BrokerConfig::read(&self.config, &self.settings)?;
        if let Some(addresses) = &self.name_servers {
            config.name_servers = addresses.split([';', ',']).map(|address| address.trim().to_owned()).collect();
        }
        Ok(config)
    }
}

async fn broker(config: BrokerConfig, exit_with_stdin: bool) -> Result<()> {
    let mut broker = Broker::start(config).await?;
    let failure = tokio::select! {
        stopped = until_told_to_stop(exit_with_stdin) => { stopped?; None }
        failure = broker.failed() => Some(failure),
    };
    let stopped = broker.stop().await;
    match failure {
        Some(failure) => Err(anyhow::Error::new(failure)),
        None => stopped,
    }
}

async fn name_server(args: NameserverArgs) -> Result<()> {
    let config = nameserver::Config {
        listen: args.listen,
        listen_outside: args.external_listen,
        ..nameserver::Config::default()
    };
    let server = nameserver::run(config).await?;
    announce(server.local_addr())?;
    until_told_to_stop(args.exit_with_stdin).await?;
    server.shutdown(Duration::from_secs(1)).await;
    Ok(())
}

/// The one line on standard output: whoever asked for port 0 learns the port.
fn announce(address: SocketAddr) -> Result<()> {
    print(&format!("listening on {address}\n"))
}

fn print(text: &str) -> Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("can't write to standard output")
}

/// SIGTERM, SIGINT, or the end of standard input where that was asked for.
async fn until_told_to_stop(with_stdin: bool) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("can't listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("can't listen for SIGINT")?;
    let stdin_ends = async {
        match with_stdin.then(watch_stdin) {
            // An error is the end as well: the thread is gone.
            Some(ended) => drop(ended.await),
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _signal = terminate.recv() => {}
        _signal = interrupt.recv() => {}
        () = stdin_ends => {}
    }
    Ok(())
}

/// On a thread of its own, which the process doesn't wait for: a read of standard input can't be taken back.
fn watch_stdin() -> tokio::sync::oneshot::Receiver<()> {
    let (tell, ended) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while matches!(std::io::stdin().read(&mut buffer), Ok(read) if read > 0) {}
        drop(tell);
    });
    ended
}
