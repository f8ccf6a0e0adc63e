//! RocketMQ's remoting protocol: frames, headers, bodies, connections. Knows no broker.
//!
//! From the wire inwards:
//! - [`frame`] cuts frames out of the bytes of a socket, and writes them; [`MAX_FRAME_BYTES`](frame::MAX_FRAME_BYTES) bounds them.
//! - [`Command`] is one frame: a request or a response, with its untyped [`ExtFields`] and its [`Body`].
//! - [`headers`] are the typed headers, borrowed from the ext fields; [`body`] the JSON bodies.
//! - [`Connection`] is one end of a socket: both ends may ask and answer. [`Server`] accepts connections, [`Client`]
//!   keeps one to an address. A [`Handler`] gets requests in batches, each with the [`Ticket`] that answers it.

pub mod body;
pub mod code;
pub mod frame;
pub mod header;
pub mod headers;
pub mod open_files;
pub mod version;

mod binary_header;
mod client;
mod command;
mod connection;
mod ext_fields;
mod handler;
mod json_header;
mod language;
mod latencies;
mod limits;
mod outbox;
mod payload;
mod reader;
mod server;
mod ticket;
mod writer;

pub use client::{Client, ClientError, connect};
pub use command::{Command, Response, SerializeType};
pub use connection::{Connection, InvokeError, SendError};
pub use ext_fields::ExtFields;
pub use handler::{Handler, Inbound};
pub use header::{Fields, Header, HeaderError};
pub use language::Language;
pub use latencies::{AnswerKind, BOUNDS_MS as LATENCY_BOUNDS_MS, Latencies, Latency};
pub use limits::Limits;
pub use payload::Body;
pub use server::Server;
pub use ticket::Ticket;
