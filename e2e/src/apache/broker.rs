//! Apache's broker.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{START_WITHIN, Version, jvm};
use crate::daemon::Daemon;

/// What a broker is started as.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The release.
    pub version: Version,
    /// Its name server.
    pub nameserver: String,
    /// `brokerRole`
    pub role: &'static str,
    /// `brokerId`
    pub id: u32,
    /// `listenPort`; the two below it are taken too.
    pub port: u16,
    /// `haListenPort`
    pub ha_port: u16,
    /// Further keys and values of `broker.conf`.
    pub others: Vec<(&'static str, String)>,
}

/// A running broker; dropping it kills it. Its store stays in its folder.
pub struct Broker {
    daemon: Daemon,
    address: String,
}

impl Broker {
    /// Starts one over the store in `folder`, and waits until it serves.
    pub fn start(settings: &Settings, folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let config = folder.join("broker.conf");
        std::fs::write(&config, conf(settings, &folder.join("store")))?;
        let mut command = jvm::command(settings.version, folder, 256)?;
        command.arg("org.apache.rocketmq.broker.BrokerStartup").arg("-c").arg(&config);
        let mut daemon = Daemon::start(command, folder.join("broker.log"))?;
        daemon.wait_for_line("boot success", START_WITHIN)?;
        Ok(Self { daemon, address: format!("127.0.0.1:{}", settings.port) })
    }

    /// Where clients reach it.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// Stops it as an administrator does, and waits for its end.
    pub fn stop(self) -> anyhow::Result<()> {
        self.daemon.stop(Duration::from_mins(1))
    }
}

fn conf(settings: &Settings, store: &Path) -> String {
    let path = |path: PathBuf| path.display().to_string();
    let mut lines: Vec<(&str, String)> = vec![
        ("brokerClusterName", "DefaultCluster".to_owned()),
        ("brokerName", "broker-a".to_owned()),
        ("brokerId", settings.id.to_string()),
        ("brokerRole", settings.role.to_owned()),
        ("brokerIP1", "127.0.0.1".to_owned()),
        ("brokerIP2", "127.0.0.1".to_owned()),
        ("listenPort", settings.port.to_string()),
        ("haListenPort", settings.ha_port.to_string()),
        ("namesrvAddr", settings.nameserver.clone()),
        ("storePathRootDir", path(store.to_path_buf())),
        ("storePathCommitLog", path(store.join("commitlog"))),
        ("diskMaxUsedSpaceRatio", "95".to_owned()),
        // 420 MB a file, though sparse.
        ("messageIndexEnable", "false".to_owned()),
    ];
    if settings.version == Version::V5 {
        lines.push(("bindAddress", "127.0.0.1".to_owned()));
    }
    lines.extend(settings.others.iter().cloned());
    let lines: Vec<String> = lines.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    lines.join("\n")
}
