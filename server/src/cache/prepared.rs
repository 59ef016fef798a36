//! What writers know already of the objects that the feeder is about to see, so that nothing is parsed twice.

use bytes::Bytes;
use kubewright_core::Header;
use parking_lot::Mutex;
use rustc_hash::{FxHashMap, FxHasher};
use smol_str::SmolStr;
use std::hash::{Hash, Hasher};

const SHARDS: usize = 16;
/// Above it a shard takes nothing more: the feeder then parses, which is slower and just as right.
const SHARD_WRITES_MAX: usize = 4096;

/// One object as it is about to be stored.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    /// The store's key.
    pub(crate) key: Bytes,
    /// The bytes to be stored; a different value under the key is somebody else's write.
    pub(crate) stored: Bytes,
    pub(crate) header: Header,
    pub(crate) fields: Box<[SmolStr]>,
}

/// Writes under way.
#[derive(Default)]
pub(crate) struct PreparedWrites {
    shards: [Mutex<FxHashMap<Bytes, Vec<Prepared>>>; SHARDS],
}

impl PreparedWrites {
    fn shard(&self, key: &[u8]) -> &Mutex<FxHashMap<Bytes, Vec<Prepared>>> {
        let mut hasher = FxHasher::default();
        key.hash(&mut hasher);
        &self.shards[(hasher.finish() >> 32) as usize % SHARDS]
    }

    pub(crate) fn put(&self, write: Prepared) {
        let mut shard = self.shard(&write.key).lock();
        if shard.len() < SHARD_WRITES_MAX {
            shard.entry(write.key.clone()).or_default().push(write);
        }
    }

    pub(crate) fn take(&self, key: &[u8], stored: &[u8]) -> Option<Prepared> {
        let mut shard = self.shard(key).lock();
        let writes = shard.get_mut(key)?;
        let at = writes.iter().position(|w| w.stored == stored)?;
        let found = writes.swap_remove(at);
        if writes.is_empty() {
            shard.remove(key);
        }
        Some(found)
    }

    pub(crate) fn clear(&self) {
        for shard in &self.shards {
            shard.lock().clear();
        }
    }
}
