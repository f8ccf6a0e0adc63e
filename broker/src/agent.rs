//! The broker's session with the elector: says how this replica is, carries out what it is told to be.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use gantry_remoting::code::response;
use gantry_remoting::{Command, Connection, Handler, Inbound, Limits, Response, Ticket};
use gantry_replication::master::Alter;
use gantry_replication::settings::Settings;
use gantry_replication::wire::{
    ALTER_IN_SYNC, AlterInSync, Altered, CONFIGURE, DIRECTIVE, Directive, HELLO, Heard, Hello, PROBE, REPORT,
    REPORT_INTERVAL_MS, Report,
};
use gantry_replication::{Epoch, Millis};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::sleep;
use tracing::{info, warn};

use crate::core::{Core, Job};
use crate::fatal::Fatal;
use crate::live_settings::LiveSettings;
use crate::services::Services;

/// An elector that doesn't answer for this long has hung: another session is tried.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
const FIRST_BACK_OFF: Duration = Duration::from_millis(20);
const LAST_BACK_OFF: Duration = Duration::from_secs(1);

/// What never changes about this replica while it runs.
#[derive(Clone, Debug)]
pub struct Identity {
    /// `host:port` of the electors, tried in turn.
    pub electors: Vec<String>,
    /// The group.
    pub group: String,
    /// Its secret.
    pub token: String,
    /// Where clients reach this broker.
    pub client_address: String,
    /// Where slaves do.
    pub ha_address: String,
    /// See `gantryPriority`.
    pub priority: i32,
    /// See `gantryZone`.
    pub zone: Option<String>,
}

/// Keeps a session, for ever.
pub struct Agent {
    core: Arc<Core>,
    services: Arc<Services>,
    settings: Arc<LiveSettings>,
    identity: Identity,
    /// Something is worth reporting before its time.
    news: Arc<Notify>,
}

impl Agent {
    /// An agent of this replica.
    pub fn new(core: Arc<Core>, services: Arc<Services>, settings: Arc<LiveSettings>, identity: Identity) -> Self {
        Self { core, services, settings, identity, news: Arc::default() }
    }

    /// Runs until it is dropped. Wishes to change the in-sync set come through `alters`.
    pub async fn run(self, mut alters: mpsc::Receiver<Alter>) {
        let _fatal = Fatal("the elector's session");
        let mut back_off = FIRST_BACK_OFF;
        for elector in self.identity.electors.iter().cycle() {
            let mut opened = false;
            if let Err(error) = self.session(elector, &mut alters, &mut opened).await {
                warn!(
                    group = self.identity.group,
                    elector,
                    reason = format!("{error:#}"),
                    "no session with the elector; the group goes on as it is"
                );
            }
            back_off = if opened { FIRST_BACK_OFF } else { (back_off * 2).min(LAST_BACK_OFF) };
            sleep(back_off.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        }
    }

    async fn session(&self, elector: &str, alters: &mut mpsc::Receiver<Alter>, opened: &mut bool) -> Result<()> {
        let orders = Orders {
            core: Arc::clone(&self.core),
            services: Arc::clone(&self.services),
            settings: Arc::clone(&self.settings),
            news: Arc::clone(&self.news),
        };
        let limits = Limits { max_frame_bytes: 1 << 20, connect_timeout: ANSWER_WITHIN, ..Limits::default() };
        let connection = gantry_remoting::connect(elector, limits, Some(Arc::new(orders))).await?;
        let ended = self.talk(&connection, alters, opened).await;
        connection.close("the session with the elector ended");
        ended
    }

    async fn talk(
        &self,
        elector: &Arc<Connection>,
        alters: &mut mpsc::Receiver<Alter>,
        opened: &mut bool,
    ) -> Result<()> {
        let mut asked = self.core.clock.now_ms();
        let heard: Heard = ask(elector, HELLO, &self.hello()).await?;
        *opened = true;
        info!(group = self.identity.group, elector = %elector.peer(), "session with the elector opened");
        self.heard(&heard, asked);
        // A wish made to an elector that is gone is void; the master makes it again.
        while alters.try_recv().is_ok() {}
        let mut standing = self.core.watch_standing();
        loop {
            tokio::select! {
                () = sleep(Duration::from_millis(REPORT_INTERVAL_MS)) => {}
                () = self.news.notified() => {}
                changed = standing.changed() => changed?,
                Some(alter) = alters.recv() => {
                    let Alter { epoch, revision, in_sync } = alter;
                    let wish = AlterInSync { epoch, revision, in_sync };
                    asked = self.core.clock.now_ms();
                    let altered: Altered = ask(elector, ALTER_IN_SYNC, &wish).await?;
                    self.core.recorded(&altered.record, asked);
                    continue;
                }
            }
            asked = self.core.clock.now_ms();
            let heard: Heard = ask(elector, REPORT, &self.core.report()).await?;
            self.heard(&heard, asked);
        }
    }

    fn heard(&self, heard: &Heard, asked: Millis) {
        if let Some(record) = &heard.record {
            self.core.recorded(record, asked);
        }
    }

    fn hello(&self) -> Hello {
        let identity = &self.identity;
        Hello {
            group: identity.group.clone(),
            token: identity.token.clone(),
            member: self.core.member(),
            client_address: identity.client_address.clone(),
            ha_address: identity.ha_address.clone(),
            pid: std::process::id(),
            priority: identity.priority,
            zone: identity.zone.clone(),
            report: self.core.report(),
        }
    }
}

async fn ask<T: DeserializeOwned>(elector: &Connection, code: i32, body: &impl Serialize) -> Result<T> {
    let request = Command::request(code).with_body(serde_json::to_vec(body)?);
    let answer = elector.invoke(request, ANSWER_WITHIN).await?;
    if answer.code != response::SUCCESS {
        bail!("the elector refused request {code}: {}", answer.remark.unwrap_or_default());
    }
    serde_json::from_slice(&answer.body.to_bytes()).with_context(|| format!("the elector's answer to request {code}"))
}

/// What the elector asks of this replica.
struct Orders {
    core: Arc<Core>,
    services: Arc<Services>,
    settings: Arc<LiveSettings>,
    news: Arc<Notify>,
}

impl Handler for Orders {
    fn handle(&self, _elector: &Arc<Connection>, batch: &mut Vec<Inbound>) {
        for Inbound { request, ticket } in batch.drain(..) {
            match request.code {
                PROBE => reply(ticket, &self.core.report()),
                DIRECTIVE => match serde_json::from_slice(&request.body.to_bytes()) {
                    Ok(directive) => self.obey(directive, ticket),
                    Err(error) => ticket.reply_failure(response::INVALID_PARAMETER, format!("directive: {error}")),
                },
                CONFIGURE => self.configure(&request, ticket),
                code => ticket.reply_failure(
                    response::REQUEST_CODE_NOT_SUPPORTED,
                    format!("a replica has no request code {code}"),
                ),
            }
        }
    }
}

impl Orders {
    fn configure(&self, request: &Command, ticket: Ticket) {
        let settings: Settings = match serde_json::from_slice(&request.body.to_bytes()) {
            Ok(settings) => settings,
            Err(error) => return ticket.reply_failure(response::INVALID_PARAMETER, format!("settings: {error}")),
        };
        match self.settings.apply(&settings) {
            Ok(()) => reply(ticket, &self.core.report()),
            Err(error) => {
                warn!(error = format!("{error:#}"), "settings of the operator are refused; those of before apply");
                ticket.reply_failure(response::INVALID_PARAMETER, format!("{error:#}"));
            }
        }
    }

