//! Requests to the name server, by code.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gantry_remoting::body::cluster::BrokerMemberGroupBody;
use gantry_remoting::body::register_broker::{RegisterBrokerBody, body_crc32};
use gantry_remoting::body::route::TopicRouteData;
use gantry_remoting::body::topic_config::DataVersion;
use gantry_remoting::body::{parse, to_json, to_json_bare_keys};
use gantry_remoting::code::request;
use gantry_remoting::headers::route::{
    AddWritePermResponse, BrokerHeartbeat, GetBrokerMemberGroup, GetRouteInfo, GetTopicsByCluster, KvConfigKey,
    KvConfigValue, KvNamespace, NamesrvTopic, PutKvConfig, QueryDataVersion, QueryDataVersionResponse, RegisterBroker,
    RegisterBrokerResponse, UnregisterBroker, WipeWritePermResponse, WritePermOfBroker,
};
use gantry_remoting::{Command, Connection, Handler, Inbound, Response, version};
use parking_lot::RwLock;
use tracing::{debug, info, warn};

use super::kv::KvConfigs;
use super::refusal::Refusal;
use super::table::Table;

/// The namespace whose entries brokers get with each registration.
const ORDER_TOPICS: &str = "ORDER_TOPIC_CONFIG";

/// What the connections share.
pub(super) struct Names {
    table: RwLock<Table>,
    kv: Arc<KvConfigs>,
}

impl Names {
    pub(super) fn new(default_expiry: Duration, kv: KvConfigs) -> Self {
        Self { table: RwLock::new(Table::new(default_expiry)), kv: Arc::new(kv) }
    }

    pub(super) fn expire(&self, now: Instant) {
        self.table.write().expire(now);
    }

