//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::connection::{Connection, Target};
use crate::{fence, logs, print, report, status, switchover};

/// Looks after BrokerGroups: `kubectl gantry`.
#[derive(Debug, Parser)]
#[command(name = "kubectl-gantry", bin_name = "kubectl gantry", version, about)]
pub(crate) struct Cli {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show replicas, roles, offsets and lag, the last failover, and conditions.
    Status {
        /// A group; without one: all of the namespace.
        group: Option<String>,
        /// The groups of all namespaces.
        #[arg(short = 'A', long, conflicts_with = "group")]
        all_namespaces: bool,
    },
    /// Make a replica its group's master, with no failed send, and wait until it is.
    Switchover {
        /// The group.
        group: String,
        /// The replica, e.g. broker-a-1.
        replica: String,
        /// How long to wait.
        #[arg(long, value_name = "SECONDS", default_value = "90", value_parser = seconds)]
        timeout: Duration,
    },
    /// Keep a replica out of elections and of replication, its pod and volume as they are, until it is unfenced.
    Fence(Fence),
    /// Let a fenced replica take part again.
    Unfence(Fence),
    /// Show the logs of all replicas, each line after its replica's name.
    Logs(Logs),
    /// Write all that a bug report needs into one archive: objects, events, logs, metrics; no secrets, no messages.
    Report {
        /// The group.
        group: String,
        /// The archive [default: gantry-report-NAMESPACE-GROUP-TIME.tar.gz].
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Fence {
    /// The group.
    pub(crate) group: String,
    /// The replica, e.g. broker-a-1.
    pub(crate) replica: String,
    /// How long to wait.
    #[arg(long, value_name = "SECONDS", default_value = "90", value_parser = seconds)]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The group.
    pub(crate) group: String,
    /// These replicas only; once each.
    #[arg(long, value_name = "REPLICA")]
    pub(crate) replica: Vec<String>,
    /// Go on with what comes.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// So many of the last lines of each.
    #[arg(long, value_name = "LINES")]
    pub(crate) tail: Option<i64>,
    /// Of the container before this one.
    #[arg(short, long, conflicts_with = "follow")]
    pub(crate) previous: bool,
}

fn seconds(text: &str) -> Result<Duration, std::num::ParseIntError> {
    text.parse().map(Duration::from_secs)
}

impl Cli {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let connection = Connection::open(&self.target).await?;
        match self.verb {
            Verb::Status { group, all_namespaces } => {
                print(&status::run(&connection, group.as_deref(), all_namespaces).await?)
            }
            Verb::Switchover { group, replica, timeout } => {
                print(&switchover::run(&connection, &group, &replica, timeout).await?)
            }
            Verb::Fence(fence) => print(&fence::fence(&connection, &fence).await?),
            Verb::Unfence(fence) => print(&fence::unfence(&connection, &fence).await?),
            Verb::Logs(logs) => logs::run(&connection, &logs).await,
            Verb::Report { group, output } => print(&report::run(&connection, &group, output).await?),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound_and_takes_kubectls_own_flags_at_either_place() {
        Cli::command().debug_assert();
        for line in ["kubectl-gantry -n shop status broker-a", "kubectl-gantry status broker-a -n shop --context c"] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.target.namespace.as_deref(), Some("shop"), "{line}");
        }
        let long = Cli::try_parse_from(["kubectl-gantry", "switchover", "a", "a-1", "--timeout", "5"]).unwrap();
        let Verb::Switchover { timeout, .. } = long.verb else { panic!("not a switchover") };
        assert_eq!(timeout, Duration::from_secs(5));
    }
}
