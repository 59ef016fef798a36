//! Which streaming protocol client and server agree on, and how an exit is told in it.

use kubewright_core::ApiError;
use serde_json::{Value, json};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    WebSocket,
    Spdy,
}

/// What is spoken over the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// exec and attach.
    Exec,
    /// Port-forward in SPDY streams.
    Forward,
    /// Port-forward in WebSocket channels, the ports named up front.
    ForwardChannels,
}

/// How a WebSocket message is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Binary,
    Base64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Protocol {
    pub(super) transport: Transport,
    pub(super) dialect: Dialect,
    pub(super) coding: Coding,
    /// From version 4 on the error stream carries a Status, before it a sentence.
    pub(super) version: u8,
}

/// The first protocol offered that is spoken, and its name; a client that offers none gets the oldest.
pub(super) fn choose(
    transport: Transport,
    forward: bool,
    offered: &[&str],
) -> Option<(Protocol, Option<&'static str>)> {
    if offered.iter().all(|o| o.starts_with("base64url.bearer.authorization.k8s.io")) {
        let oldest = match (transport, forward) {
            (Transport::WebSocket, true) => (Dialect::ForwardChannels, 4),
            (Transport::Spdy, true) => (Dialect::Forward, 1),
            (_, false) => (Dialect::Exec, 1),
        };
        let (dialect, version) = oldest;
        return Some((Protocol { transport, dialect, coding: Coding::Binary, version }, None));
    }
    offered.iter().find_map(|offer| {
        let known =
            KNOWN.iter().find(|(t, f, name, ..)| (*t, *f) == (transport, forward) && name == offer)?;
        let (_, _, name, dialect, coding, version) = *known;
        Some((Protocol { transport, dialect, coding, version }, Some(name)))
    })
}

type Known = (Transport, bool, &'static str, Dialect, Coding, u8);

const KNOWN: &[Known] = {
    use Coding::{Base64, Binary};
    use Dialect::{Exec, Forward, ForwardChannels};
    use Transport::{Spdy, WebSocket};
    &[
        (WebSocket, false, "v5.channel.k8s.io", Exec, Binary, 5),
        (WebSocket, false, "v4.channel.k8s.io", Exec, Binary, 4),
        (WebSocket, false, "v4.base64.channel.k8s.io", Exec, Base64, 4),
        (WebSocket, false, "channel.k8s.io", Exec, Binary, 1),
        (WebSocket, false, "base64.channel.k8s.io", Exec, Base64, 1),
        (Spdy, false, "v4.channel.k8s.io", Exec, Binary, 4),
        (Spdy, false, "v3.channel.k8s.io", Exec, Binary, 3),
        (Spdy, false, "v2.channel.k8s.io", Exec, Binary, 2),
        (Spdy, false, "channel.k8s.io", Exec, Binary, 1),
        (WebSocket, true, "SPDY/3.1+portforward.k8s.io", Forward, Binary, 1),
        (WebSocket, true, "v4.channel.k8s.io", ForwardChannels, Binary, 4),
        (WebSocket, true, "v4.base64.channel.k8s.io", ForwardChannels, Base64, 4),
        (Spdy, true, "portforward.k8s.io", Forward, Binary, 1),
    ]
};

/// How the end of a program is told on the error stream.
pub(super) fn exit_message(exit: Result<i32, ApiError>, version: u8) -> Vec<u8> {
    if version < 4 {
        return match exit {
            Ok(0) => Vec::new(),
            Ok(code) => format!("command terminated with exit code {code}").into_bytes(),
            Err(e) => e.message().as_bytes().to_vec(),
        };
    }
    let status: Value = match exit {
        Ok(0) => json!({"metadata": {}, "status": "Success"}),
        Ok(code) => json!({
            "metadata": {},
            "status": "Failure",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        Err(e) => serde_json::to_value(e.status()).unwrap_or_default(),
    };
    status.to_string().into_bytes()
}

/// A terminal's size as the resize stream tells it, one JSON object after another; gives what was read and how far.
pub(super) fn sizes(buffer: &[u8]) -> (Vec<(u16, u16)>, usize) {
    let mut stream = serde_json::Deserializer::from_slice(buffer).into_iter::<Value>();
    let (mut sizes, mut read) = (Vec::new(), 0);
    while let Some(Ok(value)) = stream.next() {
        read = stream.byte_offset();
        let side = |name: &str| value[name].as_u64().and_then(|n| u16::try_from(n).ok());
        sizes.extend(side("Width").zip(side("Height")));
    }
    (sizes, read)
}
