//! Gantry as it is run: `gantry-operator local up`.

use anyhow::{Context, bail};

use super::Cluster;
use crate::failover::Blow;
use crate::group::{self, Group, PATIENCE, Status};
use crate::process::Signal;
use crate::wait;

/// Seconds between two failovers on suspicion. Freezes follow each other here; the default of a minute would be what is measured.
const SUSPICION_GAP_S: u32 = 1;

/// Three replicas, two of them in sync at least.
pub(super) struct Gantry {
    group: Group,
    struck: Option<(Blow, Status)>,
}

impl Gantry {
    pub(super) fn start() -> anyhow::Result<Self> {
        let options = group::Options { suspicion_gap: Some(SUSPICION_GAP_S), ..group::Options::default() };
        Ok(Self { group: Group::start(&options)?, struck: None })
    }
}

impl Cluster for Gantry {
    fn name(&self) -> String {
        "Gantry".to_owned()
    }

    fn nameserver(&self) -> String {
        self.group.nameserver().to_owned()
    }

    fn strike(&mut self, blow: Blow) -> anyhow::Result<i64> {
        let before = self.group.status()?;
        let master = before.master.clone().context("there is no master")?;
        let at_us = match blow {
            Blow::Kill => self.group.signal(&master, Signal::KILL)?,
            Blow::Freeze => self.group.signal(&master, Signal::STOP)?,
            Blow::Switchover => {
                let to = before.in_sync_slaves().next().context("there is no slave in sync")?;
                let at_us = wait::now_us();
                self.group.switchover(to)?;
                at_us
            }
        };
        self.struck = Some((blow, before));
        Ok(at_us)
    }

    fn wait_failed_over(&mut self) -> anyhow::Result<()> {
        let Some((_, before)) = &self.struck else { bail!("nothing was struck") };
        self.group
            .wait_for("another master", |status| status.epoch > before.epoch && status.master.is_some())
            .map(|_| ())
    }

    fn recover(&mut self) -> anyhow::Result<()> {
        let Some((blow, before)) = self.struck.take() else { bail!("nothing was struck") };
        if let (Blow::Freeze, Some(master)) = (blow, &before.master) {
            self.group.signal(master, Signal::CONT)?;
        }
        self.group.wait_settled(PATIENCE).map(|_| ())
    }
}
