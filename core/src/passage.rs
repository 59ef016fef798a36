//! Requests that are passed on to others unread: proxied pods and Services, and API servers behind this one.
//!
//! The HTTP codec keeps what it received beside what it understood of it; whoever passes the request on sends just that, and gives back what came.

use crate::ApiError;
use bytes::Bytes;
use futures::stream::BoxStream;
use http::HeaderMap;
use http::request::Parts;
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// Bytes as they come.
pub type ByteStream = BoxStream<'static, Result<Bytes, ApiError>>;

/// A request as it came over HTTP.
pub struct Passage {
    /// Method, address and headers; its extensions hold the connection where it can be upgraded.
    pub head: Parts,
    /// What this server itself could not make of it; an error only where the request is not passed on.
    pub unread: Option<ApiError>,
    body: Mutex<Option<ByteStream>>,
}

impl Passage {
    /// A request with its body.
    pub fn new(head: Parts, body: Option<ByteStream>, unread: Option<ApiError>) -> Self {
        Passage { head, unread, body: Mutex::new(body) }
    }

    /// The body, which can be had once.
    pub fn take_body(&self) -> Option<ByteStream> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl fmt::Debug for Passage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Passage({} {})", self.head.method, self.head.uri)
    }
}

/// The answer of whom a request was passed on to.
pub struct Passed {
    /// Its headers, without those that concern one connection only.
    pub headers: HeaderMap,
    /// Its body.
    pub body: ByteStream,
}

impl fmt::Debug for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passed")
    }
}
