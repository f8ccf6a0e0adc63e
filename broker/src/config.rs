//! `broker.conf`: RocketMQ's properties format and keys, and Gantry's own beside them.

mod metrics;
mod roles;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use gantry_logging::{Format, Level};
use gantry_replication::master::{self, Durability};
use gantry_replication::pressure;
use gantry_store::Retention;

use crate::core::DivergentLimits;
use crate::core::FlowLimits;
use crate::ha::{ColdRate, HaConfig, Tls, TlsFiles};
use crate::services::{Adjustable, ServicesConfig};

/// Half of what an HA frame may hold: a segment's blank end is as long as what didn't fit, and records are longer than bodies.
const MAX_HA_BATCH_BYTES: usize = 8 << 20;

/// `brokerRole`, which counts where no elector says who is master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokerRole {
    /// `ASYNC_MASTER`: stands alone.
    AsyncMaster,
    /// `SYNC_MASTER`
    SyncMaster,
    /// `SLAVE`: follows the broker of the same name that registers as master.
    Slave,
}

/// What a broker is told. Times in milliseconds, sizes in bytes.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// `brokerClusterName`
    pub cluster: String,
    /// `brokerName`: the group's name.
    pub name: String,
    /// `brokerId`: under which it registers while it is a slave; a master registers as 0.
    pub broker_id: i64,
    /// `brokerIP1`, `listenPort`: where clients reach this broker. Port 0: given by the system.
    pub listen: SocketAddr,
    /// `brokerIP2`, `haListenPort`: where slaves fetch the log, `brokerIP1` by default: may be a network of its own.
    pub ha_listen: SocketAddr,
    /// `metricsPromExporterHost`, `metricsPromExporterPort`, `metricsExporterType`: where probes are answered and metrics are shown.
    /// Nowhere by default; port 0: given by the system.
    pub metrics: Option<SocketAddr>,
    /// `gantryMetricsMaxSeries`: series of one metric that are shown at most.
    pub max_series: usize,
    /// `logLevel`: which lines are logged; `RUST_LOG` or `info` if it isn't given.
    pub log_level: Option<Level>,
    /// `logFormat`: `text` or `json`.
    pub log_format: Option<Format>,
    /// `namesrvAddr`, `;` between them.
    pub name_servers: Vec<String>,
    /// `gantryReplica`: this replica's name in its group; `<brokerName>-<brokerId>` by default.
    pub replica: String,
    /// `gantryElectors`: where to report, `;` between them. None: `brokerRole` says what this broker is.
    pub electors: Vec<String>,
    /// `brokerRole`: an elector, where there is one, overrules it.
    pub role: BrokerRole,
    /// `haMasterAddress`: where a slave without an elector fetches the log; by default what the name server says.
    pub ha_master: Option<String>,
    /// `gantryAdvertisedMaster`: the address under which the group's master registers, whichever broker it is.
    pub advertised_master: Option<SocketAddr>,
    /// `gantryExternalMaster`: where clients outside the cluster reach the group's master, as name servers tell them: `host:port`.
    pub external_master: Option<String>,
    /// `gantryPriority`: preference among equals in an election, higher is better.
    pub priority: i32,
    /// `gantryZone`: where this replica runs; an election prefers another zone than the lost master's.
    pub zone: Option<String>,
    /// The master's part: `replicationMode`, `minInSyncReplicas`, `onShortage`,
    /// `haMaxTimeSlaveNotCatchup`, `haMaxGapNotInSync`.
    pub master: master::Config,
    /// `slaveTimeout`: a send that isn't replicated after this long is answered FLUSH_SLAVE_TIMEOUT.
    pub slave_timeout_ms: u64,
    /// `syncFlushTimeout`: the same for FLUSH_DISK_TIMEOUT.
    pub sync_flush_timeout_ms: u64,
    /// `haBackPressureEnable`, `haBackPressureLagBytes`: with `replicationMode=Async`, producers are slowed when in-sync slaves are more than
    /// half of so many bytes behind, and to less than the slaves' own speed at that many. Off by default, as RocketMQ's
    /// `ASYNC_MASTER` never waits for slaves; 64 MiB.
    pub pressure: Option<pressure::Config>,
    /// What is kept of tails that were cut: `gantryDivergentMaxFiles`, `gantryDivergentMaxBytes`.
    pub divergent: DivergentLimits,
    /// The HA connections' part:
    /// - `gantryToken`: the group's secret, which its replicas and electors show each other.
    /// - `haSendHeartbeatInterval`: an idle side says so this often. 500 here (RocketMQ: 5 000): an election waits for it.
    /// - `haHousekeepingInterval`: a slave's connection that is silent, or takes nothing, for this long is closed.
    /// - `haClientHeartbeatTimeout`: a slave leaves a master that is silent for this long; as `haHousekeepingInterval` by default.
    /// - `haTransferBatchSize`: bytes of the log in one frame. 256 KiB here (RocketMQ: 32 KiB).
    /// - `gantryHaColdLagBytes`: a slave further behind than this is catching up, and read for from the files. 64 MiB.
    /// - `gantryHaTlsEnable` (off), `gantryHaTlsCertPath`, `gantryHaTlsKeyPath`, `gantryHaTlsTrustCertPath`, `gantryHaTlsName`: TLS 1.3
    ///   between replicas; both ends show a certificate of the group's own authority, see [`TlsFiles`].
    /// - `haFlowControlEnable`, `maxHaTransferByteInSecond`: a slave that is catching up gets at most so much each second, 100 MiB. On by
    ///   default, and only for what is that old (RocketMQ: off, and for everything): whoever acknowledges is never throttled.
    pub ha: HaConfig,
    /// `sendThreadPoolQueueCapacity`: sends that may wait for the log's writer.
    pub max_queued_sends: usize,
    /// `brokerFastFailureEnable`, `waitTimeMillsInSendQueue`, `osPageCacheBusyTimeOutMills`.
    pub flow: FlowLimits,
    /// `registerNameServerPeriod`: how often the broker registers.
    pub register_ms: u64,
    /// The log's part: `storePathRootDir`, `flushDiskType`, `mappedFileSizeCommitLog`, …
    pub store: gantry_store::Config,
    /// The services' part.
    pub services: ServicesConfig,
    /// All that this was read from.
    pub entries: BTreeMap<String, String>,
    /// What doesn't mean what it seems to.
    pub warnings: Vec<String>,
    /// Keys that nothing here reads.
    pub unknown_keys: Vec<String>,
}

