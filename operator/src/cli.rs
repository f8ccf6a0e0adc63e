//! The command line.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, Parser, Subcommand};
use gantry_logging::{Format, Level};
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::api::crds_yaml;
use crate::log_level;
use crate::observe::{DEFAULT_MAX_GROUPS, document_metrics};
use crate::plan::Layout;
use crate::platform::kubernetes::run;
use crate::platform::local::control::{Answer, Request, ask};
use crate::platform::local::installation::Options;
use crate::platform::local::placement::Placement;
use crate::platform::local::{StateDir, default_dir, screen, up};

/// For answers that come at once.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// For a switchover, which the elector gives up by itself before.
const SWITCHOVER_PATIENCE: Duration = Duration::from_mins(1);

/// For a stop, in which each of three stages may wait for a child that doesn't end.
const DOWN_PATIENCE: Duration = Duration::from_mins(2);

/// Runs groups of RocketMQ-compatible brokers and keeps them available.
#[derive(Debug, Parser)]
#[command(name = "gantry-operator", version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Keep the BrokerGroups of a Kubernetes cluster, from a pod of it.
    Run(Run),
    /// Groups on this machine, without Kubernetes.
    #[command(subcommand)]
    Local(Local),
    /// Print the CustomResourceDefinitions as YAML.
    Crd {
        /// One of them, e.g. topics.gantry.rs [default: all].
        name: Option<String>,
    },
    /// Print what metrics an operator has, as in docs/metrics.md.
    Metrics,
}

#[derive(Debug, Subcommand)]
enum Local {
    /// Run what the BrokerGroups of a manifest describe: name server, brokers, elector, one stable master port a group.
    Up(Up),
    /// Show groups, replicas, roles and offsets.
    Status {
        /// As JSON; unknown values are null.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Make a replica its group's master, with no failed send.
    Switchover {
        /// The replica's name, e.g. broker-a-1.
        replica: String,
        #[command(flatten)]
        place: Place,
    },
    /// Make a replica its group's master though it may lack acknowledged messages: for a group whose in-sync replicas are all lost.
    ElectUnclean {
        /// The replica's name, e.g. broker-a-1.
        replica: String,
        /// The epoch that the status shows now, 0 if it shows none: should the group have moved on meanwhile, nothing happens.
        #[arg(long, value_name = "EPOCH")]
        epoch: u64,
        #[command(flatten)]
        place: Place,
    },
    /// Stop everything, and wait until it has stopped.
    Down {
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, Args)]
struct Place {
    /// State directory [default: $XDG_DATA_HOME/gantry/local or ~/.local/share/gantry/local].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Up {
    /// The manifest: one or several BrokerGroups, as `kubectl apply` takes them.
    file: PathBuf,
    #[command(flatten)]
    place: Place,
    /// Port of the name server; 0 is given by the system.
    #[arg(long, value_name = "PORT", default_value_t = 9876)]
    nameserver_port: u16,
    /// Stable master port; 0 is given by the system. Once a group, in the manifest's order [default: 10911 for the first, 0 for others].
    #[arg(long, value_name = "PORT")]
    master_port: Vec<u16>,
    /// The `gantry` binary [default: beside this one, then in PATH].
    #[arg(long, value_name = "BIN")]
    gantry: Option<PathBuf>,
    /// Address of the name server, the elector and the master ports.
    #[arg(long, value_name = "IP", default_value_t = Ipv4Addr::LOCALHOST.into())]
    listen: IpAddr,
    /// Address of a replica, for clients and for its peers [default: 127.0.0.1]. Once a replica.
    #[arg(long, value_name = "REPLICA=IP")]
    replica_address: Vec<String>,
    /// Command that starts a replica's broker, which is appended to it, e.g. to run in a network namespace. Once a replica.
    #[arg(long, value_name = "REPLICA=COMMAND")]
    wrap: Vec<String>,
    /// Seconds that failovers on suspicion (silence, no known death) are apart at least [default: 60].
    #[arg(long, value_name = "SECONDS")]
    suspicion_gap: Option<u32>,
}

#[derive(Debug, Args)]
struct Run {
    /// The brokers' image, for groups that name none.
    #[arg(long)]
    image: String,
    /// Name servers that brokers register at: `host:port`, `;` between them.
    #[arg(long, value_name = "ADDRESSES")]
    nameservers: String,
    /// The Service by which brokers find the elector: in this pod's namespace, without selector.
    #[arg(long, value_name = "NAME")]
    elector_service: String,
    /// Where the elector listens.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:9880")]
    elector_listen: SocketAddr,
    /// Where probes are answered and metrics are shown.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8080")]
    http_listen: SocketAddr,
    /// Groups that have series of their own in the metrics, at most.
    #[arg(long, value_name = "GROUPS", default_value_t = DEFAULT_MAX_GROUPS)]
    metrics_max_groups: usize,
    /// A namespace whose groups are kept; once each [default: all].
    #[arg(long, value_name = "NAMESPACE")]
    namespace: Vec<String>,
    /// How lines of the log look: text or json.
    #[arg(long, value_name = "FORMAT", env = "GANTRY_LOG_FORMAT", default_value_t = Format::Text)]
    log_format: Format,
    /// A file with the log's level, read again every 2 s: info, debug …, or TARGET=LEVEL with `,` between several [default: RUST_LOG, or info].
    #[arg(long, value_name = "FILE")]
    log_level_file: Option<PathBuf>,
    /// This pod's name.
    #[arg(long, env = "POD_NAME")]
    pod_name: String,
    /// This pod's namespace.
    #[arg(long, env = "POD_NAMESPACE")]
    pod_namespace: String,
    /// This pod's address.
    #[arg(long, env = "POD_IP")]
    pod_ip: IpAddr,
}

impl Run {
    async fn run(self) -> anyhow::Result<()> {
        gantry_logging::start(self.log_format, &Level::from_env(), BoxMakeWriter::new(std::io::stderr))?;
        // Ends with this process.
        let _following = self.log_level_file.map(|file| tokio::spawn(log_level::follow(file)));
        run::run(run::Options {
            image: self.image,
            name_servers: self.nameservers,
            elector_service: self.elector_service,
            elector_listen: self.elector_listen,
            http_listen: self.http_listen,
            metrics_max_groups: self.metrics_max_groups,
            namespaces: self.namespace,
            pod_name: self.pod_name,
            namespace: self.pod_namespace,
            pod_ip: self.pod_ip,
        })
        .await
    }
}

impl Place {
    fn dir(&self) -> anyhow::Result<PathBuf> {
        self.dir.clone().map_or_else(default_dir, Ok)
    }

