//! What is counted of requests, without locks.

use kubewright_core::Verb;
use std::sync::atomic::{AtomicU64, Ordering};

const VERBS: [Verb; 8] = [
    Verb::Get,
    Verb::List,
    Verb::Watch,
    Verb::Create,
    Verb::Update,
    Verb::Patch,
    Verb::Delete,
    Verb::DeleteCollection,
];
const CODES: [u16; 16] = [200, 201, 202, 400, 401, 403, 404, 405, 409, 410, 413, 415, 422, 429, 500, 503];

/// Requests by verb and code; a code of no column of its own counts in the last one.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    requests: [[AtomicU64; CODES.len() + 1]; VERBS.len()],
}

impl Counters {
    pub(crate) fn count(&self, verb: Verb, code: u16) {
        let Some(row) = VERBS.iter().position(|v| *v == verb) else { return };
        let column = CODES.iter().position(|c| *c == code).unwrap_or(CODES.len());
        self.requests[row][column].fetch_add(1, Ordering::Relaxed);
    }

    /// Verb, code and count of what happened at all.
    pub(crate) fn requests(&self) -> Vec<(&'static str, String, u64)> {
        let mut all = Vec::new();
        for (row, verb) in VERBS.iter().enumerate() {
            for (column, count) in self.requests[row].iter().enumerate() {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    let code = CODES.get(column).map_or_else(|| "other".to_owned(), ToString::to_string);
                    all.push((verb.as_str(), code, count));
                }
            }
        }
        all
    }
}
