//! The one error of this crate.

use std::fmt;

/// Why a volume operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The volume's specification is wrong; no retry helps until it changes.
    Invalid,
    /// An object or a path that the volume needs does not exist (yet).
    NotFound,
    /// The object exists but is not ready for use (an unbound claim).
    NotReady,
    /// This build or host lacks it.
    Unsupported,
    /// A file operation or a driver failed.
    Failed,
}

/// A failed volume operation; its text is what the pod's `FailedMount` event says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    reason: Reason,
    message: String,
}

impl Error {
    /// An error with this reason and sentence.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Error { reason, message: message.into() }
    }

    /// A wrong specification.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Reason::Invalid, message)
    }

    /// A failed file operation on a path.
    pub fn io(what: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::new(Reason::Failed, format!("{what} {}: {error}", path.display()))
    }

    /// Why.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// Whether the same call may succeed later without a change of the pod.
    pub fn is_retryable(&self) -> bool {
        !matches!(self.reason, Reason::Invalid | Reason::Unsupported)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
