//! The parsed form of objects that were written a moment ago: what is written is often written again at once (a new pod is bound, and its
//! status follows), and the next writer need not parse it.

use bytes::Bytes;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use serde_json::Value;
use std::collections::VecDeque;

/// How many bytes of JSON the objects kept may have; parsed they take about ten times as much.
const BYTES_MAX: usize = 512 * 1024;
/// How many objects are kept at most.
const OBJECTS_MAX: usize = 512;
/// The largest object that is kept, in bytes of JSON.
const OBJECT_BYTES_MAX: usize = 16 * 1024;

struct Kept {
    revision: u64,
    object: Value,
    bytes: usize,
}

#[derive(Default)]
struct State {
    objects: FxHashMap<Bytes, Kept>,
    /// Keys with the revision under which they came, oldest first; some are gone already.
    order: VecDeque<(Bytes, u64)>,
    bytes: usize,
}

/// The latest written objects, each until it is taken or newer ones need its room.
#[derive(Default)]
pub(crate) struct RecentObjects(Mutex<State>);

impl RecentObjects {
    /// Keeps what was written under a store key at a revision, as it will be served; `bytes` is the length of its JSON.
    pub(crate) fn put(&self, key: Bytes, revision: u64, object: Value, bytes: usize) {
        if bytes > OBJECT_BYTES_MAX {
            return;
        }
        let mut gone = Vec::new();
        {
            let mut state = self.0.lock();
            state.bytes += bytes;
            state.order.push_back((key.clone(), revision));
            if let Some(older) = state.objects.insert(key, Kept { revision, object, bytes }) {
                state.bytes -= older.bytes;
                gone.push(older);
            }
            while state.bytes > BYTES_MAX || state.order.len() > OBJECTS_MAX {
                let Some((key, revision)) = state.order.pop_front() else { break };
                if state.objects.get(&key).is_some_and(|kept| kept.revision == revision)
                    && let Some(oldest) = state.objects.remove(&key)
                {
                    state.bytes -= oldest.bytes;
                    gone.push(oldest);
                }
            }
        }
        // Trees are taken apart outside the lock.
        drop(gone);
    }

    /// What was written under the key at just this revision, where it is still there.
    pub(crate) fn take(&self, key: &[u8], revision: u64) -> Option<Value> {
        let mut state = self.0.lock();
        if state.objects.get(key)?.revision != revision {
            return None;
        }
        let kept = state.objects.remove(key)?;
        state.bytes -= kept.bytes;
        Some(kept.object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> Bytes {
        Bytes::from(format!("/registry/core/pods/a/{n}"))
    }

    #[test]
    fn only_the_very_version_is_given_and_only_once() {
        let recent = RecentObjects::default();
        recent.put(key(1), 5, Value::from(5), 10);
        assert_eq!(recent.take(&key(1), 4), None);
        assert_eq!(recent.take(&key(2), 5), None);
        recent.put(key(1), 6, Value::from(6), 10);
        assert_eq!(recent.take(&key(1), 5), None);
        assert_eq!(recent.take(&key(1), 6), Some(Value::from(6)));
        assert_eq!(recent.take(&key(1), 6), None);
        assert_eq!(recent.0.lock().bytes, 0);
    }

    #[test]
    fn the_room_is_bounded_and_the_oldest_go_first() {
        let recent = RecentObjects::default();
        recent.put(key(0), 1, Value::Null, OBJECT_BYTES_MAX + 1);
        assert_eq!(recent.take(&key(0), 1), None, "it is too large");
        for n in 0..2000 {
            recent.put(key(n), n as u64, Value::from(n), 4096);
            let state = recent.0.lock();
            assert!(state.bytes <= BYTES_MAX && state.objects.len() * 4096 == state.bytes);
        }
        assert_eq!(recent.take(&key(1871), 1871), None);
        assert_eq!(recent.take(&key(1872), 1872), Some(Value::from(1872)));
        for n in 0..2000 {
            recent.put(key(7), n, Value::Null, 1);
            assert!(recent.take(&key(7), n).is_some());
        }
        assert!(recent.0.lock().order.len() <= OBJECTS_MAX);
    }
}