impl BrokerConfig {
    /// Reads properties files, of which a later one wins, and then single `KEY=VALUE` settings.
    pub fn read(paths: &[PathBuf], settings: &[String]) -> Result<Self> {
        let mut entries = BTreeMap::new();
        for path in paths {
            let file = File::open(path).with_context(|| format!("can't open {}", path.display()))?;
            let read = java_properties::read(BufReader::new(file))
                .with_context(|| format!("{} is not in properties format", path.display()))?;
            entries.extend(read);
        }
        for setting in settings {
            let (key, value) = setting.split_once('=').with_context(|| format!("{setting:?} is not KEY=VALUE"))?;
            entries.insert(key.trim().to_owned(), value.to_owned());
        }
        let places: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
        Self::parse(entries).with_context(|| if places.is_empty() { "settings".to_owned() } else { places.join(", ") })
    }

    /// From keys and values.
    pub fn parse(entries: BTreeMap<String, String>) -> Result<Self> {
        let mut keys = Keys { entries: entries.clone() };
        let name: String = keys.or("brokerName", "broker-a".to_owned())?;
        let flush = keys.choice("flushDiskType", &["ASYNC_FLUSH", "SYNC_FLUSH"])?;
        let durability = if flush == "SYNC_FLUSH" { Durability::Flushed } else { Durability::Written };
        let listen = keys.address("brokerIP1", "listenPort", 10_911, IpAddr::from([127, 0, 0, 1]))?;
        let broker_id: i64 = keys.or("brokerId", 0)?;
        let (role, electors, mut warnings) = (keys.role()?, keys.list("gantryElectors"), Vec::new());
        let config = Self {
            cluster: keys.or("brokerClusterName", "DefaultCluster".to_owned())?,
            broker_id,
            listen,
            ha_listen: keys.address("brokerIP2", "haListenPort", 10_912, listen.ip())?,
            metrics: keys.metrics(listen.ip())?,
            max_series: keys.or("gantryMetricsMaxSeries", 20_000)?,
            log_level: keys.optional("logLevel")?,
            log_format: keys.optional("logFormat")?,
            name_servers: keys.list("namesrvAddr"),
            replica: keys.or("gantryReplica", format!("{name}-{broker_id}"))?,
            role: role.0,
            ha_master: keys.optional("haMasterAddress")?,
            advertised_master: keys.optional("gantryAdvertisedMaster")?,
            external_master: keys.external_master()?,
            priority: keys.or("gantryPriority", 0)?,
            zone: keys.optional("gantryZone")?,
            master: keys.master(durability, role, !electors.is_empty(), &mut warnings)?,
            electors,
            entries,
            warnings,
            slave_timeout_ms: keys.or("slaveTimeout", 3_000)?,
            sync_flush_timeout_ms: keys.or("syncFlushTimeout", 5_000)?,
            pressure: keys.pressure()?,
            divergent: keys.divergent()?,
            ha: keys.ha(&name)?,
            max_queued_sends: keys.or("sendThreadPoolQueueCapacity", 10_000)?,
            flow: keys.flow()?,
            register_ms: keys.or("registerNameServerPeriod", 10_000)?,
            store: keys.store(&flush)?,
            services: ServicesConfig::default(),
            unknown_keys: Vec::new(),
            name,
        };
        config.finish(keys)
    }

