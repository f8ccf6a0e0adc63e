//! How this broker replicates, by request: GET_BROKER_HA_STATUS (907), GET_BROKER_EPOCH_CACHE (1007).
//!
//! The sync state set (1006) is asked of a controller; here that is the elector, which answers it.

use super::failure::Refusal;
use super::seam::Replication;
use super::{Services, json};
use gantry_remoting::Response;
use gantry_remoting::body::ha::EpochEntryCache;
use gantry_remoting::code::response;
use std::sync::Arc;

impl Services {
    /// What to answer these requests by; to be called once, before requests come.
    pub fn report_replication(&self, replication: Arc<dyn Replication>) {
        self.replication.get_or_init(|| replication);
    }

    /// GET_BROKER_HA_STATUS.
    pub(super) fn ha_status(&self) -> Result<Response, Refusal> {
        json(&self.replication()?.ha_status())
    }

    /// GET_BROKER_EPOCH_CACHE.
    pub(super) fn epoch_cache(&self) -> Result<Response, Refusal> {
        let replication = self.replication()?;
        let (epoch_list, max_offset) = replication.epochs();
        json(&EpochEntryCache {
            cluster_name: self.config.cluster_name.clone(),
            broker_name: self.config.broker_name.clone(),
            broker_id: if replication.is_master() { 0 } else { self.config.broker_id },
            epoch_list,
            max_offset,
        })
    }

    fn replication(&self) -> Result<&Arc<dyn Replication>, Refusal> {
        let text = "the broker is starting, its replication not running yet";
        self.replication.get().ok_or_else(|| Refusal::new(response::SERVICE_NOT_AVAILABLE, text))
    }
}
