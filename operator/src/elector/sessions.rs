//! Requests of brokers, off the wire and to their group's task. A connection is a session once its hello has been accepted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gantry_remoting::code::response;
use gantry_remoting::{Command, Connection, Handler, Inbound, Ticket};
use gantry_replication::same_secret;
use gantry_replication::wire::{ALTER_IN_SYNC, AlterInSync, HELLO, Hello, REPORT, Report};
use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;
use tracing::warn;

use super::controller::Controller;
use super::group::Input;
use super::{Group, View};

/// All groups of this elector, for whoever connects.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    /// By id.
    doors: RwLock<BTreeMap<String, Door>>,
    controller: Controller,
}

#[derive(Debug)]
struct Door {
    /// The group's name.
    name: String,
    token: String,
    replicas: BTreeSet<String>,
    inputs: UnboundedSender<Input>,
}

/// What an accepted hello leaves with its connection. The connection's id is the session's.
#[derive(Debug)]
struct Session {
    group: String,
    replica: String,
    inputs: UnboundedSender<Input>,
}

/// Why a request is refused: the code and the words.
type Refusal = (i32, String);

impl Sessions {
    pub(super) fn add(&self, group: &Group, inputs: UnboundedSender<Input>, view: watch::Receiver<View>) {
        self.controller.add(group, view);
        let (name, token) = (group.name.clone(), group.token.clone());
        let door = Door { name, token, replicas: group.config.replicas.clone(), inputs };
        self.doors.write().insert(group.id.clone(), door);
    }

    pub(super) fn remove(&self, group: &str) {
        self.controller.remove(group);
        self.doors.write().remove(group);
    }

    fn take(&self, connection: &Arc<Connection>, request: &Command, ticket: Ticket) {
        match self.controller.answer(connection, request) {
            Some(Ok(answer)) => return ticket.reply(answer),
            Some(Err((code, remark))) => return ticket.reply_failure(code, remark),
            None => {}
        }
        match self.input(connection, request) {
            Ok((inputs, make)) => {
                if let Err(unsent) = inputs.send(make(ticket)) {
                    // The ticket in it answers by its drop.
                    warn!(peer = %connection.peer(), "the group's elector has stopped");
                    drop(unsent);
                }
            }
            Err((code, remark)) => {
                warn!(peer = %connection.peer(), request_code = request.code, remark, "request of a broker refused");
                ticket.reply_failure(code, remark);
            }
        }
    }

    fn input(
        &self,
        connection: &Arc<Connection>,
        request: &Command,
    ) -> Result<(UnboundedSender<Input>, MakeInput), Refusal> {
        let session = connection.id();
        match request.code {
            HELLO => {
                let hello: Hello = parse(request)?;
                let inputs = self.admit(connection, &hello)?;
                let connection = Arc::clone(connection);
                let hello = Box::new(hello);
                Ok((inputs, Box::new(move |ticket| Input::Joined { session, hello, connection, ticket })))
            }
            REPORT => {
                let inputs = session_of(connection)?.inputs.clone();
                let report: Report = parse(request)?;
                Ok((inputs, Box::new(move |ticket| Input::Reported { session, report, ticket: Some(ticket) })))
            }
            ALTER_IN_SYNC => {
                let inputs = session_of(connection)?.inputs.clone();
                let wish: AlterInSync = parse(request)?;
                Ok((inputs, Box::new(move |ticket| Input::Alter { session, wish, ticket })))
            }
            code => Err((response::REQUEST_CODE_NOT_SUPPORTED, format!("an elector has no request code {code}"))),
        }
    }

    /// Checks who says hello, and makes the connection its session.
    fn admit(&self, connection: &Arc<Connection>, hello: &Hello) -> Result<UnboundedSender<Input>, Refusal> {
        let refuse = |why: String| Err((response::NO_PERMISSION, why));
        let name = &hello.member.name;
        let doors = self.doors.read();
        let mut named = doors.values().filter(|door| door.name == hello.group).peekable();
        if named.peek().is_none() {
            return refuse(format!("this elector has no group {:?}", hello.group));
        }
        let Some(door) = named.find(|door| same_secret(&door.token, &hello.token)) else {
            return refuse(format!("{name}: not the token of group {}", hello.group));
        };
        if !door.replicas.contains(name) {
            return refuse(format!("group {} has no replica {name:?}", hello.group));
        }
        let inputs = door.inputs.clone();
        let session = Session { group: hello.group.clone(), replica: name.clone(), inputs: inputs.clone() };
        match connection.attachment().set(Box::new(session)) {
            Ok(()) => Ok(inputs),
            Err(_second) => refuse(format!("{name}: this connection is a session already")),
        }
    }
}

type MakeInput = Box<dyn FnOnce(Ticket) -> Input>;

impl Handler for Sessions {
    fn handle(&self, connection: &Arc<Connection>, batch: &mut Vec<Inbound>) {
        for Inbound { request, ticket } in batch.drain(..) {
            self.take(connection, &request, ticket);
        }
    }

    fn closed(&self, connection: &Arc<Connection>) {
        let Ok(session) = session_of(connection) else { return };
        tracing::info!(group = session.group, replica = session.replica, "session ended");
        if session.inputs.send(Input::Left { session: connection.id() }).is_err() {
            tracing::debug!(group = session.group, "the group's elector has stopped");
        }
    }
}

fn session_of(connection: &Arc<Connection>) -> Result<&Session, Refusal> {
    let attached = connection.attachment().get().and_then(|attached| attached.downcast_ref::<Session>());
    attached.ok_or_else(|| (response::NO_PERMISSION, "a session begins with a hello".to_owned()))
}

fn parse<T: DeserializeOwned>(request: &Command) -> Result<T, Refusal> {
    serde_json::from_slice(&request.body.to_bytes())
        .map_err(|error| (response::INVALID_PARAMETER, format!("body of request code {}: {error}", request.code)))
}