    fn finish(mut self, mut keys: Keys) -> Result<Self> {
        match self.role {
            _ if !self.electors.is_empty() => {}
            BrokerRole::AsyncMaster | BrokerRole::SyncMaster => {}
            BrokerRole::Slave if self.broker_id > 0 => {}
            BrokerRole::Slave => bail!("brokerRole=SLAVE needs a brokerId above 0, not {}", self.broker_id),
        }
        let (batch, message) = (self.ha.batch_bytes, self.store.max_message_bytes as usize);
        if batch > MAX_HA_BATCH_BYTES || message > MAX_HA_BATCH_BYTES {
            bail!(
                "haTransferBatchSize={batch}, maxMessageSize={message}: at most {MAX_HA_BATCH_BYTES} each, or HA frames can't hold them"
            );
        }
        self.ha.undirected = self.electors.is_empty();
        self.services = keys.services(&self)?;
        self.unknown_keys = keys.entries.into_keys().collect();
        Ok(self)
    }
}

/// Entries not taken yet.
struct Keys {
    entries: BTreeMap<String, String>,
}

impl Keys {
    fn optional<T: FromStr>(&mut self, key: &str) -> Result<Option<T>>
    where
        T::Err: std::error::Error + Send + Sync + 'static,
    {
        let Some(value) = self.entries.remove(key) else { return Ok(None) };
        let value = value.trim();
        value.parse().map(Some).with_context(|| format!("{key}={value} can't be read"))
    }

    fn or<T: FromStr>(&mut self, key: &str, default: T) -> Result<T>
    where
        T::Err: std::error::Error + Send + Sync + 'static,
    {
        Ok(self.optional(key)?.unwrap_or(default))
    }

    /// One of the given words; the first is the default.
    fn choice(&mut self, key: &str, choices: &[&str]) -> Result<String> {
        let value = self.or(key, choices[0].to_owned())?;
        if !choices.contains(&value.as_str()) {
            bail!("{key}={value}: expected one of {}", choices.join(", "));
        }
        Ok(value)
    }

