//! One group's task: events into the pure elector, its actions out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use gantry_remoting::{Body, Command, Connection, InvokeError, Ticket, code::response};
use gantry_replication::elector::{Action, Elector, Event, Facts, SessionId, SetOutcome, SwitchoverDone};
use gantry_replication::record::Recorded;
use gantry_replication::settings::Settings;
use gantry_replication::wire::{
    AlterInSync, Altered, CONFIGURE, DIRECTIVE, Directive, Heard, Hello, PROBE, Report, Role,
};
use gantry_replication::{Election, Epoch, GroupRecord, Millis, Version};
use serde::Serialize;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::{debug, info, warn};

use super::configure::Configuration;
use super::{Group, Listener, ReplicaView, View};
use crate::platform::RecordStore;

/// How often the elector looks at the clock when nothing happens.
const TICK: Duration = Duration::from_millis(50);

/// How long a directive or a probe may go unanswered. Its effect is seen in reports anyway.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Before the record is read again after a failure.
const READ_RETRY: Duration = Duration::from_secs(1);

/// Before a failed write of the record is told, so that it isn't tried again in a tight loop.
const WRITE_RETRY: Duration = Duration::from_millis(500);

/// What reaches a group's task.
#[derive(Debug)]
pub(super) enum Input {
    Joined { session: SessionId, hello: Box<Hello>, connection: Arc<Connection>, ticket: Ticket },
    Reported { session: SessionId, report: Report, ticket: Option<Ticket> },
    Answered { session: SessionId, report: Report },
    Left { session: SessionId },
    Died { name: String },
    Ended { name: String },
    Stop,
    Alter { session: SessionId, wish: AlterInSync, ticket: Ticket },
    Switchover { to: String, answer: oneshot::Sender<Result<SwitchoverDone, String>> },
    ElectUnclean { to: String, epoch: Epoch, answer: oneshot::Sender<Result<SwitchoverDone, String>> },
    Facts(Facts),
    Configure(Settings),
    Refused { session: SessionId, why: String },
    Read(Recorded),
    Set(SetOutcome),
}

/// Starts the task of one group.
pub(super) fn spawn<S: RecordStore>(
    group: Group,
    store: S,
    (inputs, queue): (UnboundedSender<Input>, UnboundedReceiver<Input>),
    view: watch::Sender<View>,
    listener: Arc<dyn Listener>,
) -> JoinHandle<()> {
    let task = Task {
        name: group.id,
        group: group.name,
        replicas: group.config.replicas.clone(),
        elector: Elector::new(group.config, 0),
        store: Arc::new(store),
        started: Instant::now(),
        connections: HashMap::new(),
        configuration: Configuration::default(),
        wishes: HashMap::new(),
        switchovers: HashMap::new(),
        last_ticket: 0,
        inputs,
        view,
        listener,
    };
    tokio::spawn(task.run(queue))
}

struct Task<S> {
    /// The group's id.
    name: String,
    /// Its name, as its brokers say it.
    group: String,
    replicas: BTreeSet<String>,
    elector: Elector,
    store: Arc<S>,
    started: Instant,
    /// The replica and its connection, by session.
    connections: HashMap<SessionId, (String, Arc<Connection>)>,
    configuration: Configuration,
    /// Wishes not answered yet, with the session that each came by.
    wishes: HashMap<u64, (SessionId, Ticket)>,
    switchovers: HashMap<u64, oneshot::Sender<Result<SwitchoverDone, String>>>,
    last_ticket: u64,
    /// Its own queue, for what comes back later.
    inputs: UnboundedSender<Input>,
    view: watch::Sender<View>,
    listener: Arc<dyn Listener>,
}

