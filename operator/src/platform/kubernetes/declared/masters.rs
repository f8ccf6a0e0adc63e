//! What masters have, read from each once for all objects that want to know; and what they are asked to do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gantry_remoting::code::response;
use gantry_remoting::{Client, Command, Limits};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::kinds::Declared;
use crate::api::GroupState;

/// For an answer; for a connection [`Limits`] has a bound.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What was read is good for so long, and so is the knowledge that nothing could be: with a thousand topics a master is asked once.
const GOOD_FOR: Duration = Duration::from_secs(5);

/// Why a master didn't do what it was asked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) state: GroupState,
    pub(super) message: String,
}

/// By the id of their groups.
pub(super) struct Masters<T: Declared> {
    doors: Mutex<BTreeMap<String, Arc<Door<T>>>>,
}

/// One master, at one address.
struct Door<T: Declared> {
    client: Client,
    read: tokio::sync::Mutex<Option<Read<T::Seen>>>,
}

struct Read<S> {
    at: Instant,
    table: Result<BTreeMap<String, S>, Trouble>,
}

impl<T: Declared> Masters<T> {
    pub(super) fn new() -> Self {
        Self { doors: Mutex::default() }
    }

    /// What the master has of that name.
    pub(super) async fn seen(&self, group: &str, address: &str, name: &str) -> Result<Option<T::Seen>, Trouble> {
        let door = self.door(group, address);
        let mut read = door.read.lock().await;
        if let Some(Read { table, .. }) = read.as_ref().filter(|read| read.at.elapsed() < GOOD_FOR) {
            return table.clone().map(|table| table.get(name).cloned());
        }
        let answer = door.ask(T::list()).await;
        let table = answer.and_then(|answer| {
            let refused = |error| Trouble {
                state: GroupState::Refused,
                message: format!("{address} can't be understood: {error}"),
            };
            T::read(&answer.body.to_bytes()).map_err(refused)
        });
        let seen = table.as_ref().map(|table| table.get(name).cloned()).map_err(Clone::clone);
        *read = Some(Read { at: Instant::now(), table });
        seen
    }

    /// Asks for a change, after which the master has `becomes` of that name, or nothing.
    pub(super) async fn change(
        &self,
        group: &str,
        address: &str,
        command: Command,
        (name, becomes): (&str, Option<T::Seen>),
    ) -> Result<(), Trouble> {
        let door = self.door(group, address);
        let changed = door.ask(command).await;
        let mut read = door.read.lock().await;
        match (&changed, read.as_mut().map(|read| &mut read.table)) {
            (Ok(_), Some(Ok(table))) => match becomes {
                Some(becomes) => drop(table.insert(name.to_owned(), becomes)),
                None => drop(table.remove(name)),
            },
            // It may have happened all the same.
            _ => *read = None,
        }
        changed.map(drop)
    }

    /// A group that has moved its master has another door.
    fn door(&self, group: &str, address: &str) -> Arc<Door<T>> {
        let mut doors = self.doors.lock();
        if let Some(door) = doors.get(group).filter(|door| door.client.addr() == address) {
            return Arc::clone(door);
        }
        let client = Client::new(address, Limits::default(), None);
        let door = Arc::new(Door { client, read: tokio::sync::Mutex::default() });
        doors.insert(group.to_owned(), Arc::clone(&door));
        door
    }

    /// Forgets groups of a namespace that are not among these.
    pub(super) fn keep_only(&self, namespace: &str, stays: impl Fn(&str) -> bool) {
        self.doors.lock().retain(|id, _| match id.split_once('/') {
            Some((of, group)) if of == namespace => stays(group),
            _ => true,
        });
    }
}

impl<T: Declared> Door<T> {
    async fn ask(&self, command: Command) -> Result<Command, Trouble> {
        let answer = self.client.invoke(command, ANSWER_WITHIN).await;
        let answer = answer.map_err(|error| Trouble { state: GroupState::Unreachable, message: error.to_string() })?;
        if answer.code == response::SUCCESS {
            return Ok(answer);
        }
        let remark = answer.remark.as_deref().unwrap_or("without a reason");
        let message = format!("its master refused: {remark} (code {})", answer.code);
        Err(Trouble { state: GroupState::Refused, message })
    }
}
