//! The one error of this crate.

use std::fmt;

/// Why a store operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The request makes no sense (a key written twice, an empty key).
    Invalid,
    /// The revision is older than the history kept.
    Compacted,
    /// The revision is newer than the store.
    FutureRevision,
    /// The watcher fell too far behind.
    Lagged,
    /// The request or value is larger than the store takes.
    TooLarge,
    /// No room is left on the medium, or the store's quota is used up.
    NoSpace,
    /// The store is not reachable now.
    Unavailable,
    /// It took too long.
    Timeout,
    /// Another process holds the store.
    Locked,
    /// The data are damaged.
    Corrupt,
    /// The store was closed.
    Closed,
    /// This build or store lacks it.
    Unsupported,
    /// An I/O or internal error told by the message.
    Failed,
}

/// A failed store operation.
#[derive(Debug)]
pub struct Error {
    reason: Reason,
    message: String,
    /// For a commit: whether it may have happened all the same.
    indeterminate: bool,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error with this reason and sentence.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Error { reason, message: message.into(), indeterminate: false, source: None }
    }

    /// The same error with what caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same error, of a commit that may have happened.
    #[must_use]
    pub fn indeterminate(mut self) -> Self {
        self.indeterminate = true;
        self
    }

    /// Why.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// Whether the commit may have happened all the same.
    pub fn is_indeterminate(&self) -> bool {
        self.indeterminate
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.reason,
            Reason::Unavailable | Reason::Timeout | Reason::NoSpace | Reason::Locked | Reason::Lagged
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|e| e as _)
    }
}