impl<S: RecordStore> Task<S> {
    async fn run(mut self, mut queue: UnboundedReceiver<Input>) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // What has happened counts before how late it is: after a pause of this very process, its brokers would seem silent.
                biased;
                input = queue.recv() => match input {
                    Some(Input::Stop) | None => return self.stop(),
                    Some(input) => self.take(input).await,
                },
                _ = ticks.tick() => self.handle(Event::Tick).await,
            }
            self.configure().await;
            self.view.send_replace(self.look());
        }
    }

    async fn take(&mut self, input: Input) {
        match input {
            Input::Joined { session, hello, connection, ticket } => {
                self.joined(session, hello, connection, ticket).await;
            }
            Input::Reported { session, report, ticket } => {
                self.handle(Event::Reported { session, report }).await;
                if let Some(ticket) = ticket {
                    self.reply_heard(ticket);
                }
            }
            Input::Answered { session, report } => self.handle(Event::Answered { session, report }).await,
            Input::Left { session } => {
                self.connections.remove(&session);
                self.configuration.left(session);
                self.wishes.retain(|_, (from, _)| *from != session);
                self.handle(Event::Left { session }).await;
            }
            Input::Died { name } => self.handle(Event::Died { name }).await,
            Input::Ended { name } => {
                if self.connections.values().all(|(replica, _)| *replica != name) {
                    self.handle(Event::Died { name }).await;
                }
            }
            Input::Stop => {}
            Input::Alter { session, wish, ticket } => {
                let number = self.next_ticket();
                self.wishes.insert(number, (session, ticket));
                self.handle(Event::Alter { session, wish, ticket: number }).await;
            }
            Input::Switchover { to, answer } => {
                let number = self.next_ticket();
                self.switchovers.insert(number, answer);
                self.handle(Event::Switchover { to, ticket: number }).await;
            }
            Input::ElectUnclean { to, epoch, answer } => {
                let ticket = self.next_ticket();
                self.switchovers.insert(ticket, answer);
                self.handle(Event::ElectUnclean { to, epoch, ticket }).await;
            }
            Input::Facts(facts) => self.handle(Event::Facts(facts)).await,
            Input::Configure(settings) => self.configuration.want(settings),
            Input::Refused { session, why } => self.configuration.refused(session, why, Instant::now()),
            Input::Read(recorded) => self.handle(Event::Read(recorded)).await,
            Input::Set(outcome) => self.handle(Event::Set(outcome)).await,
        }
    }

    fn stop(&self) {
        for (_, connection) in self.connections.values() {
            connection.close("this elector no longer decides for the group");
        }
    }

    async fn joined(&mut self, session: SessionId, hello: Box<Hello>, connection: Arc<Connection>, ticket: Ticket) {
        info!(group = self.name, member = %hello.member, address = hello.client_address, "session opened");
        let name = hello.member.name.clone();
        for (replica, old) in self.connections.values().filter(|(replica, _)| *replica == name) {
            old.close(&format!("{replica} has opened another session"));
        }
        self.connections.insert(session, (name, connection));
        self.handle(Event::Joined { session, hello }).await;
        self.reply_heard(ticket);
    }

    async fn handle(&mut self, event: Event) {
        let now = self.now();
        for action in self.elector.handle(now, event) {
            self.carry_out(action).await;
        }
    }

    async fn carry_out(&mut self, action: Action) {
        match action {
            Action::Read => self.read(),
            Action::CompareAndSet { expected, record } => self.compare_and_set(expected, record),
            Action::Direct { session, directive } => self.direct(session, &directive).await,
            Action::Probe { session } => self.ask(session, Command::request(PROBE)).await,
            Action::Answer { ticket, record } => {
                if let Some((_, ticket)) = self.wishes.remove(&ticket) {
                    reply(ticket, &Altered { record });
                }
            }
            Action::Publish { record, address } => {
                let (epoch, election) = (record.epoch, self.election(record.epoch));
                info!(group = self.name, %epoch, %election, master = %record.master, address, "the master serves");
                self.listener.serving(&self.name, &record, &address);
            }
            Action::Switched { ticket, result } => {
                if let Some(answer) = self.switchovers.remove(&ticket) {
                    // Whoever asked may have gone.
                    answer.send(result).ok();
                }
            }
            Action::Tell(notice) => {
                if let Some(epoch) = notice.epoch() {
                    let election = self.election(epoch);
                    info!(group = self.name, %epoch, %election, %notice, "elector");
                } else {
                    info!(group = self.name, %notice, "elector");
                }
                self.listener.notice(&self.name, &notice);
            }
        }
    }

    fn read(&self) {
        let (store, inputs) = (Arc::clone(&self.store), self.inputs.clone());
        let (listener, name) = (Arc::clone(&self.listener), self.name.clone());
        tokio::spawn(async move {
            let recorded = loop {
                match store.read().await {
                    Ok(recorded) => break recorded,
                    Err(error) => {
                        warn!(group = name, %error, "the group record can't be read");
                        listener.record_trouble(&name, &error.to_string());
                        sleep(READ_RETRY).await;
                    }
                }
            };
            // The group's task may have been stopped meanwhile.
            inputs.send(Input::Read(recorded)).ok();
        });
    }

    /// As brokers call it, too.
    fn election(&self, epoch: Epoch) -> Election<'_> {
        Election { group: &self.group, epoch }
    }

    fn compare_and_set(&self, expected: Version, record: GroupRecord) {
        let (epoch, election) = (record.epoch, self.election(record.epoch));
        if self.elector.record().is_none_or(|now| now.epoch != epoch) {
            info!(group = self.name, %epoch, %election, master = %record.master, "the record is to name this master");
        }
        let (store, inputs) = (Arc::clone(&self.store), self.inputs.clone());
        let (listener, name) = (Arc::clone(&self.listener), self.name.clone());
        tokio::spawn(async move {
            let outcome = match store.compare_and_set(&expected, &record).await {
                Ok(Some(version)) => SetOutcome::Done(version),
                Ok(None) => SetOutcome::Conflict,
                Err(error) => {
                    warn!(group = name, %error, "the group record can't be written");
                    listener.record_trouble(&name, &error.to_string());
                    sleep(WRITE_RETRY).await;
                    SetOutcome::Unknown
                }
            };
            inputs.send(Input::Set(outcome)).ok();
        });
    }

    async fn direct(&mut self, session: SessionId, directive: &Directive) {
        if let (Directive::Master { record }, Some((replica, _))) = (directive, self.connections.get(&session)) {
            let (epoch, election) = (record.epoch, self.election(record.epoch));
            info!(group = self.name, %epoch, %election, replica, "it is told that it is master");
        }
        match serde_json::to_vec(directive) {
            Ok(body) => self.ask(session, Command::request(DIRECTIVE).with_body(body)).await,
            Err(error) => warn!(group = self.name, %error, "a directive can't be encoded"),
        }
    }

    /// Sends a request to a broker, in its turn; the report that answers it comes as an input.
    async fn ask(&mut self, session: SessionId, request: Command) {
        let Some((_, connection)) = self.connections.get(&session).cloned() else { return };
        let code = request.code;
        let mut call = Box::pin(async move { connection.invoke(request, ANSWER_TIMEOUT).await });
        // The first poll writes it to the connection's outbox: what is asked later can't overtake it.
        let first = poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await;
        let inputs = self.inputs.clone();
        match first {
            Poll::Ready(answer) => answered(&inputs, session, code, answer),
            Poll::Pending => {
                tokio::spawn(async move { answered(&inputs, session, code, call.await) });
            }
        }
    }

    /// Tells those brokers that go by other settings than they shall.
    async fn configure(&mut self) {
        let now = Instant::now();
        let (elector, configuration) = (&self.elector, &mut self.configuration);
        let orders = self.connections.iter().filter_map(|(session, (replica, _))| {
            let (report, _) = elector.report(replica)?;
            Some((*session, configuration.due(*session, report.settings, now)?))
        });
        for (session, order) in orders.collect::<Vec<_>>() {
            self.ask(session, order).await;
        }
    }

    fn reply_heard(&self, ticket: Ticket) {
        reply(ticket, &Heard { record: self.elector.record().cloned() });
    }

    fn look(&self) -> View {
        let look_at = |name: &String| {
            let ((report, _), hello) = (self.elector.report(name)?, self.elector.hello(name)?);
            let session =
                self.connections.iter().find(|(_, (replica, _))| replica == name).map(|(session, _)| *session);
            let configured = session.map(|session| self.configuration.of(session, report.settings)).unwrap_or_default();
            Some((name.clone(), ReplicaView { hello: hello.clone(), report: report.clone(), configured }))
        };
        let replicas: BTreeMap<_, _> = self.replicas.iter().filter_map(look_at).collect();
        let record = self.elector.record().cloned();
        let serves = |record: &GroupRecord| {
            let master = replicas.get(&record.master.name);
            self.elector.serving() == Some(record.epoch)
                && master.is_some_and(|seen| seen.hello.member == record.master && seen.report.role == Role::Master)
        };
        View { serving: record.as_ref().is_some_and(serves), record, replicas }
    }

    fn next_ticket(&mut self) -> u64 {
        self.last_ticket += 1;
        self.last_ticket
    }

    fn now(&self) -> Millis {
        self.started.elapsed().as_millis() as Millis
    }
}

