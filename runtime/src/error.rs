//! The one error of this crate.

use std::fmt;

/// Why a runtime operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The configuration or the request is wrong.
    Invalid,
    /// There is no such sandbox, container or image.
    NotFound,
    /// It exists already.
    AlreadyExists,
    /// The object is in a state in which this can't be done (start of a running container).
    FailedPrecondition,
    /// The image could not be pulled.
    ImagePull,
    /// The program could not be started.
    StartFailed,
    /// The runtime or a system call failed.
    Failed,
    /// It took too long.
    Timeout,
    /// Not possible now; a retry may succeed.
    TryAgain,
    /// This build or host lacks it.
    Unsupported,
}

/// A failed runtime operation.
#[derive(Debug, Clone)]
pub struct Error {
    reason: Reason,
    message: String,
}

impl Error {
    /// An error with this reason and sentence.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Error { reason, message: message.into() }
    }

    /// Why.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self.reason, Reason::Failed | Reason::Timeout | Reason::TryAgain | Reason::ImagePull)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
