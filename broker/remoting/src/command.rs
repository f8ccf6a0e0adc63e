//! One frame in memory.

use std::borrow::Cow;

use crate::ext_fields::ExtFields;
use crate::header::{Fields, Header, HeaderError};
use crate::language::Language;
use crate::payload::Body;
use crate::version;

/// How a frame's header is written. A reply uses its request's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SerializeType {
    /// 0: a JSON object.
    #[default]
    Json,
    /// 1: RocketMQ's binary layout.
    RocketMq,
}

pub(crate) const RESPONSE_BIT: i32 = 1;
pub(crate) const ONEWAY_BIT: i32 = 2;

/// A request or a response.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Command {
    /// See [`crate::code`]: a request code or, in a response, a response code.
    pub code: i32,
    /// The sender's library.
    pub language: Language,
    /// The sender's version ordinal, see [`crate::version`].
    pub version: i32,
    /// Ties a response to its request. Of a request that is sent it is set by the connection.
    pub opaque: i32,
    /// Bit 0: response; bit 1: one-way.
    pub flag: i32,
    /// What went wrong, for people.
    pub remark: Option<String>,
    /// The header's fields.
    pub ext: ExtFields,
    /// What follows the header.
    pub body: Body,
    /// How the header is or was written.
    pub serialize: SerializeType,
}

impl Command {
    /// A request of this code with nothing in it.
    pub fn request(code: i32) -> Self {
        Self { code, version: version::CURRENT, ..Self::default() }
    }

    /// Adds the fields of a typed header.
    pub fn with_header(mut self, header: &impl Fields) -> Self {
        header.encode(&mut self.ext);
        self
    }

    /// Sets the body.
    pub fn with_body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }

    /// The typed header.
    pub fn header<'a, H: Header<'a>>(&'a self) -> Result<H, HeaderError> {
        H::decode(&self.ext)
    }

    /// Whether it answers a request.
    pub fn is_response(&self) -> bool {
        self.flag & RESPONSE_BIT != 0
    }

    /// Whether it is a request that wants no answer.
    pub fn is_oneway(&self) -> bool {
        self.flag & ONEWAY_BIT != 0
    }
}

/// What a handler answers; the rest of the frame comes from the request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Response {
    /// See [`crate::code::response`].
    pub code: i32,
    /// What went wrong, for people.
    pub remark: Option<Cow<'static, str>>,
    /// The header's fields.
    pub ext: ExtFields,
    /// The body.
    pub body: Body,
}

impl Response {
    /// SUCCESS with nothing in it.
    pub fn success() -> Self {
        Self::default()
    }

    /// A code with its reason.
    pub fn failure(code: i32, remark: impl Into<Cow<'static, str>>) -> Self {
        Self { code, remark: Some(remark.into()), ..Self::default() }
    }

    /// A code without a reason (PULL_NOT_FOUND and its like).
    pub fn code(code: i32) -> Self {
        Self { code, ..Self::default() }
    }

    /// Adds the fields of a typed header.
    pub fn with_header(mut self, header: &impl Fields) -> Self {
        header.encode(&mut self.ext);
        self
    }

    /// Sets the body.
    pub fn with_body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }
}
