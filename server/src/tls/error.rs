//! Why certificates or the listening socket could not be had.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// A failure of the serving side: files, certificates, sockets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A certificate or key is damaged or could not be made.
    #[error("{what}: {why}")]
    Certificate {
        /// Which certificate or key.
        what: String,
        /// Why.
        why: String,
    },
    /// Another program listens on the address.
    #[error("{address} is in use by another program; choose another address or port")]
    AddressInUse {
        /// The address.
        address: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
}

impl TlsError {
    pub(crate) fn file(path: &Path, source: std::io::Error) -> Self {
        TlsError::File { path: path.to_owned(), source }
    }

    pub(crate) fn certificate(what: impl Into<String>, why: impl std::fmt::Display) -> Self {
        TlsError::Certificate { what: what.into(), why: why.to_string() }
    }

    /// The same, naming the file in which the certificate or key stands.
    pub(crate) fn in_file(self, path: &Path) -> Self {
        match self {
            TlsError::Certificate { what, why } => {
                TlsError::Certificate { what: format!("{}: {what}", path.display()), why }
            }
            other => other,
        }
    }
}
