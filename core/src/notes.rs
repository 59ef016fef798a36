//! What is remarked about a request on its way: for the client (warnings), for the audit log (annotations, and where it came from), and
//! between the layers around the API.
//!
//! Whoever answers the request writes them, whoever sent it in reads them; a refusal has them as well as a success.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::UserInfo;
use smol_str::SmolStr;

/// The most warnings that are kept of one request.
const WARNINGS_MAX: usize = 128;
/// The most audit annotations that are kept of one request.
const ANNOTATIONS_MAX: usize = 256;
/// The longest warning or annotation that is kept, in bytes.
const TEXT_BYTES_MAX: usize = 16 * 1024;

/// The remarks about one request. Cloning shares them.
#[derive(Clone, Default)]
pub struct Notes(Arc<Shared>);

#[derive(Default)]
struct Shared {
    kept: Mutex<Kept>,
    flow: OnceLock<FlowNote>,
    origin: OnceLock<Box<Origin>>,
}

/// The flow schema and the priority level that a request was put under, by their objects' uids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowNote {
    /// The uid of the FlowSchema; empty for one without an object.
    pub schema_uid: SmolStr,
    /// The uid of the PriorityLevelConfiguration; empty for one without an object.
    pub level_uid: SmolStr,
}

/// Where a request came from, as only the codec that received it knows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Origin {
    /// The identity of the request in logs (`Audit-Id`).
    pub audit_id: String,
    /// Path and query as they were sent.
    pub uri: String,
    /// The addresses that proxies named, then the connection's.
    pub source_ips: Vec<String>,
    /// Who sent it, where the request's own user is someone impersonated.
    pub sender: Option<Arc<UserInfo>>,
}

#[derive(Default)]
struct Kept {
    warnings: Vec<String>,
    annotations: BTreeMap<String, String>,
}

impl Notes {
    /// Warns the client, who sees a text once however often it is given.
    pub fn warn(&self, text: impl Into<String>) {
        let text = text.into();
        let mut kept = self.lock();
        if text.len() <= TEXT_BYTES_MAX
            && kept.warnings.len() < WARNINGS_MAX
            && !kept.warnings.contains(&text)
        {
            kept.warnings.push(text);
        }
    }

    /// Adds an annotation to the request's audit event. The first value of a key stays, as upstream; says whether this one is kept.
    pub fn annotate(&self, key: impl Into<String>, value: impl Into<String>) -> bool {
        let (key, value) = (key.into(), value.into());
        let mut kept = self.lock();
        if let Some(before) = kept.annotations.get(&key) {
            return *before == value;
        }
        let fits = key.len() + value.len() <= TEXT_BYTES_MAX && kept.annotations.len() < ANNOTATIONS_MAX;
        if fits {
            kept.annotations.insert(key, value);
        }
        fits
    }

    /// The warnings so far, in the order in which they were given.
    pub fn warnings(&self) -> Vec<String> {
        self.lock().warnings.clone()
    }

    /// The audit annotations so far.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        self.lock().annotations.clone()
    }

    /// Says under which flow schema and level the request runs; the first word counts.
    pub fn set_flow(&self, flow: FlowNote) {
        let _ = self.0.flow.set(flow);
    }

    /// Under which flow schema and level it runs, where flow control is on.
    pub fn flow(&self) -> Option<&FlowNote> {
        self.0.flow.get()
    }

    /// Says where the request came from; the first word counts.
    pub fn set_origin(&self, origin: Origin) {
        let _ = self.0.origin.set(Box::new(origin));
    }

    /// Where it came from; `None` for one of the same process, and where nobody wants to know.
    pub fn origin(&self) -> Option<&Origin> {
        self.0.origin.get().map(Box::as_ref)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Notes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = self.lock();
        write!(f, "Notes({} warnings, {} annotations)", kept.warnings.len(), kept.annotations.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remarks_are_kept_once_and_bounded() {
        let notes = Notes::default();
        let shared = notes.clone();
        for text in ["a", "b", "a"] {
            shared.warn(text);
        }
        notes.warn("x".repeat(TEXT_BYTES_MAX + 1));
        assert_eq!(notes.warnings(), ["a", "b"]);
        for i in 0..1000 {
            notes.warn(i.to_string());
            notes.annotate(i.to_string(), "v");
        }
        assert_eq!(notes.warnings().len(), WARNINGS_MAX);
        assert_eq!(notes.annotations().len(), ANNOTATIONS_MAX);
        assert!(notes.annotate("1", "v") && !notes.annotate("1", "w") && !notes.annotate("more", "v"));
        assert_eq!(notes.annotations()["1"], "v");
        let flow = |uid: &str| FlowNote { schema_uid: uid.into(), level_uid: "l".into() };
        assert_eq!((notes.flow(), notes.origin()), (None, None));
        notes.set_flow(flow("a"));
        notes.set_flow(flow("b"));
        assert_eq!(shared.flow(), Some(&flow("a")));
        notes.set_origin(Origin { audit_id: "id".to_owned(), ..Origin::default() });
        assert_eq!(shared.origin().unwrap().audit_id, "id");
    }
}