    fn answer(&self, connection: &Connection, request: &Command) -> Result<Response, Refusal> {
        match request.code {
            request::GET_ROUTEINFO_BY_TOPIC => self.route(request),
            request::REGISTER_BROKER => self.register_broker(connection, request),
            request::UNREGISTER_BROKER => self.unregister_broker(request),
            request::BROKER_HEARTBEAT => self.heartbeat(request),
            request::QUERY_DATA_VERSION => self.query_data_version(request),
            request::GET_BROKER_MEMBER_GROUP => self.member_group(request),
            request::GET_BROKER_CLUSTER_INFO => json(&self.table.read().cluster_info()),
            request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER => json(&self.table.read().all_topics()),
            request::GET_SYSTEM_TOPIC_LIST_FROM_NS => json(&self.table.read().system_topics()),
            request::GET_TOPICS_BY_CLUSTER => {
                json(&self.table.read().topics_of_cluster(request.header::<GetTopicsByCluster<'_>>()?.cluster))
            }
            request::WIPE_WRITE_PERM_OF_BROKER => self.wipe_write_perm(request),
            request::ADD_WRITE_PERM_OF_BROKER => self.add_write_perm(request),
            request::DELETE_TOPIC_IN_NAMESRV => self.delete_topic(request),
            request::REGISTER_TOPIC_IN_NAMESRV => self.register_topic(request),
            request::GET_KV_CONFIG => self.get_kv(request),
            request::GET_KVLIST_BY_NAMESPACE => self.kv_namespace(request),
            other => Err(Refusal::NotSupported(other)),
        }
    }

    fn route(&self, request: &Command) -> Result<Response, Refusal> {
        let header: GetRouteInfo<'_> = request.header()?;
        let route = self.table.read().route(header.topic)?;
        Self::answer_route(request, &header, &route)
    }

    /// What a client outside may ask.
    pub(super) fn answer_outside(&self, request: &Command) -> Result<Response, Refusal> {
        match request.code {
            request::GET_ROUTEINFO_BY_TOPIC => {
                let header: GetRouteInfo<'_> = request.header()?;
                let route = self.table.read().route_outside(header.topic)?;
                Self::answer_route(request, &header, &route)
            }
            request::GET_BROKER_CLUSTER_INFO => json(&self.table.read().cluster_info_outside()),
            request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER => json(&self.table.read().all_topics()),
            request::GET_KV_CONFIG => self.get_kv(request),
            request::GET_KVLIST_BY_NAMESPACE => self.kv_namespace(request),
            other => Err(Refusal::NotSupportedOutside(other)),
        }
    }

    fn answer_route(request: &Command, header: &GetRouteInfo<'_>, route: &TopicRouteData) -> Result<Response, Refusal> {
        let standard = request.version >= version::V4_9_4 || header.accept_standard_json_only == Some(true);
        let body = if standard { to_json(route)? } else { to_json_bare_keys(route)? };
        Ok(Response::success().with_body(body))
    }

    fn register_broker(&self, connection: &Connection, request: &Command) -> Result<Response, Refusal> {
        let header: RegisterBroker<'_> = request.header()?;
        let body = request.body.to_bytes();
        if header.body_crc32.is_some_and(|crc| crc != 0 && crc != body_crc32(&body)) {
            return Err(Refusal::Crc);
        }
        let body = RegisterBrokerBody::decode(&body, header.compressed == Some(true), request.version)?;
        let topics = &body.topic_config_serialize_wrapper;
        let master = self.table.write().register(&header, topics, connection.id(), Instant::now())?;
        let told = RegisterBrokerResponse {
            ha_server_addr: master.as_ref().map(|master| master.ha_addr.as_str()),
            master_addr: master.as_ref().map(|master| master.addr.as_str()),
        };
        let response = Response::success().with_header(&told);
        Ok(match self.kv.namespace(ORDER_TOPICS) {
            Some(order_topics) => response.with_body(to_json(&order_topics)?),
            None => response,
        })
    }

    fn unregister_broker(&self, request: &Command) -> Result<Response, Refusal> {
        let header: UnregisterBroker<'_> = request.header()?;
        self.table.write().unregister(&header)?;
        Ok(Response::success())
    }

    fn heartbeat(&self, request: &Command) -> Result<Response, Refusal> {
        let header: BrokerHeartbeat<'_> = request.header()?;
        self.table.write().heard(header.broker_name, header.broker_addr, Instant::now());
        Ok(Response::success())
    }

    /// Whether a broker has to register again, and a sign of life of it.
    fn query_data_version(&self, request: &Command) -> Result<Response, Refusal> {
        let header: QueryDataVersion<'_> = request.header()?;
        let asked: DataVersion = parse(&request.body.to_bytes())?;
        let mut table = self.table.write();
        table.heard(header.broker_name, header.broker_addr, Instant::now());
        let known = table.data_version(header.broker_name, header.broker_addr);
        let response = Response::success().with_header(&QueryDataVersionResponse { changed: known != Some(&asked) });
        Ok(match known {
            Some(known) => response.with_body(to_json(known)?),
            None => response,
        })
    }

    fn member_group(&self, request: &Command) -> Result<Response, Refusal> {
        let header: GetBrokerMemberGroup<'_> = request.header()?;
        let broker_member_group = self.table.read().member_group(header.cluster_name, header.broker_name);
        json(&BrokerMemberGroupBody { broker_member_group })
    }

    fn wipe_write_perm(&self, request: &Command) -> Result<Response, Refusal> {
        let header: WritePermOfBroker<'_> = request.header()?;
        let wipe_topic_count = self.table.write().wipe_write_perm(header.broker_name) as i32;
        info!(broker = header.broker_name, topics = wipe_topic_count, "permission to write taken");
        Ok(Response::success().with_header(&WipeWritePermResponse { wipe_topic_count }))
    }

    fn add_write_perm(&self, request: &Command) -> Result<Response, Refusal> {
        let header: WritePermOfBroker<'_> = request.header()?;
        let add_topic_count = self.table.write().add_write_perm(header.broker_name) as i32;
        info!(broker = header.broker_name, topics = add_topic_count, "permission to write given");
        Ok(Response::success().with_header(&AddWritePermResponse { add_topic_count }))
    }

    fn delete_topic(&self, request: &Command) -> Result<Response, Refusal> {
        let header: NamesrvTopic<'_> = request.header()?;
        let cluster = header.cluster_name.filter(|cluster| !cluster.is_empty());
        self.table.write().delete_topic(header.topic, cluster);
        info!(topic = header.topic, cluster, "topic deleted from the routes");
        Ok(Response::success())
    }

    fn register_topic(&self, request: &Command) -> Result<Response, Refusal> {
        let header: NamesrvTopic<'_> = request.header()?;
        let route: TopicRouteData = parse(&request.body.to_bytes())?;
        self.table.write().register_topic(header.topic, route.queue_datas)?;
        Ok(Response::success())
    }

    fn get_kv(&self, request: &Command) -> Result<Response, Refusal> {
        let KvConfigKey { namespace, key } = request.header()?;
        let value = self
            .kv
            .get(namespace, key)
            .ok_or_else(|| Refusal::NoKvConfig { namespace: namespace.to_owned(), key: format!(" Key: {key}") })?;
        Ok(Response::success().with_header(&KvConfigValue { value: Some(&value) }))
    }

    fn kv_namespace(&self, request: &Command) -> Result<Response, Refusal> {
        let KvNamespace { namespace } = request.header()?;
        let table = self.kv.namespace(namespace);
        json(&table.ok_or_else(|| Refusal::NoKvConfig { namespace: namespace.to_owned(), key: String::new() })?)
    }

    /// Changes of the KV configuration wait for the disk, on a thread that may.
    fn change_kv(&self, Inbound { request, ticket }: Inbound) {
        let kv = Arc::clone(&self.kv);
        tokio::task::spawn_blocking(move || {
            ticket.reply(change_kv(&kv, &request).unwrap_or_else(Refusal::into_response));
        });
    }
}

fn change_kv(kv: &KvConfigs, request: &Command) -> Result<Response, Refusal> {
    if request.code == request::PUT_KV_CONFIG {
        let PutKvConfig { namespace, key, value } = request.header()?;
        kv.put(namespace, key, value)?;
    } else {
        let KvConfigKey { namespace, key } = request.header()?;
        kv.delete(namespace, key)?;
    }
    Ok(Response::success())
}

fn json(body: &impl serde::Serialize) -> Result<Response, Refusal> {
    Ok(Response::success().with_body(to_json(body)?))
}

impl Handler for Names {
    fn handle(&self, connection: &Arc<Connection>, batch: &mut Vec<Inbound>) {
        for inbound in batch.drain(..) {
            let code = inbound.request.code;
            if matches!(code, request::PUT_KV_CONFIG | request::DELETE_KV_CONFIG) {
                self.change_kv(inbound);
                continue;
            }
            inbound.ticket.reply(self.answer(connection, &inbound.request).unwrap_or_else(|refusal| {
                log_refusal(connection, code, &refusal);
                refusal.into_response()
            }));
        }
    }

    fn closed(&self, connection: &Arc<Connection>) {
        self.table.write().connection_closed(connection.id());
    }
}

/// Clients ask for topics that aren't there all the time; anything else deserves a look.
pub(super) fn log_refusal(connection: &Connection, code: i32, refusal: &Refusal) {
    let (peer, name) = (connection.peer(), request::name(code).unwrap_or("unknown"));
    match refusal {
        Refusal::TopicNotExist(_) | Refusal::NotOutside(_) | Refusal::NoKvConfig { .. } => {
            debug!(%peer, code, name, "{refusal}");
        }
        _ => warn!(%peer, code, name, "request refused: {refusal}"),
    }
}
