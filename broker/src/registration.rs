//! Tells the name servers where this broker is and which topics it has.
//!
//! A master registers as id 0 under the group's stable address, with its epoch: a name server that knows a newer one refuses it, and
//! clients' cached routes stay right across a failover. A slave registers under its own address and id.

mod members;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use gantry_remoting::body::register_broker::RegisterBrokerBody;
use gantry_remoting::code::{request, response};
use gantry_remoting::headers::route::{RegisterBroker, RegisterBrokerResponse};
use gantry_remoting::{Client, Command, Limits};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::core::{Core, Standing};
use crate::services::Services;

/// How long a name server may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// A name server that hears nothing for this long forgets the broker.
const EXPIRY_MS: i64 = 120_000;
/// Before a failed registration is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Who registers.
#[derive(Clone, Debug)]
pub struct Registrant {
    /// `brokerClusterName`
    pub cluster: String,
    /// `brokerName`
    pub name: String,
    /// `gantryReplica`
    pub replica: String,
    /// Its id while it is a slave.
    pub slave_id: i64,
    /// Its own address for clients.
    pub address: String,
    /// The master's address, if there is a stable one.
    pub advertised_master: Option<String>,
    /// Its address for slaves.
    pub ha_address: String,
    /// Where clients outside the cluster reach the master, if they do; it may change.
    pub external_master: watch::Receiver<Option<String>>,
}

/// The master of this broker's name, as a name server tells its slaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedMaster {
    /// Where clients reach it.
    pub address: String,
    /// Where slaves do.
    pub ha_address: String,
}

/// Registers with each name server that one of the names `name_servers` leads to: at each change of role or topics, and every `period`.
/// Tells a slave who its master is by `master`; a name server that knows none changes nothing. Runs until it is dropped.
pub async fn run(
    registrant: Registrant,
    name_servers: Vec<String>,
    period: Duration,
    core: Arc<Core>,
    services: Arc<Services>,
    master: watch::Sender<Option<NamedMaster>>,
) {
    let keep = |name_server| {
        let (core, services) = (Arc::clone(&core), Arc::clone(&services));
        keep(registrant.clone(), name_server, period, core, services, master.clone())
    };
    members::follow(name_servers, members::resolve, keep).await;
}

async fn keep(
    registrant: Registrant,
    name_server: SocketAddr,
    period: Duration,
    core: Arc<Core>,
    services: Arc<Services>,
    master: watch::Sender<Option<NamedMaster>>,
) {
    let client = Client::new(name_server.to_string(), Limits::default(), None);
    let (mut standing, mut topics) = (core.watch_standing(), services.topics_changed());
    let mut external = registrant.external_master.clone();
    let mut failing = false;
    loop {
        let now = standing.borrow_and_update().clone();
        topics.borrow_and_update();
        external.borrow_and_update();
        let registered = match &now {
            Standing::Fenced => Ok(None),
            Standing::Slave { .. } => register(&client, &registrant, None, &services).await,
            Standing::Master { epoch, .. } => register(&client, &registrant, Some(epoch.0), &services).await,
        };
        match &registered {
            Err(error) if !failing => {
                warn!(%name_server, reason = format!("{error:#}"), "not registered; trying again");
            }
            Ok(_) if failing => info!(%name_server, "registered again"),
            _ => {}
        }
        failing = registered.is_err();
        if let (Standing::Slave { .. }, Ok(Some(named))) = (&now, registered) {
            master.send_if_modified(|known| known.replace(named.clone()).is_none_or(|before| before != named));
        }
        // A slave that has nobody to follow yet asks again soon.
        let waits = matches!(now, Standing::Slave { .. }) && master.borrow().is_none();
        tokio::select! {
            () = sleep(if failing || waits { RETRY } else { period }) => {}
            () = lost(&client), if !failing => sleep(RETRY).await,
            changed = standing.changed() => if changed.is_err() { return },
            changed = topics.changed() => if changed.is_err() { return },
            // With nobody to change it, it stays.
            Ok(()) = external.changed() => {}
        }
    }
}

/// A name server that was started again knows nothing, and is told before the next period.
async fn lost(client: &Client) {
    match client.current() {
        Some(connection) => connection.closed().await,
        None => std::future::pending().await,
    }
}

/// Answers who is master, if the name server says so.
async fn register(
    client: &Client,
    registrant: &Registrant,
    master_of: Option<u64>,
    services: &Services,
) -> Result<Option<NamedMaster>> {
    let external = registrant.external_master.borrow().clone();
    let stable = registrant.advertised_master.as_deref().filter(|_| master_of.is_some());
    let header = RegisterBroker {
        broker_name: &registrant.name,
        broker_addr: stable.unwrap_or(&registrant.address),
        cluster_name: &registrant.cluster,
        ha_server_addr: &registrant.ha_address,
        broker_id: if master_of.is_some() { 0 } else { registrant.slave_id },
        heartbeat_timeout_ms: Some(EXPIRY_MS),
        enable_acting_master: None,
        compressed: Some(false),
        body_crc32: None,
        zone_name: None,
        gantry_epoch: master_of.filter(|_| stable.is_some()).map(|epoch| epoch as i64),
        gantry_replica: Some(&registrant.replica),
        gantry_external_master: external.as_deref().filter(|_| master_of.is_some()),
    };
    let body = RegisterBrokerBody {
        topic_config_serialize_wrapper: services.topic_config_for_registration(),
        filter_server_list: Vec::new(),
    };
    let command = Command::request(request::REGISTER_BROKER)
        .with_header(&header)
        .with_body(gantry_remoting::body::to_json(&body)?);
    let answer = client.invoke(command, ANSWER_WITHIN).await.context("the name server didn't answer")?;
    if answer.code != response::SUCCESS {
        bail!("refused with code {}: {}", answer.code, answer.remark.unwrap_or_default());
    }
    let told: RegisterBrokerResponse<'_> = answer.header()?;
    let named = told.master_addr.zip(told.ha_server_addr).filter(|(address, _)| !address.is_empty());
    Ok(named.map(|(address, ha)| NamedMaster { address: address.to_owned(), ha_address: ha.to_owned() }))
}
