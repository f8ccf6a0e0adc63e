//! What the services can be told; the defaults are RocketMQ's.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// Settings of the services, named after the RocketMQ keys that fill them (in the comments).
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "RocketMQ's own switches")]
pub struct ServicesConfig {
    /// `brokerClusterName`
    pub cluster_name: String,
    /// `brokerName`
    pub broker_name: String,
    /// `brokerId`: under which it is known while it is a slave
    pub broker_id: i64,
    /// `regionId`, told to producers in every send's answer
    pub region_id: String,
    /// Address written into the records as store host: `brokerIP1:listenPort`. Message ids carry it.
    pub store_host: SocketAddr,
    /// Folder of `topics.json` and its siblings: `storePathRootDir/config`
    pub config_dir: PathBuf,
    /// `autoCreateTopicEnable`
    pub auto_create_topics: bool,
    /// `autoCreateSubscriptionGroup`
    pub auto_create_groups: bool,
    /// `defaultTopicQueueNums`: queues of TBW102; an automatic topic gets the smaller of this and the client's wish
    pub default_topic_queues: u32,
    /// `clusterTopicEnable`, `brokerTopicEnable`: may the topics named like cluster and broker be read and written
    pub cluster_topic: bool,
    /// see `cluster_topic`
    pub broker_topic: bool,
    /// `maxMessageSize`: bytes of one message's body, and of a client batch as it arrives
    pub max_message_bytes: u32,
    /// `messageDelayLevel`
    pub delay_levels: String,
    /// Pulls that may wait for a message at once; RocketMQ's pull queue has this capacity (`pullThreadPoolQueueCapacity`)
    pub max_held_pulls: usize,
    /// `queryThreadPoolQueueCapacity`: requests that may wait for what is on disk
    pub max_queued_queries: usize,
    /// How much of the log counts as being in memory (RocketMQ: 40 % of the machine's): a group that has no offset
    /// starts at 0 only when the queue's first message lies within
    pub in_memory_bytes: u64,
    /// Milliseconds after which a client that sent no heartbeat is forgotten (RocketMQ: 120 000)
    pub client_expiry_ms: u64,
    /// `rebalance lock`: milliseconds that a queue lock lives without renewal
    pub queue_lock_ms: u64,
    /// Milliseconds between two records of changed consumer offsets; at most this much is rewound by a failover
    pub offset_flush_ms: u64,
    /// `flushConsumerOffsetInterval`: milliseconds between two snapshots into `config_dir`
    pub snapshot_ms: u64,
    /// Milliseconds between two of the older snapshots that a cut log is read again from; cuts further back than this can be
    /// followed exactly only while the log has all metadata records
    pub base_ms: u64,
    /// At the start
    pub adjustable: Adjustable,
}

/// What may change while the broker runs.
#[derive(Debug, Clone, Copy)]
pub struct Adjustable {
    /// `brokerPermission`: 2 write, 4 read
    pub permission: u8,
    /// `longPollingEnable`: off means that a pull which finds nothing waits `short_polling_ms` only
    pub long_polling: bool,
    /// `shortPollingTimeMills`
    pub short_polling_ms: u64,
    /// `maxTransferCountOnMessageInMemory`
    pub max_pull_messages: u32,
    /// `maxTransferBytesOnMessageInMemory`
    pub max_pull_bytes: u32,
    /// `maxTransferCountOnMessageInDisk`: the same for messages farther behind than `in_memory_bytes`
    pub max_old_pull_messages: u32,
    /// `maxTransferBytesOnMessageInDisk`
    pub max_old_pull_bytes: u32,
    /// `defaultQueryMaxNum`: messages that a query by unique key gives
    pub max_unique_query: u32,
    /// `maxMsgsNumBatch`: messages that any query by key gives
    pub max_query: u32,
}

impl Default for Adjustable {
    fn default() -> Self {
        Self {
            permission: 6,
            long_polling: true,
            short_polling_ms: 1000,
            max_pull_messages: 32,
            max_pull_bytes: 256 << 10,
            max_old_pull_messages: 8,
            max_old_pull_bytes: 64 << 10,
            max_unique_query: 32,
            max_query: 64,
        }
    }
}

impl Default for ServicesConfig {
    fn default() -> Self {
        Self {
            cluster_name: "DefaultCluster".into(),
            broker_name: "broker-a".into(),
            broker_id: 0,
            region_id: "DefaultRegion".into(),
            store_host: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 10911),
            config_dir: PathBuf::from("config"),
            auto_create_topics: true,
            auto_create_groups: true,
            default_topic_queues: 8,
            cluster_topic: true,
            broker_topic: true,
            max_message_bytes: 4 << 20,
            delay_levels: "1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h".into(),
            max_held_pulls: 100_000,
            max_queued_queries: 20_000,
            in_memory_bytes: memory_share(),
            client_expiry_ms: 120_000,
            queue_lock_ms: 60_000,
            offset_flush_ms: 500,
            snapshot_ms: 5_000,
            base_ms: 60_000,
            adjustable: Adjustable::default(),
        }
    }
}

/// 40 % of the machine's memory; 2 GiB where the system doesn't say.
fn memory_share() -> u64 {
    let total = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let kib = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        kib.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    });
    total.map_or(2 << 30, |kib| kib * 1024 / 10 * 4)
}
