//! A slave that no elector directs: `brokerRole=SLAVE`, as RocketMQ's users write it. Its master is whoever registers with the name
//! server as broker 0 of its own name.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use gantry_remoting::{Client, Limits};
use gantry_replication::Epoch;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::warn;

use crate::core::Core;
use crate::fatal::Fatal;
use crate::ha::classic;
use crate::registration::NamedMaster;
use crate::services::Services;

const BACK_OFF: Duration = Duration::from_secs(1);

/// A slave and what it needs to follow.
pub struct Slave {
    core: Arc<Core>,
    services: Arc<Services>,
    /// `haMasterAddress`
    ha_master: Option<String>,
    classic: classic::Settings,
    /// This process's epoch of following, once it follows.
    epoch: Option<Epoch>,
}

impl Slave {
    pub(crate) fn new(
        core: Arc<Core>,
        services: Arc<Services>,
        ha_master: Option<String>,
        classic: classic::Settings,
    ) -> Self {
        Self { core, services, ha_master, classic, epoch: None }
    }

    /// A slave of nobody yet: so it registers, and hears who its master is.
    pub async fn wait_for_master(&self) -> Result<()> {
        self.core.follow_undirected("nobody yet", self.core.report().promised, None).await
    }

    /// Follows whoever `masters` names. Runs until it is dropped.
    pub async fn run(mut self, mut masters: watch::Receiver<Option<NamedMaster>>) {
        let _fatal = Fatal("the slave");
        loop {
            let Some(mut master) = masters.borrow_and_update().clone() else {
                if masters.changed().await.is_err() {
                    return;
                }
                continue;
            };
            if let Some(address) = &self.ha_master {
                master.ha_address.clone_from(address);
            }
            let ended = tokio::select! {
                ended = self.follow(&master) => ended,
                changed = masters.changed() => if changed.is_err() { return } else { continue },
            };
            if let Some(epoch) = self.epoch {
                self.core.lost_master(epoch);
            }
            let Err(error) = ended else { continue };
            warn!(master = master.address, reason = format!("{error:#}"), "not following; trying again");
            sleep(BACK_OFF.mul_f64(0.5 + fastrand::f64())).await;
        }
    }

    async fn follow(&mut self, master: &NamedMaster) -> Result<()> {
        let client = Client::new(&master.address, Limits::default(), None);
        if classic::is_gantry(&client).await? {
            // Its own protocol: the follower does the rest, and takes the master's epoch for its own.
            let promised = self.core.report().promised;
            self.core.follow_undirected(&master.address, promised, Some(master.ha_address.clone())).await?;
            return std::future::pending().await;
        }
        let epoch = match self.epoch {
            Some(epoch) => epoch,
            // What it takes in from now on has another author than what it may have written as a master.
            None => self.core.report().promised.next(),
        };
        self.core.follow_undirected(&master.address, epoch, None).await?;
        self.epoch = Some(epoch);
        classic::follow(&self.core, &self.services, &self.classic, master, epoch).await
    }
}
