//! SYNC_FLUSH by the number of producers.

use std::fmt::Write as _;

use super::Place;
use crate::bench;
use crate::broker::Broker;
use crate::nameserver::Nameserver;

/// How.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    place: Place,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

/// Connections, and sends on their way on each: 1, 16 and 256 producers, each with one message on its way.
const PRODUCERS: [(u32, u32); 3] = [(1, 1), (4, 4), (8, 32)];

pub(super) fn run(options: &Options) -> anyhow::Result<String> {
    let folder = options.place.make()?;
    let nameserver = Nameserver::start()?;
    let settings = [("flushDiskType", "SYNC_FLUSH"), ("namesrvAddr", nameserver.address())];
    let mut broker = Broker::new(folder.path(), &folder.path().join("store"), &settings);
    broker.start()?;
    let mut said = String::new();
    for (connections, in_flight) in PRODUCERS {
        let measured = bench::run(&bench::Options {
            broker: Some(broker.address().to_owned()),
            nameserver: Some(nameserver.address().to_owned()),
            pid: broker.pid().into_iter().collect(),
            connections,
            in_flight,
            seconds: options.seconds,
            warm_up: 2,
            ..bench::Options::default()
        })?;
        writeln!(said, "{} producers, SYNC_FLUSH, 1 KiB: {measured}", connections * in_flight)?;
    }
    broker.stop()?;
    Ok(said)
}
