//! Apache's brokers in controller mode: two of them, a name server with the controller in it, every acknowledgement by
//! both (`allAckInSyncStateSet`).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use gantry_remoting::{Client, Command, Limits};
use serde::Deserialize;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::Cluster;
use crate::apache::{Broker, NameServer, Settings, Version};
use crate::failover::Blow;
use crate::process::{self, Signal};
use crate::{ports, wait};

/// How long the controller may take to elect, and a broker to come back in sync. Its JVM starts cold.
const WITHIN: Duration = Duration::from_mins(3);

const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// `CONTROLLER_GET_SYNC_STATE_DATA`
const GET_SYNC_STATE_DATA: i32 = 1006;

const GROUP: &str = "broker-a";
const BROKERS: usize = 2;

pub(super) struct Apache {
    runtime: Runtime,
    controller: String,
    brokers: Vec<(Settings, PathBuf, Broker)>,
    nameserver: NameServer,
    struck: Option<(Blow, usize)>,
    /// Last: the others run in it.
    _folder: TempDir,
}

/// A controller's answer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SyncStateData {
    replicas_info_table: BTreeMap<String, SyncState>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SyncState {
    master_address: Option<String>,
    #[serde(default)]
    in_sync_replicas: Vec<serde_json::Value>,
}

impl Apache {
    pub(super) fn start() -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("gantry-apache-").context("making a folder")?;
        let port = ports::free(&[0])?;
        let controller = format!("127.0.0.1:{port}");
        let keys = [
            ("enableControllerInNamesrv", "true".to_owned()),
            ("controllerDLegerGroup", "group1".to_owned()),
            ("controllerDLegerPeers", format!("n0-{controller}")),
            ("controllerDLegerSelfId", "n0".to_owned()),
            ("controllerStorePath", folder.path().join("controller").display().to_string()),
        ];
        let nameserver = NameServer::start_with(Version::V5, &folder.path().join("namesrv"), &keys)?;
        let mut brokers = Vec::new();
        for index in 0..BROKERS {
            let settings = settings(nameserver.address(), &controller)?;
            let home = folder.path().join(format!("broker-{index}"));
            let broker = Broker::start(&settings, &home)?;
            brokers.push((settings, home, broker));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let apache = Self { runtime, controller, brokers, nameserver, struck: None, _folder: folder };
        apache.wait_in_sync()?;
        Ok(apache)
    }

    fn state(&self) -> anyhow::Result<SyncState> {
        let answer = self.runtime.block_on(async {
            let client = Client::new(&self.controller, Limits::default(), None);
            let ask = Command::request(GET_SYNC_STATE_DATA).with_body(format!("[\"{GROUP}\"]").into_bytes());
            client.invoke(ask, ANSWER_WITHIN).await
        })?;
        if answer.code != 0 {
            bail!("the controller answers {} {}", answer.code, answer.remark.unwrap_or_default());
        }
        let data: SyncStateData =
            serde_json::from_slice(&answer.body.to_bytes()).context("reading the controller's answer")?;
        data.replicas_info_table.get(GROUP).cloned().context("the controller doesn't know the group")
    }

    fn master(&self) -> anyhow::Result<Option<usize>> {
        let address = self.state()?.master_address;
        Ok(self.brokers.iter().position(|(_, _, broker)| Some(broker.address()) == address.as_deref()))
    }

    fn wait_in_sync(&self) -> anyhow::Result<()> {
        wait::until("Apache's brokers in sync", WITHIN, || {
            Ok((self.state()?.in_sync_replicas.len() == BROKERS && self.master()?.is_some()).then_some(()))
        })
    }
}

impl Cluster for Apache {
    fn name(&self) -> String {
        format!("Apache {}, controller mode", Version::V5)
    }

    fn nameserver(&self) -> String {
        self.nameserver.address().to_owned()
    }

    fn strike(&mut self, blow: Blow) -> anyhow::Result<i64> {
        let master = self.master()?.context("there is no master")?;
        let signal = match blow {
            Blow::Kill => Signal::KILL,
            Blow::Freeze => Signal::STOP,
            Blow::Switchover => bail!("no planned switchover of Apache's brokers is measured"),
        };
        process::signal(self.brokers[master].2.pid(), signal)?;
        self.struck = Some((blow, master));
        Ok(wait::now_us())
    }

    fn wait_failed_over(&mut self) -> anyhow::Result<()> {
        let old = self.struck.map(|(_, old)| old);
        wait::until("another master of Apache's", WITHIN, || {
            let master = self.master()?;
            Ok((master.is_some() && master != old).then_some(()))
        })
    }

    fn recover(&mut self) -> anyhow::Result<()> {
        let Some((blow, struck)) = self.struck.take() else { bail!("nothing was struck") };
        let (settings, home, broker) = &mut self.brokers[struck];
        if blow == Blow::Freeze {
            process::signal(broker.pid(), Signal::CONT)?;
        } else {
            *broker = Broker::start(settings, home)?;
        }
        self.wait_in_sync()
    }
}

fn settings(nameserver: &str, controller: &str) -> anyhow::Result<Settings> {
    let others = vec![
        // In place of the one above it in the file: the controller gives them.
        ("brokerId", "-1".to_owned()),
        ("enableControllerMode", "true".to_owned()),
        ("controllerAddr", controller.to_owned()),
        ("allAckInSyncStateSet", "true".to_owned()),
    ];
    Ok(Settings {
        version: Version::V5,
        nameserver: nameserver.to_owned(),
        role: "SLAVE",
        id: 0,
        port: ports::free(&[0, 2])?,
        ha_port: ports::free(&[0])?,
        others,
    })
}
