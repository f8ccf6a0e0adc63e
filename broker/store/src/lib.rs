//! RocketMQ's store files: commit log, consume queues, flush, recovery. Knows no network.