    fn list(&mut self, key: &str) -> Vec<String> {
        let text = self.entries.remove(key).unwrap_or_default();
        text.split([';', ',']).map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
    }

    fn address(&mut self, ip_key: &str, port_key: &str, port: u16, ip: IpAddr) -> Result<SocketAddr> {
        let ip: IpAddr = self.or(ip_key, ip)?;
        Ok(SocketAddr::new(ip, self.or(port_key, port)?))
    }

    fn external_master(&mut self) -> Result<Option<String>> {
        let Some(address): Option<String> = self.optional("gantryExternalMaster")? else { return Ok(None) };
        let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
        if !matches!(port, Some(Ok(1..))) {
            bail!("gantryExternalMaster={address}: expected host:port");
        }
        Ok(Some(address))
    }

    fn pressure(&mut self) -> Result<Option<pressure::Config>> {
        let on = self.or("haBackPressureEnable", false)?;
        let lag_bytes = self.or("haBackPressureLagBytes", 64 << 20)?;
        Ok(on.then_some(pressure::Config { lag_bytes }))
    }

    fn divergent(&mut self) -> Result<DivergentLimits> {
        let default = DivergentLimits::default();
        Ok(DivergentLimits {
            max_files: self.or("gantryDivergentMaxFiles", default.max_files)?,
            max_bytes: self.or("gantryDivergentMaxBytes", default.max_bytes)?,
        })
    }

    fn ha(&mut self, group: &str) -> Result<HaConfig> {
        let token: String = self.or("gantryToken", String::new())?;
        let mut ha = HaConfig::new(group, token);
        ha.heartbeat = self.interval("haSendHeartbeatInterval", ha.heartbeat)?;
        ha.housekeeping = self.interval("haHousekeepingInterval", ha.housekeeping)?;
        ha.master_silence = self.interval("haClientHeartbeatTimeout", ha.housekeeping)?;
        ha.batch_bytes = self.or("haTransferBatchSize", ha.batch_bytes)?;
        ha.cold_lag_bytes = self.or("gantryHaColdLagBytes", ha.cold_lag_bytes)?;
        let rate: u64 = self.or("maxHaTransferByteInSecond", 100 << 20)?;
        ha.cold_rate = ColdRate::new(self.or("haFlowControlEnable", true)?.then_some(rate));
        if rate == 0 {
            bail!(
                "maxHaTransferByteInSecond=0: no slave could ever catch up; haFlowControlEnable=false lifts the limit"
            );
        }
        ha.classic = self.or("gantryClassicHa", ha.classic)?;
        ha.tls = self.tls(group)?;
        if ha.classic && ha.tls.is_some() {
            bail!(
                "gantryClassicHa=true and gantryHaTlsEnable=true contradict each other: Apache's HA protocol has no TLS"
            );
        }
        let silence = ha.housekeeping.min(ha.master_silence);
        if silence <= ha.heartbeat {
            bail!(
                "haSendHeartbeatInterval={} must be below haHousekeepingInterval and haClientHeartbeatTimeout, or idle connections are closed",
                ha.heartbeat.as_millis()
            );
        }
        Ok(ha)
    }

    fn tls(&mut self, group: &str) -> Result<Option<Tls>> {
        let on = self.or("gantryHaTlsEnable", false)?;
        let mut path = |key: &str| match self.optional(key)? {
            None if on => bail!("gantryHaTlsEnable=true needs {key}"),
            path => Ok(path.unwrap_or_default()),
        };
        let (certificate, key) = (path("gantryHaTlsCertPath")?, path("gantryHaTlsKeyPath")?);
        let authority = path("gantryHaTlsTrustCertPath")?;
        let name = self.or("gantryHaTlsName", group.to_owned())?;
        if on { Tls::load(&TlsFiles { certificate, key, authority, name }).map(Some) } else { Ok(None) }
    }

    /// In milliseconds, at least 1.
    fn interval(&mut self, key: &str, default: Duration) -> Result<Duration> {
        let ms: u64 = self.or(key, default.as_millis() as u64)?;
        if ms == 0 {
            bail!("{key}=0: expected at least 1 millisecond");
        }
        Ok(Duration::from_millis(ms))
    }

