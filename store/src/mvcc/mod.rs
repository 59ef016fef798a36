//! What every store inside this process shares: how a commit is judged, the window of recent history, and the watches fed by it.
//!
//! A backend keeps the newest values; the window keeps the last events with what they replaced. A read at a past revision is the
//! newest state with the later events undone, so no backend needs to keep old versions itself.

mod counts;
mod evaluate;
mod hub;
mod merge;
mod watch;

pub(crate) use counts::Counts;
pub(crate) use evaluate::{Committed, Verdict, check_commit, evaluate};
pub(crate) use hub::Hub;
pub(crate) use merge::Merge;
pub(crate) use watch::watch;

use std::time::Duration;

/// Bounds of an embedded store, all configurable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many past revisions are kept for watches and reads in the past.
    pub history_revisions_max: usize,
    /// How many bytes of keys and values that history may hold.
    pub history_bytes_max: usize,
    /// How many bytes of keys and values one commit may hold; etcd's default.
    pub commit_bytes_max: usize,
    /// How many revisions wait for a watcher before it has to read them from the history.
    pub watch_buffer_revisions_max: usize,
    /// How often an idle watch is told how far the store is.
    pub progress_interval: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            history_revisions_max: 100_000,
            history_bytes_max: 32 << 20,
            commit_bytes_max: 3 << 19,
            watch_buffer_revisions_max: 1024,
            progress_interval: Duration::from_secs(1),
        }
    }
}
