//! Why a call failed, in the words that Go's HTTP client uses, because people and tests know them.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;

/// Why a call had no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CallError {
    /// The destination can't be used: its certificates are damaged, say.
    Unusable(String),
    /// The Service leads nowhere.
    Unresolved(String),
    /// No connection.
    Connect(String),
    /// The time was over.
    Timeout,
    /// The connection broke, or what came was no HTTP.
    Broken(String),
    /// More came than is read, in bytes.
    TooLarge(usize),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Unusable(why)
            | CallError::Unresolved(why)
            | CallError::Connect(why)
            | CallError::Broken(why) => f.write_str(why),
            CallError::Timeout => f.write_str("context deadline exceeded"),
            CallError::TooLarge(max) => write!(f, "the response is larger than {max} bytes"),
        }
    }
}

impl Error for CallError {}

impl CallError {
    /// What hyper's client says; errors of the connector come through as they are.
    pub(super) fn of_client(error: &(dyn Error + 'static)) -> Self {
        let mut at = Some(error);
        let mut last = String::new();
        while let Some(e) = at {
            if let Some(own) = e.downcast_ref::<CallError>() {
                return own.clone();
            }
            if let Some(hyper) = e.downcast_ref::<hyper::Error>() {
                if hyper.is_incomplete_message() || hyper.is_canceled() {
                    return CallError::Broken("EOF".to_owned());
                }
                if hyper.is_parse() {
                    return CallError::Broken(format!(
                        "net/http: HTTP/1.x transport connection broken: malformed HTTP response ({hyper})"
                    ));
                }
            }
            if let Some(io) = e.downcast_ref::<io::Error>() {
                return CallError::Broken(of_read(io));
            }
            last = e.to_string();
            at = e.source();
        }
        CallError::Broken(last)
    }
}

fn of_read(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "unexpected EOF".to_owned(),
        io::ErrorKind::ConnectionReset => "read: connection reset by peer".to_owned(),
        io::ErrorKind::BrokenPipe => "write: broken pipe".to_owned(),
        _ => error.to_string(),
    }
}

/// Why there is no connection to an address.
pub(super) fn of_dial(address: SocketAddr, error: &io::Error) -> CallError {
    let why = match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connect: connection reset by peer".to_owned(),
        io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        _ => error.to_string(),
    };
    CallError::Connect(format!("dial tcp {address}: {why}"))
}

/// Why there is no TLS on a connection.
pub(super) fn of_handshake(error: &io::Error, server_name: &str) -> CallError {
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    let why = match inner {
        Some(rustls::Error::InvalidCertificate(why)) => {
            format!("tls: failed to verify certificate: x509: {}", of_certificate(why, server_name))
        }
        Some(rustls::Error::InvalidMessage(_)) => {
            "tls: first record does not look like a TLS handshake".to_owned()
        }
        Some(rustls::Error::AlertReceived(alert)) => format!("remote error: tls: {alert:?}"),
        Some(other) => format!("tls: {other}"),
        None if error.kind() == io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
        None => of_read(error),
    };
    CallError::Connect(why)
}

fn of_certificate(why: &rustls::CertificateError, server_name: &str) -> String {
    use rustls::CertificateError as E;
    match why {
        E::Expired | E::ExpiredContext { .. } | E::NotValidYet | E::NotValidYetContext { .. } => {
            "certificate has expired or is not yet valid".to_owned()
        }
        E::UnknownIssuer | E::BadSignature => "certificate signed by unknown authority".to_owned(),
        E::NotValidForName | E::NotValidForNameContext { .. } => {
            format!("certificate is not valid for any names, but wanted to match {server_name}")
        }
        other => other.to_string(),
    }
}