    async fn ask(&self, request: &Request, within: Duration) -> anyhow::Result<Answer> {
        match ask(&Layout::new(self.dir()?), request, within).await? {
            Answer::Error { message } => Err(anyhow!(message)),
            answer => Ok(answer),
        }
    }
}

impl Cli {
    /// Carries out what was asked.
    pub async fn run(self) -> anyhow::Result<()> {
        match self.command {
            Verb::Run(run) => run.run().await,
            Verb::Crd { name } => print(&crds(name.as_deref())?),
            Verb::Metrics => print(&document_metrics()?),
            Verb::Local(Local::Up(up)) => up.run().await,
            Verb::Local(Local::Status { json, place }) => status(json, &place).await,
            Verb::Local(Local::Switchover { replica, place }) => switchover(replica, &place).await,
            Verb::Local(Local::ElectUnclean { replica, epoch, place }) => elect_unclean(replica, epoch, &place).await,
            Verb::Local(Local::Down { place }) => down(&place).await,
        }
    }
}

impl Up {
    async fn run(self) -> anyhow::Result<()> {
        let gantry = find_gantry(self.gantry.as_deref())?;
        let state = StateDir::open(&self.place.dir()?)?;
        log_to(&state.layout().operator_log())?;
        let options = Options {
            gantry,
            nameserver_port: self.nameserver_port,
            master_ports: self.master_port,
            placement: Placement::new(self.listen, &self.replica_address, &self.wrap)?,
            suspicion_gap: self.suspicion_gap.map(|seconds| Duration::from_secs(seconds.into())),
        };
        up::run(&self.file, state, &options).await
    }
}

/// One of the CustomResourceDefinitions, or all as one file.
fn crds(name: Option<&str>) -> anyhow::Result<String> {
    let all = crds_yaml()?;
    let Some(name) = name else {
        return Ok(all.into_iter().map(|(_, yaml)| yaml).collect::<Vec<_>>().join("---\n"));
    };
    let names: Vec<_> = all.iter().map(|(name, _)| name.clone()).collect();
    let found = all.into_iter().find(|(known, _)| known == name).map(|(_, yaml)| yaml);
    found.with_context(|| format!("no {name}; there are {}", names.join(", ")))
}

async fn status(json: bool, place: &Place) -> anyhow::Result<()> {
    let Answer::Status(status) = place.ask(&Request::Status, ANSWER_PATIENCE).await? else { bail!("not a status") };
    if json { print(&(serde_json::to_string(&status)? + "\n")) } else { print(&screen::render(&status)) }
}

async fn switchover(replica: String, place: &Place) -> anyhow::Result<()> {
    let answer = place.ask(&Request::Switchover { replica: replica.clone() }, SWITCHOVER_PATIENCE).await;
    let answer = answer.with_context(|| format!("no switchover to {replica}"))?;
    let Answer::Switched { master, epoch, pause_ms } = answer else { bail!("not an answer to a switchover") };
    print(&format!("{master} is master, epoch {epoch}; sends paused for {pause_ms} ms\n"))
}

async fn elect_unclean(replica: String, epoch: u64, place: &Place) -> anyhow::Result<()> {
    let answer = place.ask(&Request::ElectUnclean { replica: replica.clone(), epoch }, SWITCHOVER_PATIENCE).await;
    let answer = answer.with_context(|| format!("{replica} was not made master"))?;
    let Answer::Switched { master, epoch, .. } = answer else { bail!("not an answer to an election") };
    print(&format!(
        "{master} is to be master of epoch {epoch}; what was acknowledged and {master} doesn't have is lost\n"
    ))
}

async fn down(place: &Place) -> anyhow::Result<()> {
    let answer = place.ask(&Request::Down, DOWN_PATIENCE).await?;
    let Answer::Down { killed } = answer else { bail!("not an answer to a stop") };
    wait_until_unlocked(&place.dir()?).await?;
    match killed.as_slice() {
        [] => print("stopped\n"),
        killed => print(&format!("stopped; killed because they did not end by themselves: {}\n", killed.join(", "))),
    }
}

/// The operator answers a moment before it ends; who starts another one then must not find the directory locked.
async fn wait_until_unlocked(dir: &Path) -> anyhow::Result<()> {
    let ended = async {
        while StateDir::is_locked(dir)? {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    };
    tokio::time::timeout(ANSWER_PATIENCE, ended)
        .await
        .unwrap_or_else(|_elapsed| bail!("stopped, but the operator does not end"))
}

/// The binary that was named, or the one beside this, or the first in PATH.
fn find_gantry(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(named) = named {
        return if is_program(named) {
            Ok(named.to_owned())
        } else {
            bail!("--gantry {}: no executable file", named.display())
        };
    }
    let own = std::env::current_exe().context("can't find out where this program lies")?;
    let beside = own.with_file_name("gantry");
    let in_path = std::env::var_os("PATH").unwrap_or_default();
    let mut places =
        std::iter::once(beside.clone()).chain(std::env::split_paths(&in_path).map(|dir| dir.join("gantry")));
    places.find(|place| is_program(place)).ok_or_else(|| {
        anyhow!("no gantry binary: neither {} nor one in PATH; build it, or name it with --gantry", beside.display())
    })
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// The operator's own log goes to a file: standard output belongs to the display.
fn log_to(path: &Path) -> anyhow::Result<()> {
    let describe = || format!("can't write the operator's log {}", path.display());
    std::fs::create_dir_all(path.parent().unwrap_or(path)).with_context(describe)?;
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path).with_context(describe)?;
    gantry_logging::start(Format::Text, &Level::from_env(), BoxMakeWriter::new(std::sync::Mutex::new(file)))
        .context("can't set up the log")
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).context("can't write to standard output")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        let cli = Cli::try_parse_from([
            "gantry-operator",
            "local",
            "up",
            "f.yaml",
            "--master-port",
            "0",
            "--master-port",
            "7",
        ]);
        let Verb::Local(Local::Up(up)) = cli.unwrap().command else { panic!("not up") };
        assert_eq!((up.nameserver_port, up.master_port), (9876, vec![0, 7]));
    }

    #[test]
    fn a_gantry_that_is_not_there_is_named() {
        let line = find_gantry(Some(Path::new("/nonexistent/gantry"))).unwrap_err().to_string();
        assert_eq!(line, "--gantry /nonexistent/gantry: no executable file");
    }
}
