//! A versioned key-value store: keys and bytes under one revision counter, as etcd has it.
//!
//! This crate knows nothing of kinds, JSON or HTTP. [`Store`] is the port; the backends and the wrappers around them implement it.

mod error;
mod port;

pub use error::{Error, Reason};
pub use port::{
    Capabilities, Commit, CommitOutcome, Compare, Event, KeyRange, KeyValue, Op, RangeRequest, RangeResponse,
    Revision, Store, WatchBatch, WatchStream,
};
