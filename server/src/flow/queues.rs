//! The queues of one priority level: flows are dealt over them by shuffle sharding, and the queues take turns by the seat time that
//! each of them has had.
//!
//! A value without clock or locks: the level around it tells how long requests took.

use rustc_hash::FxHashMap;
use std::collections::VecDeque;

/// How many queues there are, how many of them a flow may use, and how many requests wait in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) queues: u32,
    pub(super) hand: u32,
    pub(super) length: usize,
}

/// What a request is charged with at its dispatch, in microseconds for each seat, until its true time is known.
const ESTIMATE: u64 = 3_000;

struct Queue<T> {
    waiting: VecDeque<Waiting<T>>,
    /// The virtual time at which what was dispatched from here ends; the smallest goes first.
    finish: u64,
    executing: usize,
}

/// A request in a queue.
pub(super) struct Waiting<T> {
    id: u64,
    pub(super) width: i64,
    pub(super) payload: T,
}

/// All queues of a level. Only those in use exist.
pub(super) struct Queues<T> {
    shape: Shape,
    queues: FxHashMap<u32, Queue<T>>,
    /// The virtual time of the last dispatch: a queue that was idle starts here, so that it saves nothing up.
    now: u64,
    next_id: u64,
    waiting: usize,
}

/// Where a request waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) queue: u32,
    id: u64,
}