    fn store(&mut self, flush: &str) -> Result<gantry_store::Config> {
        let root: PathBuf = match self.optional("storePathRootDir")? {
            Some(root) => root,
            None => std::env::home_dir()
                .context("storePathRootDir is not set, and there is no home directory")?
                .join("store"),
        };
        let mut store = gantry_store::Config::new(root);
        store.commit_log_directory = self.optional("storePathCommitLog")?;
        let paths = [Some(&store.root), store.commit_log_directory.as_ref()];
        if let Some(path) = paths.into_iter().flatten().find(|path| path.to_string_lossy().contains(',')) {
            bail!(
                "{}: one directory holds the log here, not several with `,` between them: move all segments into one, \
                 and name that in storePathCommitLog",
                path.display()
            );
        }
        let interval_ms = self.or("flushIntervalCommitLog", 500)?;
        store.flush =
            if flush == "SYNC_FLUSH" { gantry_store::Flush::Sync } else { gantry_store::Flush::Async { interval_ms } };
        store.segment_bytes = self.or("mappedFileSizeCommitLog", store.segment_bytes)?;
        let queue_file_bytes = self.or("mappedFileSizeConsumeQueue", store.queue_file_units * 20)?;
        store.queue_file_units = queue_file_bytes / 20;
        let batch_file_bytes = self.or("mapperFileSizeBatchConsumeQueue", store.batch_queue_file_units * 46)?;
        store.batch_queue_file_units = batch_file_bytes / 46;
        store.max_message_bytes = self.or("maxMessageSize", store.max_message_bytes)?;
        store.message_index = self.or("messageIndexEnable", store.message_index)?;
        store.index_slots = self.or("maxHashSlotNum", store.index_slots)?;
        store.index_entries = self.or("maxIndexNum", store.index_entries)?;
        store.append_crc = self.or("enabledAppendPropCRC", store.append_crc)?;
        store.retention = self.retention()?;
        store.checkpoint_interval = Duration::from_millis(self.or("flushConsumeQueueInterval", 1_000)?);
        Ok(store)
    }

    fn flow(&mut self) -> Result<FlowLimits> {
        let default = FlowLimits::default();
        Ok(FlowLimits {
            fast_failure: self.or("brokerFastFailureEnable", default.fast_failure)?,
            send_wait_ms: self.or("waitTimeMillsInSendQueue", default.send_wait_ms)?,
            page_cache_busy_ms: self.or("osPageCacheBusyTimeOutMills", default.page_cache_busy_ms)?,
        })
    }

    fn retention(&mut self) -> Result<Retention> {
        let default = Retention::default();
        let mut ms = |key: &str, default: Duration| -> Result<Duration> {
            Ok(Duration::from_millis(self.or(key, default.as_millis() as u64)?))
        };
        let check_interval = ms("cleanResourceInterval", default.check_interval)?;
        let delete_interval = ms("deleteCommitLogFilesInterval", default.delete_interval)?;
        let hanging_after = ms("destroyMapedFileIntervalForcibly", default.hanging_after)?;
        let hanging_told_every = ms("redeleteHangedFileInterval", default.hanging_told_every)?;
        Ok(Retention {
            reserved: hours(self.or("fileReservedTime", default.reserved.as_secs() / 3600)?)?,
            delete_when: self.or("deleteWhen", default.delete_when)?,
            max_used_percent: self.or("diskMaxUsedSpaceRatio", default.max_used_percent)?,
            forcibly_percent: self.or("diskSpaceCleanForciblyRatio", default.forcibly_percent)?,
            warning_percent: self.or("diskSpaceWarningLevelRatio", default.warning_percent)?,
            forcibly: self.or("cleanFileForciblyEnable", default.forcibly)?,
            quota_bytes: self.optional("gantryStoreQuotaBytes")?,
            files_a_round: self.or("deleteFileBatchMax", default.files_a_round)?,
            check_interval,
            delete_interval,
            hanging_after,
            hanging_told_every,
            zone: default.zone,
        })
    }

