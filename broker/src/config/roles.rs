//! What `brokerRole` and its neighbours say about acknowledgements.

use anyhow::{Result, bail};
use gantry_replication::master::{self, Durability, Mode};

use super::{BrokerRole, Keys};

/// Copies that `SYNC_MASTER` asks for where nothing else is said: the master and one slave, as in RocketMQ 4.9. (5.x asks for one, its
/// own, and doesn't say so.)
const SYNC_MASTER_COPIES: usize = 2;

impl Keys {
    /// `brokerRole`, and whether it was given at all.
    pub(super) fn role(&mut self) -> Result<(BrokerRole, bool)> {
        let given = self.entries.contains_key("brokerRole");
        let role = self.choice("brokerRole", &["ASYNC_MASTER", "SYNC_MASTER", "SLAVE"])?;
        let role = match role.as_str() {
            "SLAVE" => BrokerRole::Slave,
            "SYNC_MASTER" => BrokerRole::SyncMaster,
            _ => BrokerRole::AsyncMaster,
        };
        Ok((role, given))
    }

    /// The master's part. What doesn't mean what it seems to is told in `warnings`.
    pub(super) fn master(
        &mut self,
        durability: Durability,
        (role, given): (BrokerRole, bool),
        elected: bool,
        warnings: &mut Vec<String>,
    ) -> Result<master::Config> {
        let mode = self.mode(role, given && !elected)?;
        // With an elector RocketMQ's number of copies stays unread, and is told with the other unread keys.
        let copies: Option<usize> = if elected { None } else { self.optional("inSyncReplicas")? };
        let usual = if role == BrokerRole::SyncMaster { SYNC_MASTER_COPIES } else { 1 };
        let least: usize = self.or("minInSyncReplicas", usual)?;
        let mut config = master::Config::new(mode, durability, copies.unwrap_or(least));
        let auto = !elected && self.or("enableAutoInSyncReplicas", false)?;
        let shortage = self.entries.contains_key("onShortage");
        config.degrade = self.choice("onShortage", &["Refuse", "Degrade"])? == "Degrade" || (auto && !shortage);
        config.lag_ms = self.or("haMaxTimeSlaveNotCatchup", config.lag_ms)?;
        config.gap_bytes = self.or("haMaxGapNotInSync", config.gap_bytes)?;
        // A slave joins well before it would leave again.
        config.join_lag_bytes = config.join_lag_bytes.min(config.gap_bytes / 4);
        if role == BrokerRole::SyncMaster && config.min_in_sync == 1 {
            warnings.push(
                "brokerRole=SYNC_MASTER, but one copy is enough (inSyncReplicas, minInSyncReplicas): while no slave is in sync, only this \
                 broker has what it acknowledges"
                    .to_owned(),
            );
        }
        if mode == Mode::Async && copies.is_some_and(|copies| copies > 1) {
            warnings.push(
                "inSyncReplicas has no effect with brokerRole=ASYNC_MASTER: acknowledged means that the master has it"
                    .to_owned(),
            );
        }
        Ok(config)
    }

    fn mode(&mut self, role: BrokerRole, role_counts: bool) -> Result<Mode> {
        let asked = self.entries.contains_key("replicationMode");
        let word = self.choice("replicationMode", &["Async", "Sync"])?;
        match (role, word.as_str()) {
            (BrokerRole::SyncMaster, "Async") if asked => {
                bail!("brokerRole=SYNC_MASTER and replicationMode=Async contradict each other: remove one")
            }
            (BrokerRole::AsyncMaster, "Sync") if role_counts => {
                bail!("brokerRole=ASYNC_MASTER and replicationMode=Sync contradict each other: remove one")
            }
            (BrokerRole::SyncMaster, _) | (_, "Sync") => Ok(Mode::Sync),
            _ => Ok(Mode::Async),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BrokerConfig;

    fn parse(text: &str) -> Result<BrokerConfig> {
        BrokerConfig::parse(java_properties::read(text.as_bytes()).unwrap().into_iter().collect())
    }

    fn master(text: &str) -> (Mode, usize, bool, usize) {
        let config = parse(text).unwrap();
        (config.master.mode, config.master.min_in_sync, config.master.degrade, config.warnings.len())
    }

    #[test]
    fn a_sync_master_waits_for_a_slave_and_what_would_not_is_told() {
        assert_eq!(master("brokerRole=SYNC_MASTER"), (Mode::Sync, 2, false, 0));
        assert_eq!(master("brokerRole=SYNC_MASTER\ninSyncReplicas=3"), (Mode::Sync, 3, false, 0));
        assert_eq!(master("brokerRole=SYNC_MASTER\ninSyncReplicas=1"), (Mode::Sync, 1, false, 1));
        assert_eq!(master("brokerRole=SYNC_MASTER\nenableAutoInSyncReplicas=true"), (Mode::Sync, 2, true, 0));
        assert_eq!(
            master("brokerRole=SYNC_MASTER\nenableAutoInSyncReplicas=true\nonShortage=Refuse"),
            (Mode::Sync, 2, false, 0)
        );
        assert_eq!(master("brokerRole=ASYNC_MASTER"), (Mode::Async, 1, false, 0));
        assert_eq!(master("brokerRole=ASYNC_MASTER\ninSyncReplicas=2"), (Mode::Async, 2, false, 1));
        assert_eq!(master("replicationMode=Sync"), (Mode::Sync, 1, false, 0), "no role was given");
        assert_eq!(master("brokerRole=SLAVE\ngantryElectors=127.0.0.1:1"), (Mode::Async, 1, false, 0));
        assert_eq!(master("brokerRole=SYNC_MASTER\ngantryElectors=127.0.0.1:1"), (Mode::Sync, 2, false, 0));
    }

    #[test]
    fn roles_and_modes_that_contradict_each_other_are_refused() {
        for text in ["brokerRole=SYNC_MASTER\nreplicationMode=Async", "brokerRole=ASYNC_MASTER\nreplicationMode=Sync"] {
            let said = format!("{:#}", parse(text).unwrap_err());
            assert!(said.contains("contradict each other"), "{said}");
        }
        let said = format!("{:#}", parse("brokerRole=SLAVE").unwrap_err());
        assert!(said.contains("brokerId above 0"), "{said}");
    }
}
