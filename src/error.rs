//! What can be wrong with a composition, and what can fail when it starts.

use std::fmt;

/// One mistake of a composition; both parties are named.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildError {
    /// No store was given.
    NoStore,
    /// More than one of a part that there can be one of: the store, the HTTPS server, the authorizer, the clock, ...
    Twice(&'static str),
    /// Two kinds have this resource, `group/version plural`.
    DuplicateKind(String),
    /// Two controllers have this name.
    DuplicateController(String),
    /// Two admission plugins have this name.
    DuplicateAdmission(String),
    /// Two nodes have this name.
    DuplicateNode(String),
    /// A part needs another that is missing.
    Missing {
        /// The part.
        part: String,
        /// What it needs.
        needs: String,
    },
    /// A value makes no sense.
    Invalid(String),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BuildError::NoStore => f.write_str("no store is given: add one with `parts::store(...)`"),
            BuildError::Twice(what) => write!(f, "{what} is given twice"),
            BuildError::DuplicateKind(resource) => write!(f, "two kinds are served as {resource}"),
            BuildError::DuplicateController(name) => write!(f, "two controllers are called {name}"),
            BuildError::DuplicateAdmission(name) => write!(f, "two admission plugins are called {name}"),
            BuildError::DuplicateNode(name) => write!(f, "two nodes are called {name}"),
            BuildError::Missing { part, needs } => write!(f, "{part} needs {needs}, which is not there"),
            BuildError::Invalid(why) => f.write_str(why),
        }
    }
}

/// Every mistake of a composition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildErrors(pub Vec<BuildError>);

impl fmt::Display for BuildErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        write!(f, "the control plane can't be composed: {}", texts.join("; "))
    }
}

impl std::error::Error for BuildErrors {}

/// Why a plane did not start. Nothing of it runs then.
#[derive(Debug)]
pub struct StartError {
    part: &'static str,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl StartError {
    pub(crate) fn new(
        part: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        StartError { part, source: source.into() }
    }

    /// The part that failed: `API server`, `HTTPS`, `node`, ...
    pub fn part(&self) -> &'static str {
        self.part
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.part, self.source)
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self.source.as_ref())
    }
}
