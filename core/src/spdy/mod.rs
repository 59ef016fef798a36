//! SPDY/3.1 as a codec without I/O: what exec, attach and port-forward speak to kubectl and to container runtimes.
//!
//! A [`Connection`] takes received bytes and gives [`Event`]s; what it wants to send is taken from it as bytes. It holds no more than one
//! frame: data is handed on as it comes.
//!
//! Kubernetes' own implementation never opens a window, so a sender that waited for one would stall: windows are neither
//! announced nor obeyed here, and the transport's own back pressure slows a fast sender down.
//!
//! ```
//! use kubewright_core::spdy::{Connection, Event, Role};
//!
//! let (mut client, mut server) = (Connection::new(Role::Client), Connection::new(Role::Server));
//! let id = client.open(&[("streamtype", "stdin")], false)?;
//! client.send(id, b"hello", true)?;
//! server.receive(&client.take_output());
//! assert!(matches!(server.next_event()?, Some(Event::Opened { .. })));
//! assert!(matches!(server.next_event()?, Some(Event::Data { fin: true, .. })));
//! # Ok::<(), kubewright_core::spdy::SpdyError>(())
//! ```

mod connection;
mod dictionary;
mod headers;

pub use connection::{Connection, Event, Role, StreamId};

use std::fmt;

/// Header names and values; several values of one name are joined by a NUL byte.
pub type Headers = Vec<(String, String)>;

/// The value of a header.
pub fn header<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
}

/// The peer broke the protocol, or the caller used a stream that is closed. The connection cannot go on after the former.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpdyError(pub(crate) &'static str);

impl fmt::Display for SpdyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SPDY: {}", self.0)
    }
}

impl std::error::Error for SpdyError {}