    fn obey(&self, directive: Directive, ticket: Ticket) {
        let (done, outcome) = oneshot::channel();
        let epoch = epoch_of(&directive);
        match directive {
            Directive::Master { record } => self.core.submit_job(Job::BecomeMaster(record, done)),
            Directive::Slave { record, ha_address } => self.core.submit_job(Job::BecomeSlave(record, ha_address, done)),
            Directive::Park { epoch, to } => {
                self.watch_drain();
                let (core, order) = (Arc::clone(&self.core), self.core.number_order());
                // Offsets that consumers committed lately go into the log first, so that nobody is rewound.
                self.services.flush_metadata(Box::new(move |logged| {
                    if let Err(error) = logged {
                        warn!(%error, "consumer offsets of the last moment are not in the log");
                    }
                    core.submit_job(Job::Park(epoch, to, order));
                }));
                return reply(ticket, &self.core.report());
            }
            Directive::Unpark { epoch } => {
                self.core.submit_job(Job::Unpark(epoch, self.core.last_order()));
                return reply(ticket, &self.core.report());
            }
        }
        let core = Arc::clone(&self.core);
        tokio::spawn(async move {
            match outcome.await {
                Ok(Ok(())) => reply(ticket, &core.report()),
                Ok(Err(error)) => {
                    let election = core.election(epoch);
                    warn!(group = election.group, %epoch, %election, error = format!("{error:#}"), "a directive of the elector can't be carried out");
                    ticket.reply_failure(response::SYSTEM_ERROR, format!("{error:#}"));
                }
                Err(_stopping) => ticket.reply_failure(response::SERVICE_NOT_AVAILABLE, "the replica is stopping"),
            }
        });
    }

    /// Reports as soon as a parked master is drained, not only at the next interval.
    fn watch_drain(&self) {
        let (core, news) = (Arc::clone(&self.core), Arc::clone(&self.news));
        tokio::spawn(async move {
            let mut moved = core.watch_moved();
            let give_up = tokio::time::Instant::now() + Duration::from_secs(10);
            while !core.report().drained && tokio::time::Instant::now() < give_up {
                // Drained comes with a confirm offset that moves; or at once, when there is nothing to confirm.
                tokio::select! {
                    changed = moved.changed() => if changed.is_err() { return },
                    () = sleep(Duration::from_millis(2)) => {}
                }
            }
            news.notify_one();
        });
    }
}

fn epoch_of(directive: &Directive) -> Epoch {
    match directive {
        Directive::Master { record } | Directive::Slave { record, .. } => record.epoch,
        Directive::Park { epoch, .. } | Directive::Unpark { epoch } => *epoch,
    }
}

fn reply(ticket: Ticket, report: &Report) {
    match serde_json::to_vec(report) {
        Ok(body) => ticket.reply(Response::success().with_body(body)),
        Err(error) => ticket.reply_failure(response::SYSTEM_ERROR, error.to_string()),
    }
}
