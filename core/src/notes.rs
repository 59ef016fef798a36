//! What is remarked about a request on its way, for the client (warnings) and for the audit log (annotations).
//!
//! Whoever answers the request writes them, whoever sent it in reads them; a refusal has them as well as a success.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// The most warnings that are kept of one request.
const WARNINGS_MAX: usize = 128;
/// The most audit annotations that are kept of one request.
const ANNOTATIONS_MAX: usize = 256;
/// The longest warning or annotation that is kept, in bytes.
const TEXT_BYTES_MAX: usize = 16 * 1024;

/// The remarks about one request. Cloning shares them.
#[derive(Clone, Default)]
pub struct Notes(Arc<Mutex<Kept>>);

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

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
    }
}
