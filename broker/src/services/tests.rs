//! The services over real sockets, with a real store and a log that appends and confirms at once.

mod batch_queues;
mod delays;
mod harness;
mod metadata_log;
mod queries;
mod retries;
mod send_and_pull;