    fn adjustable(&mut self, default: Adjustable) -> Result<Adjustable> {
        Ok(Adjustable {
            permission: self.or("brokerPermission", default.permission)?,
            long_polling: self.or("longPollingEnable", default.long_polling)?,
            short_polling_ms: self.or("shortPollingTimeMills", default.short_polling_ms)?,
            max_pull_messages: self.or("maxTransferCountOnMessageInMemory", default.max_pull_messages)?,
            max_pull_bytes: self.or("maxTransferBytesOnMessageInMemory", default.max_pull_bytes)?,
            max_old_pull_messages: self.or("maxTransferCountOnMessageInDisk", default.max_old_pull_messages)?,
            max_old_pull_bytes: self.or("maxTransferBytesOnMessageInDisk", default.max_old_pull_bytes)?,
            max_unique_query: self.or("defaultQueryMaxNum", default.max_unique_query)?,
            max_query: self.or("maxMsgsNumBatch", default.max_query)?,
        })
    }

    fn services(&mut self, broker: &BrokerConfig) -> Result<ServicesConfig> {
        let default = ServicesConfig::default();
        Ok(ServicesConfig {
            cluster_name: broker.cluster.clone(),
            broker_name: broker.name.clone(),
            broker_id: broker.broker_id,
            region_id: self.or("regionId", default.region_id)?,
            store_host: broker.advertised_master.unwrap_or(broker.listen),
            config_dir: broker.store.root.join("config"),
            auto_create_topics: self.or("autoCreateTopicEnable", default.auto_create_topics)?,
            auto_create_groups: self.or("autoCreateSubscriptionGroup", default.auto_create_groups)?,
            default_topic_queues: self.or("defaultTopicQueueNums", default.default_topic_queues)?,
            cluster_topic: self.or("clusterTopicEnable", default.cluster_topic)?,
            broker_topic: self.or("brokerTopicEnable", default.broker_topic)?,
            max_message_bytes: broker.store.max_message_bytes,
            delay_levels: self.or("messageDelayLevel", default.delay_levels)?,
            max_held_pulls: self.or("pullThreadPoolQueueCapacity", default.max_held_pulls)?,
            max_queued_queries: self.or("queryThreadPoolQueueCapacity", default.max_queued_queries)?,
            snapshot_ms: self.or("flushConsumerOffsetInterval", default.snapshot_ms)?,
            base_ms: default.base_ms,
            adjustable: self.adjustable(default.adjustable)?,
            in_memory_bytes: default.in_memory_bytes,
            client_expiry_ms: default.client_expiry_ms,
            queue_lock_ms: default.queue_lock_ms,
            offset_flush_ms: default.offset_flush_ms,
        })
    }
}