impl<T> Queues<T> {
    pub(super) fn new(shape: Shape) -> Self {
        Queues { shape, queues: FxHashMap::default(), now: 0, next_id: 0, waiting: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Puts a request into the shortest queue of its flow's hand; gives it back where that one is full.
    pub(super) fn push(&mut self, flow: u64, width: i64, payload: T) -> Result<Place, T> {
        let length = |queue: &u32| self.queues.get(queue).map_or(0, |q| q.waiting.len() + q.executing);
        let Some(number) = hand(flow, self.shape).into_iter().min_by_key(length) else { return Err(payload) };
        let (now, id) = (self.now, self.next_id);
        let queue = self.queues.entry(number).or_insert_with(|| Queue {
            waiting: VecDeque::new(),
            finish: now,
            executing: 0,
        });
        if queue.waiting.len() >= self.shape.length {
            return Err(payload);
        }
        if queue.waiting.is_empty() {
            queue.finish = queue.finish.max(now);
        }
        queue.waiting.push_back(Waiting { id, width, payload });
        self.next_id += 1;
        self.waiting += 1;
        Ok(Place { queue: number, id })
    }

    /// The queue whose turn it is, with the width of its first request.
    pub(super) fn next(&self) -> Option<(u32, i64)> {
        let heads = self.queues.iter().filter_map(|(n, q)| q.waiting.front().map(|w| (*n, q.finish, w)));
        let first = heads.min_by_key(|(n, finish, w)| (finish + cost(w.width, ESTIMATE), *n));
        first.map(|(n, _, w)| (n, w.width))
    }

    /// Takes the first request of a queue out to run.
    pub(super) fn dispatch(&mut self, number: u32) -> Option<Waiting<T>> {
        let queue = self.queues.get_mut(&number)?;
        let request = queue.waiting.pop_front()?;
        self.now = self.now.max(queue.finish);
        queue.finish += cost(request.width, ESTIMATE);
        queue.executing += 1;
        self.waiting -= 1;
        Some(request)
    }

    /// A dispatched request ended after so many microseconds: its queue is charged with what it truly took.
    pub(super) fn ended(&mut self, number: u32, width: i64, took: u64) {
        let Some(queue) = self.queues.get_mut(&number) else { return };
        queue.executing = queue.executing.saturating_sub(1);
        queue.finish = (queue.finish + cost(width, took)).saturating_sub(cost(width, ESTIMATE));
        self.tidy(number);
    }

    /// Takes a request out that waits no more; whether it was still there.
    pub(super) fn remove(&mut self, place: Place) -> bool {
        let Some(queue) = self.queues.get_mut(&place.queue) else { return false };
        let before = queue.waiting.len();
        queue.waiting.retain(|w| w.id != place.id);
        let removed = queue.waiting.len() < before;
        if removed {
            self.waiting -= 1;
        }
        self.tidy(place.queue);
        removed
    }

    fn tidy(&mut self, number: u32) {
        let now = self.now;
        let idle = |q: &Queue<T>| q.waiting.is_empty() && q.executing == 0 && q.finish <= now;
        if self.queues.get(&number).is_some_and(idle) {
            self.queues.remove(&number);
        }
        // Queues that were charged with more than the others got are forgotten once nobody waits.
        if self.waiting == 0 {
            self.queues.retain(|_, q| q.executing > 0);
        }
    }
}

fn cost(width: i64, each: u64) -> u64 {
    each.saturating_mul(u64::try_from(width).unwrap_or(1))
}

/// The queues that a flow may use: distinct ones, dealt by the hash of its name.
pub(super) fn hand(flow: u64, shape: Shape) -> Vec<u32> {
    let mut hash = flow;
    let mut dealt: Vec<u32> = Vec::with_capacity(shape.hand as usize);
    for i in 0..shape.hand.min(shape.queues) {
        let left = u64::from(shape.queues - i);
        let mut card = (hash % left) as u32;
        hash /= left;
        // The card counts only what is left in the deck.
        let mut sorted = dealt.clone();
        sorted.sort_unstable();
        for taken in sorted {
            if card >= taken {
                card += 1;
            }
        }
        dealt.push(card);
    }
    dealt
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ONE: Shape = Shape { queues: 1, hand: 1, length: 100 };
    const MANY: Shape = Shape { queues: 128, hand: 6, length: 50 };

    proptest! {
        #[test]
        fn a_hand_holds_distinct_cards(flow: u64, queues in 1_u32..200, wanted in 1_u32..10) {
            let shape = Shape { queues, hand: wanted, length: 1 };
            let mut dealt = hand(flow, shape);
            let count = dealt.len();
            prop_assert_eq!(count, wanted.min(queues) as usize);
            prop_assert!(dealt.iter().all(|c| *c < queues));
            dealt.sort_unstable();
            dealt.dedup();
            prop_assert_eq!(dealt.len(), count);
        }
    }

    /// Runs what waits, one seat at a time, and gives the flows in the order in which they ran.
    fn order(queues: &mut Queues<&'static str>, took: impl Fn(&str) -> u64) -> Vec<&'static str> {
        let mut ran = Vec::new();
        while let Some((number, width)) = queues.next() {
            let request = queues.dispatch(number).unwrap();
            queues.ended(number, width, took(request.payload));
            ran.push(request.payload);
        }
        ran
    }

    #[test]
    fn a_flood_does_not_starve_another_flow() {
        let mut queues = Queues::new(MANY);
        for _ in 0..200 {
            let _ = queues.push(1, 1, "flood");
        }
        queues.push(0x9e37_79b9_7f4a_7c15, 1, "quiet").unwrap();
        let ran = order(&mut queues, |_| 1000);
        let turn = ran.iter().position(|f| *f == "quiet").unwrap();
        assert!(turn < 10, "it came as number {turn} of {}", ran.len());
    }

    #[test]
    fn what_takes_long_comes_seldom() {
        let shape = Shape { queues: 2, hand: 1, length: 100 };
        let mut queues = Queues::new(shape);
        for _ in 0..50 {
            queues.push(0, 1, "slow").unwrap();
            queues.push(1, 1, "fast").unwrap();
        }
        let ran = order(&mut queues, |flow| if flow == "slow" { 90_000 } else { 3_000 });
        let slow = ran[..31].iter().filter(|f| **f == "slow").count();
        assert!((1..=4).contains(&slow), "{slow} slow ones among the first 31");
    }

    #[test]
    fn a_full_queue_refuses_and_a_left_place_is_free() {
        let mut queues = Queues::new(Shape { length: 2, ..ONE });
        let first = queues.push(7, 1, "a").unwrap();
        queues.push(7, 1, "b").unwrap();
        assert_eq!(queues.push(7, 1, "c"), Err("c"));
        assert!(queues.remove(first));
        assert!(!queues.remove(first));
        queues.push(7, 1, "d").unwrap();
        assert_eq!(order(&mut queues, |_| 1), ["b", "d"]);
        assert!(queues.is_empty() && queues.queues.is_empty());
    }
}
