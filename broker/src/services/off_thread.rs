//! What may have to wait for the disk is done on threads of its own, few at a time: a page that isn't in memory must not
//! keep a network thread from all its other connections.

use super::Services;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// RocketMQ's words for a full queue.
pub(super) const BUSY: &str = "[OVERLOAD]system busy, start flow control for a while";

/// So many read at once: enough to keep a disk busy.
const THREADS: usize = 8;

/// Bounds what reads from the disk.
pub(super) struct Disk {
    queue: Arc<Semaphore>,
    threads: Arc<Semaphore>,
}

impl Disk {
    /// At most so many wait or read.
    pub(super) fn new(max_queued: usize) -> Self {
        let max_queued = max_queued.clamp(1, Semaphore::MAX_PERMITS);
        Self { queue: Arc::new(Semaphore::new(max_queued)), threads: Arc::new(Semaphore::new(THREADS)) }
    }
}

impl Services {
    /// Does `job` where it may take its time. Gives `what` back if too many wait already.
    pub(super) fn off_thread<T: Send + 'static>(
        &self,
        what: T,
        job: impl FnOnce(&Services, T) + Send + 'static,
    ) -> Result<(), T> {
        let Some(services) = self.me.upgrade() else { return Err(what) };
        let Ok(place) = Arc::clone(&self.disk.queue).try_acquire_owned() else { return Err(what) };
        let threads = Arc::clone(&self.disk.threads);
        self.runtime.spawn(async move {
            // Never closed.
            let Ok(_thread) = threads.acquire().await else { return };
            let done = tokio::task::spawn_blocking(move || job(&services, what)).await;
            if let Err(problem) = done {
                tracing::error!(%problem, "a request that reads from the disk broke off");
            }
            drop(place);
        });
        Ok(())
    }
}