fn hours(hours: u64) -> Result<Duration> {
    let seconds = hours.checked_mul(3600).with_context(|| format!("fileReservedTime={hours} is too large"))?;
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn parse(text: &str) -> Result<BrokerConfig> {
        BrokerConfig::parse(java_properties::read(text.as_bytes()).unwrap().into_iter().collect())
    }

    #[test]
    fn a_later_file_and_then_a_single_setting_win() {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            ("broker.conf", "brokerName=b\nlistenPort=20911\nhaListenPort=20912\n"),
            ("token.conf", "haListenPort=3\n"),
        ];
        let paths = files.map(|(name, text)| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        });
        let config = BrokerConfig::read(&paths, &["brokerIP1=10.0.0.7".to_owned(), "listenPort=4".to_owned()]).unwrap();
        assert_eq!((config.name.as_str(), config.listen), ("b", "10.0.0.7:4".parse().unwrap()));
        assert_eq!(config.ha_listen, "10.0.0.7:3".parse().unwrap());
        let said = format!("{:#}", BrokerConfig::read(&paths, &["listenPort".to_owned()]).unwrap_err());
        assert!(said.contains("\"listenPort\" is not KEY=VALUE"), "{said}");
        let said = format!("{:#}", BrokerConfig::read(&[], &["listenPort=x".to_owned()]).unwrap_err());
        assert!(said.contains("settings: listenPort=x can't be read"), "{said}");
    }

    #[test]
    fn rocketmqs_keys_mean_what_they_mean_there() {
        let config =
            parse("brokerName=broker-b\nlistenPort=20911\nflushDiskType=SYNC_FLUSH\nstorePathRootDir=/data\n").unwrap();
        assert_eq!(config.name, "broker-b");
        assert_eq!(config.replica, "broker-b-0");
        assert_eq!(config.listen.port(), 20_911);
        assert_eq!(config.ha_listen.port(), 10_912);
        assert_eq!(config.store.flush, gantry_store::Flush::Sync);
        assert_eq!(config.master.durability, Durability::Flushed);
        assert_eq!(config.services.config_dir, Path::new("/data/config"));
    }

    #[test]
    fn what_is_kept_is_said_with_rocketmqs_keys() {
        let text =
            "fileReservedTime=48\ndeleteWhen=04;16\ndiskSpaceWarningLevelRatio=95\ngantryStoreQuotaBytes=1000000\n";
        let config = parse(text).unwrap();
        let retention = config.store.retention;
        assert_eq!(retention.reserved, Duration::from_hours(48));
        assert_eq!(retention.delete_when, "16;04".parse().unwrap());
        assert_eq!((retention.max_used_percent, retention.warning_percent), (75, 95));
        assert_eq!(retention.quota_bytes, Some(1_000_000));
        assert!(config.unknown_keys.is_empty());
        let said = format!("{:#}", parse("deleteWhen=4am").unwrap_err());
        assert!(said.contains("deleteWhen=4am") && said.contains("list of hours"), "{said}");
    }

    #[test]
    fn a_value_that_cannot_be_read_is_named() {
        let said = format!("{:#}", parse("listenPort=many").unwrap_err());
        assert!(said.contains("listenPort=many can't be read"), "{said}");
        let said = format!("{:#}", parse(&format!("fileReservedTime={}", u64::MAX)).unwrap_err());
        assert!(said.contains("is too large"), "{said}");
        let said = format!("{:#}", parse("flushDiskType=SOMETIMES").unwrap_err());
        assert!(said.contains("expected one of ASYNC_FLUSH, SYNC_FLUSH"), "{said}");
    }

    #[test]
    fn the_log_can_lie_elsewhere_but_not_in_several_places() {
        let config = parse("storePathRootDir=/data\nstorePathCommitLog=/log\n").unwrap();
        assert_eq!(config.store.log_directory(), Path::new("/log"));
        assert_eq!(parse("storePathRootDir=/data\n").unwrap().store.log_directory(), Path::new("/data/commitlog"));
        let said = format!("{:#}", parse("storePathCommitLog=/log1,/log2\n").unwrap_err());
        assert!(said.contains("/log1,/log2: one directory"), "{said}");
    }

    #[test]
    fn tls_without_its_files_is_refused() {
        let said = format!("{:#}", parse("gantryHaTlsEnable=true\ngantryHaTlsCertPath=/c.pem").unwrap_err());
        assert!(said.contains("needs gantryHaTlsKeyPath"), "{said}");
        let all = "gantryHaTlsEnable=true\ngantryHaTlsCertPath=/no/c\ngantryHaTlsKeyPath=/no/k\ngantryHaTlsTrustCertPath=/no/a";
        let said = format!("{:#}", parse(all).unwrap_err());
        assert!(said.contains("/no/c holds no certificates"), "{said}");
    }

    #[test]
    fn keys_that_nothing_reads_are_told() {
        let config = parse("brokerName=a\nwarmMapedFileEnable=true\n").unwrap();
        assert_eq!(config.unknown_keys, ["warmMapedFileEnable"]);
    }
}
