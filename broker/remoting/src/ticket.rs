//! The right, and the duty, to answer one request.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use tracing::{debug, error};

use crate::code::response;
use crate::command::{Command, ONEWAY_BIT, RESPONSE_BIT, Response, SerializeType};
use crate::connection::{Connection, SendError};
use crate::frame::Head;
use crate::header::{Fields, NoFields};
use crate::language::Language;
use crate::latencies::AnswerKind;
use crate::payload::Body;
use crate::version;

/// Answers one request, once, from any thread. A two-way request whose ticket is dropped is answered SYSTEM_ERROR: there
/// is never silence. To a one-way request nothing is written.
#[derive(Debug)]
#[must_use = "a dropped ticket answers SYSTEM_ERROR"]
pub struct Ticket {
    connection: Arc<Connection>,
    opaque: i32,
    request_code: i32,
    client_version: i32,
    language: Language,
    serialize: SerializeType,
    received: Instant,
    /// It was let wait for news.
    long_polling: bool,
    /// A reply is owed.
    owed: bool,
}

impl Ticket {
    pub(crate) fn new(connection: Arc<Connection>, request: &Command, received: Instant) -> Self {
        connection.ticket_taken();
        Self {
            connection,
            opaque: request.opaque,
            request_code: request.code,
            client_version: request.version,
            language: request.language,
            serialize: request.serialize,
            received,
            long_polling: false,
            owed: request.flag & ONEWAY_BIT == 0,
        }
    }

    /// Answers.
    pub fn reply(self, response: Response) {
        let Response { code, remark, ext, body } = response;
        self.answer(code, remark.as_deref(), &ext, body);
    }

    /// Answers SUCCESS with a typed header, encoded straight into the outgoing frame.
    pub fn reply_header(self, header: &impl Fields, body: impl Into<Body>) {
        self.answer(response::SUCCESS, None, header, body.into());
    }

    /// Answers with any code, remark and header, encoded straight into the outgoing frame.
    pub fn reply_with(self, code: i32, remark: Option<&str>, header: &impl Fields, body: impl Into<Body>) {
        self.answer(code, remark, header, body.into());
    }

    /// Answers SUCCESS with nothing in it.
    pub fn reply_success(self) {
        self.answer(response::SUCCESS, None, &NoFields, Body::empty());
    }

    /// Answers a code and its reason.
    pub fn reply_failure(self, code: i32, remark: impl Into<Cow<'static, str>>) {
        self.answer(code, Some(&remark.into()), &NoFields, Body::empty());
    }

    /// The connection that the request came on.
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Whether nobody waits for an answer.
    pub fn is_oneway(&self) -> bool {
        !self.owed
    }

    /// The request's number.
    pub fn opaque(&self) -> i32 {
        self.opaque
    }

    /// The request waits for news, as its sender asked for: that its answer takes long says nothing of this process.
    pub fn waits_for_news(&mut self) {
        self.long_polling = true;
    }

    /// The version ordinal of the client's library, see [`crate::version`].
    pub fn client_version(&self) -> i32 {
        self.client_version
    }

    /// The language of the client's library.
    pub fn language(&self) -> Language {
        self.language
    }

    fn answer(mut self, code: i32, remark: Option<&str>, fields: &impl Fields, body: Body) {
        if std::mem::take(&mut self.owed) {
            self.write(code, remark, fields, body);
        }
    }

    fn write(&self, code: i32, remark: Option<&str>, fields: &impl Fields, body: Body) {
        let head = Head {
            code,
            language: Language::Java,
            version: version::CURRENT,
            opaque: self.opaque,
            flag: RESPONSE_BIT,
            remark,
            serialize: self.serialize,
        };
        let pushed = self.connection.push(&head, fields, body);
        if let Some(latencies) = self.connection.latencies() {
            let (request_code, response_code, long_polling) = (self.request_code, code, self.long_polling);
            let kind = AnswerKind { request_code, response_code, long_polling, written: pushed.is_ok() };
            latencies.observe(kind, self.received.elapsed());
        }
        match pushed {
            Ok(()) => {}
            // Only requests are refused for a full outbox, see `Connection::push_request`.
            Err(SendError::Closed | SendError::OutboxFull { .. }) => {
                debug!(peer = %self.connection.peer(), opaque = self.opaque, "nobody is there any more for an answer");
            }
            Err(SendError::Encode(problem)) => {
                error!(peer = %self.connection.peer(), request_code = self.request_code, "answer not sent: {problem}");
                let remark = format!("the answer can't be sent: {problem}");
                let head = Head { code: response::SYSTEM_ERROR, remark: Some(&remark), ..head };
                if let Err(problem) = self.connection.push(&head, &NoFields, Body::empty()) {
                    debug!(peer = %self.connection.peer(), "nor could the failure be told: {problem}");
                }
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if std::mem::take(&mut self.owed) {
            let remark = format!("request code {} was not answered by its handler", self.request_code);
            self.write(response::SYSTEM_ERROR, Some(&remark), &NoFields, Body::empty());
        }
        self.connection.ticket_settled();
    }
}
