//! Keys that are changed while the broker runs, as the operator says by the session with the elector.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Result, bail};
use gantry_replication::settings::{LIVE_KEYS, Settings};
use gantry_store::Store;
use tokio::sync::watch;
use tracing::info;

use crate::config::BrokerConfig;
use crate::core::Core;
use crate::ha::ColdRate;
use crate::services::Services;

/// The parts of a broker that can go by other settings, and what it was started with.
pub struct LiveSettings {
    /// Without the live keys.
    base: BTreeMap<String, String>,
    core: Arc<Core>,
    services: Arc<Services>,
    store: Store,
    cold_rate: ColdRate,
    external_master: watch::Sender<Option<String>>,
}

impl LiveSettings {
    /// Of a broker that goes by `config`.
    pub fn new(config: &BrokerConfig, core: Arc<Core>, services: Arc<Services>, store: Store) -> Self {
        let started_with = Settings::of(&config.entries);
        core.settings_apply(started_with.digest());
        let mut base = config.entries.clone();
        base.retain(|key, _| !started_with.0.contains_key(key));
        let external_master = watch::Sender::new(config.external_master.clone());
        Self { base, core, services, store, cold_rate: config.ha.cold_rate.clone(), external_master }
    }

    /// Where clients outside reach the master, as it is now.
    pub fn external_master(&self) -> watch::Receiver<Option<String>> {
        self.external_master.subscribe()
    }

    /// Goes by these from now on; a live key that isn't among them has its default again. All of them or, with the reason, none.
    pub fn apply(&self, settings: &Settings) -> Result<()> {
        if let Some(key) = settings.0.keys().find(|key| !LIVE_KEYS.contains(&key.as_str())) {
            bail!("{key} can't be changed while this broker runs; it reads it when it is started again");
        }
        let mut entries = self.base.clone();
        entries.extend(settings.0.clone());
        let config = BrokerConfig::parse(entries)?;
        self.store.set_retention(&config.store.retention)?;
        self.core.set_flow(config.flow);
        self.services.adjust(&config.services);
        self.cold_rate.set(config.ha.cold_rate.get());
        let external = config.external_master;
        self.external_master.send_if_modified(|now| std::mem::replace(now, external.clone()) != external);
        self.core.settings_apply(settings.digest());
        info!(settings = ?settings.0, "these settings apply from now on");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value of each live key that isn't its default.
    const SAMPLES: &[(&str, &str)] = &[
        ("autoCreateSubscriptionGroup", "false"),
        ("brokerFastFailureEnable", "false"),
        ("brokerPermission", "4"),
        ("cleanFileForciblyEnable", "false"),
        ("cleanResourceInterval", "7"),
        ("defaultQueryMaxNum", "7"),
        ("deleteCommitLogFilesInterval", "7"),
        ("deleteFileBatchMax", "7"),
        ("deleteWhen", "07"),
        ("destroyMapedFileIntervalForcibly", "7"),
        ("diskMaxUsedSpaceRatio", "7"),
        ("diskSpaceCleanForciblyRatio", "7"),
        ("diskSpaceWarningLevelRatio", "7"),
        ("fileReservedTime", "7"),
        ("gantryExternalMaster", "example.org:7"),
        ("gantryStoreQuotaBytes", "7"),
        ("haFlowControlEnable", "false"),
        ("longPollingEnable", "false"),
        ("maxHaTransferByteInSecond", "7"),
        ("maxMsgsNumBatch", "7"),
        ("maxTransferBytesOnMessageInDisk", "7"),
        ("maxTransferBytesOnMessageInMemory", "7"),
        ("maxTransferCountOnMessageInDisk", "7"),
        ("maxTransferCountOnMessageInMemory", "7"),
        ("osPageCacheBusyTimeOutMills", "7"),
        ("redeleteHangedFileInterval", "7"),
        ("shortPollingTimeMills", "7"),
        ("waitTimeMillsInSendQueue", "7"),
    ];

    /// What [`LiveSettings::apply`] hands on.
    fn live_parts(key_and_value: Option<(&str, &str)>) -> String {
        let entries = key_and_value.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let config = BrokerConfig::parse(entries.into_iter().collect()).unwrap();
        assert!(config.unknown_keys.is_empty(), "{:?}", config.unknown_keys);
        let services = (config.services.adjustable, config.services.auto_create_groups);
        let rest = (config.flow, services, config.ha.cold_rate.get(), config.external_master);
        format!("{:?} {rest:?}", config.store.retention)
    }

    #[test]
    fn each_live_key_changes_what_is_handed_on() {
        assert!(SAMPLES.iter().map(|(key, _)| *key).eq(LIVE_KEYS.iter().copied()), "a sample of each live key");
        let default = live_parts(None);
        for sample in SAMPLES {
            assert_ne!(live_parts(Some(*sample)), default, "{sample:?}");
        }
    }
}
