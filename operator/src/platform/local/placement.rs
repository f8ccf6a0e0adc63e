//! Where replicas run. By default all of them on 127.0.0.1; apart, each at an address of its own, its broker started
//! through a command in front of it (`nsenter --net=…`): one address a replica, as on Kubernetes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context as _, bail};

use crate::plan::{Command, GroupPlan};

/// Addresses, and commands in front of brokers.
#[derive(Clone, Debug)]
pub struct Placement {
    listen: IpAddr,
    addresses: BTreeMap<String, IpAddr>,
    wraps: BTreeMap<String, Vec<String>>,
}

impl Default for Placement {
    fn default() -> Self {
        let listen = Ipv4Addr::LOCALHOST.into();
        Self { listen, addresses: BTreeMap::new(), wraps: BTreeMap::new() }
    }
}

impl Placement {
    /// Name server, elector and master ports listen at `listen`. `addresses` are `REPLICA=IP`, `wraps` are
    /// `REPLICA=COMMAND`, the command's words apart by white space.
    pub fn new(listen: IpAddr, addresses: &[String], wraps: &[String]) -> anyhow::Result<Self> {
        let mut placement = Self { listen, ..Self::default() };
        for text in addresses {
            let (replica, ip) = pair(text).with_context(|| format!("--replica-address {text}"))?;
            let ip = ip.parse().with_context(|| format!("--replica-address {text}: no IP address: {ip:?}"))?;
            placement.addresses.insert(replica.to_owned(), ip);
        }
        for text in wraps {
            let (replica, command) = pair(text).with_context(|| format!("--wrap {text}"))?;
            let words: Vec<_> = command.split_whitespace().map(str::to_owned).collect();
            placement.wraps.insert(replica.to_owned(), words);
        }
        Ok(placement)
    }

    /// Refuses names that are no replica of these groups.
    pub fn check(&self, groups: &[GroupPlan]) -> anyhow::Result<()> {
        let known: Vec<_> =
            groups.iter().flat_map(|group| &group.replicas).map(|replica| replica.name.as_str()).collect();
        for named in self.addresses.keys().chain(self.wraps.keys()) {
            if !known.contains(&named.as_str()) {
                bail!("there is no replica {named:?} to place; there are {}", known.join(", "));
            }
        }
        Ok(())
    }

    /// Where name server, elector and master ports listen.
    pub fn listen(&self) -> IpAddr {
        self.listen
    }

    /// Where a replica listens, for clients and for its peers.
    pub fn address(&self, replica: &str) -> IpAddr {
        self.addresses.get(replica).copied().unwrap_or(Ipv4Addr::LOCALHOST.into())
    }

    /// A replica's command with what is to stand in front of it.
    pub fn wrapped(&self, replica: &str, command: Command) -> Command {
        let Some((program, front)) = self.wraps.get(replica).and_then(|words| words.split_first()) else {
            return command;
        };
        let mut args: Vec<OsString> = front.iter().map(OsString::from).collect();
        args.push(command.program.into());
        args.extend(command.args);
        Command { program: program.into(), args }
    }
}

fn pair(text: &str) -> anyhow::Result<(&str, &str)> {
    match text.split_once('=') {
        Some((replica, value)) if !replica.is_empty() && !value.trim().is_empty() => Ok((replica, value)),
        _ => bail!("want REPLICA=…, e.g. broker-a-1=…"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::BrokerGroup;

    fn text(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn a_placed_replica_has_its_address_and_what_stands_in_front_of_its_broker() {
        let placement = Placement::new(
            "10.0.0.1".parse().unwrap(),
            &text(&["a-1=10.0.0.3"]),
            &text(&["a-1=nsenter --net=/run/netns/x"]),
        );
        let placement = placement.unwrap();
        assert_eq!(placement.listen().to_string(), "10.0.0.1");
        assert_eq!(placement.address("a-1").to_string(), "10.0.0.3");
        assert_eq!(placement.address("a-0").to_string(), "127.0.0.1");
        let command = Command { program: "/bin/gantry".into(), args: vec!["broker".into()] };
        assert_eq!(placement.wrapped("a-0", command.clone()), command);
        let wrapped = placement.wrapped("a-1", command);
        assert_eq!(wrapped.program.to_str(), Some("nsenter"));
        assert_eq!(wrapped.args, ["--net=/run/netns/x", "/bin/gantry", "broker"]);
    }

    #[test]
    fn what_places_nobody_is_refused_by_name() {
        let refused = |addresses: &[&str], wraps: &[&str]| {
            let placement = Placement::new(Ipv4Addr::LOCALHOST.into(), &text(addresses), &text(wraps));
            let group = GroupPlan::new(&BrokerGroup::new("a", serde_json::from_str("{}").unwrap())).unwrap();
            format!("{:#}", placement.and_then(|placement| placement.check(&[group])).unwrap_err())
        };
        assert!(refused(&["a-1"], &[]).starts_with("--replica-address a-1: want REPLICA="));
        assert!(refused(&["a-1=here"], &[]).contains("no IP address: \"here\""));
        assert!(refused(&[], &["a-1="]).starts_with("--wrap a-1=: want REPLICA="));
        let line = refused(&["a-7=10.0.0.3"], &[]);
        assert_eq!(line, "there is no replica \"a-7\" to place; there are a-0, a-1, a-2");
    }
}