fn answered(inputs: &UnboundedSender<Input>, session: SessionId, code: i32, answer: Result<Command, InvokeError>) {
    let report = match answer {
        Ok(answer) if answer.code == response::SUCCESS => serde_json::from_slice(&answer.body.to_bytes()),
        Ok(refusal) => {
            let why = refusal.remark.unwrap_or_default();
            if code == CONFIGURE {
                // The group's task may have been stopped meanwhile.
                inputs.send(Input::Refused { session, why: why.clone() }).ok();
            }
            return warn!(session, request_code = code, code = refusal.code, why, "a broker refused");
        }
        Err(error) => return debug!(session, request_code = code, %error, "no answer of a broker"),
    };
    match report {
        Ok(report) => {
            let input = if code == PROBE {
                Input::Answered { session, report }
            } else {
                Input::Reported { session, report, ticket: None }
            };
            inputs.send(input).ok();
        }
        Err(error) => warn!(session, request_code = code, %error, "a broker's answer is no report"),
    }
}

fn reply(ticket: Ticket, answer: &impl Serialize) {
    match serde_json::to_vec(answer) {
        Ok(body) => ticket.reply(gantry_remoting::Response::success().with_body(Body::from(body))),
        Err(error) => ticket.reply_failure(response::SYSTEM_ERROR, format!("the answer can't be encoded: {error}")),
    }
}
