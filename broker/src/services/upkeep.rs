//! What the services do by themselves, now and then.

use super::{Services, now_ms};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::time::{MissedTickBehavior, interval};

/// How often waiting pulls are looked through for those whose time is up: how late an answer may be.
const PULL_EXPIRY_PERIOD: Duration = Duration::from_millis(100);
/// RocketMQ's period of looking for silent clients
const CLIENT_EXPIRY_PERIOD: Duration = Duration::from_secs(10);

impl Services {
    pub(super) fn start_upkeep(self: &Arc<Self>) {
        let offsets = Duration::from_millis(self.config.offset_flush_ms.max(1));
        let snapshots = Duration::from_millis(self.config.snapshot_ms.max(1));
        self.every(PULL_EXPIRY_PERIOD, |services| services.expire_pulls(Instant::now()));
        self.every(offsets, |services| services.metadata.flush());
        self.every(CLIENT_EXPIRY_PERIOD, Services::expire_clients);
        let me = self.me.clone();
        let mut upkeep = self.upkeep.lock();
        upkeep.spawn_on(save_snapshots(me.clone(), snapshots), &self.runtime);
        upkeep.spawn_on(super::delay::deliver(me), &self.runtime);
    }

    fn every(&self, period: Duration, act: impl Fn(&Services) + Send + 'static) {
        let me = self.me.clone();
        let task = async move {
            let mut ticks = interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let Some(services) = me.upgrade() else { return };
                act(&services);
            }
        };
        self.upkeep.lock().spawn_on(task, &self.runtime);
    }

    fn expire_clients(&self) {
        let now_ms = now_ms() as u64;
        self.notify(self.clients.expire(now_ms, self.config.client_expiry_ms));
        self.locks.expire(now_ms);
    }
}

/// Files are written, and synced, on a thread where that may take its time.
async fn save_snapshots(me: Weak<Services>, period: Duration) {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(services) = me.upgrade() else { return };
        if let Err(problem) = tokio::task::spawn_blocking(move || services.save_metadata()).await {
            tracing::error!(%problem, "writing the metadata snapshot broke off");
        }
    }
}
