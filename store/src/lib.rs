//! A versioned key-value store: keys and bytes under one revision counter, as etcd has it.
//!
//! This crate knows nothing of kinds, JSON or HTTP. [`Store`] is the port; the backends and the wrappers around them implement it, and
//! [`conformance`] checks any of them.

pub mod conformance;
#[cfg(any(feature = "redb", feature = "sled"))]
mod embedded;
#[cfg(feature = "encryption")]
mod encryption;
mod error;
#[cfg(feature = "etcd")]
mod etcd;
mod fault;
mod memory;
mod metrics;
mod mvcc;
mod port;
#[cfg(feature = "redb")]
mod redb;
#[cfg(feature = "sled")]
mod sled;

#[cfg(feature = "encryption")]
pub use encryption::{EncryptedStore, EncryptionKey, EncryptionScope};
pub use error::{Error, Reason};
#[cfg(feature = "etcd")]
pub use etcd::{EtcdOptions, EtcdStore, EtcdTls};
pub use fault::{Faults, FaultyStore};
pub use memory::MemoryStore;
pub use metrics::{CallMetrics, LATENCY_BOUNDS, MeteredStore, StoreMetrics};
pub use mvcc::Limits;
pub use port::{
    Capabilities, Commit, CommitOutcome, Compare, Event, KeyRange, KeyValue, Op, RangeRequest, RangeResponse,
    Revision, Store, WatchBatch, WatchStream,
};
#[cfg(feature = "redb")]
pub use redb::{RedbOptions, RedbStore};
#[cfg(feature = "sled")]
pub use sled::{SledOptions, SledStore};
