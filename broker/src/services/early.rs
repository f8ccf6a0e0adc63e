//! Requests that come at the wrong moment, and are kept until it has passed.
//!
//! - To a new master a moment too early: its epoch is open, but it doesn't yet know all that the log held. Sends wait at the gate for that moment.
//!   Whatever else was refused meanwhile made clients leave the connection on which their sends wait (GO_AWAY to a heartbeat is enough), and try
//!   again so fast that a producer's attempts were used up: so it waits too.
//! - To an old master a moment too late: the address by which they came leads here for some moments yet. Sent away now they would be back at once.
//! - *Strays*: sends and pulls to a replica that is not the master, nor was a moment ago. The way from a client to the master is being changed, or the
//!   master's process was started again before its death was known. They are kept for a little while and sent away, and their connection is
//!   closed: or a client that came by the master's address and stays connected would ask this replica for ever.

use super::Services;
use super::seam::{NotServing, knows_go_away};
use gantry_remoting::{Connection, Inbound};
use parking_lot::Mutex;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// How long a request is kept; then it is refused, with a code to retry on.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long a stray is kept. With the three attempts of a producer, each of which may reconnect once, that gives the way to the master more than two
/// seconds to change.
const STRAY_PATIENCE: Duration = Duration::from_millis(400);

/// A client that was sent away has so long to leave its connection by itself.
const GO_AWAY_GRACE: Duration = Duration::from_secs(1);

/// For answers that are on their way when a connection is closed.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How often it is looked whether the moment has passed.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// Requests that are kept. Their number is bounded by what connections may have in flight.
#[derive(Default)]
pub(super) struct Early(Mutex<Vec<Kept>>);

struct Kept {
    connection: Arc<Connection>,
    inbound: Inbound,
    /// Then it is answered in any case.
    give_up: Instant,
    is_stray: bool,
}

impl Services {
    /// How many requests are kept.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.early.0.lock().len()
    }

    /// Whether this replica takes sends and pulls. Cheap: no lock.
    pub(super) fn leads(&self) -> bool {
        self.leads.load(Ordering::Relaxed)
    }

    /// Is it a master that doesn't know everything yet?
    pub(super) fn is_opening(&self) -> bool {
        matches!(self.role.serving(), Err(NotServing::Opening))
    }

    /// Is one master's time over, and the next one's not yet begun, as far as clients can see?
    pub(super) fn is_between(&self) -> bool {
        matches!(self.role.serving(), Err(NotServing::Opening | NotServing::SwitchingOver))
    }

    /// Keeps a request until it can be answered.
    pub(super) fn keep(&self, connection: &Arc<Connection>, inbound: Inbound) {
        self.keep_for(PATIENCE, false, connection, inbound);
    }

    /// Keeps a send or pull that should have reached the master: for as long as others are kept, or for a little while.
    pub(super) fn keep_stray(&self, connection: &Arc<Connection>, inbound: Inbound) {
        let patience = if self.is_between() { PATIENCE } else { STRAY_PATIENCE };
        self.keep_for(patience, true, connection, inbound);
    }

    fn keep_for(&self, patience: Duration, is_stray: bool, connection: &Arc<Connection>, inbound: Inbound) {
        let kept = Kept { connection: Arc::clone(connection), inbound, give_up: Instant::now() + patience, is_stray };
        let mut early = self.early.0.lock();
        early.push(kept);
        if early.len() == 1 {
            self.runtime.spawn(answer_in_time(self.me.clone()));
        }
    }

    /// Takes out those whose moment has come.
    fn take_ripe(&self, now: Instant) -> Vec<Kept> {
        let standing = self.role.serving();
        let is_ripe = |kept: &mut Kept| match standing {
            _ if now >= kept.give_up => true,
            Ok(()) => true,
            Err(NotServing::Opening | NotServing::SwitchingOver) => false,
            // One that has waited here for the change of a master need not wait any longer; a stray has only come.
            Err(_) => !kept.is_stray || kept.give_up > now + STRAY_PATIENCE,
        };
        self.early.0.lock().extract_if(.., is_ripe).collect()
    }

    fn answer_kept(&self, Kept { connection, inbound, is_stray, .. }: Kept) {
        match self.role.serving() {
            Err(_) if is_stray => self.send_away(connection, inbound),
            _ => self.serve(&connection, inbound),
        }
    }

    fn send_away(&self, connection: Arc<Connection>, inbound: Inbound) {
        let refusal = NotServing::SwitchingOver.refusal(inbound.ticket.client_version());
        let goes_by_itself = knows_go_away(inbound.ticket.client_version());
        inbound.ticket.reply_failure(refusal.code, refusal.remark);
        if connection.is_closed() {
            return;
        }
        self.runtime.spawn(async move {
            if goes_by_itself {
                tokio::time::sleep(GO_AWAY_GRACE).await;
            }
            connection.close_after_flush("its sends and pulls are for the master", LAST_WORDS).await;
        });
    }
}

async fn answer_in_time(services: Weak<Services>) {
    loop {
        // Without services their connections are gone too.
        let Some(services) = services.upgrade() else { return };
        for kept in services.take_ripe(Instant::now()) {
            services.answer_kept(kept);
        }
        if services.early.0.lock().is_empty() {
            return;
        }
        drop(services);
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}
