//! A bounded memory of answers, each until its time is over.

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::collections::HashMap;

/// How many answers are kept, as upstream's.
const ANSWERS_MAX: usize = 8192;

/// Answers by the digest of what was asked.
pub(super) struct Memory<T>(Mutex<HashMap<[u8; 32], (i64, T)>>);

impl<T: Clone> Memory<T> {
    pub(super) fn new() -> Self {
        Memory(Mutex::default())
    }

    pub(super) fn key(question: &[u8]) -> [u8; 32] {
        Sha256::digest(question).into()
    }

    /// The answer, where it is known and still holds at this second.
    pub(super) fn get(&self, key: &[u8; 32], now: i64) -> Option<T> {
        self.0.lock().get(key).filter(|(until, _)| *until > now).map(|(_, answer)| answer.clone())
    }

    /// Keeps an answer for so many seconds.
    pub(super) fn put(&self, key: [u8; 32], now: i64, seconds: i64, answer: T) {
        if seconds <= 0 {
            return;
        }
        let mut known = self.0.lock();
        if known.len() >= ANSWERS_MAX {
            known.retain(|_, (until, _)| *until > now);
            if known.len() >= ANSWERS_MAX {
                known.clear();
            }
        }
        known.insert(key, (now + seconds, answer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_forgotten() {
        let memory = Memory::new();
        let key = Memory::<u32>::key(b"a");
        memory.put(key, 10, 5, 7_u32);
        assert_eq!((memory.get(&key, 14), memory.get(&key, 15)), (Some(7), None));
        memory.put(key, 20, 0, 8);
        assert_eq!(memory.get(&key, 20), None);
        for i in 0..ANSWERS_MAX * 2 {
            memory.put(Memory::<u32>::key(&i.to_be_bytes()), 30, 60, 1);
        }
        assert!(memory.0.lock().len() <= ANSWERS_MAX);
    }
}
