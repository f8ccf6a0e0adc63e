//! Requests that reach a new master a moment too early: its epoch is open, but it doesn't yet know all that the log held.
//!
//! Sends wait at the gate for that moment. Whatever else was refused meanwhile made clients leave the connection on which
//! their sends wait (GO_AWAY to a heartbeat is enough), and try again so fast that a producer's attempts were used up:
//! so it waits too.

use super::Services;
use super::seam::NotServing;
use gantry_remoting::{Connection, Inbound};
use parking_lot::Mutex;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// How long a request is kept; then it is refused, with a code to retry on.
const PATIENCE: Duration = Duration::from_secs(3);

/// How often it is looked whether the moment has passed.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// Requests that are kept. Their number is bounded by what connections may have in flight.
#[derive(Default)]
pub(super) struct Early(Mutex<Vec<(Arc<Connection>, Inbound)>>);

impl Services {
    /// How many requests are kept.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.early.0.lock().len()
    }

    /// Is it a master that doesn't know everything yet?
    pub(super) fn is_opening(&self) -> bool {
        matches!(self.role.serving(), Err(NotServing::Opening))
    }

    /// Keeps a request until it can be answered.
    pub(super) fn keep(&self, connection: &Arc<Connection>, inbound: Inbound) {
        let mut early = self.early.0.lock();
        early.push((Arc::clone(connection), inbound));
        if early.len() == 1 {
            self.runtime.spawn(answer_in_time(self.me.clone()));
        }
    }
}

async fn answer_in_time(services: Weak<Services>) {
    let give_up = Instant::now() + PATIENCE;
    loop {
        // Without services their connections are gone too.
        let Some(services) = services.upgrade() else { return };
        if !services.is_opening() || Instant::now() >= give_up {
            let early = std::mem::take(&mut *services.early.0.lock());
            for (connection, inbound) in early {
                services.handle_one(&connection, inbound);
            }
            return;
        }
        drop(services);
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}
