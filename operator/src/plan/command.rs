//! The command lines of the children.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// A program and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The program's file.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
}

/// `gantry nameserver`. It prints `listening on ADDR` once it does, and ends when its standard input closes.
pub fn nameserver_command(gantry: &Path, listen: SocketAddr) -> Command {
    let args = ["nameserver", "--listen", &listen.to_string(), "--exit-with-stdin"].map(OsString::from);
    Command { program: gantry.to_owned(), args: args.into() }
}

/// `gantry broker` with that configuration file. It ends when its standard input closes.
pub fn broker_command(gantry: &Path, conf: &Path, nameserver: SocketAddr) -> Command {
    let mut args = vec![OsString::from("broker"), "-c".into(), conf.into()];
    args.extend(["-n", &nameserver.to_string(), "--exit-with-stdin"].map(OsString::from));
    Command { program: gantry.to_owned(), args }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_told_where_and_to_end_with_their_parent() {
        let at = "127.0.0.1:9876".parse().unwrap();
        let nameserver = nameserver_command(Path::new("/bin/gantry"), at);
        assert_eq!(nameserver.args, ["nameserver", "--listen", "127.0.0.1:9876", "--exit-with-stdin"]);
        let broker = broker_command(Path::new("/bin/gantry"), Path::new("/d/broker.conf"), at);
        assert_eq!(broker.args, ["broker", "-c", "/d/broker.conf", "-n", "127.0.0.1:9876", "--exit-with-stdin"]);
    }
}
